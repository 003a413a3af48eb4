"""Guards and rewrites session descriptions: offers and trickled candidates in, dressed answers out.

Sans-I/O. An offer is hostile text: it is read by our own line parser and then written anew from the few
facts a voice call needs, so that the WebRTC library never parses a line that a caller wrote. Whatever is
wrong raises `OfferError` and nothing else. Media we do not take (video, a second data section, an inactive
audio line) is not shown to the library at all; `dress_answer` puts it back as rejected (port 0), because an
answer must have the offer's m-lines in the offer's order (RFC 8829 section 5.3.1). With BUNDLE every
accepted section shares the transport of the first accepted one, so its ICE and DTLS lines are written to all.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from signaling.candidates import MAX_CANDIDATES, CandidateSieve

MAX_OFFER_BYTES = 64 * 1024
MAX_FRAGMENT_BYTES = 16 * 1024
MAX_MEDIA_LINES = 8
MAX_FORMATS = 64
"""Payload types of one m-line; a browser's video line has about 50."""
MAX_LINES = 2000
"""A browser's offer with audio, video and data has about 200."""
MAX_LINE_CHARS = 4096
PACKET_MS = 20
MAX_PACKET_MS = 60
"""What we ask callers for; the receive path takes up to 120 ms."""
OPUS_RECEIVE = "minptime=10;useinbandfec=0;stereo=0;sprop-stereo=0;usedtx=0"
"""RFC 7587 section 6.1: we hear mono, cannot use in-band FEC, send mono, and want silence sent too."""

_DATA_PORT = 5000
_DEFAULT_MAX_MESSAGE = 65536  # RFC 8841 section 6.1
_LARGEST_MESSAGE = 2**31 - 1

_MEDIA_PROTOCOLS = frozenset(
    f"{transport}/{profile}"
    for transport in ("UDP/TLS", "TCP/DTLS", "TCP/TLS")
    for profile in ("RTP/SAVPF", "RTP/SAVP")
) | {"RTP/SAVPF", "RTP/SAVP"}  # RFC 8829 section 5.1.2: all of these mean DTLS-SRTP
_DATA_PROTOCOLS = frozenset({"UDP/DTLS/SCTP", "TCP/DTLS/SCTP"})
_LEGACY_DATA_PROTOCOL = "DTLS/SCTP"
_DIRECTIONS = frozenset({"sendrecv", "sendonly", "recvonly", "inactive"})
_EXTENSIONS = frozenset({"urn:ietf:params:rtp-hdrext:sdes:mid", "urn:ietf:params:rtp-hdrext:ssrc-audio-level"})
_STATIC_FORMATS = {"pcmu": ("0", "PCMU/8000"), "pcma": ("8", "PCMA/8000")}
_DYNAMIC_FORMATS = range(96, 128)
_DIGEST_BYTES = {"sha-256": 32, "sha-384": 48, "sha-512": 64}

_LINE = re.compile(r"[a-z]=")
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_TOKEN = re.compile(r"[!-~]{1,64}")
_UFRAG = re.compile(r"[A-Za-z0-9+/]{4,256}")
_PASSWORD = re.compile(r"[A-Za-z0-9+/]{22,256}")
_HEX_BYTES = re.compile(r"[0-9A-F]{2}(?::[0-9A-F]{2})*")
_EXTMAP = re.compile(r"([0-9]{1,3})(?:/sendrecv)? (\S+)")
_RTPMAP = re.compile(r"([0-9]{1,3}) +([!-~]+) *")


class OfferError(Exception):
    """What the caller sent cannot be used; `status` is the HTTP status it deserves (400, 413, 415, 422)."""

    def __init__(self, code: str, message: str, status: int = 422) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = status


@dataclass(frozen=True, slots=True)
class MediaLine:
    """One m-line of the offer and what becomes of it."""

    kind: str
    mid: str | None
    protocol: str
    format: str
    """Its first format: what a rejected line repeats."""
    accepted: bool


