"""The physical limit: libopus and libsrtp in a tight loop of C (`limit.c`), compiled when a compiler is there."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import tempfile
from pathlib import Path

import av
import pylibsrtp

from benchmarks.figures import Json

STEPS = ("encode", "protect", "udp", "unprotect", "decode")
PACKETS_PER_S = 50


def measure(seconds: float = 3.0) -> Json | None:
    """`{us: {step: microseconds}, ms_per_call_second, calls_per_core}`; None without a compiler or the libraries.

    Both ways at once, always: one packet in and one out every 20 ms. CPU time, so that neighbours count little.
    """
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    package = Path(av.__file__).parent
    opus = next(iter([*package.parent.glob("av.libs/libopus*"), *package.glob(".dylibs/libopus*")]), None)
    srtp = next(iter(Path(pylibsrtp.__file__).parent.glob("_binding*.so")), None)
    if compiler is None or opus is None or srtp is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "limit.so"
        source = Path(__file__).with_suffix(".c")
        built = subprocess.run([compiler, "-O2", "-shared", "-fPIC", "-o", library, source, "-lm"], check=False)
        if built.returncode:
            return None
        out = (ctypes.c_double * len(STEPS))()
        run = ctypes.CDLL(str(library)).limit
        run.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_double, ctypes.POINTER(ctypes.c_double)]
        if run(bytes(opus), bytes(srtp), seconds, out):
            return None
    us = dict(zip(STEPS, (round(value, 2) for value in out), strict=True))
    ms = sum(us.values()) * PACKETS_PER_S / 1000
    return {"us": us, "ms_per_call_second": round(ms, 2), "calls_per_core": round(1000 / ms, 1)}
