"""The backlog's bound and receivers' rates: pure decisions, looked at over all that may come in."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from pmlog.errors import ConfigError
from shipper import backlog, rate
from shipper.backlog import Copy, MaxLag, Policy, Verdict, judge, limit_bytes, parse_max_lag
from shipper.rate import Rate, observe

RING = 1 << 20
MIB = 1 << 20


# ---- what the operator says ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("64MiB", MaxLag(bytes=64 * MIB)),
        ("65536", MaxLag(bytes=65536)),
        ("2s", MaxLag(seconds=2.0)),
        ("500ms", MaxLag(seconds=0.5)),
        ("1.5min", MaxLag(seconds=90.0)),
    ],
)
def test_max_lag(text: str, wanted: MaxLag) -> None:
    """Sizes and times are told apart by their unit."""
    assert parse_max_lag(text) == wanted


@pytest.mark.parametrize("text", ["", "0", "0s", "-1", "2 parsecs", "MiB", "1e9s", "nan", "0MiB"])
def test_no_max_lag(text: str) -> None:
    """Anything else is refused, and the message says what is taken."""
    with pytest.raises(ConfigError, match="max-lag"):
        parse_max_lag(text)


rates = st.floats(0, 1e10)
policies = st.builds(
    Policy,
    require=st.integers(1, 4),
    battery_s=st.none() | st.floats(0.1, 1e4),
    max_lag=st.none()
    | st.builds(MaxLag, bytes=st.integers(1, 1 << 40))
    | st.builds(MaxLag, seconds=st.floats(0.01, 1e4)),
    pools=st.integers(1, 5),
)


@given(policies, rates, rates)
def test_limit(policy: Policy, slow: float, fast: float) -> None:
    """It grows with the rate, keeps below every bound, and is none where nobody has set one."""
    limit = limit_bytes(policy, slow)
    if limit is None:
        assert not policy.is_bounded
        return
    assert policy.is_bounded
    assert limit >= 0
    if policy.battery_s is not None:
        assert limit * policy.pools <= policy.battery_s * slow * backlog.SAFETY
    if policy.max_lag is not None and policy.max_lag.bytes is not None:
        assert limit <= policy.max_lag.bytes
    if policy.max_lag is not None and policy.max_lag.seconds is not None:
        assert limit <= policy.max_lag.seconds * slow
    faster = limit_bytes(policy, max(slow, fast))
    assert faster is not None
    assert faster >= limit


def test_battery() -> None:
    """A battery of ten seconds, half of it counted on, less what sealing takes: 4.5 s of shipping."""
    assert limit_bytes(Policy(battery_s=10), 1000.0) == 4500
    assert limit_bytes(Policy(battery_s=10, pools=3), 1000.0) == 1500
    assert limit_bytes(Policy(battery_s=0.9), 1000.0) == 0
    assert limit_bytes(Policy(battery_s=10, max_lag=MaxLag(bytes=7)), 1000.0) == 7
    assert limit_bytes(Policy(), 1000.0) is None


def test_delay_grows() -> None:
    """There is no delay up to three quarters, it never falls as the backlog grows, and has an end."""
    delays = [backlog.delay_ns(backlog_bytes, 1000) for backlog_bytes in range(2000)]
    assert delays == sorted(delays)
    assert delays[750] == 0 < delays[751]
    assert max(delays) == backlog.DELAY_NS_MAX == delays[1000]
    assert backlog.delay_ns(0, 0) == 0
    assert backlog.delay_ns(1, 0) == backlog.DELAY_NS_MAX


# ---- the verdict -----------------------------------------------------------------------------

lsns = st.integers(4096, 4096 + 3 * RING)
copies = st.lists(
    st.builds(
        Copy,
        durable=lsns,
        bytes_per_s=st.floats(0, 1e7),
        is_required=st.booleans(),
        is_connected=st.booleans(),
        is_answering=st.booleans(),
        is_whole=st.booleans(),
        is_seen=st.booleans(),
    ),
    max_size=6,
)


def decide(all_copies: list[Copy], policy: Policy, end: int, start: int = 4096) -> Verdict:
    """Judge, with the ring of these tests."""
    return judge(all_copies, policy, lsn_end=end, lsn_base=start, ring_bytes=RING)


@given(copies, policies, lsns, lsns)
def test_credit_is_what_can_be_shipped(
    all_copies: list[Copy], policy: Policy, end: int, start: int
) -> None:
    """A log that ends within the credit is within the limit of K receivers and of required ones."""
    assume(policy.is_bounded)
    verdict = decide(all_copies, policy, end, start)
    assert verdict.lsn_limit > 0
    unseen = [Copy(start)] * max(0, policy.require - len(all_copies))

    def lets(copy: Copy) -> bool:
        limit = limit_bytes(policy, copy.bytes_per_s)
        assert limit is not None
        durable = copy.durable if copy.is_whole else start
        if not copy.is_whole and not copy.is_seen:
            durable = min(start, copy.durable)
        return verdict.lsn_limit - durable <= max(limit * backlog.HIGH, 1)

    everyone = [*all_copies, *unseen]
    assert sum(lets(copy) for copy in everyone) >= policy.require
    assert all(lets(copy) for copy in everyone if copy.is_required)


@given(copies, policies, lsns)
def test_risk_is_never_hidden(all_copies: list[Copy], policy: Policy, end: int) -> None:
    """Without a word of risk, K whole copies are near enough, and so are required ones, and here."""
    verdict = decide(all_copies, policy, end)
    if not policy.is_bounded:
        assert (verdict.at_risk, verdict.missing_bytes, verdict.limit_bytes) == (False, 0, None)
        return
    if verdict.at_risk:
        assert verdict.bytes > 0
        return
    assert verdict.missing_bytes == 0

    def near(copy: Copy) -> bool:
        limit = limit_bytes(policy, copy.bytes_per_s) or 0
        return copy.is_whole and end - copy.durable <= limit

    if verdict.bytes:
        assert sum(near(copy) for copy in all_copies) >= policy.require
        assert all(near(copy) for copy in all_copies if copy.is_required)
        assert sum(copy.is_connected for copy in all_copies) >= policy.require
        assert all(copy.is_connected for copy in all_copies if copy.is_required)


@given(copies, policies, lsns)
def test_ring_is_kept(all_copies: list[Copy], policy: Policy, end: int) -> None:
    """Who answers and counts keeps half of the ring; who only listens keeps nothing."""
    verdict = decide(all_copies, policy, end)
    there = [one for one in all_copies if end - one.durable <= RING]
    here = [one for one in there if one.is_connected and one.is_answering]
    best = sorted(here, key=lambda one: -one.durable)[: policy.require]
    counted = [*best, *(one for one in there if one.is_required)]
    for one in counted:
        assert 0 < verdict.lsn_limit <= one.durable + RING // 2
    if not counted and not policy.is_bounded:
        assert (verdict.lsn_limit, verdict.delay_ns, verdict.is_blocked) == (0, 0, False)
    assert verdict.is_blocked == (0 < verdict.lsn_limit <= end)
    if verdict.is_blocked:
        assert verdict.delay_ns == backlog.DELAY_NS_MAX


def test_nobody_was_seen_yet() -> None:
    """Without a receiver writers have their limit from the shipper's start, and all is at risk."""
    policy = Policy(max_lag=MaxLag(bytes=1000))
    verdict = decide([], policy, end=100_500, start=100_000)
    assert verdict.lsn_limit == 100_950
    assert not verdict.is_blocked
    assert verdict.at_risk
    assert verdict.bytes == 100_500 - 4096
    assert verdict.missing_bytes == verdict.bytes
    assert verdict.limit_bytes == 1000
    assert decide([], policy, end=100_950, start=100_000).is_blocked


