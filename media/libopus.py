"""libopus itself, through ctypes: the library that PyAV brings along, else the system's.

PyAV's own wrapper costs as much again as the codec, always decodes to 48 kHz, and cannot decode in-band
FEC. States live in memory that Python owns, so nothing is to be closed. Calls keep the GIL: they take
some 20 us, and giving it up costs more when others want it.

Functions and constants: opus.h and opus_defines.h of libopus 1.3 and later (RFC 6716).
"""

from __future__ import annotations

import ctypes
import ctypes.util
from ctypes import c_char_p, c_int, c_void_p
from functools import cache
from pathlib import Path
from typing import Any, Final

import av

APPLICATION_VOIP: Final = 2048
APPLICATION_RESTRICTED_LOWDELAY: Final = 2051
SET_BITRATE: Final = 4002
SET_COMPLEXITY: Final = 4010
SET_INBAND_FEC: Final = 4012
SET_PACKET_LOSS_PERC: Final = 4014
SET_PREDICTION_DISABLED: Final = 4042
OK: Final = 0
INTERNAL_ERROR: Final = -3


class OpusMissing(RuntimeError):
    """No libopus is to be found; the message says what to install."""


@cache
def library() -> Any:
    """The loaded library with its functions declared. Raises `OpusMissing`."""
    opus = _load()
    for name, result, arguments in (
        ("opus_decoder_get_size", c_int, [c_int]),
        ("opus_decoder_init", c_int, [c_void_p, c_int, c_int]),
        ("opus_decode", c_int, [c_void_p, c_char_p, c_int, c_void_p, c_int, c_int]),
        ("opus_encoder_get_size", c_int, [c_int]),
        ("opus_encoder_init", c_int, [c_void_p, c_int, c_int, c_int]),
        ("opus_encode", c_int, [c_void_p, c_char_p, c_int, c_void_p, c_int]),
        # Variadic: what follows is given as `c_int`, or it lands in the wrong place on some systems.
        ("opus_encoder_ctl", c_int, [c_void_p, c_int]),
    ):
        function = getattr(opus, name)
        function.restype, function.argtypes = result, arguments
    return opus


def _load() -> Any:
    package = Path(av.__file__).parent
    bundled = [*package.parent.glob("av.libs/*opus*"), *package.glob(".dylibs/*opus*")]
    names = [*map(str, bundled), *filter(None, [ctypes.util.find_library("opus")])]
    for name in names:
        try:
            return ctypes.PyDLL(name)
        except OSError:
            continue
    raise OpusMissing("libopus was not found: install PyAV from its wheel, or libopus (Debian: libopus0)")
