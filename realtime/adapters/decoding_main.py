"""The child process that opens files from strangers: `python -m realtime.adapters.decoding_main WHAT FORMAT LIMIT`.

Reads the file from standard input and writes one line of JSON, then raw data: for `audio`, 16 kHz mono
16-bit samples of at most LIMIT seconds; for `image`, 32 by 32 RGB pixels of a picture of at most LIMIT
pixels. The demuxer is named by the parent, so that no playlist can name further files; memory, time and
files are limited before the first byte is read. It must never print anything of the file but that.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
from typing import Any, cast

import av
import av.logging

RATE = 16_000
THUMBNAIL = 32
MEMORY_BYTES = 160 << 20
"""Above what this process has when it starts."""
CPU_SECONDS = 20


class Refused(Exception):
    """`code` and a sentence for the caller."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def limit_myself() -> None:
    """On systems that can. The wall clock is the parent's business."""
    try:
        import resource
    except ImportError:  # Windows
        return
    with open("/proc/self/statm", "rb") if sys.platform == "linux" else io.BytesIO(b"0 0 0 0 0 65536") as file:
        pages = int(file.read().split()[5])
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_DATA, (pages * resource.getpagesize() + MEMORY_BYTES,) * 2)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
        resource.setrlimit(resource.RLIMIT_NOFILE, (16, 16))


def audio(data: bytes, form: str, seconds: float) -> tuple[dict[str, Any], bytes]:
    with av.open(io.BytesIO(data), mode="r", format=form) as container:
        if not container.streams.audio:
            raise Refused("no_audio", "the file holds no audio")
        stream = container.streams.audio[0]
        stream.codec_context.thread_count = 1
        resampler = av.AudioResampler(format="s16", layout="mono", rate=RATE)
        out = bytearray()
        most = int(seconds * RATE) * 2
        for frame in container.decode(stream):
            for piece in resampler.resample(frame):
                out += bytes(piece.planes[0])[: 2 * piece.samples]
            if len(out) > most:
                raise Refused("audio_too_long", f"the audio is longer than {seconds:g} seconds")
        for piece in resampler.resample(None):
            out += bytes(piece.planes[0])[: 2 * piece.samples]
    if not out:
        raise Refused("no_audio", "the file holds no audio")
    return {"seconds": len(out) / 2 / RATE}, bytes(out)


def image(data: bytes, form: str, pixels: float) -> tuple[dict[str, Any], bytes]:
    frame = _first_frame(data, form, pixels)
    if frame is None:
        raise Refused("no_image", "the file holds no image")
    small = frame.reformat(width=THUMBNAIL, height=THUMBNAIL, format="rgb24")
    line = small.planes[0].line_size
    raw = bytes(small.planes[0])
    rows = b"".join(raw[row * line : row * line + 3 * THUMBNAIL] for row in range(THUMBNAIL))
    return {"width": frame.width, "height": frame.height}, rows


def _first_frame(data: bytes, form: str, pixels: float) -> av.VideoFrame | None:
    with av.open(io.BytesIO(data), mode="r", format=form) as container:
        if not container.streams.video:
            return None
        codec = container.streams.video[0].codec_context
        if codec.width * codec.height > pixels:
            size = f"{codec.width}x{codec.height}"
            raise Refused("image_too_large", f"the image has {size} pixels; at most {pixels:.0f} are taken")
        # The decoder counts what it adds at the edges; a size that differs from the header's stops here.
        options = {"max_pixels": str(int(1.2 * pixels))}
        if form == "gif":
            codec.thread_count, codec.options = 1, options
            return next(container.decode(video=0), None)
    # The whole file is one packet: a demuxer would hold it twice more while the picture is unpacked.
    decoder = cast(av.VideoCodecContext, av.CodecContext.create(codec.name, "r"))
    decoder.thread_count, decoder.options = 1, options
    frames = decoder.decode(av.Packet(data)) or decoder.decode(None)
    return frames[0] if frames else None


def main() -> None:
    what, form, limit = sys.argv[1], sys.argv[2], float(sys.argv[3])
    av.logging.set_level(av.logging.PANIC)
    limit_myself()
    data = sys.stdin.buffer.read()
    try:
        head, out = {"audio": audio, "image": image}[what](data, form, limit)
    except Refused as refused:
        head, out = {"error": refused.code, "message": str(refused)}, b""
    except MemoryError:
        head, out = {"error": "file_too_complex", "message": "opening the file takes too much memory"}, b""
    except Exception:
        head, out = {"error": "unreadable", "message": f"the {what} cannot be read"}, b""
    sys.stdout.buffer.write(json.dumps(head).encode() + b"\n" + out)
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
