"""The clock of the process under a virtual one: spread, drift, stalls, members that come and go."""

import asyncio
import heapq
import itertools

import pytest

from media.pacer import Pacer


class World:
    """Virtual time with timers, which fire late by `lag` seconds."""

    def __init__(self):
        self.now = 1000.0
        self.lag = 0.0
        self._timers = []
        self._order = itertools.count()
        self.fired = 0

    def call_later(self, delay, callback):
        timer = Timer(callback)
        heapq.heappush(self._timers, (self.now + delay, next(self._order), timer))
        return timer

    def run(self, seconds):
        end = self.now + seconds
        while self._timers and self._timers[0][0] + self.lag <= end:
            due, _, timer = heapq.heappop(self._timers)
            if timer.callback is not None:
                self.now = max(self.now, due + self.lag)
                self.fired += 1
                timer.callback()
        self.now = end

    @property
    def pending(self):
        return sum(timer.callback is not None for _, _, timer in self._timers)


class Timer:
    def __init__(self, callback):
        self.callback = callback

    def cancel(self):
        self.callback = None


class Member:
    def __init__(self, world, on_tick=None):
        self.world = world
        self.ticks = []
        self.watches = []
        self.polls = []
        self._then = on_tick

    def on_tick(self, now):
        assert now == self.world.now
        self.ticks.append(now)
        if self._then is not None:
            self._then(self)

    def on_poll(self, now):
        self.polls.append(now)

    def on_watch(self, now):
        self.watches.append(now)


@pytest.fixture
def world():
    return World()


@pytest.fixture
def pacer(world):
    return Pacer(clock=lambda: world.now, call_later=world.call_later)


def test_every_member_is_ticked_every_20_ms_without_drift(world, pacer):
    members = [Member(world) for _ in range(25)]
    for member in members:
        pacer.add(member)
    began = world.now
    world.run(10.0)
    for member in members:
        assert len(member.ticks) == pytest.approx(500, abs=1)
        for n, at in enumerate(member.ticks):
            assert at == pytest.approx(member.ticks[0] + n * 0.02, abs=1e-6)
    assert members[0].ticks[0] - began <= 0.02
    assert pacer.members == 25
    assert pacer.late_ms < 0.001


def test_members_are_spread_over_the_period(world, pacer):
    members = [Member(world) for _ in range(20)]
    for member in members:
        pacer.add(member)
    world.run(0.1)
    phases = [round(member.ticks[0] * 1000) % 20 for member in members]
    assert sorted(phases) == sorted([phase * 2 + phases[0] % 2 for phase in range(10)] * 2)


def test_a_member_woken_now_is_ticked_a_period_later(world, pacer):
    other = Member(world)
    pacer.add(other)
    for step in range(40):
        world.run(0.0137)
        member = Member(world)
        woken = world.now
        pacer.add(member, woken)
        world.run(0.06)
        first, second = member.ticks[:2]
        assert 0.0179 <= first - woken <= 0.0201, step
        assert second - first == pytest.approx(0.02)
        pacer.remove(member)


def test_a_member_can_be_moved_to_another_phase(world, pacer):
    member = Member(world)
    pacer.add(member)
    world.run(0.105)
    count = len(member.ticks)
    pacer.add(member, world.now)
    woken = world.now
    world.run(0.1)
    assert pacer.members == 1
    assert 0.0179 <= member.ticks[count] - woken <= 0.0201
    assert len(member.ticks) - count in (4, 5)


@pytest.mark.parametrize("stall", [0.021, 0.05, 0.2, 3.0])
def test_after_a_stall_one_missed_tick_is_made_up_for(world, pacer, stall):
    members = [Member(world) for _ in range(10)]
    for member in members:
        pacer.add(member)
    world.run(1.0)
    counts = [len(member.ticks) for member in members]
    world.now += stall
    resumed = world.now
    world.run(0.0)
    for member, count in zip(members, counts, strict=True):
        assert 1 <= len(member.ticks) - count <= 2
        assert set(member.ticks[count:]) == {resumed}
    world.run(0.1)
    for member, count in zip(members, counts, strict=True):
        assert len(member.ticks) - count <= 7
    # The deadlines are the old ones.
    periods = (members[0].ticks[-1] - members[0].ticks[0]) / 0.02
    assert periods == pytest.approx(round(periods), abs=1e-6)


def test_lateness_is_recorded(world, pacer):
    pacer.add(Member(world))
    world.lag = 0.003
    world.run(1.0)
    assert pacer.late_ms == pytest.approx(3.0, abs=0.1)


