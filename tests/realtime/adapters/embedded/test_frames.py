import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realtime.adapters.embedded.frames import HEADER, MAX_FRAME, Frame, FrameError, Kind, following, parse


@given(
    st.sampled_from(Kind),
    st.integers(0, 2**32 - 1),
    st.dictionaries(st.text(max_size=10), st.one_of(st.integers(), st.text(max_size=20))),
    st.binary(max_size=100),
)
def test_a_frame_comes_out_as_it_went_in(kind: Kind, stream: int, head: dict[str, object], body: bytes) -> None:
    frame = Frame(kind, stream, head, body)
    data = frame.serialize()
    header, rest = data[: HEADER.size], data[HEADER.size :]
    assert following(header) == len(rest)
    assert parse(header, rest) == frame


@given(st.binary(min_size=HEADER.size, max_size=HEADER.size + 60))
def test_bytes_that_are_no_frame_are_refused_as_such(data: bytes) -> None:
    header = data[: HEADER.size]
    with contextlib.suppress(FrameError):
        parse(header, data[HEADER.size : HEADER.size + following(header)])


def read(header: bytes, rest: bytes) -> Frame:
    following(header)
    return parse(header, rest)


@pytest.mark.parametrize(
    ("header", "rest"),
    [
        (HEADER.pack(MAX_FRAME + 1, 1, 1, 0), b""),
        (HEADER.pack(2, 1, 1, 3), b"{}"),
        (HEADER.pack(2, 1, 1, 2), b"[]"),
        (HEADER.pack(2, 1, 1, 2), b"{x"),
        (HEADER.pack(2, 1, 1, 2), b"{"),
        (HEADER.pack(0, 99, 1, 0), b""),
    ],
)
def test_malformed_frames(header: bytes, rest: bytes) -> None:
    with pytest.raises(FrameError):
        read(header, rest)
