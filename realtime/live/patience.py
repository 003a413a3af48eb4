"""How long a pause has to be to end a turn under `semantic_vad`. Sans-I/O.

The detector reports a pause after `PAUSE_MS` of silence; this says how much longer to wait, from what
was recognised so far: a finished sentence is answered at once, a sentence that plainly goes on ("and",
"the", "um") is given the documented maximum of its eagerness (openai-realtime: 8, 4 and 2 s), and
anything else a moment. A rule over words, not a model: recognisers without punctuation or partial
transcripts always get the moment.
"""

from __future__ import annotations

from typing import Literal

Eagerness = Literal["low", "medium", "high", "auto"]

PAUSE_MS = 300

_LONGEST_MS = {"low": 8000, "medium": 4000, "high": 2000}
_MOMENT_MS = {"low": 1500, "medium": 600, "high": 150}
_FINISHED_MS = {"low": 400, "medium": 0, "high": 0}

_WORDS = """
    a an the and but or so because if when while although that which who whose where with without of to for from in on
    at by about into over under between is are was were am be my your his her our their this these those um uh er hmm
    like well i we you he she they it i'm you're we're they're it's i'd i'll let's not very really just then than as
    """
_GOES_ON = frozenset(_WORDS.split())


def wait_ms(eagerness: Eagerness, partial: str) -> int:
    """Milliseconds to wait after the pause was noticed. `partial`: the words of the turn so far."""
    level = "medium" if eagerness == "auto" else eagerness
    text = partial.rstrip()
    if text.endswith((",", "…", "...", "-", "—")):
        return _LONGEST_MS[level] - PAUSE_MS
    if text.endswith((".", "?", "!", "。", "？", "！")):
        return _FINISHED_MS[level]
    last = text.rsplit(None, 1)[-1].lower() if text else ""
    if last in _GOES_ON:
        return _LONGEST_MS[level] - PAUSE_MS
    return _MOMENT_MS[level]
