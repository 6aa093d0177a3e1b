"""What the sidecar is to reach, against Envoy in the same run: (what, row, figure, floor, target), as shares of Envoy's figure."""

from .figures import ratio

CPU, GIGABYTE, MEMORY = "cpuMicrosecondsPerRequest", "cpuSecondsPerGigabyte", "residentMebibytes"
P50, P90, P99 = (f"addedLatencyP{quantile}Microseconds" for quantile in (50, 90, 99))

TARGETS = (
    ("HTTP/1.1, CPU a request", "http1-small", CPU, 1 / 3, 1 / 4),
    ("the same, mTLS pair", "http1-small-mtls-pair", CPU, 1 / 3, 1 / 5),
    ("gRPC 16 × 16, CPU a request", "grpc-unary-16x16", CPU, 1 / 5, 1 / 8),
    ("the same, mTLS pair", "grpc-unary-16x16-mtls-pair", CPU, 1 / 5, 1 / 8),
    ("gRPC 16 × 1, CPU a request", "grpc-unary-16x1", CPU, 1 / 3, 1 / 4),
    ("the same, mTLS pair", "grpc-unary-16x1-mtls-pair", CPU, 1 / 3, 1 / 4),
    *((f"added latency {name} at 1,000 requests/s{words}", f"http1-rate-1000{suffix}", field, floor, target)
      for suffix, words in (("", ""), ("-mtls-pair", ", mTLS pair"))
      for name, field, floor, target in (("p50", P50, 0.6, 0.5), ("p90", P90, 0.6, 0.5), ("p99", P99, 1, 1))),
    ("memory idle", "idle", MEMORY, 1 / 3, 1 / 4),
    ("memory with 1,000 connections", "http1-small-1000-connections", MEMORY, 1 / 3, 1 / 4),
    ("the same, mTLS pair", "http1-small-1000-connections-mtls-pair", MEMORY, 1 / 3, 1 / 4),
    ("opaque TCP, CPU a gigabyte", "tcp-bulk", GIGABYTE, 1, 1 / 2.5),
    ("new mTLS connections, CPU each", "tcp-connect-mtls-pair", CPU, 3 / 4, 1 / 2),
)


def missed(summary):
    """Rows in which a target is missed and whose profile can say why."""
    rows = []
    for _, row, field, _, target in TARGETS:
        share = ratio(summary, row, field)
        if share is not None and share > target and field in (CPU, GIGABYTE) and row not in rows:
            rows.append(row)
    return rows
