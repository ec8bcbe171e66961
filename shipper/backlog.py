"""How far the log may run ahead of its receivers, and what follows for writers. Pure.

The bound is kept by credit: `Verdict.lsn_limit` goes to the writer, who begins no transaction once
its log ends there.
So it holds however late the shipper looks, but for the one record that was begun below it; for that
one the share between `HIGH` and the limit is kept.

Two things bound the backlog:

- what the operator says (`--battery`, `--max-lag`): K receivers, and every required one, must be
  able to get all of it before the lights go out. Receivers that are away count with what they had.
- the ring: what receivers that are here, the best K of them, and required ones still need is not
  overwritten. Without a word of the operator nobody else holds a writer up.

Invariants:

1. If the log ends at or below `lsn_limit`, then K receivers, and all required ones, lack no more
   than their limit, counted from `lsn_base` where their copies are not whole; but for one byte, so that one record at a time goes on where nothing else can,
   and a better rate can show.
2. `at_risk` is false only if, with what was measured, everything can be shipped in time.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from pmlog.durations import parse_duration
from pmlog.errors import ConfigError
from pmlog.sizes import parse_size
from shipper.rate import FIRST_BYTES_PER_S

LSN_FIRST: Final = 4096

SAFETY: Final = 0.5
"""Of the battery's time, what is counted on: batteries age, and rates are of the past."""

FIXED_COST_S: Final = 0.5
"""What noticing, freezing and sealing take of the battery, however little there is to ship."""

RING_SHARE: Final = 0.5
"""Of the ring, what receivers may lack: the rest is room for the greatest record, so that a writer
with credit never finds the log full."""

HIGH: Final = 0.95
"""Share of what the operator allows at which writers wait: the record that was begun below it still
fits, if it is no greater than the rest."""

LOW: Final = 0.75
"""Share of the credit from which on transactions are delayed. Late on purpose: up to there, three
quarters of all that is written until writers wait, they run as if nobody were watching; what is
left is enough to slow them to the receivers' pace, since a transaction waits for up to 50 ms."""

DELAY_NS_MAX: Final = 50_000_000


# ---- what the operator says --------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class MaxLag:
    """How much may be lost with this host: one of the two."""

    bytes: int | None = None
    seconds: float | None = None
    """Of shipping, at the rate that was measured."""


_SECONDS: Final = re.compile(r"\s*\d+(?:\.\d+)?\s*(?:ms|s|min|h)\s*", re.ASCII)
_HINT: Final = "a size, as in 64MiB, or a time, as in 2s or 500ms"


def parse_max_lag(text: str) -> MaxLag:
    """Read the operand of `--max-lag`.

    Args:
        text: A size or a duration.

    Returns:
        What it says.

    Raises:
        ConfigError: It is neither, or nothing.
    """
    if _SECONDS.fullmatch(text):
        return MaxLag(seconds=parse_duration(text, "max-lag"))
    try:
        size = parse_size(text, "max-lag")
    except ConfigError as error:
        raise ConfigError(f"max-lag: {text!r} is no size and no time", hint=_HINT) from error
    if size <= 0:
        raise ConfigError("max-lag: it must be more than nothing", hint=_HINT)
    return MaxLag(bytes=size)


@dataclass(frozen=True, slots=True)
class Policy:
    """What bounds the backlog of one pool."""

    require: int = 1
    battery_s: float | None = None
    max_lag: MaxLag | None = None
    pools: int = 1
    """So many share the battery's time, and the way out."""

    @property
    def is_bounded(self) -> bool:
        """Whether the operator has said anything."""
        return self.battery_s is not None or self.max_lag is not None


def limit_bytes(policy: Policy, bytes_per_s: float) -> int | None:
    """Compute what a receiver of some rate may lack.

    Args:
        policy: What bounds it.
        bytes_per_s: What it makes durable.

    Returns:
        That, the smaller of what battery and operator allow; None: nothing is said.
    """
    limits: list[float] = []
    if policy.battery_s is not None:
        seconds = max(0.0, policy.battery_s * SAFETY - FIXED_COST_S)
        limits.append(seconds * bytes_per_s / policy.pools)
    if policy.max_lag is not None:
        if policy.max_lag.bytes is not None:
            limits.append(policy.max_lag.bytes)
        if policy.max_lag.seconds is not None:
            limits.append(policy.max_lag.seconds * bytes_per_s)
    return int(min(limits)) if limits else None


# ---- what there is -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Copy:
    """What is known of one receiver."""

    durable: int
    """What is durable there: everything below this LSN."""
    bytes_per_s: float = FIRST_BYTES_PER_S
    is_required: bool = False
    is_connected: bool = False
    is_answering: bool = False
    """It has said something on this connection: one that only listens holds nobody up."""
    is_whole: bool = True
    """It could be promoted: no baseline is missing."""
    is_seen: bool = True
    """It has been here since the shipper began; of others only a slot tells, which may be right."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a pool stands; about the receiver that matters most: the K-th best, or a required one."""

    bytes: int = 0
    """What it lacks."""
    limit_bytes: int | None = None
    """What it may lack; None: the operator has set no bound."""
    rate_bytes_per_s: float = 0.0
    at_risk: bool = False
    """A power loss now might lose something: more is missing than can be shipped, or to nobody."""
    missing_bytes: int = 0
    """Of what it lacks, what is above the limit."""
    is_blocked: bool = False
    """Writers wait."""
    lsn_limit: int = 0
    """For writers: no transaction begins once the log ends here; 0: no limit."""
    writer_limit_bytes: int = 0
    """What `lsn_limit` lets receivers lack."""
    delay_ns: int = 0
    """For writers: what each transaction waits before it begins."""


