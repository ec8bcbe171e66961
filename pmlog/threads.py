"""Work in threads that is never left alone with what it works on."""

import asyncio
import contextlib
from collections.abc import Callable
from typing import ParamSpec, TypeVar

_P = ParamSpec("_P")
_T = TypeVar("_T")


async def to_end(function: Callable[_P, _T], *args: _P.args, **named: _P.kwargs) -> _T:
    """Run a function in a thread; whoever cancels the caller waits until it has returned.

    `asyncio.to_thread` lets its caller go at once when it is cancelled, and the thread goes on with
    what the caller is then about to close.

    Args:
        function: What to run; it must end by itself.
        args: Its arguments.
        named: More of them.

    Returns:
        What it returns.

    Raises:
        CancelledError: The caller was cancelled; the function has returned.
    """
    work = asyncio.ensure_future(asyncio.to_thread(function, *args, **named))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        while not work.done():  # a thread cannot be cancelled; it ends by itself
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait([work])
        if not work.cancelled():
            work.exception()  # looked at: the caller has gone
        raise
