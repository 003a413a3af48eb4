"""Stock aiortc doing the same media work: what a server built on its tracks costs, to measure beside ours.

    python -m benchmarks.stock PORT

It answers an offer at the routes that `load` uses. What the caller says goes through aiortc's jitter buffer and
decoder, is resampled to 16 kHz mono and shown to the same voice activity detection; what is said is a tone of
24 kHz mono frames, paced by its track and encoded by aiortc. There is no conversation: it always speaks.
"""

from __future__ import annotations

import asyncio
import sys
import time
from contextlib import suppress
from fractions import Fraction
from typing import Any

import av
import numpy as np
import uvicorn
from aiortc import MediaStreamTrack, RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from benchmarks import wire_client  # noqa: F401, which lets aioice use loopback
from media.endpoint import EndpointSettings
from media.vad import Vad
from realtime.adapters.instant import tone

FRAME_S = 0.02
FRAME = 480
_BASE = Fraction(1, 24_000)


class ToneTrack(MediaStreamTrack):
    kind = "audio"

    def __init__(self) -> None:
        super().__init__()
        self._tone = tone()
        self._sent = 0
        self._began = 0.0

    async def recv(self) -> Any:
        self._began = self._began or time.monotonic()
        delay = self._began + self._sent * FRAME_S - time.monotonic()
        if delay > 0:
            await asyncio.sleep(delay)
        at = self._sent * FRAME % len(self._tone)
        frame = av.AudioFrame.from_ndarray(self._tone[None, at : at + FRAME], format="s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = 24_000, self._sent * FRAME, _BASE
        self._sent += 1
        return frame


class Stock:
    def __init__(self) -> None:
        self._vad = Vad()
        self._vad.load()
        self._calls: dict[str, RTCPeerConnection] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def answer(self, request: Request) -> Response:
        connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        connection.addTrack(ToneTrack())
        connection.on("track", self._listen)
        await connection.setRemoteDescription(RTCSessionDescription((await request.body()).decode(), "offer"))
        await connection.setLocalDescription(await connection.createAnswer())
        id_ = str(len(self._calls))
        self._calls[id_] = connection
        headers = {"Location": f"/v1/ai/realtime/calls/{id_}"}
        return Response(connection.localDescription.sdp, 201, headers, "application/sdp")

    async def hang_up(self, request: Request) -> Response:
        connection = self._calls.pop(request.path_params["id"], None)
        if connection is not None:
            await connection.close()
        return Response()

    def _listen(self, track: MediaStreamTrack) -> None:
        task = asyncio.get_running_loop().create_task(self._hear(track))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _hear(self, track: MediaStreamTrack) -> None:
        detector = self._vad.detector(EndpointSettings(), lambda event: None)
        resampler = av.AudioResampler(format="s16", layout="mono", rate=16_000)
        with suppress(MediaStreamError):
            while True:
                frame: Any = await track.recv()
                for piece in resampler.resample(frame):
                    pcm = np.frombuffer(memoryview(piece.planes[0]), np.int16, piece.samples)
                    detector.push(pcm, time.monotonic())


async def _token(request: Request) -> Response:
    return JSONResponse({"token": "none"})


async def _ready(request: Request) -> Response:
    return Response()


def main() -> None:
    stock = Stock()
    routes = [
        Route("/readyz", _ready),
        Route("/v1/ai/realtime/token", _token, methods=["POST"]),
        Route("/v1/ai/realtime/calls", stock.answer, methods=["POST"]),
        Route("/v1/ai/realtime/calls/{id}", stock.hang_up, methods=["DELETE"]),
    ]
    uvicorn.run(Starlette(routes=routes), host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")


if __name__ == "__main__":
    main()
