"""An engine for tests of the worker: it does what it is told to, wrong things included."""

import os
import sys
import time
from collections.abc import Mapping
from typing import Any

from realtime.adapters.base import EngineError
from realtime.adapters.embedded.worker_main import Output


class Scripted:
    def __init__(self, options: Mapping[str, Any]) -> None:
        if "fail" in options:
            raise OSError(options["fail"])
        if "fail_once" in options and not os.path.exists(options["fail_once"]):
            open(options["fail_once"], "w").close()
            os._exit(3)
        print("a library that prints to stdout")
        sys.stdout.flush()

    def describe(self) -> Mapping[str, Any]:
        return {"version": "7", "environment": sorted(os.environ)}

    def open(self, head: Mapping[str, Any], body: bytes, out: Output) -> "Task":
        if head.get("do") == "refuse":
            raise EngineError("not that", code="unknown_voice")
        return Task(head, out)


class Task:
    """`do`: echo what comes; count to `n` at once; print; raise; die; hang."""

    def __init__(self, head: Mapping[str, Any], out: Output) -> None:
        self.do = head.get("do", "echo")
        self.left = int(head.get("n", 0))
        self.out = out
        self.waiting: list[bytes] = []
        self.finished = False
        self.sent = 0

    def data(self, payload: bytes) -> None:
        self.waiting.append(payload)

    def finish(self) -> None:
        self.finished = True

    def close(self) -> None:
        if self.do == "count":
            print(f"closed after {self.sent}", file=sys.stderr, flush=True)

    def step(self) -> bool:
        if self.do == "count":
            self.out.item({"n": self.sent})
            self.sent += 1
            if self.sent == self.left:
                self.out.end()
            return True
        if self.do == "print":
            for line in range(1000):
                print(f"line {line} " + "x" * 1000, file=sys.stderr)
            sys.stderr.flush()
            self.out.end()
        if self.do == "raise":
            raise ValueError("something in the engine")
        if self.do == "die":
            os._exit(9)
        if self.do == "hang":
            time.sleep(3600)
        return self.echo()

    def echo(self) -> bool:
        if self.waiting:
            payload = self.waiting.pop(0)
            self.out.item({}, payload)
            self.out.taken(len(payload))
            return True
        if self.finished:
            self.out.end()
        return False


def load(options: Mapping[str, Any]) -> Scripted:
    return Scripted(options)
