"""Bar charts in SVG."""
from xml.sax.saxutils import escape

COLOURS = {"apus": "#c2410c", "envoy": "#7c3aed", "nginx": "#15803d", "haproxy": "#0369a1", "direct": "#64748b"}
LABEL_WIDTH, BAR_WIDTH, BAR_HEIGHT, GAP = 300, 520, 13, 12


def bars(title, subtitle, rows, limit):
    """`rows`: (label, [(proxy, value, minimum, maximum, text)]). The line across a bar goes from minimum to maximum. Above `limit` all are cut off."""
    rows = [(label, values) for label, values in rows if values]
    largest = min(limit, max((maximum for _, values in rows for *_, maximum, _ in values), default=1)) or 1
    present = list(dict.fromkeys(proxy for _, values in rows for proxy, *_ in values))
    height = 90 + sum(len(values) * BAR_HEIGHT + GAP for _, values in rows)
    width = LABEL_WIDTH + BAR_WIDTH + 130

    def place(value):
        return LABEL_WIDTH + min(max(value, 0), largest) / largest * BAR_WIDTH

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="11">',
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        f'<text x="16" y="26" font-size="16" font-weight="bold" fill="#0f172a">{escape(title)}</text>',
        f'<text x="16" y="44" fill="#475569">{escape(subtitle)}</text>',
    ]
    for index, proxy in enumerate(present):
        x = 16 + index * 90
        parts.append(f'<rect x="{x}" y="54" width="10" height="10" fill="{COLOURS[proxy]}"/>'
                     f'<text x="{x + 15}" y="63" fill="#0f172a">{proxy}</text>')
    y = 80
    for label, values in rows:
        middle = y + len(values) * BAR_HEIGHT / 2 + 4
        parts.append(f'<text x="{LABEL_WIDTH - 10}" y="{middle:.1f}" text-anchor="end" fill="#0f172a">{escape(label)}</text>')
        for proxy, value, minimum, maximum, text in values:
            line = y + (BAR_HEIGHT - 2) / 2
            parts.append(
                f'<rect x="{LABEL_WIDTH}" y="{y}" width="{max(1, place(value) - LABEL_WIDTH):.1f}" height="{BAR_HEIGHT - 2}" fill="{COLOURS[proxy]}"/>'
                f'<line x1="{place(minimum):.1f}" y1="{line}" x2="{place(maximum):.1f}" y2="{line}" stroke="#0f172a" stroke-width="1"/>'
                f'<text x="{max(place(value), place(maximum)) + 5:.1f}" y="{y + 9.5}" fill="#334155">{escape(text)}</text>')
            y += BAR_HEIGHT
        y += GAP
    return "\n".join(parts + ["</svg>", ""])