def test_beginning_anew_gives_no_credit() -> None:
    """A receiver that takes one baseline after the other moves no writer's limit on."""
    policy = Policy(max_lag=MaxLag(bytes=1000))
    limits = {
        decide([Copy(mark, is_whole=False, is_connected=True)], policy, 90_000, 50_000).lsn_limit
        for mark in (10_000, 60_000, 90_000)
    }
    assert limits == {50_950}
    # One that only a slot tells of counts with that.
    slot = Copy(40_000, is_whole=False, is_seen=False)
    assert decide([slot], policy, 90_000, 50_000).lsn_limit == 40_950


def test_nothing_can_be_shipped() -> None:
    """With no rate left one record at a time goes on, so that a better rate can show."""
    policy = Policy(battery_s=10)
    idle = Copy(9000, bytes_per_s=0, is_connected=True)
    assert not decide([idle], policy, end=9000).is_blocked
    verdict = decide([idle], policy, end=9064)
    assert verdict.is_blocked
    assert verdict.at_risk
    assert verdict.missing_bytes == 64


# ---- rates -----------------------------------------------------------------------------------


class Receiver:
    """One that makes durable so many bytes a second, after a delay, and acknowledges at times."""

    def __init__(self, bytes_per_s: float, latency_s: float = 0.001) -> None:
        self.bytes_per_s = bytes_per_s
        self.latency_s = latency_s
        self.now_s = 0.0
        self.end = self.durable = 0
        self.rate = Rate()
        self._work: list[tuple[float, int]] = []
        self._free_s = 0.0

    def write(self, size: int) -> None:
        """Send it so much."""
        self.end += size
        begin = max(self._free_s, self.now_s + self.latency_s)
        self._free_s = begin + size / self.bytes_per_s
        self._work.append((self._free_s, self.end))
        self._look()

    def step(self, seconds: float) -> None:
        """Let time pass, and look."""
        self.now_s += seconds
        while self._work and self._work[0][0] <= self.now_s:
            self.durable = self._work.pop(0)[1]
        self._look()

    def _look(self) -> None:
        self.rate = observe(self.rate, self.now_s, self.durable, self.end)


