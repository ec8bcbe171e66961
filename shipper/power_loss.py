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
        if pool.fenced_epoch is not None:
            return {"pool": pool.path, "sealed": False, "reason": "another pool has taken over"}
        if pool.seal_lsn is None:
            await pool.freeze()
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
        if pool.fenced_epoch is not None:
            return {"pool": pool.path, "restored": False, "reason": "another pool has taken over"}
        seal_lsn, pool.seal_lsn = pool.seal_lsn, None
        pool.wake_all()
        begun = pool.clock()
        while pool.clock() - begun < timeout_s:
            known = {name for name, one in pool.progress.items() if one.durable == seal_lsn}
            held = {name for name, one in pool.sessions.items() if one.sealed}
            missing = known - set(pool.sessions)
            if not held and not missing:
                pool.unfreeze()
                pool.wake_all()
                return {"pool": pool.path, "restored": True}
            await asyncio.sleep(STEP_S)
        pool.seal_lsn = seal_lsn
        pool.wake_all()
        return {
            "pool": pool.path,
            "restored": False,
            "reason": "receivers that hold a seal cannot be reached: " + ", ".join(missing | held),
        }
