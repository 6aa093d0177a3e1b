"""From rounds to figures: medians with their minimum and maximum, of the rounds without an error."""
import statistics

# Field of latest.json → where a round has it.
FIELDS = {
    "cpuMicrosecondsPerRequest": "cpuMicrosecondsPerRequest",
    "cpuSecondsPerGigabyte": "cpuSecondsPerGigabyte",
    "addedLatencyP50Microseconds": "addedP50",
    "addedLatencyP90Microseconds": "addedP90",
    "residentMebibytes": "residentMebibytes",
    "requestsPerSecond": "requestsPerSecond",
}
# What the report shows besides.
FURTHER = {"addedLatencyP99Microseconds": "addedP99", "latencyP50Microseconds": "p50Microseconds",
           "latencyP99Microseconds": "p99Microseconds", "gigabytesPerSecond": "gigabytesPerSecond"}
# A row of bytes has no requests, and a row of memory neither.
UNFIT = {"gigabyte": {"tcp": ("cpuMicrosecondsPerRequest", "requestsPerSecond")}}


def spread(values):
    values = [value for value in values if value is not None]
    if not values:
        return None
    return {"median": rounded(statistics.median(values)), "minimum": rounded(min(values)), "maximum": rounded(max(values))}


def rounded(value):
    """Six digits of a measured figure say more than was measured."""
    return float(f"{value:.6g}")


def add_latencies(measurements):
    """What a proxy adds, against direct traffic of the same round."""
    direct = {(one["run"], one["row"], one["round"]): one for one in measurements if one["proxy"] == "direct" and not one["errors"]}
    for one in measurements:
        base = direct.get((one["run"], one["row"], one["round"]))
        if one["proxy"] == "direct" or one["errors"] or one["kind"] != "latency" or not base:
            continue
        for quantile in ("50", "90", "99"):
            one[f"addedP{quantile}"] = one[f"p{quantile}Microseconds"] - base[f"p{quantile}Microseconds"]


def summarize(details):
    """By row, then by proxy, in the order of the measurements."""
    measurements = [dict(one) for one in details["measurements"]]
    add_latencies(measurements)
    table = {}
    for one in measurements:
        table.setdefault(one["row"], {}).setdefault(one["proxy"], []).append(one)
    return {row: {proxy: entry(rounds) for proxy, rounds in proxies.items()} for row, proxies in table.items()}


def entry(rounds):
    clean = [one for one in rounds if not one["errors"]]
    first = rounds[0]
    found = {"row": first["row"], "group": first["group"], "kind": first["kind"], "proxy": first["proxy"], "rounds": len(clean),
             "failedRounds": len(rounds) - len(clean), "errors": sum(one["errors"] for one in rounds), "run": first["run"]}
    reasons = [one["firstError"] for one in rounds if one.get("firstError")]
    found["firstError"] = reasons[0] if reasons else None
    unfit = UNFIT.get(first["kind"], {}).get(first["row"].split("-")[0], ())
    for name, key in {**FIELDS, **FURTHER}.items():
        found[name] = None if name in unfit else spread([one.get(key) for one in clean])
    return found


def latest(summary):
    """The list that lies beside the report: rows without a single clean round are not in it."""
    return [{"row": one["row"], "proxy": one["proxy"], "rounds": one["rounds"], **{name: one[name] for name in FIELDS}}
            for proxies in summary.values() for one in proxies.values() if one["rounds"]]


def ratio(summary, row, field, proxy="apus", base="envoy"):
    """Median against median, or None where either is missing."""
    try:
        return summary[row][proxy][field]["median"] / summary[row][base][field]["median"]
    except (KeyError, TypeError, ZeroDivisionError):
        return None