@dataclass(frozen=True, slots=True)
class Offer:
    """An offer that was let in."""

    text: str
    """What the WebRTC library gets; CRLF, ASCII."""
    ice_ufrag: str
    """Of the transport that the accepted media share."""
    ufrags: frozenset[str]
    """Of every section: a browser has one per m-line until the answer bundles them."""
    lines: tuple[MediaLine, ...]
    bundle: tuple[str, ...]
    """Accepted mids in the order of the offered group; empty when the offer did not bundle."""
    candidates: int
    """How many candidates `text` carries."""
    notes: tuple[str, ...] = ()
    """What was dropped or declined, for the log."""

    @property
    def mids(self) -> tuple[str, ...]:
        return tuple(line.mid for line in self.lines if line.mid is not None)


@dataclass(frozen=True, slots=True)
class Fragment:
    """The usable candidates of one trickle message (what follows `a=candidate:`)."""

    candidates: tuple[str, ...]
    end_of_candidates: bool
    notes: tuple[str, ...] = ()


@dataclass(slots=True)
class _Section:
    """The session part (kind empty) or one m-line with its attributes, in the order they came."""

    kind: str = ""
    port: int = 0
    protocol: str = ""
    formats: list[str] = field(default_factory=list)
    attributes: list[tuple[str, str]] = field(default_factory=list)

    def first(self, name: str) -> str | None:
        return next(self.all(name), None)

    def all(self, name: str) -> Iterator[str]:
        return (value for attribute, value in self.attributes if attribute == name)

    def has(self, name: str) -> bool:
        return self.first(name) is not None


@dataclass(frozen=True, slots=True)
class _Transport:
    ufrag: str
    password: str
    fingerprints: tuple[tuple[str, str], ...]
    setup: str
    lite: bool


# -- reading ---------------------------------------------------------------------------------------


def _text(body: bytes | str, limit: int, what: str) -> str:
    size = len(body) if isinstance(body, bytes) else len(body.encode("utf-8", "surrogatepass"))
    if size > limit:
        raise OfferError("too_large", f"{what} has {size} bytes; at most {limit} are taken.", 413)
    if isinstance(body, str):
        return body
    try:
        return body.decode("utf-8")
    except UnicodeDecodeError:
        raise OfferError("not_sdp", f"{what} is not SDP: it is not UTF-8 text.", 400) from None


def _sections(text: str, what: str) -> list[_Section]:
    """Split into the session part and the m-lines; every line must be `x=...` (LF or CRLF)."""
    sections = [_Section()]
    for number, raw in enumerate(text.split("\n"), start=1):
        line = raw.rstrip("\r \t")
        if not line:
            continue
        if number > MAX_LINES:
            raise OfferError("too_complex", f"{what} has over {MAX_LINES} lines.")
        if len(line) > MAX_LINE_CHARS:
            raise OfferError("too_complex", f"Line {number} of {what} has over {MAX_LINE_CHARS} characters.")
        if not _LINE.match(line) or _CONTROL.search(line):
            raise OfferError("malformed_sdp", f"Line {number} of {what} is not a line of SDP.", 400)
        if line.startswith("m="):
            sections.append(_media_line(line, number, what))
        elif line.startswith("a="):
            name, _, value = line[2:].partition(":")
            sections[-1].attributes.append((name, value.strip()))
    if len(sections) - 1 > MAX_MEDIA_LINES:
        raise OfferError("too_complex", f"{what} has {len(sections) - 1} m-lines; at most {MAX_MEDIA_LINES} are taken.")
    return sections


def _media_line(line: str, number: int, what: str) -> _Section:
    kind, port, protocol, *formats = line[2:].split() + [""] * 3
    formats = [text for text in formats if text]
    port = port.partition("/")[0]
    tokens = (kind, protocol, *formats)
    if not (formats and all(map(_TOKEN.fullmatch, tokens)) and port.isascii() and port.isdigit() and len(port) <= 5):
        raise OfferError("malformed_sdp", f"Line {number} of {what} is not an m-line.", 400)
    if len(formats) > MAX_FORMATS:
        raise OfferError("too_complex", f"Line {number} of {what} lists over {MAX_FORMATS} payload types.")
    return _Section(kind, int(port), protocol, formats)


