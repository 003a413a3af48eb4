"""Offers as browsers write them, for the tests of signalling.

The Chrome one is the shape of a current Chrome with a microphone and a data channel, the Firefox one
likewise; `media_line` and the keyword arguments build the variants.
"""

from __future__ import annotations

FINGERPRINT = "sha-256 " + ":".join(f"{value:02X}" for value in range(32))

CHROME_AUDIO_FORMATS = "111 63 9 0 8 13 110 126"
CHROME_HEAD = """v=0
o=- 4611731400430051336 2 IN IP4 127.0.0.1
s=-
t=0 0
a=group:BUNDLE {bundle}
a=extmap-allow-mixed
a=msid-semantic: WMS 5d3c
"""
CHROME_TRANSPORT = f"""a=ice-ufrag:4ZcD
a=ice-pwd:2/1muCWoOi3uLifh0NuRHlfw
a=ice-options:trickle
a=fingerprint:{FINGERPRINT}
a=setup:actpass
"""
CHROME_CANDIDATES = """a=candidate:1467250027 1 udp 2122260223 192.168.0.196 46243 typ host generation 0 network-id 1
a=candidate:1467250027 1 udp 2122260222 a0e3b6ae-2f1b-4d0c-9a2c-4a2f0c1d2e3f.local 46244 typ host generation 0
a=candidate:435653019 1 tcp 1518280447 192.168.0.196 9 typ host tcptype active generation 0
a=candidate:1853887674 1 udp 1685921535 203.0.113.7 36768 typ srflx raddr 0.0.0.0 rport 0 generation 0
a=candidate:750991856 1 udp 41885439 198.51.100.9 50000 typ relay raddr 203.0.113.7 rport 36768 generation 0
"""
CHROME_AUDIO_BODY = """a=extmap:14 urn:ietf:params:rtp-hdrext:ssrc-audio-level
a=extmap:2 http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time
a=extmap:3 http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01
a=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid
a=sendrecv
a=msid:5d3c 2b1f7a1e-7d1c-4b0e-8a5b-6d0f4a3d2c1b
a=rtcp-mux
a=rtcp-rsize
a=rtpmap:111 opus/48000/2
a=rtcp-fb:111 transport-cc
a=fmtp:111 minptime=10;useinbandfec=1
a=rtpmap:63 red/48000/2
a=fmtp:63 111/111
a=rtpmap:9 G722/8000
a=rtpmap:0 PCMU/8000
a=rtpmap:8 PCMA/8000
a=rtpmap:13 CN/8000
a=rtpmap:110 telephone-event/48000
a=rtpmap:126 telephone-event/8000
a=ssrc:3570614608 cname:4TOk42mSjXCkVIa6
a=ssrc:3570614608 msid:5d3c 2b1f7a1e-7d1c-4b0e-8a5b-6d0f4a3d2c1b
"""
CHROME_VIDEO_BODY = """a=extmap:14 urn:ietf:params:rtp-hdrext:toffset
a=sendrecv
a=rtcp-mux
a=rtcp-rsize
a=rtpmap:96 VP8/90000
a=rtcp-fb:96 nack pli
a=rtpmap:97 rtx/90000
a=fmtp:97 apt=96
a=rtpmap:45 AV1/90000
a=fmtp:45 level-idx=5;profile=0;tier=0
"""
DATA_BODY = """a=sctp-port:5000
a=max-message-size:262144
"""


def audio(mid: str = "0", *, candidates: str = CHROME_CANDIDATES, transport: str = CHROME_TRANSPORT) -> str:
    return (
        f"m=audio 46243 UDP/TLS/RTP/SAVPF {CHROME_AUDIO_FORMATS}\nc=IN IP4 192.168.0.196\n"
        f"a=rtcp:9 IN IP4 0.0.0.0\n{candidates}{transport}a=mid:{mid}\n{CHROME_AUDIO_BODY}"
    )


def video(mid: str = "1", *, transport: str = CHROME_TRANSPORT) -> str:
    return (
        f"m=video 9 UDP/TLS/RTP/SAVPF 96 97 45\nc=IN IP4 0.0.0.0\na=rtcp:9 IN IP4 0.0.0.0\n{transport}"
        f"a=mid:{mid}\n{CHROME_VIDEO_BODY}"
    )


def data(mid: str = "1", *, transport: str = CHROME_TRANSPORT) -> str:
    return f"m=application 9 UDP/DTLS/SCTP webrtc-datachannel\nc=IN IP4 0.0.0.0\n{transport}a=mid:{mid}\n{DATA_BODY}"


def offer(*media: str, bundle: str | None = None) -> str:
    """An offer of these m-lines; `bundle` defaults to `0 1 …`."""
    group = " ".join(str(index) for index in range(len(media))) if bundle is None else bundle
    return (CHROME_HEAD.format(bundle=group) + "".join(media)).replace("\n", "\r\n")


def chrome() -> str:
    return offer(audio(), data())


def chrome_without_candidates() -> str:
    """What agents-realtime posts: no candidate, no end-of-candidates."""
    return offer(audio(candidates=""), data())


def chrome_with_video() -> str:
    return offer(audio("0"), video("1"), data("2"))


def firefox() -> str:
    """Session-level fingerprint and options, `a=sendrecv` at the session level, end-of-candidates, two components."""
    transport = "a=ice-pwd:79b1c5c0f1c2d3e4a5b6c7d8e9f0a1b2\na=ice-ufrag:7b4b6b6c\na=setup:actpass\n"
    return f"""v=0
o=mozilla...THIS_IS_SDPARTA-99.0 2184823109201093187 0 IN IP4 0.0.0.0
s=-
t=0 0
a=sendrecv
a=fingerprint:{FINGERPRINT}
a=group:BUNDLE 0 1
a=ice-options:trickle
a=msid-semantic:WMS *
m=audio 54321 UDP/TLS/RTP/SAVPF 109 9 0 8 101
c=IN IP4 192.168.1.20
a=candidate:0 1 UDP 2122187007 192.168.1.20 54321 typ host
a=candidate:2 1 TCP 2105458943 192.168.1.20 9 typ host tcptype active
a=candidate:0 2 UDP 2122187006 192.168.1.20 54322 typ host
a=sendrecv
a=end-of-candidates
a=extmap:1 urn:ietf:params:rtp-hdrext:ssrc-audio-level
a=extmap:2/recvonly urn:ietf:params:rtp-hdrext:csrc-audio-level
a=extmap:3 urn:ietf:params:rtp-hdrext:sdes:mid
a=fmtp:109 maxplaybackrate=48000;stereo=1;useinbandfec=1
a=fmtp:101 0-15
{transport}a=mid:0
a=msid:{{5ef6}} {{8ab0}}
a=rtcp:54322 IN IP4 192.168.1.20
a=rtcp-mux
a=rtcp-rsize
a=rtpmap:109 opus/48000/2
a=rtpmap:9 G722/8000/1
a=rtpmap:0 PCMU/8000
a=rtpmap:8 PCMA/8000
a=rtpmap:101 telephone-event/8000/1
a=ssrc:1234567 cname:{{f4e6}}
m=application 54323 UDP/DTLS/SCTP webrtc-datachannel
c=IN IP4 192.168.1.20
a=candidate:0 1 UDP 2122187007 192.168.1.20 54323 typ host
a=sendrecv
a=end-of-candidates
{transport}a=mid:1
a=sctp-port:5000
a=max-message-size:1073741823
""".replace("\n", "\r\n")
