"""The writer of recordings on a disk that takes a second for every block."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from realtime.adapters.embedded.worker_main import Output
from realtime.recording import writer


class _Slow(writer.Recording):
    def _write(self, payload: bytes) -> None:
        time.sleep(1.0)
        super()._write(payload)


class _Writer(writer.Writer):
    def open(self, head: Mapping[str, Any], body: bytes, out: Output) -> writer.Recording:
        return _Slow(str(head["path"]), int(head["at_ms"]), out)


def load(options: Mapping[str, Any]) -> writer.Writer:
    return _Writer()