@dataclass(frozen=True, slots=True)
class _Place:
    durable: int
    limit: int
    copy: Copy

    @property
    def allowed(self) -> int:
        return self.durable + self.limit


def delay_ns(backlog_bytes: int, limit: int) -> int:
    """Choose what each transaction waits.

    Args:
        backlog_bytes: What a receiver lacks.
        limit: What it may lack.

    Returns:
        Nothing up to the share `LOW`, from there growing with the square up to `DELAY_NS_MAX`.
    """
    share = backlog_bytes / limit if limit > 0 else float(backlog_bytes > 0)
    if share <= LOW:
        return 0
    return int(DELAY_NS_MAX * min(1.0, (share - LOW) / (1 - LOW)) ** 2)


def judge(
    copies: Sequence[Copy], policy: Policy, *, lsn_end: int, lsn_base: int, ring_bytes: int
) -> Verdict:
    """Decide how a pool stands, and how far its writer may go.

    Args:
        copies: All receivers that are known, and required ones that are not yet.
        policy: What bounds the backlog.
        lsn_end: End of the log.
        lsn_base: What K whole copies had, the last time that there were so many; at first where the
            log ended when the shipper began. From there on writers have credit while receivers
            take a baseline, or nobody has seen them yet: once, however often they begin anew.
        ring_bytes: Size of the log.

    Returns:
        The verdict.
    """
    unseen = [Copy(lsn_base, is_whole=False)] * max(0, policy.require - len(copies))
    everyone = [*copies, *unseen]
    bounds = [bound for bound in (_ring(copies, policy, lsn_end, ring_bytes),) if bound]
    risk: _Place | None = None
    if policy.is_bounded:
        credit = _decisive(everyone, policy, lsn_base)
        bounds.append(_Place(credit.durable, max(1, int(credit.limit * HIGH)), credit.copy))
        risk = _decisive(everyone, policy)
    held = min(bounds, key=lambda one: one.allowed, default=None)
    place = risk or _kth(everyone, policy)
    lacking = max(0, lsn_end - place.durable)
    missing = max(0, lacking - place.limit) if risk else 0
    return Verdict(
        bytes=lacking,
        limit_bytes=limit_bytes(policy, place.copy.bytes_per_s),
        rate_bytes_per_s=place.copy.bytes_per_s,
        at_risk=risk is not None and lacking > 0 and (missing > 0 or _is_alone(copies, policy)),
        missing_bytes=missing,
        is_blocked=held is not None and lsn_end >= held.allowed,
        lsn_limit=held.allowed if held else 0,
        writer_limit_bytes=held.limit if held else 0,
        delay_ns=delay_ns(max(0, lsn_end - held.durable), held.limit) if held else 0,
    )


def _decisive(copies: Sequence[Copy], policy: Policy, lsn_base: int | None = None) -> _Place:
    """Find the K-th best copy, or the required one that is behind it.

    Args:
        copies: At least K.
        policy: What bounds the backlog.
        lsn_base: For credit: what counts as durable in copies that are not whole. None: nothing
            does, since their log alone does not complete them; that is what would be lost.

    Returns:
        It, its limit, and what counts as durable there.
    """
    places = []
    for copy in copies:
        limit = limit_bytes(policy, copy.bytes_per_s) or 0
        if copy.is_whole:
            places.append(_Place(copy.durable, limit, copy))
        elif lsn_base is None:
            places.append(_Place(LSN_FIRST, 0, copy))
        else:
            durable = lsn_base if copy.is_seen else min(lsn_base, copy.durable)
            places.append(_Place(durable, limit, copy))
    kth = sorted(places, key=lambda one: one.allowed, reverse=True)[policy.require - 1]
    required = [one for one in places if one.copy.is_required]
    return min([kth, *required], key=lambda one: one.allowed)


def _kth(copies: Sequence[Copy], policy: Policy) -> _Place:
    unbounded = Policy(policy.require, max_lag=MaxLag(bytes=0))
    return _decisive(copies, unbounded)


def _ring(copies: Sequence[Copy], policy: Policy, lsn_end: int, ring_bytes: int) -> _Place | None:
    # What the ring has lost cannot be kept.
    there = [copy for copy in copies if lsn_end - copy.durable <= ring_bytes]
    here = [copy for copy in there if copy.is_connected and copy.is_answering]
    best = sorted(here, key=lambda copy: copy.durable, reverse=True)[: policy.require]
    counted = [*best, *(copy for copy in there if copy.is_required)]
    if not counted:
        return None
    last = min(counted, key=lambda copy: copy.durable)
    return _Place(last.durable, int(ring_bytes * RING_SHARE), last)


def _is_alone(copies: Sequence[Copy], policy: Policy) -> bool:
    """Whether what is left to ship has too few to go to."""
    connected = sum(copy.is_connected for copy in copies)
    return connected < policy.require or any(
        copy.is_required and not copy.is_connected for copy in copies
    )
