"""A replica that was made and never got a record: there is nothing to promote."""

from __future__ import annotations

from pathlib import Path

import pytest

import pmlog
from pmlog.addresses import parse_listen
from pmlog.log import LogReader
from pmlog.replica import Replica
from receiver.config import Config
from receiver.receiver import Receiver
from tests.support import OpenPool


@pytest.mark.parametrize("accept_loss", [False, True])
async def test_is_not_promoted(open_pool: OpenPool, memory_dir: Path, accept_loss: bool) -> None:
    """A receiver whose shipper died right after hello refuses, and can go on receiving.

    With loss accepted it once stored its promotion mark and then failed for good: the first record
    of the new epoch stood where the heap's first transaction belongs.
    """
    with open_pool() as pool, LogReader(pool.path) as reader:
        identity = reader.identity()
    folder = memory_dir / "one"
    folder.mkdir()
    Replica(folder / "pool", identity).close()
    listen = parse_listen("127.0.0.1:0")
    receiver = Receiver(Config(("http://127.0.0.1:1",), folder, "one", "any", listen))
    await receiver.start()
    try:
        with pytest.raises(pmlog.NotPromotableError):
            await receiver.promote(accept_loss)
        assert receiver.state.promotion is None
        assert receiver.replica is not None
    finally:
        await receiver.stop()
