"""Whether a replica may become a primary. Pure."""

from enum import Enum

from pmlog import wire
from pmlog.errors import NotPromotableError
from pmlog.position import Position


class Sealing(Enum):
    """What is known of the end of the primary's log."""

    NONE = "none"
    """It is not sealed."""
    COMPLETE = "complete"
    """The replica ends exactly there."""
    OTHER = "other"
    """The replica ends elsewhere."""


class Verdict(Enum):
    """What comes of asking for promotion."""

    PROMOTE = "promote"
    PROMOTE_WITH_LOSS = "promote with loss"
    REFUSE_EMPTY = "refuse empty"
    REFUSE_INCOMPLETE = "refuse incomplete"
    REFUSE_UNSEALED = "refuse unsealed"
    REFUSE_PROMOTED = "refuse promoted"


def sealing_of(seal: wire.Place | None, position: Position | None) -> Sealing:
    """Compare the seal with the replica.

    Args:
        seal: What the primary said.
        position: The end of the replica's log.

    Returns:
        How they stand to each other.
    """
    if seal is None or position is None:
        return Sealing.NONE
    same = (seal.lsn, seal.chain, seal.txn) == (position.lsn, position.chain, position.txn)
    return Sealing.COMPLETE if same else Sealing.OTHER


def judge(
    *, promoted: bool, empty: bool, incomplete: bool, sealing: Sealing, accept_loss: bool
) -> Verdict:
    """Decide whether a replica is promoted; the table is in docs/wire.md.

    Args:
        promoted: It is a primary already.
        empty: There is no replica yet.
        incomplete: A baseline is under way.
        sealing: What is known of the end of the primary's log.
        accept_loss: The operator takes what there is.

    Returns:
        The verdict.
    """
    if promoted:
        return Verdict.REFUSE_PROMOTED
    if empty:
        return Verdict.REFUSE_EMPTY
    if incomplete:
        return Verdict.REFUSE_INCOMPLETE
    if sealing is Sealing.COMPLETE:
        return Verdict.PROMOTE
    return Verdict.PROMOTE_WITH_LOSS if accept_loss else Verdict.REFUSE_UNSEALED


def refusal(verdict: Verdict, position: Position | None) -> NotPromotableError:
    """Explain a refusal.

    Args:
        verdict: The refusal.
        position: The end of the replica's log.

    Returns:
        The error.
    """
    if verdict is Verdict.REFUSE_PROMOTED:
        return NotPromotableError("this replica was promoted already")
    if verdict is Verdict.REFUSE_EMPTY or position is None:
        return NotPromotableError("there is no replica here yet: no shipper was reached")
    if verdict is Verdict.REFUSE_INCOMPLETE:
        return NotPromotableError("the replica is incomplete: a baseline is under way")
    return NotPromotableError(
        f"not sealed: the last durable LSN here is {position.lsn} (transaction {position.txn}), "
        "and the source's tail is unknown",
        hint="accept_loss takes what is here; transactions after that are lost",
    )
