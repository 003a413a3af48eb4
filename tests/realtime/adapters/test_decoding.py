"""Files made to burst: the child that opens one stays within 200 MB and 2 s of CPU, whatever comes of it."""

from __future__ import annotations

import asyncio
import io
import json
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from fractions import Fraction

import av
import numpy as np
import pytest

from realtime.adapters.decoding import MAX_PIXELS, MAX_SECONDS, Decoder

RSS_BYTES = 200 << 20
CPU_S = 2.0
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the child is measured by wait4, in kilobytes")


def silence(codec: str, form: str, hours: float, rate: int = 8000) -> bytes:
    """Hours of silence, as small as the codec makes it."""
    out = io.BytesIO()
    with av.open(out, "w", format=form) as container:
        stream = container.add_stream(codec, rate=rate)
        stream.layout = "mono"  # type: ignore[union-attr]
        size = 65_000 if codec == "flac" else 1152
        zeros = np.zeros((1, size), np.int16)
        resampler = av.AudioResampler(format=stream.format.name, layout="mono", rate=rate)  # type: ignore[union-attr]
        for number in range(int(hours * 3600 * rate / size)):
            frame = av.AudioFrame.from_ndarray(zeros, format="s16", layout="mono")
            frame.sample_rate, frame.pts = rate, number * size
            if codec != "flac":
                frame = resampler.resample(frame)[0]
            container.mux(stream.encode(frame))  # type: ignore[union-attr]
        container.mux(stream.encode(None))  # type: ignore[union-attr]
    return out.getvalue()


def png(width: int, height: int, rows: int) -> bytes:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    packed = zlib.compressobj(9)
    data = b"".join(packed.compress(bytes(1 + 3 * width)) for _ in range(rows)) + packed.flush()
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def text_bomb() -> bytes:
    """A picture of one pixel whose comment unpacks to 250 MB."""
    plain = png(1, 1, 1)
    packed = zlib.compressobj(9)
    data = b"Comment\0\0" + b"".join(packed.compress(bytes(1 << 20)) for _ in range(250)) + packed.flush()
    chunk = struct.pack(">I", len(data)) + b"zTXt" + data + struct.pack(">I", zlib.crc32(b"zTXt" + data))
    return plain[:33] + chunk + plain[33:]


def gif(width: int, height: int) -> bytes:
    """A header that claims it all, and hardly any data."""
    head = b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + bytes(6)
    return head + b"," + struct.pack("<HHHHB", 0, 0, width, height, 0) + b"\x02\x02\x44\x01\x00;"


MEASURE = """
import json, os, sys
pid = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ)
used = os.wait4(pid, 0)[2]
print(json.dumps({"rss_kb": used.ru_maxrss, "cpu_s": used.ru_utime + used.ru_stime}), file=sys.stderr)
"""
"""Between the test and the child, because a process counts as large as the one that started it was."""

BOMBS: dict[str, tuple[str, str, float, Callable[[], bytes]]] = {
    "two hours of silence in flac": ("audio", "flac", MAX_SECONDS, lambda: silence("flac", "flac", 2)),
    "eighteen minutes in mp3": ("audio", "mp3", MAX_SECONDS, lambda: silence("libmp3lame", "mp3", 0.3)),
    "a picture of gigabytes": ("image", "png_pipe", MAX_PIXELS, lambda: png(30_000, 30_000, 2000)),
    "as many pixels as are taken": ("image", "png_pipe", MAX_PIXELS, lambda: png(6_000, 4_000, 4_000)),
    "a comment of 250 MB": ("image", "png_pipe", MAX_PIXELS, text_bomb),
    "a gif that claims 65535 by 65535": ("image", "gif", MAX_PIXELS, lambda: gif(65_535, 65_535)),
}


@pytest.mark.parametrize("name", BOMBS)
def test_the_child_stays_small_and_ends_soon(name: str) -> None:
    what, form, limit, make = BOMBS[name]
    data = make()
    assert len(data) < 8 << 20
    child = [sys.executable, "-I", "-m", "realtime.adapters.decoding_main", what, form, str(limit)]
    done = subprocess.run([sys.executable, "-I", "-S", "-c", MEASURE, *child], input=data, capture_output=True)
    used = json.loads(done.stderr)
    assert used["rss_kb"] << 10 <= RSS_BYTES
    assert used["cpu_s"] <= CPU_S
    out = done.stdout
    if out:
        head = json.loads(out.partition(b"\n")[0])
        assert head.get("error") or (head["width"], head["height"]) in ((6_000, 4_000), (1, 1))


@pytest.mark.parametrize(("codec", "pixel"), [("png", "rgba"), ("mjpeg", "yuvj444p")])
def test_a_photograph_of_as_many_pixels_as_are_taken_is_opened(codec: str, pixel: str) -> None:
    encoder = av.CodecContext.create(codec, "w")
    assert isinstance(encoder, av.VideoCodecContext)
    encoder.width, encoder.height, encoder.pix_fmt, encoder.time_base = 6_000, 4_000, pixel, Fraction(1)
    encoder.options = {"compression_level": "1"}  # of PNG; noise packs no better with more
    noise = np.random.default_rng(1).integers(0, 2, (4_000, 6_000, 3), np.uint8) * 90
    frame = av.VideoFrame.from_ndarray(noise, format="rgb24").reformat(format=pixel)
    frame.pts = 0
    data = b"".join(bytes(packet) for packet in (*encoder.encode(frame), *encoder.encode(None)))
    picture = asyncio.run(Decoder().image(data))
    assert (picture.width, picture.height) == (6_000, 4_000)
    assert 30 < picture.pixels.mean() < 60
