"""Guards and rewrites session descriptions: offers and trickled candidates in, dressed answers out.

Sans-I/O. An offer is hostile text: it is read by our own line parser and then written anew from the few
facts a voice call needs, so that the WebRTC library never parses a line that a caller wrote. Whatever is
wrong raises `OfferError` and nothing else. Media we do not take (video, a second data section, an inactive
audio line) is not shown to the library at all; `dress_answer` puts it back, because an answer must have the
offer's m-lines in the offer's order (RFC 8829 section 5.3.1). With BUNDLE every section shares the transport
of the group's first one, so its ICE and DTLS lines are written to all.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from signaling.candidates import MAX_CANDIDATES, CandidateSieve
from signaling.sdp_lines import TOKEN, OfferError, Section, read_int, read_sections, read_text

__all__ = ["Fate", "Fragment", "MediaLine", "Offer", "OfferError", "dress_answer", "guard_offer", "parse_fragment"]

MAX_OFFER_BYTES = 64 * 1024
MAX_FRAGMENT_BYTES = 16 * 1024
PACKET_MS = 20
MAX_PACKET_MS = 60
"""What we ask callers for; the receive path takes up to 120 ms."""
OPUS_RECEIVE = "minptime=10;useinbandfec=1;stereo=0;sprop-stereo=0;usedtx=0"
"""RFC 7587 section 6.1: we hear mono, use in-band FEC, send mono, and want silence sent too."""

KEY_EVENTS = "0-15"
"""RFC 4733 section 2.5.1.1: the keys of a telephone."""

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
_TRANSPORT_LINES = (
    "a=candidate:",
    "a=end-of-candidates",
    "a=ice-ufrag:",
    "a=ice-pwd:",
    "a=fingerprint:",
    "a=setup:",
)

_UFRAG = re.compile(r"[A-Za-z0-9+/]{4,256}")
_PASSWORD = re.compile(r"[A-Za-z0-9+/]{22,256}")
_HEX_BYTES = re.compile(r"[0-9A-F]{2}(?::[0-9A-F]{2})*")
_EXTMAP = re.compile(r"([0-9]{1,3})(?:/sendrecv)? (\S+)")
_CODEC_NAME = re.compile(r"[A-Za-z0-9_.+-]{1,32}/[0-9]{1,6}(?:/[0-9]{1,2})?")
_FMTP = re.compile(r"[0-9]{1,3} [!-~]{1,256}")
_RTPMAP = re.compile(r"([0-9]{1,3}) +([!-~]+) *")


class Fate(Enum):
    """What an m-line is answered."""

    ACCEPTED = "accepted"
    INACTIVE = "inactive"
    """Declined, but a member of the bundle: a rejected member would take the bundle's transport with it when it
    is the first, and aiortc as a client cannot read one."""
    REJECTED = "rejected"
    """Declined with port 0."""


@dataclass(frozen=True, slots=True)
class MediaLine:
    """One m-line of the offer and what becomes of it."""

    kind: str
    mid: str | None
    protocol: str
    format: str
    """What a declined line repeats of its formats."""
    fate: Fate
    codec: tuple[str, ...] = ()
    """The attributes of `format`, for an inactive line."""


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
    """Mids of the answer's group in the order of the offered one; empty when the offer did not bundle."""
    candidates: int
    """How many candidates `text` carries."""
    notes: tuple[str, ...] = ()
    """What was dropped or declined, for the log."""
    keys: str | None = None
    """The `a=rtpmap` of key events (RFC 4733) at the clock of the audio; the library knows nothing of them."""

    @property
    def mids(self) -> tuple[str, ...]:
        return tuple(line.mid for line in self.lines if line.mid is not None)


@dataclass(frozen=True, slots=True)
class Fragment:
    """The usable candidates of one trickle message (what follows `a=candidate:`)."""

    candidates: tuple[str, ...]
    end_of_candidates: bool
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Transport:
    ufrag: str
    password: str
    fingerprints: tuple[tuple[str, str], ...]
    setup: str


# -- offers ----------------------------------------------------------------------------------------


