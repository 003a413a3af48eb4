"""How long a user waits before the first call: the server's start, and the client's import.

    python -m benchmarks.startup [--starts 5] [--imports 10] [--json FILE]

The first run is measured like every other, so the maximum tells what a cold file cache costs.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable

from benchmarks import machine, report
from benchmarks.figures import Json, summary
from benchmarks.server import serve

IMPORT = "import time; began = time.perf_counter(); import realtime.client; print(time.perf_counter() - began)"


def measure(starts: int, imports: int, say: Callable[[str], None] = lambda _: None) -> Json:
    """Seconds: process start to `/readyz` with each set of engines, and `import realtime.client` alone."""
    neighbours = machine.Neighbours()
    ready: dict[str, list[float]] = {"instant": [], "embedded": []}
    for number in range(starts):
        for name, values in ready.items():
            say(f"start {number + 1} of {starts}, {name} engines")
            with serve(engines="instant" if name == "instant" else None) as server:
                values.append(server.ready_s)
    imported = []
    for number in range(imports):
        say(f"import {number + 1} of {imports}")
        output = subprocess.run([sys.executable, "-c", IMPORT], check=True, capture_output=True, text=True).stdout
        imported.append(float(output))
    return {
        "server_ready_s": {name: summary(values, 3) for name, values in ready.items()},
        "import_client_s": summary(imported, 3),
        "other_processes_cores": neighbours.cores(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.startup", description=__doc__.partition("\n")[0])
    parser.add_argument("--starts", type=int, default=5, help="of each set of engines (default %(default)s)")
    parser.add_argument("--imports", type=int, default=10, help="default %(default)s")
    report.add_options(parser)
    options = parser.parse_args()
    say = report.progress(options)
    report.finish({"startup": measure(options.starts, options.imports, say)}, options)


if __name__ == "__main__":
    main()
