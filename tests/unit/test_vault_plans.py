"""What a vault is to hold, and what becomes of one: the pure decisions."""

from __future__ import annotations

import itertools
from uuid import UUID

import pytest

from pmlog import vault
from pmlog.identity import Identity, Mark
from pmlog.position import Position
from pmlog.wire import Place
from receiver.vault import Fit, judge
from shipper.power.decide import VAULT_BYTES_PER_S
from shipper.vault import Plan, plans

MB = 10**6


def choices(
    whole: list[int], partial: list[int], seconds_left: float | None, image_bytes: int = MB
) -> list[Plan]:
    """Choose, for a log that ends at 1000 MB and a checkpoint at 990 MB."""
    return plans(
        whole, partial,
        end=1000 * MB, checkpoint=990 * MB, image_bytes=image_bytes, seconds_left=seconds_left,
    )  # fmt: skip


def test_farthest_behind_first() -> None:
    """Any receiver should be able to go on from the vault; nobody knows the time, so all fits."""
    found = choices([900 * MB, 800 * MB], [], None)
    assert [plan.lsn for plan in found] == [800 * MB, 900 * MB, None]
    assert found[0].size_bytes == 200 * MB


def test_time_decides() -> None:
    """What does not fit into the time gives way to the shortest tail, and to everything if small."""
    assert choices([900 * MB, 995 * MB], [], 5.0)[0].lsn == 995 * MB
    late = choices([100 * MB, 900 * MB], [], 0.5)
    assert [plan.lsn for plan in late] == [900 * MB, 100 * MB, None]


def test_unknown_copies_do_not_count() -> None:
    """If no copy is known to be whole everything goes in, unless there is no time for that."""
    assert choices([], [995 * MB], None)[0] == Plan(None, 11 * MB)
    huge = int(1000 * VAULT_BYTES_PER_S)
    assert [plan.lsn for plan in choices([], [995 * MB, 999 * MB], 10.0, huge)] == [
        999 * MB, 995 * MB, None,
    ]  # fmt: skip
    assert [plan.lsn for plan in choices([], [], 0.0, huge)] == [None]


@pytest.mark.parametrize("seconds_left", [None, 0.0, 1.0, 100.0])
def test_every_plan_is_there_once(seconds_left: float | None) -> None:
    """Whatever the time, everything that can be tried is tried, once."""
    whole, partial = [1 * MB, 500 * MB, 1001 * MB], [2 * MB, 1002 * MB]
    found = [plan.lsn for plan in choices(whole, partial, seconds_left)]
    # Beyond the end nobody can be: such a receiver is of another history.
    assert sorted(lsn or 0 for lsn in found) == [0, 1 * MB, 2 * MB, 500 * MB]


def _manifest(*, has_image: bool) -> vault.Manifest:
    identity = Identity(UUID(int=1), 1, 1 << 20, (1, 2), 1 << 20)
    mark = Mark(2, 100, 0, 0, 1, 1 << 20) if has_image else None
    first, end = Place(2, 100, 7, 1), Place(2, 200, 8, 2)
    return vault.Manifest(1, identity, first, end, 1, 100, 16 if has_image else 0, mark)


def test_what_becomes_of_a_vault() -> None:
    """Each pair of replica and vault has its verdict; a later epoch and a longer log always win."""
    incompletes = (False, True)
    for has_image, incomplete in itertools.product((True, False), incompletes):
        manifest = _manifest(has_image=has_image)
        rebuild = incomplete

        def fit(
            lsn: int, epoch: int = 2, incomplete: bool = incomplete,
            manifest: vault.Manifest = manifest,
        ) -> Fit:  # fmt: skip
            return judge(Position(epoch, lsn, 0), incomplete, manifest)

        empty = judge(None, incomplete, manifest)
        assert empty is (Fit.REBUILD if has_image else Fit.REFUSE_EMPTY)
        assert fit(150, epoch=3) is Fit.REFUSE_EPOCH
        if rebuild:
            wanted = Fit.REBUILD if has_image else Fit.REFUSE_INCOMPLETE
            assert {fit(lsn) for lsn in (50, 150, 250)} == {wanted}
            continue
        assert fit(99) is (Fit.REBUILD if has_image else Fit.REFUSE_GAP)
        assert {fit(100), fit(150), fit(200), fit(150, epoch=1)} == {Fit.APPEND}
        assert fit(201) is Fit.REFUSE_AHEAD