def guard_offer(body: bytes | str, *, allow_loopback: bool = False, codecs: Sequence[str] = ("opus",)) -> Offer:
    """Read an offer and write it anew; raises `OfferError`.

    `codecs` are the ones to take, best first: `opus`, `pcmu`, `pcma`. `allow_loopback` lets candidates on
    127.0.0.0/8 and ::1 through, for a server that serves its own host.
    """
    text = read_text(body, MAX_OFFER_BYTES, "The offer")
    if text.partition("\n")[0].rstrip() != "v=0":
        hint = " It looks like JSON: send the value of its `sdp` as it stands." if text.lstrip()[:1] == "{" else ""
        raise OfferError("not_sdp", f"The offer is not SDP: it does not start with `v=0`.{hint}", 400)
    session, *media = read_sections(text, "the offer")
    mids = _mids(media)
    groups = [value.split()[1:] for value in session.all("group") if value.split()[:1] == ["BUNDLE"]]
    audio = _audio(session, media, mids, groups)
    group = next((group for group in groups if mids[audio] in group), [])
    data = _data(media, mids, group, audio)

    lines = _media_lines(media, mids, group, (audio, data))
    answered = [line.mid for line in lines if line.mid is not None and line.fate is not Fate.REJECTED]
    bundle = tuple(dict.fromkeys(mid for mid in group if mid in answered))
    primary = media[mids.index(bundle[0]) if bundle else audio]
    tagged = media[mids.index(group[0])] if group and group[0] in mids else primary
    transport = _transport((primary, session, tagged, media[audio]))
    if not (media[audio].has("rtcp-mux") or (media[audio].has("bundle-only") and tagged.has("rtcp-mux"))):
        raise OfferError("rtcp_mux_required", "The audio has no `a=rtcp-mux`; RTP and RTCP must share one port.")

    sieve = CandidateSieve(allow_loopback=allow_loopback)
    # Those of other m-lines belong to transports that the answer bundles away, unless the first has none.
    for section in (primary, *media):
        if sieve.empty and (section.first("ice-ufrag") or transport.ufrag) == transport.ufrag:
            for candidate in section.all("candidate"):
                sieve.offer(candidate)

    formats = _formats(media[audio], codecs)
    keys = _keys(media[audio], formats)
    parts = {audio: _write_audio(session, media[audio], formats + ([keys] if keys else []))}
    if data is not None:
        parts[data] = _write_data(media[data])
    shown = {index: mids[index] or str(index) for index in sorted(parts)}
    written = ["v=0", "o=- 0 0 IN IP4 0.0.0.0", "s=-", "t=0 0"]
    written += ["a=ice-lite"] if session.has("ice-lite") else []
    written += [f"a=group:BUNDLE {' '.join(mid for mid in bundle if mid in shown.values())}"] if bundle else []
    for index, mid in shown.items():
        written += [*parts[index], f"a=mid:{mid}", *_write_transport(transport, sieve)]
    declined = ", ".join(line.kind for line in lines if line.fate is not Fate.ACCEPTED)
    return Offer(
        text="".join(f"{line}\r\n" for line in written),
        ice_ufrag=transport.ufrag,
        ufrags=frozenset(value for part in (session, *media) for value in part.all("ice-ufrag")) | {transport.ufrag},
        lines=lines,
        bundle=bundle,
        candidates=len(sieve.kept),
        notes=tuple(note for note in (declined and f"declined {declined}", sieve.note()) if note),
        keys=f"{keys[0]} {keys[1]}" if keys else None,
    )


def _media_lines(
    media: list[Section], mids: list[str | None], group: list[str], taken: tuple[int | None, ...]
) -> tuple[MediaLine, ...]:
    lines: list[MediaLine] = []
    for index, (section, mid) in enumerate(zip(media, mids, strict=True)):
        fate, codec = Fate.REJECTED, tuple(section.formats[:1])
        if index in taken:
            fate = Fate.ACCEPTED
        elif mid in group and section.protocol in _MEDIA_PROTOCOLS and _open(section, mid, [group]):
            known = _codec(section)
            fate, codec = (Fate.INACTIVE, known) if known else (fate, codec)
        lines.append(MediaLine(section.kind, mid, section.protocol, codec[0], fate, codec[1:]))
    return tuple(lines)


def _codec(section: Section) -> tuple[str, ...]:
    """The first offered payload type that says what it is, and its attribute lines; () when none does."""
    names = _names(section)
    for payload in section.formats:
        if _CODEC_NAME.fullmatch(names.get(payload, "")) and read_int(payload, 0, 127) is not None:
            lines = (payload, f"a=rtpmap:{payload} {names[payload]}")
            parameters = next((value for value in section.all("fmtp") if value.startswith(f"{payload} ")), "")
            return (*lines, f"a=fmtp:{parameters}") if _FMTP.fullmatch(parameters) else lines
    return ()


def _names(section: Section) -> dict[str, str]:
    """What each payload type of the m-line is, as written; the first word counts."""
    names: dict[str, str] = {}
    for value in section.all("rtpmap"):
        if match := _RTPMAP.fullmatch(value):
            names.setdefault(match[1], match[2])
    return {payload: names[payload] for payload in section.formats if payload in names}