@given(st.floats(1e5, 1e9), st.floats(0.0001, 0.05))
def test_rate_is_found(bytes_per_s: float, latency_s: float) -> None:
    """Kept busy, a receiver's rate is known after some seconds, and never far above what it is."""
    receiver = Receiver(bytes_per_s, latency_s)
    for _ in range(1500):
        while receiver.end - receiver.durable < max(2 * rate.SURE_BYTES, bytes_per_s * 0.1):
            receiver.write(max(4096, int(bytes_per_s * 0.002)))
        receiver.step(0.005)
    assert 0.6 * bytes_per_s < receiver.rate.bytes_per_s < 1.15 * bytes_per_s


@given(st.floats(1e6, 1e9), st.floats(3, 1000))
def test_rate_falls_fast(bytes_per_s: float, factor: float) -> None:
    """Once it slows down, the figure is near the new one within some windows."""
    receiver = Receiver(bytes_per_s)
    for _ in range(400):
        while receiver.end - receiver.durable < max(2 * rate.SURE_BYTES, bytes_per_s * 0.05):
            receiver.write(max(4096, int(bytes_per_s * 0.002)))
        receiver.step(0.005)
    before = receiver.rate.bytes_per_s
    slow = bytes_per_s / factor
    # All that is on its way, and what comes, at the new pace.
    lacking = receiver.end - receiver.durable
    receiver._work.clear()
    receiver._free_s = receiver.now_s
    receiver.end, receiver.bytes_per_s = receiver.durable, slow
    receiver.write(lacking)
    while receiver.durable < receiver.end - lacking // 2 and receiver.now_s < 20:
        receiver.write(2 * rate.SURE_BYTES)
        receiver.step(rate.WINDOW_S)
    for _ in range(8):
        receiver.write(2 * rate.SURE_BYTES)
        receiver.step(rate.WINDOW_S)
    assert receiver.rate.bytes_per_s < max(slow * 3, before / 50)


@given(st.floats(2e6, 1e9))
def test_trickle_is_no_slowness(bytes_per_s: float) -> None:
    """Little to do, done at once, says nothing against a receiver; nor does idleness."""
    receiver = Receiver(bytes_per_s, latency_s=0.03)
    for _ in range(400):
        while receiver.end - receiver.durable < max(2 * rate.SURE_BYTES, bytes_per_s * 0.1):
            receiver.write(max(4096, int(bytes_per_s * 0.002)))
        receiver.step(0.005)
    while receiver.durable < receiver.end:
        receiver.step(0.005)
    known = receiver.rate.bytes_per_s
    for _ in range(500):
        receiver.write(192)
        receiver.step(0.01)
    while receiver.durable < receiver.end:
        receiver.step(0.01)
    receiver.step(3600)
    assert receiver.rate.bytes_per_s == known


def test_silence_is_slowness() -> None:
    """One that acknowledges nothing is worth less with every window."""
    known = Rate(1e8, True)
    known = observe(known, 0.0, 0, 10 * MIB)
    figures = []
    for second in range(1, 11):
        known = observe(known, float(second), 0, 10 * MIB)
        figures.append(known.bytes_per_s)
    assert figures == sorted(figures, reverse=True)
    assert figures[-1] < 1e8 * 0.001


@given(st.lists(st.tuples(st.floats(0, 10), st.integers(0, 1 << 30), st.integers(0, 1 << 30))))
def test_rate_is_always_a_rate(steps: list[tuple[float, int, int]]) -> None:
    """Whatever comes in, it is finite and not negative; with nothing to ship it stays."""
    known: Any = Rate()
    now_s, durable, end = 0.0, 0, 0
    for wait_s, written, acked in steps:
        now_s += wait_s
        end += written
        durable = min(end, durable + acked)
        known = observe(known, now_s, durable, end)
        assert 0 <= known.bytes_per_s < 1e12
    idle = rate.pause(known)
    assert observe(idle, now_s + 5, end, end) == idle