def _int(text: str, low: int, high: int) -> int | None:
    if text.isascii() and text.isdigit() and len(text) <= 10 and low <= int(text) <= high:
        return int(text)
    return None


# -- offers ----------------------------------------------------------------------------------------


def guard_offer(body: bytes | str, *, allow_loopback: bool = False, codecs: Sequence[str] = ("opus",)) -> Offer:
    """Read an offer and write it anew; raises `OfferError`.

    `codecs` are the ones to take, best first: `opus`, `pcmu`, `pcma`. `allow_loopback` lets candidates on
    127.0.0.0/8 and ::1 through, for a server that serves its own host.
    """
    text = _text(body, MAX_OFFER_BYTES, "The offer")
    if text.partition("\n")[0].rstrip() != "v=0":
        hint = " It looks like JSON: send the value of its `sdp` as it stands." if text.lstrip()[:1] == "{" else ""
        raise OfferError("not_sdp", f"The offer is not SDP: it does not start with `v=0`.{hint}", 400)
    session, *media = _sections(text, "the offer")
    mids = _mids(media)
    groups = [value.split()[1:] for value in session.all("group") if value.split()[:1] == ["BUNDLE"]]
    audio = _audio(session, media, mids, groups)
    group = next((group for group in groups if mids[audio] in group), [])
    data = _data(media, mids, group, audio)

    accepted = sorted(index for index in (audio, data) if index is not None)
    bundle = tuple(dict.fromkeys(mid for mid in group if any(mids[index] == mid for index in accepted)))
    primary = mids.index(bundle[0]) if bundle else audio
    tagged = media[mids.index(group[0])] if group and group[0] in mids else media[primary]
    transport = _transport(session, media[primary], tagged)
    if not (media[audio].has("rtcp-mux") or (media[audio].has("bundle-only") and tagged.has("rtcp-mux"))):
        raise OfferError("rtcp_mux_required", "The audio has no `a=rtcp-mux`; RTP and RTCP must share one port.")
    formats = _formats(media[audio], codecs)

    sieve = CandidateSieve(allow_loopback=allow_loopback)
    # Those of other m-lines belong to transports that the answer bundles away, unless the first has none.
    for section in (media[primary], tagged, *media):
        if sieve.empty and (section.first("ice-ufrag") or transport.ufrag) == transport.ufrag:
            for candidate in section.all("candidate"):
                sieve.offer(candidate)

    shown = [mids[index] or f"m{index}" for index in range(len(media))]
    written = ["v=0\r\no=- 0 0 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\n"]
    if transport.lite:
        written.append("a=ice-lite\r\n")
    if bundle:
        written.append(f"a=group:BUNDLE {' '.join(bundle)}\r\n")
    for index in accepted:
        writer = _write_audio(session, media[index], formats) if index == audio else _write_data(media[index])
        written += [f"{line}\r\n" for line in (*writer, f"a=mid:{shown[index]}", *_write_transport(transport, sieve))]
    declined = [media[index].kind for index in range(len(media)) if index not in accepted]
    notes = ([f"declined {', '.join(declined)}"] if declined else []) + [note for note in (sieve.note(),) if note]
    return Offer(
        text="".join(written),
        ice_ufrag=transport.ufrag,
        ufrags=frozenset(value for part in (session, *media) for value in part.all("ice-ufrag")) | {transport.ufrag},
        lines=tuple(
            MediaLine(part.kind, mids[index], part.protocol, part.formats[0], index in accepted)
            for index, part in enumerate(media)
        ),
        bundle=bundle,
        candidates=len(sieve.kept),
        notes=tuple(notes),
    )


