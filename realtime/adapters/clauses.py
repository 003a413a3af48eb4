"""Cuts a chat model's token stream into clauses that a voice can begin to speak.

The first clause comes early, so that speech can start; later ones are whole sentences, so that it
sounds well. A clause carries the span of raw text it stands for, because the history keeps what the
model wrote while the voice is given text without markup. It must never cut inside a number, a time,
an abbreviation, a link or an address, and never depend on how the stream was chopped: it steps
character by character, and a cut is decided by the first character after it. Sans-I/O.

    TEXT --"["--> LABEL --"]"--> CLOSED --"("--> TARGET --")"--> TEXT

is the only state besides the counters of the clause under way: no cut is made inside a markdown link.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import Enum

FIRST_WORDS = 3
"""Words: a shorter first clause would be over before the next one is ready."""

FIRST_MAX_WORDS = 12
FIRST_MAX_WIDTH = 80
"""Characters, CJK ones counted twice: about five seconds of speech; waiting longer costs more than it gains."""

LATER_WORDS = 2
LATER_SOFT_WIDTH = 60
"""Characters: in an overlong sentence, no comma before this place is worth a cut."""

LATER_MAX_WIDTH = 200
"""Characters: about twelve seconds of speech in one request."""

LONGEST = 1_000
"""Characters of one clause, whatever it holds: bounds memory, and the request to the voice."""

LINK_LONGEST = 300
"""Characters for which an open bracket may be the beginning of a link."""

_SENTENCE = frozenset(".!?…")
_SOFT = frozenset(",;:—–")
_CJK_SENTENCE = frozenset("。！？｡")
_CJK_SOFT = frozenset("、，；：")
_CLOSERS = "\"')]}*_`~”’»」』）】"
_OPENERS = "\"'([{*_`~“‘«「『（【"

_ABBREVIATION = re.compile(
    r"""(?: mrs? | ms | dr | prof | rev | hon | gen | gov | sen | rep | sgt | capt | lt | col | st | sr | jr
    | vs | etc | cf | al | ca | approx | dept | est | inc | ltd | co | corp | fig | vol | eds? | pp | min | max
    | tel | ext | mt | ft | ave | blvd | jan | feb | mar | apr | jun | jul | aug | sept? | oct | nov | dec
    | mon | tues? | wed | thur?s? | fri | bzw | usw | evtl | ggf | inkl | vgl | str | nr | bspw | mme | mlle
    | (?:[^\W\d_]\.)*[^\W\d_] )\.""",
    re.VERBOSE | re.IGNORECASE,
)
"""Known ones, initials, and dotted letters as in `e.g.` or `U.S.`; more is glued rather than less."""

_BEFORE_DIGIT = frozenset(["no", "nos", "p", "art", "ch", "sec"])
_NUMBERING = re.compile(r"\d{1,3}[.)]")


class Boundary(Enum):
    GLUED = 0
    """After an abbreviation: what follows belongs to it."""
    WEAK = 1
    """Between two words: a cut of last resort."""
    SOFT = 2
    SENTENCE = 3
    LINE = 4


class _Link(Enum):
    TEXT = 0
    LABEL = 1
    CLOSED = 2
    TARGET = 3


@dataclass(frozen=True, slots=True)
class Clause:
    """`text` is to be spoken; `start`, `end` are its offsets in the raw text of the whole stream.

    The spans of successive clauses follow each other without gap from 0 on. Only a tail with nothing
    to speak in it may be left after the last one.
    """

    text: str
    start: int
    end: int
    sources: tuple[int, ...] = field(default=(), repr=False, compare=False)
    """For each character of `text`, its offset in the raw text."""

    def raw_offset(self, offset: int) -> int:
        """The raw offset of the character at `offset` in `text`; `end` for what lies behind the last."""
        if offset <= 0:
            return self.start
        return self.sources[offset] if offset < len(self.sources) else self.end


class Clauses:
    """One answer's text in, clauses out: `push` for every piece, `finish` once at the end."""

    def __init__(self) -> None:
        self._first = True
        self._start = 0
        """Raw offset where the clause under way begins."""
        self._skipped = 0
        """Raw characters of this clause that were dropped because nothing in them can be spoken."""
        self._line_start = True
        self._reset()

    def push(self, text: str) -> list[Clause]:
        clauses: list[Clause] = []
        for piece in range(0, len(text), LONGEST):
            self._feed(text[piece : piece + LONGEST], clauses)
        return clauses

    def finish(self) -> list[Clause]:
        clauses: list[Clause] = []
        self._take("".join(self._buffer), clauses)
        return clauses

    def _feed(self, text: str, clauses: list[Clause]) -> None:
        rest = text
        while rest:
            for used, character in enumerate(rest, 1):
                cut = self._step(character)
                if cut is not None:
                    buffered = "".join(self._buffer)
                    self._take(buffered[:cut], clauses)
                    rest = buffered[cut:] + rest[used:]
                    break
            else:
                rest = ""

    # --- the clause under way -----------------------------------------------------------------

    def _reset(self) -> None:
        self._buffer: list[str] = []
        self._width = 0
        self._spaced_words = 0
        self._cjk = 0
        self._token = 0
        self._in_token = False
        self._pending = Boundary.WEAK
        self._fallback: int | None = None
        self._previous = ""
        self._link = _Link.TEXT
        self._link_at = 0
        self._link_depth = 0

    @property
    def _words(self) -> int:
        """Two CJK characters count as a word."""
        return max(self._spaced_words, self._cjk // 2)

    def _take(self, raw: str, clauses: list[Clause]) -> None:
        """Ends the clause under way with `raw`; if that is silent, it is left to the next clause."""
        start = self._start + self._skipped
        text, sources = spoken(raw, line_start=self._line_start)
        begin, end = self._start, start + len(raw)
        self._line_start = "\n" in raw[len(raw.rstrip()) :] or (self._line_start and not raw.strip())
        self._reset()
        if text:
            self._first, self._start, self._skipped = False, end, 0
            clauses.append(Clause(text, begin, end, tuple(start + source for source in sources)))
        else:
            self._skipped = end - begin

    def _step(self, character: str) -> int | None:
        """Takes one character; returns where to cut the buffer, which then includes it."""
        at = len(self._buffer)
        cut: int | None = None
        if character.isspace():
            if self._in_token:
                self._end_token(at)
            self._in_token = False
            if character == "\n":
                self._pending = Boundary.LINE
        else:
            cut = self._before(character, at)
            if not self._in_token:
                self._token, self._in_token = at, True
        self._buffer.append(character)
        self._width += 1
        if _is_cjk(character):
            self._width += 1
            self._cjk += 1
        self._previous = character
        self._follow_link(character, at)
        if cut is None and at + 1 >= LONGEST:
            cut = self._fallback or at + 1
        return cut

    def _before(self, character: str, at: int) -> int | None:
        """Is there a cut in front of this character, which is not white space?"""
        if self._in_token:
            kind = self._inside_token(character, at)
            if kind is None:
                return None
        else:
            kind, self._pending = self._pending, Boundary.WEAK
            if kind is Boundary.SENTENCE and character.isdigit() and self._last_token() in _BEFORE_DIGIT:
                kind = Boundary.GLUED
        if at == 0 or self._link is not _Link.TEXT:
            return None
        return self._decide(kind, at)

    def _inside_token(self, character: str, at: int) -> Boundary | None:
        """What needs no white space: full-width punctuation, dashes, and CJK text as a last resort."""
        if character in _CLOSERS or character in _CJK_SENTENCE or character in _CJK_SOFT:
            return None
        before = self._before_closers(at)
        if before in _CJK_SENTENCE:
            kind = Boundary.SENTENCE
        elif before in _CJK_SOFT or (before == "—" and before == self._previous and character != "—"):
            kind = Boundary.SOFT
        elif _is_cjk(character) and _is_cjk(self._previous):
            return Boundary.WEAK
        else:
            return None
        self._end_token(at)
        self._in_token, self._pending = False, Boundary.WEAK
        return kind

    def _before_closers(self, at: int) -> str:
        """The character in front of `at`, closing quotes and brackets left out."""
        while at > self._token and self._buffer[at - 1] in _CLOSERS:
            at -= 1
        return self._buffer[at - 1] if at > self._token else ""

    def _end_token(self, at: int) -> None:
        token = "".join(self._buffer[self._token : at])
        if any(character.isalnum() for character in token):
            self._spaced_words += 1
        core = token.rstrip(_CLOSERS)
        last = core[-1:]
        if last == "." and self._is_abbreviation(core):
            self._pending = Boundary.GLUED
        elif last in _SENTENCE or last in _CJK_SENTENCE:
            self._pending = Boundary.SENTENCE
        elif last in _SOFT or last in _CJK_SOFT:
            self._pending = Boundary.SOFT
        else:
            self._pending = Boundary.WEAK

    def _last_token(self) -> str:
        """The last word in lower case, without what surrounds it."""
        words = "".join(self._buffer[self._token :]).split()
        return words[0].strip(_OPENERS + _CLOSERS).rstrip(".").lower() if words else ""

    def _is_abbreviation(self, core: str) -> bool:
        word = core.lstrip(_OPENERS)
        if _NUMBERING.fullmatch(word) and self._at_line_start(self._token):
            return True
        return _ABBREVIATION.fullmatch(word) is not None

    def _at_line_start(self, at: int) -> bool:
        for character in reversed(self._buffer[:at]):
            if character == "\n":
                return True
            if not character.isspace() and character not in "*_#>-":
                return False
        return self._line_start

    def _follow_link(self, character: str, at: int) -> None:
        if character == "\n" or (self._link is not _Link.TEXT and at - self._link_at > LINK_LONGEST):
            self._link = _Link.TEXT
        elif self._link is _Link.CLOSED:
            self._link = _Link.TARGET if character == "(" else _Link.TEXT
        elif self._link is _Link.LABEL and character == "]":
            self._link = _Link.CLOSED
        if self._link is _Link.TARGET and character in "()":
            self._link_depth += 1 if character == "(" else -1
            self._link = _Link.TARGET if self._link_depth else _Link.TEXT
        if self._link is _Link.TEXT and character == "[":
            self._link, self._link_at, self._link_depth = _Link.LABEL, at, 0

    # --- where to cut -------------------------------------------------------------------------

    def _decide(self, kind: Boundary, at: int) -> int | None:
        if kind is Boundary.GLUED:
            return None
        if kind is Boundary.LINE and self._words:
            return at
        if self._first:
            wanted = kind is not Boundary.WEAK and self._words >= FIRST_WORDS
            overdue = self._words >= FIRST_MAX_WORDS or self._width >= FIRST_MAX_WIDTH
            return at if wanted or overdue else None
        if kind is Boundary.SENTENCE and self._words >= LATER_WORDS:
            return at
        if kind is not Boundary.WEAK and self._width >= LATER_SOFT_WIDTH:
            self._fallback = at
        return (self._fallback or at) if self._width >= LATER_MAX_WIDTH else None


# --- what is spoken -----------------------------------------------------------------------------

_LINK = re.compile(r"!?\[([^\[\]\n]{0,300})\]\((?:[^()\n]|\([^()\n]{0,300}\)){0,300}\)")
_LINE_MARK = re.compile(r"(?m)^[ \t]*(?:(?:#{1,6}|[-+*•])(?=\s)|>[ \t]?)+")
_RULE = re.compile(r"(?m)^[ \t]*(?:[-*_=][ \t]*){3,}$")
_FENCE = re.compile(r"(?m)^[ \t]*(?:```|~~~)[\w+-]*[ \t]*$")
_EMPHASIS = re.compile(r"`+|~~|(?<![\d\s])\*+|\*+(?![\d\s*])|(?<!\w)_+(?=\w)|(?<=\w)_+(?!\w)")


def spoken(raw: str, *, line_start: bool = True) -> tuple[str, list[int]]:
    """`raw` without markdown, white space folded, and for each character left its offset in `raw`.

    Empty when nothing in it can be spoken: no letter and no digit. `line_start` says whether `raw`
    begins a line, where headings and bullets stand.
    """
    keep = bytearray(b"\x01") * len(raw)
    for match in _LINK.finditer(raw):
        _drop(keep, match.start(), match.start(1))
        _drop(keep, match.end(1), match.end())
    for pattern in (_FENCE, _RULE, _LINE_MARK):
        for match in pattern.finditer(raw):
            if match.start() or line_start:
                _drop(keep, *match.span())
    for match in _EMPHASIS.finditer(raw):
        if not _in_address(raw, match.start()):
            _drop(keep, *match.span())
    text: list[str] = []
    sources: list[int] = []
    for at, character in enumerate(raw):
        if not keep[at]:
            continue
        if character.isspace():
            if not text or text[-1] == " ":
                continue
            character = " "
        text.append(character)
        sources.append(at)
    if text and text[-1] == " ":
        text.pop()
        sources.pop()
    if not any(character.isalnum() for character in text):
        return "", []
    return "".join(text), sources


def _drop(keep: bytearray, start: int, end: int) -> None:
    keep[start:end] = bytes(end - start)


def _in_address(raw: str, at: int) -> bool:
    """Underscores and asterisks inside a URL belong to it."""
    start = at
    while start and not raw[start - 1].isspace():
        start -= 1
    scheme = raw.find("://", start, at)
    return scheme >= 0 and raw[scheme - 1 : scheme].isalpha() and at + 1 < len(raw) and raw[at + 1].isalnum()


def _is_cjk(character: str) -> bool:
    """Scripts written without spaces between words: kana, Han, full-width forms, Thai."""
    return "\u3000" <= character <= "\u9fff" or "\uff00" <= character <= "\uffef" or "\u0e00" <= character <= "\u0e7f"
