"""What the report is made of, without a process: `python3 -m unittest discover -s Benchmarks`."""
import contextlib
import io
import pathlib
import sys
import tempfile
import unittest

sys.dont_write_bytecode = True
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import instructions  # noqa: E402
from rig import figures, measure, report, rows, targets  # noqa: E402


def one(row="http1-small", proxy="apus", number=1, kind="request", **others):
    return {"group": "http1", "row": row, "kind": kind, "proxy": proxy, "round": number, "errors": 0, "run": 1, **others}


def run(number=None):
    return {"started": "today", "rounds": 2, "seconds": 1.0, "calibrations": [{"when": "before", "cores": {"0": {
        "cpuMilliseconds": {"median": 1, "minimum": 1, "maximum": 1}, "wallMilliseconds": {"median": 1, "minimum": 1, "maximum": 2}}}}],
        "machine": {"processor": "one", "cores": 2, "memoryGibibytes": 1, "kernel": "6", "congestionControl": "cubic", "system": "Debian"},
        "versions": {"apus": "1", "envoy": "2", "nginx": "3", "haproxy": "4"}}


class Figures(unittest.TestCase):
    def test_a_round_with_errors_is_in_no_figure_and_is_counted(self):
        rounds = [one(number=1, cpuMicrosecondsPerRequest=10), one(number=2, cpuMicrosecondsPerRequest=30),
                  one(number=3, cpuMicrosecondsPerRequest=1, errors=7, firstError="status 503")]
        found = figures.summarize({"measurements": rounds})["http1-small"]["apus"]
        self.assertEqual(found["cpuMicrosecondsPerRequest"], {"median": 20, "minimum": 10, "maximum": 30})
        self.assertEqual((found["rounds"], found["failedRounds"], found["errors"], found["firstError"]), (2, 1, 7, "status 503"))

    def test_a_row_without_a_clean_round_is_not_in_the_list_for_programs(self):
        summary = figures.summarize({"measurements": [one(errors=1, firstError="no load")]})
        self.assertEqual(figures.latest(summary), [])

    def test_added_latency_is_against_direct_traffic_of_the_same_round(self):
        def latency(proxy, number, value):
            return one("http1-rate-1000", proxy, number, "latency", p50Microseconds=value, p90Microseconds=value * 2, p99Microseconds=value * 3)

        rounds = [latency("direct", 1, 100), latency("apus", 1, 150), latency("direct", 2, 200), latency("apus", 2, 210)]
        found = figures.summarize({"measurements": rounds})["http1-rate-1000"]["apus"]
        self.assertEqual(found["addedLatencyP50Microseconds"], {"median": 30, "minimum": 10, "maximum": 50})
        self.assertEqual(found["addedLatencyP90Microseconds"]["maximum"], 100)

    def test_the_list_for_programs_has_the_fields_that_are_promised(self):
        summary = figures.summarize({"measurements": [one(cpuMicrosecondsPerRequest=10, residentMebibytes=12, requestsPerSecond=5)]})
        self.assertEqual(list(figures.latest(summary)[0]), [
            "row", "proxy", "rounds", "cpuMicrosecondsPerRequest", "cpuSecondsPerGigabyte", "addedLatencyP50Microseconds",
            "addedLatencyP90Microseconds", "residentMebibytes", "requestsPerSecond"])

    def test_a_missed_target_is_found_and_a_reached_one_is_not(self):
        def summary(share):
            return figures.summarize({"measurements": [one(cpuMicrosecondsPerRequest=100 * share),
                                                       one(proxy="envoy", cpuMicrosecondsPerRequest=100)]})

        self.assertEqual(targets.missed(summary(0.3)), ["http1-small"])
        self.assertEqual(targets.missed(summary(0.2)), [])


