"""Every benchmark, one after the other: `make bench`, or `python -m benchmarks [--write docs/performance.md]`."""

from __future__ import annotations

import argparse

from benchmarks import gateway, latency, report, startup, telephony, websocket


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    report.add_options(parser)
    options = parser.parse_args()
    say = report.progress(options)
    results = {"startup": startup.measure(starts=5, imports=10, say=say)}
    results["latency"] = latency.measure(latency.Plan(), say)
    results["websocket"] = websocket.measure(websocket.Plan(), say)
    results["telephony"] = telephony.measure(telephony.Plan(), say)
    results["gateway"] = gateway.measure(gateway.Plan(), say)
    report.finish(results, options)


if __name__ == "__main__":
    main()