def _mids(media: list[Section]) -> list[str | None]:
    mids: list[str | None] = []
    for section in media:
        mid = section.first("mid")
        if mid is not None and not TOKEN.fullmatch(mid):
            raise OfferError("malformed_sdp", "An `a=mid` of the offer is not a short token.", 400)
        if mid is not None and mid in mids:
            raise OfferError("malformed_sdp", f"Two m-lines of the offer have the mid `{mid}`.", 400)
        mids.append(mid)
    return mids


def _open(section: Section, mid: str | None, groups: list[list[str]]) -> bool:
    """Whether an m-line is offered at all: port 0 means no, unless it only exists inside its bundle."""
    return section.port != 0 or (section.has("bundle-only") and any(mid in group for group in groups))


def _direction(session: Section, section: Section) -> str:
    named = [name for name, _ in (*section.attributes, *session.attributes) if name in _DIRECTIONS]
    return named[0] if named else "sendrecv"


def _audio(session: Section, media: list[Section], mids: list[str | None], groups: list[list[str]]) -> int:
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


def _data(media: list[Section], mids: list[str | None], group: list[str], audio: int) -> int | None:
    """The data section to take, if one is offered. It must share the audio's transport."""
    for index, section in enumerate(media):
        known = section.protocol in _DATA_PROTOCOLS or (
            section.protocol == _LEGACY_DATA_PROTOCOL and read_int(section.formats[0], 1, 65535) is not None
        )
        if section.kind == "application" and known and _open(section, mids[index], [group]):
            if mids[index] is None or mids[index] not in group:
                raise OfferError("bundle_required", "Audio and data must be in one `a=group:BUNDLE`.")
            return index
    return None


def _transport(parts: Sequence[Section]) -> _Transport:
    """ICE and DTLS of the accepted media: each line from the first of `parts` that has it."""
    source = next((part for part in parts if part.has("ice-ufrag")), parts[0])
    ufrag, password = source.first("ice-ufrag"), source.first("ice-pwd")
    if not ufrag or not password:
        raise OfferError("ice_credentials_required", "The offer lacks `a=ice-ufrag` or `a=ice-pwd`.")
    if not _UFRAG.fullmatch(ufrag) or not _PASSWORD.fullmatch(password):
        raise OfferError(
            "ice_credentials_required",
            "`a=ice-ufrag` must have 4 to 256 and `a=ice-pwd` 22 to 256 letters, digits, `+` or `/`.",
        )
    prints: dict[tuple[str, str], None] = {}
    for part in parts:
        if not prints:
            prints = dict.fromkeys(found for value in part.all("fingerprint") if (found := _fingerprint(value)))
    if not prints:
        raise OfferError("fingerprint_required", "The offer has no `a=fingerprint` with sha-256, sha-384 or sha-512.")
    setup = next((value for part in parts if (value := part.first("setup"))), "")
    if setup.lower() not in ("actpass", "active"):
        said = f"`a=setup:{setup}`" if setup.isascii() and setup.isalnum() else "no usable `a=setup`"
        raise OfferError("setup_required", f"The offer has {said}; `actpass` or `active` is needed.")
    return _Transport(ufrag, password, tuple(prints)[:4], setup.lower())


def _fingerprint(value: str) -> tuple[str, str] | None:
    algorithm, _, digest = value.partition(" ")
    algorithm, digest = algorithm.lower(), digest.strip().upper()
    if _DIGEST_BYTES.get(algorithm, 0) * 3 - 1 != len(digest) or not _HEX_BYTES.fullmatch(digest):
        return None
    return algorithm, digest


def _formats(section: Section, codecs: Sequence[str]) -> list[tuple[str, str]]:
    """(payload type, rtpmap) of the codecs to take, our favourite first."""
    names = {payload: name.lower() for payload, name in _names(section).items()}
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


def _keys(section: Section, formats: list[tuple[str, str]]) -> tuple[str, str] | None:
    """(payload type, rtpmap) of the key events whose clock is that of the first codec (RFC 4733 section 2.1)."""
    wanted = f"telephone-event/{formats[0][1].split('/')[1]}"
    for payload, name in _names(section).items():
        number = read_int(payload, 0, 127)
        if name.lower() == wanted and payload in section.formats and number in _DYNAMIC_FORMATS:
            return str(number), wanted
    return None