def _mids(media: list[_Section]) -> list[str | None]:
    mids: list[str | None] = []
    for section in media:
        mid = section.first("mid")
        if mid is not None and not _TOKEN.fullmatch(mid):
            raise OfferError("malformed_sdp", "An `a=mid` of the offer is not a short token.", 400)
        if mid is not None and mid in mids:
            raise OfferError("malformed_sdp", f"Two m-lines of the offer have the mid `{mid}`.", 400)
        mids.append(mid)
    return mids


def _open(section: _Section, mid: str | None, groups: list[list[str]]) -> bool:
    """Whether an m-line is offered at all: port 0 means no, unless it only exists inside its bundle."""
    return section.port != 0 or (section.has("bundle-only") and any(mid in group for group in groups))


def _direction(session: _Section, section: _Section) -> str:
    named = [name for name, _ in (*section.attributes, *session.attributes) if name in _DIRECTIONS]
    return named[0] if named else "sendrecv"


def _audio(session: _Section, media: list[_Section], mids: list[str | None], groups: list[list[str]]) -> int:
    offered = [
        index
        for index, section in enumerate(media)
        if section.kind == "audio"
        and _open(section, mids[index], groups)
        and _direction(session, section) != "inactive"
    ]
    if not offered:
        raise OfferError("no_audio", "The offer has no active audio; a call needs one audio m-line.")
    if len(offered) > 1:
        raise OfferError("several_audio", f"The offer has {len(offered)} active audio m-lines; a call takes one.")
    protocol = media[offered[0]].protocol
    if protocol not in _MEDIA_PROTOCOLS:
        raise OfferError(
            "not_encrypted", f"The audio is offered over `{protocol}`; DTLS-SRTP (`UDP/TLS/RTP/SAVPF`) is needed."
        )
    return offered[0]


def _data(media: list[_Section], mids: list[str | None], group: list[str], audio: int) -> int | None:
    """The data section to take, if one is offered. It must share the audio's transport."""
    for index, section in enumerate(media):
        known = section.protocol in _DATA_PROTOCOLS or (
            section.protocol == _LEGACY_DATA_PROTOCOL and _int(section.formats[0], 1, 65535) is not None
        )
        if section.kind == "application" and known and _open(section, mids[index], [group]):
            if mids[index] is None or mids[index] not in group:
                raise OfferError("bundle_required", "Audio and data must be in one `a=group:BUNDLE`.")
            return index
    return None


def _transport(session: _Section, primary: _Section, tagged: _Section) -> _Transport:
    """ICE and DTLS of the accepted media: their own, else the session's, else those of the bundle's first m-line."""
    source = next((part for part in (primary, session, tagged) if part.has("ice-ufrag")), primary)
    ufrag, password = source.first("ice-ufrag"), source.first("ice-pwd")
    if not ufrag or not password:
        raise OfferError("ice_credentials_required", "The offer lacks `a=ice-ufrag` or `a=ice-pwd`.")
    if not _UFRAG.fullmatch(ufrag) or not _PASSWORD.fullmatch(password):
        raise OfferError(
            "ice_credentials_required",
            "`a=ice-ufrag` must have 4 to 256 and `a=ice-pwd` 22 to 256 letters, digits, `+` or `/`.",
        )
    prints: dict[tuple[str, str], None] = {}
    for part in (primary, session, tagged):
        if not prints:
            prints = dict.fromkeys(found for value in part.all("fingerprint") if (found := _fingerprint(value)))
    if not prints:
        raise OfferError("fingerprint_required", "The offer has no `a=fingerprint` with sha-256, sha-384 or sha-512.")
    setup = next((value for part in (primary, session, tagged) if (value := part.first("setup"))), "")
    if setup.lower() not in ("actpass", "active"):
        said = f"`a=setup:{setup}`" if setup.isascii() and setup.isalnum() else "no usable `a=setup`"
        raise OfferError("setup_required", f"The offer has {said}; `actpass` or `active` is needed.")
    return _Transport(ufrag, password, tuple(prints)[:4], setup.lower(), session.has("ice-lite"))


