"""What happens when power fails: freeze, drain, seal; and when it returns."""

import asyncio

from shipper.shared import SharedPool

STEP_S = 0.02


async def save(pool: SharedPool, timeout_s: float) -> dict[str, object]:
    """Stop the writer and get the rest of its log to the receivers.

    Again, while it is under way or done, does no harm.

    Args:
        pool: The pool.
        timeout_s: How long to wait for receivers.

    Returns:
        What came of it: `sealed` is true if as many receivers as are required have everything,
        and know that it is everything.
    """
    async with pool.power_lock:
        begun = pool.clock()
        if _is_fenced(pool):
            return _refused(pool, "sealed")
        if pool.seal_lsn is None:
            await pool.freeze()
        if _is_fenced(pool):
            return _refused(pool, "sealed")
        pool.wake_all()
        while not _is_saved(pool) and pool.clock() - begun < timeout_s:  # noqa: ASYNC110 - many states
            await asyncio.sleep(STEP_S)
        return {
            "pool": pool.path,
            "id": pool.id,
            "sealed": _is_sealed(pool),
            "lsn": pool.seal_lsn,
            "receivers": {
                name: {
                    "sealed": session.sealed,
                    "lacks_bytes": (pool.seal_lsn or 0) - session.progress.durable,
                    "flushed_bytes": session.figures.bytes_after_freeze,
                }
                for name, session in pool.sessions.items()
            },
            "seconds": pool.clock() - begun,
        }


def _is_sealed(pool: SharedPool) -> bool:
    sealed = {name for name, session in pool.sessions.items() if session.sealed}
    return len(sealed) >= pool.config.require and pool.config.required <= sealed


def _is_saved(pool: SharedPool) -> bool:
    """Whether there is nothing more to wait for: enough are sealed, and so is everyone here."""
    return _is_sealed(pool) and all(session.sealed for session in pool.sessions.values())


async def restore(pool: SharedPool, timeout_s: float) -> dict[str, object]:
    """Let the writer go on: power is back.

    Receivers give their seals back first: one that kept its seal could be promoted as complete
    while the writer goes on.

    Args:
        pool: The pool.
        timeout_s: How long to wait for receivers.

    Returns:
        What came of it.
    """
    async with pool.power_lock:
        if _is_fenced(pool):
            return _refused(pool, "restored")
        seal_lsn, pool.seal_lsn = pool.seal_lsn, None
        pool.wake_all()
        begun = pool.clock()
        while not _is_fenced(pool) and pool.clock() - begun < timeout_s:
            held = _holders(pool)
            if not held:
                pool.unfreeze()
                pool.wake_all()
                return {"pool": pool.path, "restored": True}
            await asyncio.sleep(STEP_S)
        pool.seal_lsn = seal_lsn
        pool.wake_all()
        if _is_fenced(pool):  # by a hello, while we waited
            return _refused(pool, "restored")
        return {
            "pool": pool.path,
            "restored": False,
            "reason": "receivers that hold a seal cannot be reached: " + ", ".join(sorted(held)),
        }


def _holders(pool: SharedPool) -> set[str]:
    # All that were told, but those that say no now: what one acknowledged before it was told says
    # nothing, and one that is away may have the seal though its answer was lost.
    free = {
        name
        for name, session in pool.sessions.items()
        if session.has_spoken and not session.sealed and not session.may_hold_seal
    }
    return {*pool.told, *(name for name, one in pool.sessions.items() if one.sealed)} - free


def _is_fenced(pool: SharedPool) -> bool:
    return pool.fenced_epoch is not None


def _refused(pool: SharedPool, word: str) -> dict[str, object]:
    return {"pool": pool.path, word: False, "reason": "another pool has taken over"}
