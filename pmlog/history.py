"""Where the epochs of a pool began, and where two histories part. Pure.

An epoch begins where the log of the one before ended: below that place all is common, whatever an
old primary has written behind it. So the beginnings, in order, are all that two copies need to
compare, however many promotions lie between them.
"""

from collections.abc import Iterable
from typing import Final

import msgspec

from pmlog.errors import ProtocolError

BEGINNINGS_MAX: Final = 256
"""A copy remembers so many promotions, the last ones."""


class Place(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A position, as both sides compare it."""

    epoch: int
    lsn: int
    chain: int
    txn: int


Beginnings = tuple[Place, ...]
"""Of each epoch but the first: the epoch's number, and where the log of the one before ended."""


class History(msgspec.Struct, frozen=True):
    """What one copy knows of the promotions."""

    beginnings: Beginnings = ()
    heard: int = 0
    """The latest epoch that it has heard of, whether its log has come to that or not."""


def before(beginnings: Iterable[Place], epoch: int) -> Beginnings:
    """Leave out the promotions that a log has not come to.

    Args:
        beginnings: Of epochs.
        epoch: The one that the log ends in.

    Returns:
        The beginnings up to that epoch.
    """
    return tuple(place for place in beginnings if place.epoch <= epoch)


def promoted(history: History, end: Place) -> History:
    """Begin an epoch.

    Args:
        history: What was known.
        end: Where the log ends now.

    Returns:
        What is known then; the new epoch, above all that were heard of, is `heard`.
    """
    epoch = max(end.epoch, history.heard) + 1
    return begin(history, end, epoch)


def begin(history: History, end: Place, epoch: int) -> History:
    """Begin a certain epoch.

    Args:
        history: What was known.
        end: Where the log ends now.
        epoch: The new one, above that of the end.

    Returns:
        What is known then.
    """
    place = Place(epoch, end.lsn, end.chain, end.txn)
    known = (*before(history.beginnings, end.epoch), place)
    return History(known[-BEGINNINGS_MAX:], max(history.heard, epoch))


def parting(ours: Beginnings, theirs: Beginnings) -> int | None:
    """Find where two histories part.

    Args:
        ours: Beginnings of the epochs of one log.
        theirs: Of the other's.

    Returns:
        The LSN below which the logs are the same, and from which on they differ, if both reach
        beyond it; None: no promotion parts them.
    """
    # A copy that has forgotten its oldest promotions is compared from its first known one on.
    first = max(
        (known[0].epoch for known in (ours, theirs) if len(known) == BEGINNINGS_MAX), default=0
    )
    ours, theirs = (tuple(one for one in known if one.epoch >= first) for known in (ours, theirs))
    for index in range(max(len(ours), len(theirs))):
        pair = [known[index] for known in (ours, theirs) if index < len(known)]
        if len(pair) == 1 or pair[0] != pair[1]:
            return min(place.lsn for place in pair)
    return None


def must_make_sense(beginnings: Beginnings, epoch: int) -> None:
    """Check what a peer says of its promotions.

    Args:
        beginnings: What it says.
        epoch: Its own.

    Raises:
        ProtocolError: No log has such beginnings.
    """
    last = Place(1, 0, 0, 0)
    for place in beginnings:
        if not (
            last.epoch < place.epoch <= epoch
            and last.lsn <= place.lsn < 1 << 63
            and last.txn <= place.txn < 1 << 63
            and 0 <= place.chain < 1 << 32
        ):
            raise ProtocolError(f"a history of promotions that cannot be: {place} after {last}")
        last = place
    if len(beginnings) > BEGINNINGS_MAX:
        raise ProtocolError(f"a history of {len(beginnings)} promotions")
