"""Where histories of promotions part, against a naive model: logs as strings of marked bytes."""

from __future__ import annotations

from hypothesis import assume, given
from hypothesis import strategies as st

from pmlog.history import Beginnings, History, Place, before, parting, promoted

Steps = list[tuple[int, int]]
"""Of each promotion: how many bytes later, and how many epochs later."""
steps: st.SearchStrategy[Steps] = st.lists(
    st.tuples(st.integers(0, 3), st.integers(1, 2)), max_size=4
)


def log_of(own: Steps, length: int, start: Beginnings = ()) -> tuple[Beginnings, list[int]]:
    """Return where a log's epochs began, and the epoch of each of its bytes."""
    made = list(start)
    lsn, epoch = (made[-1].lsn, made[-1].epoch) if made else (0, 1)
    for later, more in own:
        lsn, epoch = lsn + later, epoch + more
        made.append(Place(epoch, lsn, 0, 0))
    beginnings = tuple(made)
    epochs = [max([1, *(one.epoch for one in made if one.lsn <= at)]) for at in range(length)]
    return beginnings, epochs


@given(steps, steps, steps)
def test_histories_part_where_logs_do(common: Steps, left: Steps, right: Steps) -> None:
    """Below the parting every byte is of the same epoch; at it the first one is not."""
    start, _ = log_of(common, 0)
    ours, our_bytes = log_of(left, 60, start)
    theirs, their_bytes = log_of(right, 60, start)
    parted = parting(ours, theirs)
    assert parted == parting(theirs, ours)
    assert (parted is None) == (ours == theirs)
    if parted is None:
        return
    assert our_bytes[:parted] == their_bytes[:parted]
    # Epochs without a byte leave no trace in the bytes.
    assume(our_bytes != their_bytes)
    first = next(at for at, (a, b) in enumerate(zip(our_bytes, their_bytes, strict=True)) if a != b)
    assert parted <= first
    has_bytes = all(later for later, _ in (*left[1:], *right[1:]))
    assert not has_bytes or left[:1] == right[:1] or parted == first


@given(steps, st.integers(1, 12))
def test_a_log_knows_its_own_epoch(own: Steps, epoch: int) -> None:
    """What a log has come to includes the beginning of the epoch that it ends in, and no later one."""
    beginnings, _ = log_of(own, 0)
    known = before(beginnings, epoch)
    assert known == beginnings[: len(known)]
    assert all(one.epoch <= epoch for one in known)
    assert all(one.epoch > epoch for one in beginnings[len(known) :])


def test_no_epoch_is_used_twice() -> None:
    """A copy whose log is behind, and that has heard of a later epoch, is promoted beyond that.

    Its primary was itself promoted, and no byte of the new epoch had arrived: with the number after
    its log's own, two primaries would have had one epoch, and the first is never told of the second.
    """
    end = Place(1, 5000, 7, 9)
    known = promoted(History(heard=4), end)
    assert known == History((Place(5, 5000, 7, 9),), 5)
    assert promoted(History(), end).heard == 2
    assert promoted(known, Place(5, 6000, 1, 10)).beginnings[-1] == Place(6, 6000, 1, 10)
