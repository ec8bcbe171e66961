"""The demo's application: money goes from account to account, until the process is killed.

Each transfer is one transaction over a dict (the balances), a deque (the journal of transfers)
and an array (what each account has sent and received).
"""

import random
import sys
from typing import Final

import pmlog

ACCOUNTS: Final = 1_000
OPENING_CENTS: Final = 100_000
AMOUNT_CENTS_MAX: Final = 500
ACKNOWLEDGE_EVERY: Final = 50
OPTIONS: Final = {"size": "16MiB", "log_size": "16MiB"}


def run(path: str, seed: int) -> None:
    """Transfer money until killed; acknowledge every so many transfers on standard output.

    Args:
        path: The pool.
        seed: Of the amounts.
    """
    rng = random.Random(seed)  # noqa: S311 - repeatable, not secret
    pool = pmlog.open(path, **OPTIONS)  # type: ignore[arg-type]  # strings, all of them
    balances, journal = pool.dict("balances"), pool.deque("journal")
    totals = pool.array("totals", shape=(ACCOUNTS, 2), dtype="i8")
    if not balances:
        balances.update(dict.fromkeys(range(ACCOUNTS), OPENING_CENTS))
    number = len(journal)
    say = sys.stdout.buffer.write
    say(b"%d\n" % number)
    sys.stdout.buffer.flush()
    while True:
        giver, taker = rng.sample(range(ACCOUNTS), 2)
        cents = rng.randint(1, AMOUNT_CENTS_MAX)
        with pool.transaction():
            balances[giver] -= cents
            balances[taker] += cents
            journal.append((giver, taker, cents))
            totals[giver, 0] += cents
            totals[taker, 1] += cents
        number += 1
        if number % ACKNOWLEDGE_EVERY == 0:
            say(b"%d\n" % number)
            sys.stdout.buffer.flush()


if __name__ == "__main__":
    run(sys.argv[1], int(sys.argv[2]))
