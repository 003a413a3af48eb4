"""Mutations of what honest senders send, and bytes that hypothesis thinks of: nothing raises, nothing takes long."""

from __future__ import annotations

import random
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.targets import TARGETS, corpus, media, mutated

MUTATIONS = 1000
LIMIT_S = 0.1


@pytest.mark.parametrize("name", TARGETS)
def test_mutations_of_honest_input_neither_raise_nor_take_long(name: str):
    seeds, chance = corpus(name), random.Random(name)
    for number in range(MUTATIONS):
        data = seeds[number] if number < len(seeds) else mutated(chance, seeds)
        took = []
        for _ in range(2):
            began = time.thread_time()
            TARGETS[name](data)
            took.append(time.thread_time() - began)
            if took[-1] <= LIMIT_S:
                break
        assert min(took) <= LIMIT_S, data


def test_what_fuzzing_begins_with_is_honest():
    """Else the mutations would reach nothing."""
    sound, lossy, extended, reports = map(media, corpus("media"))
    assert [call["malformed"] for call in (sound, lossy, extended, reports)] == [0, 0, 0, 0]
    assert (sound["samples"], extended["samples"], reports["samples"]) == (10 * 320, 320, 320)
    assert lossy["recovered_ms"] == 20
    assert reports["fraction_lost"] > 0


@pytest.mark.parametrize("name", TARGETS)
def test_any_bytes_neither_raise_nor_end_anything(name: str):
    @given(st.binary(max_size=600))
    @settings(max_examples=60, deadline=None)
    def any_bytes(data: bytes) -> None:
        TARGETS[name](data)

    any_bytes()
