"""The one audio format each way, named once.

Inside the house sound is mono signed 16-bit PCM in one-dimensional NumPy arrays: 16 kHz from the
caller (`RATE_IN`), 24 kHz towards the caller (`RATE_OUT`). Edges convert, nobody else.
"""

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Pcm: TypeAlias = npt.NDArray[np.int16]
"""Mono signed 16-bit samples, shape `(n,)`."""

RATE_IN = 16_000
"""Hz, what was heard: recognisers and voice activity detection work at this rate."""

RATE_OUT = 24_000
"""Hz, what is to be said: voices are converted to this rate, the encoder takes it."""

FRAME_S = 0.02
"""Seconds in one packet, both ways."""

FRAME_IN = 320
FRAME_OUT = 480