class Report(unittest.TestCase):
    def test_a_part_takes_the_place_of_its_rows_only(self):
        old = report.merge(None, run(), [one(cpuMicrosecondsPerRequest=1), one("tcp-bulk", kind="gigabyte", cpuSecondsPerGigabyte=1)], {})
        new = report.merge(old, run(), [one(cpuMicrosecondsPerRequest=2)], {})
        summary = figures.summarize(new)
        self.assertEqual(summary["http1-small"]["apus"]["cpuMicrosecondsPerRequest"]["median"], 2)
        self.assertEqual(summary["tcp-bulk"]["apus"]["run"], 1)
        self.assertEqual([one["number"] for one in new["runs"]], [1, 2])

    def test_a_run_of_which_no_row_is_left_is_forgotten(self):
        old = report.merge(None, run(), [one(cpuMicrosecondsPerRequest=1)], {})
        self.assertEqual([one["number"] for one in report.merge(old, run(), [one(cpuMicrosecondsPerRequest=2)], {})["runs"]], [2])

    def test_errors_are_told_in_the_report(self):
        details = report.merge(None, run(), [one(cpuMicrosecondsPerRequest=1), one(number=2, errors=3, firstError="status 503")], {})
        with tempfile.TemporaryDirectory() as folder:
            report.write(pathlib.Path(folder), details)
            text = (pathlib.Path(folder) / "README.md").read_text()
            self.assertIn("1 of 2 rounds failed", text)
            self.assertIn("3 errors, of which the first: status 503", text)
            self.assertEqual(report.load(pathlib.Path(folder)), details)


class Rows(unittest.TestCase):
    def test_names_are_unique_and_those_that_others_rely_on_are_there(self):
        names = [row.name for group in rows.groups() for row in group.rows]
        self.assertEqual(len(names), len(set(names)))
        for name in ("http1-small", "http1-small-mtls-pair", "grpc-unary-16x16", "grpc-unary-16x16-mtls-pair", "grpc-unary-16x1-mtls-pair",
                     "tcp-bulk"):
            self.assertIn(name, names)
        self.assertLessEqual({row for _, row, *_ in targets.TARGETS}, set(names))

    def test_an_exact_name_means_that_row_and_a_beginning_all_that_begin_so(self):
        self.assertEqual([row.name for group in rows.select("http1-small") for row in group.rows], ["http1-small"])
        self.assertEqual([row.name for group in rows.select("tcp-connect*") for row in group.rows], ["tcp-connect", "tcp-connect-mtls-pair"])
        self.assertEqual(len(rows.select("grpc-unary")), 2)
        with self.assertRaises(SystemExit):
            rows.select("http3")

    def test_a_part_is_planned_within_its_budget(self):
        for only in ("http1-small", "http1", "grpc", "tcp"):
            chosen = rows.select(only)
            rounds, seconds = measure.plan(chosen, None, None, 110)
            self.assertGreaterEqual(rounds, 2)
            self.assertLess(measure.estimate(chosen, rounds, seconds), 120, only)


class Starved(unittest.TestCase):
    def test_a_round_that_hardly_ran_is_no_figure(self):
        by_name = {row.name: row for group in rows.groups() for row in group.rows}

        def reason(name, **result):
            row = by_name[name]
            return measure.starved(row, {"seconds": 2.0, **row.settings}, {"completed": 0, "total": 0, "bytes": 0, **result})

        self.assertIn("4 requests", reason("http1-small", total=4))
        self.assertIsNone(reason("http1-small", total=40_000))
        self.assertIn("150 of 200", reason("http1-rate-100", completed=150, total=200))
        self.assertIsNone(reason("http1-rate-100", completed=199, total=200))
        self.assertIn("MB", reason("tcp-bulk", bytes=1_000_000))
        self.assertIsNone(reason("tcp-bulk", bytes=5_000_000_000))


class Instructions(unittest.TestCase):
    def test_only_what_has_grown_by_more_than_the_tolerance_is_slower(self):
        counts = {"same": 1000, "within": 1049, "slower": 1051, "faster": 500, "new": 7}
        with contextlib.redirect_stdout(io.StringIO()) as told:
            slower = instructions.compare(counts, {"same": 1000, "within": 1000, "slower": 1000, "faster": 1000}, 0.05)
        self.assertEqual(slower, ["slower"])
        self.assertIn("make instructions UPDATE=1", told.getvalue())


if __name__ == "__main__":
    unittest.main()
