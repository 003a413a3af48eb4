"""The jitter buffer by tables of arrivals, then by any arrivals hypothesis can think of."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from media.jitter import Flow, JitterBuffer, PieceKind
from media.rtp import RtpPacket

PACKET, LOST, SILENCE = PieceKind.PACKET, PieceKind.LOST, PieceKind.SILENCE
MS = 0.001


def packet(index, timestamp=None, *, start=0, ssrc=1, samples=960):
    """The `index`-th packet of 20 ms; its payload says which it is."""
    stamp = start * 1000 + index * samples if timestamp is None else timestamp
    payload = b"\xf8" + str(index).encode()
    return RtpPacket(111, (start + index) & 0xFFFF, stamp & 0xFFFFFFFF, ssrc, payload)


def index_of(piece):
    return int(piece.payload[1:])


def shape(pieces):
    """Packets as their number, what was made up as its kind and milliseconds."""
    return [index_of(p) if p.kind is PACKET else (p.kind, p.samples / 48) for p in pieces]


def played(pieces):
    return [index_of(piece) for piece in pieces if piece.kind is PACKET]


def total_ms(pieces):
    return sum(piece.samples for piece in pieces) / 48


def run(arrivals, buffer=None, until=None):
    """Add `(seconds, packet)` in order, polling whenever the buffer asks for it; (seconds, pieces) of each call."""
    buffer = buffer or JitterBuffer()
    told = []

    def poll_until(limit):
        while buffer.next_poll is not None and buffer.next_poll < limit:
            at = max(buffer.next_poll, told[-1][0])
            told.append((at, buffer.poll(at)))
            assert buffer.next_poll is None or buffer.next_poll > at, "asks for a time in the past"

    for at, item in arrivals:
        poll_until(at)
        told.append((at, buffer.add(item, at)))
    if until is not None:
        poll_until(until)
    return told


def flat(told):
    return [piece for _, pieces in told for piece in pieces]


def steady(indices, **options):
    return [(0.02 * index, packet(index, **options)) for index in indices]


class TestInOrder:
    def test_a_packet_in_order_comes_out_at_once(self):
        for at, pieces in run(steady(range(100))):
            assert [(index_of(p), p.samples, p.arrived_at) for p in pieces] == [(round(at / 0.02), 960, at)]

    @pytest.mark.parametrize("start", [65_500, 4_294_960], ids=["sequence", "timestamp"])
    def test_counters_wrap_without_notice(self, start):
        pieces = flat(run(steady(range(200), start=start)))
        assert shape(pieces) == list(range(200))

    @pytest.mark.parametrize(
        ("payload", "samples"), [(b"\xf8", 960), (b"\xe0", 120), (b"\x18", 2880), (b"\xfb\x06", 5760)]
    )
    def test_packets_of_other_lengths_follow_each_other(self, payload, samples):
        buffer = JitterBuffer()
        for index in range(20):
            (piece,) = buffer.add(RtpPacket(111, index, index * samples, 1, payload), index * samples / 48000)
            assert (piece.kind, piece.samples) == (PACKET, samples)

    @pytest.mark.parametrize("payload", [b"", b"\xfb", b"\xfb\x00", b"\xfb\x3f"])
    def test_a_payload_that_tells_no_length_counts_as_20_ms(self, payload):
        (piece,) = JitterBuffer().add(RtpPacket(111, 0, 0, 1, payload), 0)
        assert (piece.kind, piece.samples, piece.payload) == (PACKET, 960, payload)

    def test_other_codecs_bring_their_own_clock_and_length(self):
        buffer = JitterBuffer(clock_rate=8000, duration=lambda payload: len(payload) * 6)
        arrivals = [(0.02 * i, RtpPacket(0, i, i * 160, 1, bytes(160))) for i in (0, 1, 2, 4, 5, 6)]
        pieces = flat(run(arrivals, buffer))
        assert [(p.kind, p.samples) for p in pieces] == [(PACKET, 960)] * 3 + [(LOST, 960)] + [(PACKET, 960)] * 3

    @pytest.mark.parametrize("rate", [0, -8000, 44_100])
    def test_a_clock_that_does_not_divide_48_khz_is_refused(self, rate):
        with pytest.raises(ValueError, match="48000"):
            JitterBuffer(clock_rate=rate)


class TestGaps:
    def test_a_swapped_pair_is_put_right_and_delays_nothing_afterwards(self):
        told = run([(0, packet(0)), (0.025, packet(2)), (0.03, packet(1)), (0.06, packet(3))])
        assert [shape(pieces) for _, pieces in told] == [[0], [], [1, 2], [3]]
        times = [piece.arrived_at for piece in flat(told)]
        assert times == sorted(times)

    def test_a_lost_packet_is_concealed_40_ms_after_the_next_one_came(self):
        told = run(steady([i for i in range(20) if i != 10]))
        late = {index_of(p): at - 0.02 * index_of(p) for at, pieces in told for p in pieces if p.kind is PACKET}
        assert shape(flat(told)) == [*range(10), (LOST, 20), *range(11, 20)]
        assert late[11] == pytest.approx(0.040)
        assert late[12] == pytest.approx(0.020)
        assert all(delay < 1e-9 for index, delay in late.items() if index > 13), "no delay stays"

    def test_the_hold_is_what_was_asked_for(self):
        buffer = JitterBuffer(hold_ms=10)
        told = run(steady([0, 2]), buffer, until=0.06)
        assert [at for at, pieces in told if played(pieces) == [2]] == [pytest.approx(0.05)]

    def test_packets_that_came_too_late_are_waited_for_from_then_on(self):
        buffer = JitterBuffer()
        arrivals = [*steady([i for i in range(20) if i not in (2, 10)]), (0.06 + 0.07, packet(2))]
        told = run(sorted(arrivals, key=lambda arrival: arrival[0]), buffer)
        assert buffer.late_packets == 1
        out = {index: at for at, pieces in told for index in played(pieces)}
        assert out[3] == pytest.approx(0.06 + 0.04)
        assert out[11] == pytest.approx(0.22 + 0.07 + 0.01), "as long as that one took, and 10 ms"

    def test_a_lost_packet_comes_with_the_one_after_it(self):
        told = run(steady([i for i in range(20) if i not in (5, 10, 11)]))
        lost = [piece.payload for piece in flat(told) if piece.kind is LOST]
        assert lost == [packet(6).payload, b"", packet(12).payload]

    def test_gaps_are_each_held_from_the_first_packet_behind_them(self):
        told = run([(0, packet(0)), (0.04, packet(2)), (0.06, packet(4)), (0.10, packet(6))], until=0.15)
        out = {index: at for at, pieces in told for index in played(pieces)}
        assert out[2] == pytest.approx(0.08)
        assert out[4] == pytest.approx(0.10)
        assert out[6] == pytest.approx(0.14)

    def test_a_burst_of_losses_is_concealed_for_60_ms_and_then_silent(self):
        buffer = JitterBuffer()
        pieces = [piece for at, item in steady([*range(5), *range(15, 25)]) for piece in buffer.add(item, at)]
        assert shape(pieces) == [*range(5), *[(LOST, 20)] * 3, *[(SILENCE, 20)] * 7, *range(15, 25)]

    def test_a_packet_that_comes_after_it_was_given_up_is_late(self):
        buffer = JitterBuffer()
        run(steady([0, 1, 3, 4, 5, 6]), buffer)
        assert buffer.add(packet(2), 0.13) == []
        assert (buffer.late_packets, buffer.lost_packets, buffer.duplicate_packets) == (1, 1, 0)
        assert buffer.add(packet(2), 0.13) == []
        assert (buffer.late_packets, buffer.duplicate_packets) == (1, 1)

    def test_duplicates_are_dropped_before_and_after_they_played(self):
        buffer = JitterBuffer()
        told = run([(0, packet(0)), (0, packet(0)), (0.04, packet(2)), (0.04, packet(2)), (0.05, packet(1))], buffer)
        assert shape(flat(told)) == [0, 1, 2]
        assert buffer.duplicate_packets == 2

    def test_what_was_sent_before_the_first_packet_is_late(self):
        buffer = JitterBuffer()
        buffer.add(packet(10), 0)
        assert buffer.add(packet(9), 0.001) == []
        assert buffer.late_packets == 1

    def test_a_gap_is_given_up_when_too_much_waits_behind_it(self):
        buffer = JitterBuffer(capacity=5)
        buffer.add(packet(0), 0)
        told = [buffer.add(packet(index), 0.001) for index in range(2, 8)]
        assert [len(pieces) for pieces in told[:5]] == [0] * 5
        assert played(told[5]) == [2, 3, 4, 5, 6, 7]

    def test_a_long_burst_behind_one_gap_is_no_restart(self):
        buffer = JitterBuffer(capacity=100)
        told = [(0, buffer.add(packet(index), 0.001)) for index in [0, *range(2, 90), 1]]
        assert shape(flat(told)) == list(range(90))

    def test_a_gap_over_the_wrap_of_both_counters(self):
        start = 65_530
        arrivals = [
            (0.02 * i, packet(i, (1 << 32) - 5000 + 960 * i, start=start)) for i in range(12) if i not in (5, 6)
        ]
        assert shape(flat(run(arrivals))) == [0, 1, 2, 3, 4, (LOST, 20), (LOST, 20), 7, 8, 9, 10, 11]


class TestPauses:
    def test_a_timestamp_that_steps_leaves_that_much_silence(self):
        buffer = JitterBuffer()
        buffer.add(packet(0, 0), 0)
        pieces = buffer.add(packet(1, 960 + 9600), 0.22)
        assert shape(pieces) == [(SILENCE, 20)] * 10 + [1]
        assert pieces[-1].arrived_at == 0.22
        assert [p.arrived_at for p in pieces] == pytest.approx([0.02 * i for i in range(1, 11)] + [0.22])

    def test_a_step_of_more_than_a_second_is_skipped(self):
        buffer = JitterBuffer()
        buffer.add(packet(0, 0), 0)
        assert shape(buffer.add(packet(1, 960 + 48_001 + 960), 1.1)) == [1]
        assert shape(buffer.add(packet(2, 960 * 3 + 48_001), 1.12)) == [2]

    def test_rounding_of_a_sender_is_no_pause(self):
        buffer = JitterBuffer()
        pieces = flat([(0, buffer.add(packet(i, i * 961), i * 0.02)) for i in range(50)])
        assert shape(pieces) == list(range(50))

    @pytest.mark.parametrize("stamp", [0, 480, (1 << 32) - 48_000, 1 << 31, (1 << 31) + 960, 3_000_000_000])
    def test_a_timestamp_that_makes_no_sense_is_played_and_adds_nothing(self, stamp):
        buffer = JitterBuffer()
        buffer.add(packet(0, 0), 0)
        assert shape(buffer.add(packet(1, stamp), 0.02)) == [1]
        assert shape(buffer.add(packet(2, stamp + 960), 0.04)) == [2]

    def test_stepping_timestamps_cannot_make_up_more_than_passes(self):
        buffer = JitterBuffer()
        made = [buffer.add(packet(i, i * 960 + i * 47_000), i * 0.02) for i in range(500)]
        silence = [piece for pieces in made for piece in pieces if piece.kind is SILENCE]
        assert 1000 <= total_ms(silence) <= 1000 + 500 * 20


class TestSenderFallsSilent:
    def test_media_time_goes_on_in_real_time_for_two_seconds(self):
        buffer = JitterBuffer()
        told = run(steady(range(10)), buffer, until=10)
        silence = [(at, piece) for at, pieces in told for piece in pieces if piece.kind is SILENCE]
        assert len(silence) == 100
        assert {piece.samples for _, piece in silence} == {960}
        assert silence[0][0] == pytest.approx(0.2 + 0.06)
        for number, (at, piece) in enumerate(silence):
            assert piece.arrived_at == pytest.approx(0.2 + 0.02 * number)
            assert at == pytest.approx(max(0.26, 0.2 + 0.02 * number))
        assert buffer.flow is Flow.QUIET
        assert buffer.next_poll is None
        assert buffer.poll(20) == []

    def test_the_bound_is_what_was_asked_for(self):
        told = run(steady(range(3)), JitterBuffer(max_quiet_ms=500), until=10)
        assert total_ms(flat(told)) == 60 + 500

    def test_each_pause_is_filled_anew(self):
        told = run([(0, packet(0)), (5, packet(1)), (10, packet(2))], until=20)
        assert total_ms(flat(told)) == 3 * (20 + 2000)

    def test_a_pause_within_the_timestamps_is_not_filled_twice(self):
        told = run([*steady(range(10)), *((0.02 * i + 1, packet(i, (i + 50) * 960)) for i in range(10, 20))])
        assert played(flat(told)) == list(range(20))
        assert total_ms(flat(told)) == 20 * 20 + 1000

    def test_after_a_longer_pause_it_simply_resumes(self):
        told = run([*steady(range(10)), *((0.02 * i + 9, packet(i, (i + 450) * 960)) for i in range(10, 20))])
        assert played(flat(told)) == list(range(20))
        assert total_ms(flat(told)) == 20 * 20 + 2000

    def test_speech_of_a_sender_whose_clock_stood_still_is_all_played(self):
        told = run([*steady(range(10)), *((0.02 * i + 3, packet(i)) for i in range(10, 40))])
        pieces = flat(told)
        assert played(pieces) == list(range(40))
        assert shape(pieces)[-30:] == list(range(10, 40)), "and without silence in between"

    def test_speech_held_up_by_the_network_is_all_played(self):
        told = run([*steady(range(10)), *((0.5, packet(i)) for i in range(10, 25)), *steady(range(25, 60))])
        assert played(flat(told)) == list(range(60))
        assert shape(flat(told))[-50:] == list(range(10, 60))

    def test_a_sender_that_sends_in_bunches_is_soon_left_alone(self):
        arrivals = [(0.1 * (i // 5), packet(i)) for i in range(500)]
        told = run(arrivals)
        assert played(flat(told)) == list(range(500))
        silence = [at for at, pieces in told for piece in pieces if piece.kind is SILENCE]
        assert all(at < 0.2 for at in silence)

    def test_a_slower_clock_of_the_sender_is_followed(self):
        arrivals = [(0.020005 * i, packet(i)) for i in range(20_000)]
        told = run(arrivals, until=arrivals[-1][0] + 1)
        silence = [at for at, pieces in told for piece in pieces if piece.kind is SILENCE]
        assert silence[0] == pytest.approx(arrivals[-1][0] + 0.08, abs=0.002), "its silence is noticed as soon as ever"

    def test_an_outage_longer_than_the_fill_resumes_with_the_next_packet(self):
        buffer = JitterBuffer()
        told = run(steady([*range(10), *range(110, 120)]), buffer)
        assert shape(flat(told))[-10:] == list(range(110, 120))
        assert all(at == pytest.approx(0.02 * played(pieces)[0]) for at, pieces in told[-10:]), "without a hold"
        assert total_ms(flat(told)) == 120 * 20
        assert buffer.lost_packets == 100

    def test_nothing_happens_before_the_first_packet(self):
        buffer = JitterBuffer()
        assert buffer.flow is Flow.WAITING
        assert buffer.next_poll is None
        assert buffer.poll(1e9) == []


class TestRestarts:
    @pytest.mark.parametrize("sequence", [51 + 10, 3000, 20_000, 32_767, 32_768, 50_000, 65_400])
    def test_a_sequence_that_jumps_is_followed_at_once(self, sequence):
        buffer = JitterBuffer()
        run(steady(range(10)), buffer)
        for number in range(5):
            item = RtpPacket(111, (sequence + number) & 0xFFFF, 7_000_000 + number * 960, 1, b"\xf8")
            (piece,) = buffer.add(item, 0.2 + number * 0.02)
            assert piece.kind is PACKET

    def test_what_was_held_goes_out_before_the_jump(self):
        buffer = JitterBuffer()
        run([(0, packet(0)), (0.02, packet(1)), (0.06, packet(3)), (0.07, packet(5))], buffer)
        assert shape(buffer.add(packet(1000), 0.08)) == [(LOST, 20), 3, (LOST, 20), 5, 1000]

    def test_another_source_is_followed_at_once(self):
        buffer = JitterBuffer()
        run(steady([0, 1, 3]), buffer)
        assert shape(buffer.add(packet(7, ssrc=2), 0.07)) == [(LOST, 20), 3, 7]
        assert buffer.add(packet(6, ssrc=2), 0.07) == []
        assert shape(buffer.add(packet(8, ssrc=2), 0.09)) == [8]

    def test_what_another_source_lost_is_forgotten(self):
        buffer = JitterBuffer()
        run([*steady([0, 1, 3, 4, 5, 6]), *((0.2 + 0.02 * i, packet(i, ssrc=2)) for i in range(5))], buffer)
        buffer.add(packet(2, ssrc=2), 0.3)
        assert (buffer.late_packets, buffer.duplicate_packets) == (0, 1)

    def test_sequence_numbers_just_behind_are_late_not_a_restart(self):
        buffer = JitterBuffer()
        run(steady(range(200)), buffer)
        assert buffer.add(packet(100), 4) == []
        assert buffer.duplicate_packets == 1


step = st.tuples(
    st.one_of(
        st.integers(-3, 4),
        st.integers(-120, 120),
        st.sampled_from([-40_000, -3001, -101, 49, 50, 51, 52, 2999, 3000, 32_767, 32_768, 65_535]),
    ),
    st.one_of(
        st.just(0),
        st.sampled_from([1, -1, 119, 120, -960, 960, 9600, 47_999, 48_001, -48_000, 1 << 31, -(1 << 31), 1 << 30]),
        st.integers(-(1 << 32), 1 << 32),
    ),
    st.one_of(st.just(0.02), st.sampled_from([0.0, 0.001, 0.04, 0.1, 1.0, 5.0]), st.floats(0, 0.3)),
    st.sampled_from([b"\xf8", b"\xf8", b"\xf8", b"", b"\xfb", b"\xe0", b"\x18", b"\xfb\x06", b"\xfb\x00"]),
    st.sampled_from([1, 1, 1, 1, 1, 2]),
)


@given(st.lists(step, max_size=120), st.booleans(), st.integers(1, 70))
@settings(max_examples=150, deadline=None)
def test_any_arrivals(steps, punctual, capacity):
    """Never raises, never out of order, never twice, never more than is bounded."""
    buffer = JitterBuffer(capacity=capacity)
    now, sequence = 1000.0, 0
    sent: dict[bytes, int] = {}
    seen: set[bytes] = set()
    made = given_out = 0
    last_at = 0.0
    for number, (ahead, skew, wait, payload, ssrc) in enumerate(steps):
        pieces = []
        later = now + wait
        while punctual and buffer.next_poll is not None and buffer.next_poll < later:
            now = max(now, buffer.next_poll)
            pieces += buffer.poll(now)
        now = later
        sequence += ahead
        # Two bytes after the first say which packet it is; one of the lengths is read from the second.
        tag = payload[:2] + b"#" + str(number).encode() if len(payload) == 2 else payload + str(number).encode()
        sent[tag] = number
        pieces += buffer.add(RtpPacket(111, sequence & 0xFFFF, (sequence * 960 + skew) & 0xFFFFFFFF, ssrc, tag), now)
        pieces += buffer.poll(now)
        assert buffer.held <= capacity
        for piece in pieces:
            assert last_at <= piece.arrived_at <= now
            last_at = piece.arrived_at
            assert 0 < piece.samples <= 5760
            if piece.kind is PACKET:
                assert piece.payload in sent
                assert piece.payload not in seen, "played twice"
                seen.add(piece.payload)
                given_out += piece.samples
            else:
                assert piece.samples % 120 == 0
                made += piece.samples
        # Gaps are filled by a budget of the time that passed plus a second; quiet by the clock, and never past it
        # but for the packets it stood in for: each may let the clock be filled once more.
        assert made <= 2 * 48_000 * (now - 1000.0) + given_out + 48_000 + 960
    assert buffer.lost_packets >= 0
    counted = len(seen) + buffer.held + buffer.late_packets + buffer.duplicate_packets
    assert counted == len(steps), "every packet is played, held or counted"
    end = now + 60
    for piece in _settle(buffer, end):
        if piece.kind is PACKET:
            assert piece.payload not in seen
            seen.add(piece.payload)
    assert buffer.held == 0
    assert buffer.next_poll is None or buffer.flow is Flow.FLOWING


def _settle(buffer, end):
    pieces = []
    for _ in range(1000):
        if buffer.next_poll is None or buffer.next_poll > end:
            break
        pieces += buffer.poll(buffer.next_poll)
    return pieces


network = st.lists(
    st.tuples(
        st.floats(0, 1).map(lambda chance: chance < 0.1),
        st.one_of(st.just(0.0), st.floats(0, 0.038), st.floats(0, 0.2)),
        st.booleans(),
    ),
    min_size=2,
    max_size=150,
)


@given(network, st.integers(0, 65_535))
@example([(False, 0.0, False)] * 5 + [(True, 0.0, False)] + [(False, 0.0, False)] * 5, 65_530)
@settings(max_examples=150, deadline=None)
def test_an_honest_sender_on_a_bad_network(journey, start):
    """In order, held no longer than the hold, and media time keeps up with what arrived."""
    buffer = JitterBuffer()
    arrivals = []
    for index, (lost, delay, twice) in enumerate(journey):
        if not lost or index == 0:
            arrivals.append((index * 0.02 + delay, packet(index, start=start)))
            if twice:
                arrivals.append((index * 0.02 + delay + 0.005, packet(index, start=start)))
    arrivals.sort(key=lambda arrival: arrival[0])
    told = run(arrivals, buffer, until=10)

    out = [(at, index) for at, pieces in told for index in played(pieces)]
    order = [index for _, index in out]
    assert order == sorted(set(order)), "in order, none twice"

    arrived: dict[int, float] = {}
    for at, item in arrivals:
        arrived.setdefault(int(item.payload[1:]), at)
    for at, index in out:
        assert at - arrived[index] <= 0.120 + 1e-6, "held no longer than the longest hold"
    for index in arrived.keys() - set(order):
        assert any(arrived[other] + 0.040 <= arrived[index] + 1e-6 for other in order if other > index) or (
            index < order[0]
        ), "only what came after its gap was given up is dropped"

    media, position = 0.0, dict.fromkeys(order, 0.0)
    for piece in flat(told):
        if piece.kind is PACKET:
            position[index_of(piece)] = media
        media += piece.samples / 48
    for index in order:
        behind = (index - order[0]) * 20 - position[index]
        assert behind <= 1e-6, "every 20 ms sent take at least 20 ms of media time"
