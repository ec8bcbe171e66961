"""A writer of its own: counts in one pool, a transaction a number, until it is stopped or killed.

Its standard output says, one JSON object a line, when it is open, and why and where it ended.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

import pmlog


def say(**words: Any) -> None:
    """Tell the test something."""
    print(json.dumps(words), flush=True)


def main() -> None:
    """Count from where the pool stands, up to a number if one is given."""
    path = os.environ.get("PMLOG_POOL") or sys.argv[1]
    limit = int(sys.argv[2]) if len(sys.argv) > 2 else None
    try:
        pool = pmlog.open(path, size="1MiB", log_size="4MiB")
    except pmlog.ReplicationError as error:
        say(event="refused", error=type(error).__name__)
        return
    with pool:
        numbers = pool.dict("numbers")
        last = pool.array("last", shape=(1,), dtype="i8")
        say(event="open", last=int(last[0]), epoch=pool.position.epoch)
        number = int(last[0])
        try:
            while limit is None or number < limit:
                try:
                    with pool.transaction():
                        numbers[(number + 1) % 500] = number + 1
                        last[0] = number + 1
                except pmlog.CapacityError:
                    time.sleep(0.001)  # a receiver is behind: nothing changed
                    continue
                number += 1
        except pmlog.ReplicationError as error:
            say(event="stopped", error=type(error).__name__, last=number)
            return
        say(event="done", last=number, epoch=pool.position.epoch)


if __name__ == "__main__":
    main()