def _fingerprint(value: str) -> tuple[str, str] | None:
    algorithm, _, digest = value.partition(" ")
    algorithm, digest = algorithm.lower(), digest.strip().upper()
    if _DIGEST_BYTES.get(algorithm, 0) * 3 - 1 != len(digest) or not _HEX_BYTES.fullmatch(digest):
        return None
    return algorithm, digest


def _formats(section: _Section, codecs: Sequence[str]) -> list[tuple[str, str]]:
    """(payload type, rtpmap) of the codecs to take, our favourite first."""
    names: dict[str, str] = {}
    for value in section.all("rtpmap"):
        if (match := _RTPMAP.fullmatch(value)) and match[1] in section.formats:
            names.setdefault(match[1], match[2].lower())
    found: list[tuple[str, str]] = []
    for codec in codecs:
        if codec == "opus":
            dynamic = (payload for payload in section.formats if names.get(payload) == "opus/48000/2")
            payload = next((payload for payload in dynamic if int(payload) in _DYNAMIC_FORMATS), None)
            if payload is not None:
                found.append((str(int(payload)), "opus/48000/2"))
        else:
            payload, name = _STATIC_FORMATS[codec]
            if payload in section.formats and names.get(payload, name.lower()) in (name.lower(), f"{name.lower()}/1"):
                found.append((payload, name))
    if not found:
        needed = " or ".join("opus/48000/2 (payload type 96 to 127)" if c == "opus" else c.upper() for c in codecs)
        raise OfferError("no_common_codec", f"The audio offers no codec that is spoken here; needed is {needed}.")
    return found


def _write_audio(session: _Section, section: _Section, formats: list[tuple[str, str]]) -> list[str]:
    lines = [f"m=audio 9 UDP/TLS/RTP/SAVPF {' '.join(payload for payload, _ in formats)}", "c=IN IP4 0.0.0.0"]
    lines += ["a=rtcp:9 IN IP4 0.0.0.0", "a=rtcp-mux", f"a={_direction(session, section)}"]
    lines += [f"a=rtpmap:{payload} {name}" for payload, name in formats]
    extensions: dict[str, int] = {}
    for value in section.all("extmap"):
        match = _EXTMAP.fullmatch(value)
        number = _int(match[1], 1, 14) if match else None
        if match and number and match[2] in _EXTENSIONS and number not in extensions.values():
            extensions.setdefault(match[2], number)
    lines += [f"a=extmap:{number} {uri}" for uri, number in extensions.items()]
    sources = (_int(value.partition(" ")[0], 1, 2**32 - 1) for value in section.all("ssrc"))
    source = next((source for source in sources if source is not None), None)
    return [*lines, f"a=ssrc:{source} cname:caller"] if source is not None else lines


def _write_data(section: _Section) -> list[str]:
    size = _int(section.first("max-message-size") or "", 0, _LARGEST_MESSAGE)
    limit = f"a=max-message-size:{_DEFAULT_MAX_MESSAGE if size is None else size}"
    if section.protocol == _LEGACY_DATA_PROTOCOL:
        port = int(section.formats[0])
        return [f"m=application 9 {_LEGACY_DATA_PROTOCOL} {port}", f"a=sctpmap:{port} webrtc-datachannel 1024", limit]
    number = _int(section.first("sctp-port") or "", 1, 65535) or _DATA_PORT
    return ["m=application 9 UDP/DTLS/SCTP webrtc-datachannel", "c=IN IP4 0.0.0.0", f"a=sctp-port:{number}", limit]


def _write_transport(transport: _Transport, sieve: CandidateSieve) -> list[str]:
    return [
        f"a=ice-ufrag:{transport.ufrag}",
        f"a=ice-pwd:{transport.password}",
        *(f"a=fingerprint:{algorithm} {digest}" for algorithm, digest in transport.fingerprints),
        f"a=setup:{transport.setup}",
        *(f"a=candidate:{candidate}" for candidate in sieve.kept),
    ]