def test_a_member_removed_during_the_round_gets_no_further_tick(world, pacer):
    members = []

    def remove_all(_):
        for member in members:
            pacer.remove(member)

    members += [Member(world, remove_all) for _ in range(20)]
    for member in members:
        pacer.add(member, world.now)
    world.run(0.1)
    assert sum(len(member.ticks) for member in members) == 1
    assert pacer.members == 0


def test_a_member_that_fails_costs_the_others_nothing(world, pacer, caplog):
    def fail(_):
        raise RuntimeError("member")

    pacer.add(Member(world, fail), world.now)
    other = Member(world)
    pacer.add(other, world.now)
    world.run(0.1)
    assert len(other.ticks) >= 4
    assert "a tick failed" in caplog.text


def test_without_members_there_is_no_timer(world, pacer):
    assert world.pending == 0
    member = Member(world)
    pacer.add(member)
    pacer.watch(member)
    pacer.poll(member)
    world.run(1.0)
    pacer.remove(member)
    pacer.unwatch(member)
    pacer.unpoll(member)
    assert world.pending == 0
    fired = world.fired
    world.run(10.0)
    assert world.fired == fired
    pacer.add(member)
    count = len(member.ticks)
    world.run(0.02)
    # Nothing is made up for the time it was not a member.
    assert len(member.ticks) == count + 1


def test_polls_come_every_40_ms_and_the_slow_round_four_times_a_second(world, pacer):
    member = Member(world)
    pacer.poll(member)
    pacer.poll(member)
    pacer.watch(member)
    pacer.watch(member)
    world.run(10.0)
    assert len(member.watches) == pytest.approx(40, abs=1)
    assert len(member.polls) == pytest.approx(250, abs=1)
    assert pacer.watched == pacer.polled == 1
    assert pacer.members == 0


def test_polls_fall_where_the_member_wants_them_and_move_with_it(world, pacer):
    member = Member(world)
    for _ in range(20):
        pacer.poll(member)
        wanted, before = world.now, len(member.polls)
        pacer.poll(member, world.now)
        world.run(0.2)
        since = [at - wanted for at in member.polls[before:]]
        assert len(since) in (4, 5)
        assert [round(at / 0.04) for at in since] == list(range(1, 1 + len(since)))
        assert all(-0.011 <= at - 0.04 * (place + 1) <= 0.001 for place, at in enumerate(since))
        world.run(0.0137)
    assert pacer.polled == 1


def test_a_stopped_pacer_takes_no_member_until_it_is_started_again(world, pacer):
    member = Member(world)
    pacer.add(member)
    pacer.watch(member)
    pacer.poll(member)
    pacer.stop()
    pacer.add(member)
    pacer.watch(member)
    pacer.poll(member)
    world.run(1.0)
    assert member.ticks == member.watches == member.polls == []
    pacer.start()
    pacer.add(member)
    world.run(0.1)
    assert member.ticks


async def test_it_runs_on_the_event_loop():
    pacer = Pacer()
    ticked = asyncio.Event()

    class Once:
        def on_tick(self, now):
            ticked.set()

    member = Once()
    pacer.add(member)
    await asyncio.wait_for(ticked.wait(), 3)
    pacer.stop()


def test_who_is_due_is_ticked_before_other_work_that_keeps_the_timers_waiting(world, pacer):
    talking, waiting = Member(world), Member(world)
    pacer.add(talking, world.now)
    pacer.poll(waiting, world.now)
    world.lag = 0.5  # a loop that is busy with its sockets
    start = world.now
    for step in range(1, 200):
        world.now = start + step * 0.001
        pacer.catch_up(world.now)
    assert len(talking.ticks) in (9, 10)
    due = [start + 0.02 * n for n in range(1, 11)]
    # A phase is 2 ms, and this work comes every one.
    assert all(-0.0025 <= at - on_time <= 0.0015 for at, on_time in zip(talking.ticks, due, strict=False))
    assert waiting.polls == [], "what they wait for may be in the sockets"
    assert world.fired == 0


def test_catching_up_early_changes_nothing(world, pacer):
    member = Member(world)
    pacer.add(member, world.now)
    for _ in range(100):
        pacer.catch_up(world.now)
        world.run(0.001)
    assert len(member.ticks) in (4, 5)
    assert world.pending <= 1
    pacer.remove(member)
    pacer.catch_up(world.now + 1)
    assert world.pending == 0
