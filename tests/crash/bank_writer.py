"""A bank whose every step is decided by its number: what the killed child runs, and what it must leave.

Transaction n moves money between two of 1,000 accounts in a dict, appends to a journal in a deque
and adds to totals in an array.  Who, how much, and how long the memo is follow from n alone, so
that the state after n transactions can be computed without having watched them.
"""

from __future__ import annotations

import mmap
from collections import deque
from typing import Any

import pmlog

ACCOUNTS = 1_000
START = 1_000_000
JOURNAL_MAX = 300
CHECKPOINT_EVERY = 701
REOPEN_EVERY = 2_003
TOTALS = 3  # sum of all accounts, transactions, sum of all amounts

Connection = Any  # multiprocessing's class takes type parameters in some versions only


def step(n: int) -> tuple[int, int, int, bytes]:
    """Return who pays, who gets, how much, and the memo, of transaction n."""
    mixed = (n * 0x9E3779B97F4A7C15 + 0x632BE59BD9B4E019) % 2**64
    mixed ^= mixed >> 29
    payer = mixed % ACCOUNTS
    payee = (payer + 1 + (mixed >> 10) % (ACCOUNTS - 1)) % ACCOUNTS
    amount = (mixed >> 20) % 1_000
    # Mostly short; one in 64 long enough to take pages of its own.
    length = (mixed >> 30) % 40 if mixed % 64 else (mixed >> 30) % 12_000
    return payer, payee, amount, bytes([n % 256]) * length


class Model:
    """The bank in plain Python: the state after `n` transactions."""

    def __init__(self) -> None:
        self.n = 0
        self.accounts = dict.fromkeys(range(ACCOUNTS), START)
        self.journal: deque[list[Any]] = deque()
        self.totals = [ACCOUNTS * START, 0, 0]

    def advance(self, n: int) -> None:
        """Go on to the state after n transactions."""
        while self.n < n:
            self.n += 1
            payer, payee, amount, memo = step(self.n)
            self.accounts[payer] -= amount
            self.accounts[payee] += amount
            self.journal.append([self.n, payer, payee, amount, memo])
            if len(self.journal) > JOURNAL_MAX:
                self.journal.popleft()
            self.totals[1] = self.n
            self.totals[2] += amount


class Bank:
    """The bank in a pool."""

    def __init__(self, pool: pmlog.Pool) -> None:
        self.pool = pool
        self.accounts = pool.dict("accounts")
        self.journal = pool.deque("journal")
        self.totals = pool.array("totals", shape=(TOTALS,), dtype="i8")

    def found(self) -> None:
        """Open the accounts, in one transaction."""
        with self.pool.transaction():
            self.accounts.update(dict.fromkeys(range(ACCOUNTS), START))
            self.totals[...] = [ACCOUNTS * START, 0, 0]

    def run(self, n: int) -> None:
        """Carry out transaction n."""
        payer, payee, amount, memo = step(n)
        with self.pool.transaction():
            self.accounts[payer] = self.accounts[payer] - amount
            self.accounts[payee] = self.accounts[payee] + amount
            self.journal.append([n, payer, payee, amount, memo])
            if len(self.journal) > JOURNAL_MAX:
                self.journal.popleft()
            self.totals[1] = n
            self.totals[2] += amount

    def run_split(self, n: int) -> None:
        """Carry out transaction n wrongly, as two: the canary that the verifier must catch."""
        payer, payee, amount, memo = step(n)
        self.accounts[payer] = self.accounts[payer] - amount
        with self.pool.transaction():
            self.accounts[payee] = self.accounts[payee] + amount
            self.journal.append([n, payer, payee, amount, memo])
            if len(self.journal) > JOURNAL_MAX:
                self.journal.popleft()
            self.totals[1] = n
            self.totals[2] += amount

    def differences(self, model: Model, acknowledged: int, unseen: int = 0) -> list[str]:
        """Compare with the model, which advances to what is found here.

        Args:
            model: The state at an earlier or the same transaction.
            acknowledged: The last transaction that the killed writer was told of.
            unseen: How many transactions more than the model's the pool may have had before.

        Returns:
            What is wrong, in words; empty: the state is that after some transaction, and none
            that was acknowledged is missing.
        """
        if not len(self.accounts):
            # Killed before the accounts were opened.
            empty = not len(self.journal) and not self.totals[...].any()
            return [] if empty and not acknowledged and not model.n else ["the bank is gone"]
        n = int(self.totals[1])
        if n < max(acknowledged, model.n):
            return [f"transaction {max(acknowledged, model.n)} was acknowledged, state is at {n}"]
        if n > max(acknowledged, model.n + unseen) + 1:
            return [f"state is at {n}, but {acknowledged} was the last one that ended"]
        model.advance(n)
        wrong = []
        if dict(self.accounts) != model.accounts:
            wrong.append(f"accounts differ at {n}")
        if list(self.journal) != list(model.journal):
            wrong.append(f"journal differs at {n}")
        if self.totals[...].tolist() != model.totals:
            wrong.append(f"totals differ at {n}: {self.totals[...].tolist()}")
        return wrong


class Acknowledged:
    """The number of the last acknowledged transaction, in a file that survives the child.

    One store of eight bytes: struct.pack_into zeroes them first, and a kill in between would leave 0.
    """

    def __init__(self, path: str) -> None:
        with open(path, "a+b") as file:
            file.truncate(mmap.PAGESIZE)
            self._words = memoryview(mmap.mmap(file.fileno(), mmap.PAGESIZE)).cast("Q")

    @property
    def n(self) -> int:
        """Return the number."""
        return self._words[0]

    @n.setter
    def n(self, number: int) -> None:
        self._words[0] = number


def work_until_killed(
    connection: Connection,
    path: str,
    acknowledged_path: str,
    options: dict[str, Any],
    is_split: bool,
) -> None:
    """Open the bank and carry out transactions until the end comes.

    Checkpoints, and closes and opens, are on the way, so that kills fall into them too.
    """
    acknowledged = Acknowledged(acknowledged_path)
    connection.send("opening")
    pool = pmlog.open(path, **options)
    bank = Bank(pool)
    if not len(bank.accounts):
        bank.found()
    connection.send("open")
    n = int(bank.totals[1])
    while True:
        n += 1
        (bank.run_split if is_split else bank.run)(n)
        acknowledged.n = n
        if n % CHECKPOINT_EVERY == 0:
            pool.checkpoint()
        if n % REOPEN_EVERY == 0:
            pool.close()
            pool = pmlog.open(path, **options)
            bank = Bank(pool)