# -- trickled candidates -----------------------------------------------------------------------------


def parse_fragment(
    body: bytes | str, offer: Offer, *, room: int = MAX_CANDIDATES, allow_loopback: bool = False
) -> Fragment:
    """Read an `application/trickle-ice-sdpfrag` body (RFC 8840) against the offer it belongs to.

    At most `room` candidates are kept. An unknown ufrag asks for an ICE restart, which raises `OfferError`
    (a new call resumes the session instead). Candidates of transports that were bundled away are dropped.
    An empty candidate counts as end-of-candidates.
    """
    session, *media = _sections(_text(body, MAX_FRAGMENT_BYTES, "The fragment"), "the fragment")
    if not session.attributes and not media:
        raise OfferError("malformed_sdp", "The fragment is empty.", 400)
    sieve = CandidateSieve(room=room, allow_loopback=allow_loopback)
    ended = False
    for section in (session, *media):
        ufrag = section.first("ice-ufrag") or session.first("ice-ufrag") or offer.ice_ufrag
        if ufrag not in offer.ufrags:
            raise OfferError(
                "ice_restart", "The fragment has a new `a=ice-ufrag`; ICE cannot be restarted: call again."
            )
        ended = ended or section.has("end-of-candidates")
        for candidate in section.all("candidate"):
            if not candidate:
                ended = True
            elif ufrag == offer.ice_ufrag:
                sieve.offer(candidate)
    note = sieve.note()
    return Fragment(tuple(sieve.kept), ended, (note,) if note else ())


# -- answers -----------------------------------------------------------------------------------------


def dress_answer(answer: str, offer: Offer) -> str:
    """Make the library's answer (to `offer.text`) an answer to what the caller sent.

    Puts rejected m-lines back, repeats the offered protocols, mids and bundle order, and adds what the library
    does not say: `ice-options:trickle`, the Opus parameters and the packet time. Raises `ValueError` when the
    answer does not have the accepted m-lines.
    """
    parts: list[list[str]] = [[]]
    for line in answer.splitlines():
        if line.startswith("m="):
            parts.append([])
        if line:
            parts[-1].append(line)
    session, *answered = parts
    accepted = [line for line in offer.lines if line.accepted]
    if [part[0].split()[0][2:] for part in answered] != [line.kind for line in accepted]:
        raise ValueError("the answer does not have the m-lines of the offer")
    dressed = [line for line in session if not line.startswith("a=group:BUNDLE")]
    if offer.bundle:
        dressed.append(f"a=group:BUNDLE {' '.join(offer.bundle)}")
    dressed.append("a=ice-options:trickle")
    remaining = iter(answered)
    for media in offer.lines:
        dressed += _dress_media(next(remaining), media) if media.accepted else _rejected(media)
    return "".join(f"{line}\r\n" for line in dressed)


def _dress_media(part: list[str], media: MediaLine) -> list[str]:
    kind, port, _, formats = part[0].split(" ", 3)
    lines = [f"{kind} {port} {media.protocol} {formats}"]
    for line in part[1:]:
        if line.startswith("a=mid:") and media.mid is None:
            continue
        lines.append(line)
        if line.startswith("a=rtpmap:") and line.lower().endswith(" opus/48000/2"):
            lines.append(f"a=fmtp:{line[len('a=rtpmap:') :].split()[0]} {OPUS_RECEIVE}")
    return [*lines, f"a=ptime:{PACKET_MS}", f"a=maxptime:{MAX_PACKET_MS}"] if media.kind == "audio" else lines


def _rejected(media: MediaLine) -> list[str]:
    lines = [f"m={media.kind} 0 {media.protocol} {media.format}", "c=IN IP4 0.0.0.0"]
    if media.kind != "application":
        lines.append("a=inactive")
    return [*lines, f"a=mid:{media.mid}"] if media.mid is not None else lines
