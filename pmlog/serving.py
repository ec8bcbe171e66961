"""Shipping a pool's log from inside the application: `pmlog.serve`.

The shipper stays a package of its own, which is imported when somebody serves: who does not, pays
for neither network nor event loop.
"""

from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from pmlog.errors import ClosedError, MediumError, PmlogError
from pmlog.pool import Pool

if TYPE_CHECKING:
    from shipper.background import Background


class Serving:
    """A shipper that runs in a thread of this process; made by `pmlog.serve`.

    Threads: any may call any method.
    The pool may be closed before or after it; what was committed is shipped as long as this runs.
    """

    def __init__(self, path: str, background: "Background") -> None:
        self._path = path
        self._background = background
        assert background.listening is not None
        self._url = background.listening.url

    @property
    def url(self) -> str:
        """What receivers dial, as in `pmlog receive --from URL`."""
        return self._url

    def status(self) -> dict[str, Any]:
        """Tell how far receivers are.

        Returns:
            The pool's entry of `GET /v1/pools`.

        Raises:
            ClosedError: It was closed.
            ForkedError: It belongs to the parent process.
        """
        return self._background.describe()[0]

    def close(self) -> None:
        """Stop shipping: receivers are disconnected, the thread has ended on return.

        Again is fine, and so is a call in a forked child, where it does nothing.
        Without it the same happens when the interpreter exits.
        """
        self._background.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<pmlog.Serving {self._path!r} at {self._url}>"


def serve(
    pool: Pool,
    *,
    listen: str = "127.0.0.1:7070",
    require: int = 1,
    required: Iterable[str] = (),
    token_file: str | Path | None = None,
    tls_cert: str | Path | None = None,
    tls_key: str | Path | None = None,
    tls_ca: str | Path | None = None,
) -> Serving:
    """Ship a pool's log from a thread of this process, as `pmlog ship` does from its own.

    Levels above LOCAL can be waited for while it runs.
    A process of its own is safer: it outlives this one, and saves what was committed when power
    fails after a crash of the application; and it does not share the interpreter's lock.

    Args:
        pool: An open pool.
        listen: HOST:PORT; port 0 takes any free one. Anything but loopback needs a token and TLS.
        require: How many receivers a level needs; at least 1.
        required: Names of receivers for which writers wait when the log is full.
        token_file: File with the token that everybody who asks has to know.
        tls_cert: Certificate of this side.
        tls_key: Its private key.
        tls_ca: Who vouches for receivers; they need certificates then.

    Returns:
        What stops it; a context manager.

    Raises:
        ClosedError: The pool is closed.
        ConfigError: An option cannot be used.
        MediumError: The address cannot be used.
        PoolLockedError: Another shipper serves the pool.
        PmlogError: The pool's log cannot be read.
    """
    from pmlog import security
    from pmlog.addresses import parse_listen
    from pmlog.errors import ConfigError
    from shipper.background import Background
    from shipper.config import Config

    if pool.closed:
        raise ClosedError(f"{pool.path}: the pool is closed", path=pool.path)
    if require < 1:
        raise ConfigError(f"require={require}: a level needs at least 1 receiver")
    files = [None if one is None else Path(one) for one in (token_file, tls_cert, tls_key, tls_ca)]
    has = security.load(*files)
    config = Config(
        (pool.path,), parse_listen(listen, has), require, frozenset(required), security=has
    )
    try:
        return Serving(pool.path, Background(config))
    except PmlogError:
        raise  # some are OSErrors too
    except OSError as error:
        raise MediumError(
            f"cannot listen at {listen}: {error}", hint="port 0 takes any free one"
        ) from error
