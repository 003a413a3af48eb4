"""Coverage-guided fuzzing of one target: `python -m tests.fuzz TARGET SECONDS FOLDER` (needs atheris, extra `fuzz`).

Exits with other than 0 when an input raised, or took more than 100 ms twice; the input is then in FOLDER.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["media", "signaling", "aiortc.rtp"]):
    from tests.fuzz import targets

LIMIT_S = 0.1


class TooSlow(Exception):
    pass


def main(name: str, seconds: str, folder: Path) -> None:
    target = targets.TARGETS[name]
    seeds = folder / "corpus"
    seeds.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(targets.corpus(name)):
        (seeds / str(number)).write_bytes(seed)

    def once(data: bytes) -> None:
        for _ in range(2):
            began = time.thread_time()
            target(data)
            if (took := time.thread_time() - began) <= LIMIT_S:
                return
        raise TooSlow(f"{took * 1000:.0f} ms")

    options = [f"-max_total_time={seconds}", f"-max_len={targets.MAX_BYTES}", f"-artifact_prefix={folder}/", "-seed=1"]
    atheris.Setup([sys.argv[0], *options, str(seeds)], once)
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
