"""Transactions as `with` blocks; nested ones are savepoints.

Invariants:

1. A block that ends by an exception, of whatever kind, leaves nothing behind.
2. A transaction that nobody can end any more is rolled back when it is collected.
3. Inner blocks end before outer ones; where that is violated (interleaved generators or tasks),
   the whole transaction is rolled back and says so, since nobody can tell whose change is whose.
"""

from threading import get_ident
from types import TracebackType
from typing import Any, Final, Self

from pmlog._engine import E_NO_TRANSACTION, fast, ffi, lib, settle
from pmlog._handle import Core
from pmlog.errors import TransactionEndedError, UsageError
from pmlog.levels import Level

# In place of an open transaction's number, which is > 0.
_NEW: Final = 0
_ENDED: Final = -1

_tx_begin: Final = lib.pml_tx_begin
_tx_commit: Final = lib.pml_tx_commit
_tx_abort: Final = lib.pml_tx_abort


class Transaction(fast.Transaction):
    """All or nothing: what happens to the pool's containers in the block is committed at its end.

    Made by `Pool.transaction`; entered by `with`, once.
    The calling thread owns the pool until the block ends; other threads wait.
    Don't await inside: another task of the same thread would take part in this transaction.

    A block inside a block is a savepoint: an exception that leaves the inner one undoes what the
    inner one did; if the outer one catches it, the rest goes on.

    On return from the block the transaction survives the death of any process
    (`Level.COMMITTED`), and what more the pool's persistence domain gives.
    """

    __slots__ = ("_lsn", "_mark", "_savepoint")

    _core: Core
    _depth: int
    _id: int
    _lsn: int

    # `__enter__` and `__exit__` do the plain cases in C, and leave the others to these two.

    def _enter(self) -> Self:
        core = self._core
        me = get_ident()
        if core.owner == me or self._id != _NEW:
            return self._enter_nested()
        try:
            status = _tx_begin(core.pool, core.tx_id)
            if status:
                settle(status, core, _tx_begin, core.pool, core.tx_id)
            self._id = core.tx_id[0]
            core.owner = me
        except BaseException:
            # A signal's handler may raise between the engine's begin and the notes above.
            if not self._id and core.is_usable and lib.pml_tx_owned(core.pool):
                _tx_abort(core.pool, core.tx_id[0])
            raise
        self._depth = core.depth = 1
        return self

    def _exit(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        core = self._core
        if kind is not None or core.depth != self._depth or core.owner != get_ident():
            self._exit_hard(kind)
        elif self._depth > 1:
            core.depth -= 1
            self._id = _ENDED
        elif core.doomed:
            self._abort_doomed()
        else:
            try:
                # Before the engine lets go: the next owner may be there at once.
                core.owner = core.depth = 0
                status = _tx_commit(core.pool, self._id)
                if status:
                    self._commit_failed(status)
                self._id = _ENDED
                if core.events:
                    core.events.clear()
            except BaseException:
                self._abandon()
                raise

    @property
    def lsn(self) -> int:
        """End of the log when first asked after the block: waiting for it covers this transaction.

        It is exactly the end of this transaction's record if it is read before the next commit.

        Raises:
            UsageError: The transaction is still open, or was not committed.
        """
        core = self._core
        if hasattr(self, "_lsn"):
            return self._lsn
        if self._id != _ENDED or self._depth != 1:
            raise UsageError(
                f"{core.path}: a transaction has an LSN once its outermost block is committed",
                path=core.path,
            )
        position = ffi.new("struct pml_position *")
        settle(lib.pml_position(core.pool, position), core, lib.pml_position, core.pool, position)
        self._lsn = lsn = int(position.lsn)
        return lsn

    def rollback(self) -> None:
        """Undo what this block did so far; the block goes on from there.

        Raises:
            TransactionEndedError: The block has ended.
            UsageError: An inner block is open, or the thread is not the transaction's.
        """
        core = self._core
        self._must_be_open()
        if core.depth != self._depth or core.owner != get_ident():
            raise UsageError(
                f"{core.path}: only the innermost open transaction of a thread can be undone",
                path=core.path,
            )
        if self._depth > 1:
            status = lib.pml_tx_rollback(core.pool, self._id, self._savepoint)
            settle(status, core, lib.pml_tx_rollback, core.pool, self._id, self._savepoint)
            core.rolled_back(self._mark)
            return
        self._abandon()
        self._id = _NEW
        self.__enter__()

    def _must_be_open(self) -> None:
        if self._id <= _NEW:
            path = self._core.path
            what = "has ended" if self._id == _ENDED else "has not begun"
            raise TransactionEndedError(f"{path}: the transaction {what}", path=path)

    # ---- nesting -------------------------------------------------------------------------------

    def _enter_nested(self) -> Self:
        core = self._core
        if self._id == _ENDED:
            self._must_be_open()
        if self._id != _NEW:
            raise UsageError(
                f"{core.path}: this transaction is open already",
                hint="make another one with pool.transaction()",
                path=core.path,
            )
        savepoint = lib.pml_tx_savepoint(core.pool, core.tx_id[0])
        if savepoint == E_NO_TRANSACTION:
            # Another thread's collector ended the transaction that this thread thought it had.
            core.owner = core.depth = 0
            return self.__enter__()
        self._savepoint = settle(savepoint, core, lib.pml_tx_savepoint, core.pool, core.tx_id[0])
        self._mark = len(core.events)
        core.depth += 1
        self._depth = core.depth
        self._id = core.tx_id[0]
        return self

    # ---- ends other than a plain commit --------------------------------------------------------

    def _exit_hard(self, kind: type[BaseException] | None) -> None:
        core = self._core
        if kind is None:
            self._must_be_open()
        elif self._id <= _NEW:
            return
        in_order = core.depth == self._depth and core.owner == get_ident()
        self._abandon()
        if kind is not None:
            return
        core.live()
        if not in_order:
            raise UsageError(
                f"{core.path}: transactions must end in the reverse order of their beginning, in "
                "the thread that began them; this one was rolled back",
                hint="don't let generators or tasks interleave their transactions",
                path=core.path,
            )

    def _abandon(self) -> None:
        """Undo what the block did, from whatever thread; never raises."""
        core = self._core
        number, self._id = self._id, _ENDED
        if number <= _NEW or not core.is_usable:
            return
        in_order = core.depth == self._depth and core.owner == get_ident()
        if self._depth > 1 and in_order:
            core.depth -= 1
            lib.pml_tx_rollback(core.pool, number, self._savepoint)
        elif self._depth > 1:
            # The owner may be at work in this very moment: it ends the transaction itself.
            if core.owner and core.tx_id[0] == number:
                core.doomed = "an inner transaction ended out of order, or in another thread"
            return
        else:
            if core.tx_id[0] == number:
                core.owner = core.depth = 0
                core.doomed = ""
            if _tx_abort(core.pool, number) == E_NO_TRANSACTION:
                return
        core.rolled_back(self._mark if self._depth > 1 else 0)

    def _abort_doomed(self) -> None:
        core = self._core
        reason = core.doomed
        self._abandon()
        raise UsageError(
            f"{core.path}: {reason}; the whole transaction was rolled back", path=core.path
        )

    def _commit_failed(self, status: int) -> None:
        core = self._core
        error = core.failure(status)
        # The engine has undone the transaction, except where it could not know (MediumError).
        number, self._id = self._id, _ENDED
        _tx_abort(core.pool, number)
        core.rolled_back()
        raise error


class LevelTransaction(Transaction):
    """A transaction whose block returns once it has reached a level.

    Args:
        core: The pool.
        pool: The object that waits.
        level: The level.
        timeout: How long to wait for it, in seconds; None: as long as it takes.
    """

    __slots__ = ("_level", "_pool", "_timeout")

    def __init__(self, core: Core, pool: Any, level: Level, timeout: float | None) -> None:
        super().__init__(core)
        self._pool = pool
        self._level = level
        self._timeout = timeout

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        outermost = self._depth == 1
        super().__exit__(kind, error, traceback)
        if kind is None and outermost:
            self._pool.wait(self._level, self.lsn, self._timeout)