def _write_audio(session: Section, section: Section, formats: list[tuple[str, str]]) -> list[str]:
    lines = [f"m=audio 9 UDP/TLS/RTP/SAVPF {' '.join(payload for payload, _ in formats)}", "c=IN IP4 0.0.0.0"]
    lines += ["a=rtcp:9 IN IP4 0.0.0.0", "a=rtcp-mux", f"a={_direction(session, section)}"]
    lines += [f"a=rtpmap:{payload} {name}" for payload, name in formats]
    extensions: dict[str, int] = {}
    for value in section.all("extmap"):
        match = _EXTMAP.fullmatch(value)
        number = read_int(match[1], 1, 14) if match else None
        if match and number and match[2] in _EXTENSIONS and number not in extensions.values():
            extensions.setdefault(match[2], number)
    lines += [f"a=extmap:{number} {uri}" for uri, number in extensions.items()]
    sources = (read_int(value.partition(" ")[0], 1, 2**32 - 1) for value in section.all("ssrc"))
    source = next((source for source in sources if source is not None), None)
    return [*lines, f"a=ssrc:{source} cname:caller"] if source is not None else lines


def _write_data(section: Section) -> list[str]:
    size = read_int(section.first("max-message-size") or "", 0, _LARGEST_MESSAGE)
    limit = f"a=max-message-size:{_DEFAULT_MAX_MESSAGE if size is None else size}"
    if section.protocol == _LEGACY_DATA_PROTOCOL:
        port = int(section.formats[0])
        return [f"m=application 9 {_LEGACY_DATA_PROTOCOL} {port}", f"a=sctpmap:{port} webrtc-datachannel 1024", limit]
    number = read_int(section.first("sctp-port") or "", 1, 65535) or _DATA_PORT
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
    session, *media = read_sections(read_text(body, MAX_FRAGMENT_BYTES, "The fragment"), "the fragment")
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

    Puts declined m-lines back, repeats the offered protocols, mids and bundle order, and adds what the library
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
    accepted = [line for line in offer.lines if line.fate is Fate.ACCEPTED]
    if [part[0].split()[0][2:] for part in answered] != [line.kind for line in accepted]:
        raise ValueError("the answer does not have the m-lines of the offer")
    dressed = [line for line in session if not line.startswith("a=group:BUNDLE")]
    if offer.bundle:
        dressed.append(f"a=group:BUNDLE {' '.join(offer.bundle)}")
    dressed.append("a=ice-options:trickle")
    remaining = iter(answered)
    for media in offer.lines:
        match media.fate:
            case Fate.ACCEPTED:
                dressed += _dress_media(next(remaining), media, offer.keys)
            case Fate.INACTIVE:
                dressed += _inactive(media, answered[0])
            case Fate.REJECTED:
                dressed += _rejected(media)
    return "".join(f"{line}\r\n" for line in dressed)


def _dress_media(part: list[str], media: MediaLine, keys: str | None) -> list[str]:
    kind, port, _, formats = part[0].split(" ", 3)
    if keys is not None and media.kind == "audio":
        number = keys.split()[0]
        formats = f"{formats} {number}"
        part = [*part, f"a=rtpmap:{keys}", f"a=fmtp:{number} {KEY_EVENTS}"]
    lines = [f"{kind} {port} {media.protocol} {formats}"]
    for line in part[1:]:
        if line.startswith("a=mid:") and media.mid is None:
            continue
        lines.append(line)
        if line.startswith("a=rtpmap:") and line.lower().endswith(" opus/48000/2"):
            lines.append(f"a=fmtp:{line[len('a=rtpmap:') :].split()[0]} {OPUS_RECEIVE}")
    return [*lines, f"a=ptime:{PACKET_MS}", f"a=maxptime:{MAX_PACKET_MS}"] if media.kind == "audio" else lines


def _inactive(media: MediaLine, transport: list[str]) -> list[str]:
    """A member of the bundle that carries nothing; its transport is written as in the section given."""
    port = transport[0].split()[1]
    lines = [f"m={media.kind} {port} {media.protocol} {media.format}"]
    lines += [line for line in transport if line.startswith("c=")]
    lines += ["a=inactive", f"a=mid:{media.mid}", "a=rtcp-mux", *media.codec]
    return lines + [line for line in transport if line.startswith(_TRANSPORT_LINES)]


def _rejected(media: MediaLine) -> list[str]:
    lines = [f"m={media.kind} 0 {media.protocol} {media.format}", "c=IN IP4 0.0.0.0"]
    if media.kind != "application":
        lines.append("a=inactive")
    return [*lines, f"a=mid:{media.mid}"] if media.mid is not None else lines
