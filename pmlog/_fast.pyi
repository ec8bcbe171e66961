"""The hot calls, made in C (`_native/python`); bases of what the modules of these names define."""

from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, Self

class Core:
    owner: int
    depth: int
    doomed: str
    events: list[Any]
    def _bind(self, pool: int, tx_id: int, /) -> None: ...

class Handle:
    version: int
    edits: int
    def _bind(self, container: int, pool: int, /) -> None: ...

class Transaction:
    _depth: int
    _id: int
    def __init__(self, core: Core, /) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None: ...

class _Container:
    def _bind(
        self,
        handle: Handle,
        decode: Callable[[Any], Any] | None,
        plain_bytes: bool,
        untyped: bool,
        /,
    ) -> None: ...

class Dict(_Container):
    def __getitem__(self, key: Any, /) -> Any: ...
    def __setitem__(self, key: Any, value: Any, /) -> None: ...
    def __delitem__(self, key: Any, /) -> None: ...
    def __contains__(self, key: object, /) -> bool: ...
    def get(self, key: Any, default: Any = None) -> Any: ...
    def _get_many(
        self, keys: Iterable[Any], default: Any, encode_key: Callable[[Any], tuple[bytes, int]], /
    ) -> list[Any] | None: ...

class Deque(_Container):
    def append(self, value: Any, /) -> None: ...
    def appendleft(self, value: Any, /) -> None: ...
    def pop(self, index: int = -1, /) -> Any: ...
    def popleft(self) -> Any: ...

class Region(_Container):
    def write(self, offset: int, data: bytes | bytearray | memoryview) -> None: ...
    def read(self, offset: int = 0, size: int | None = None) -> bytes: ...

def configure(encode: Callable[[Any], bytes], /) -> None: ...
def pack(
    pairs: Iterable[tuple[Any, Any]],
    encode_key: Callable[[Any], tuple[bytes, int]],
    encode_value: Callable[[Any], tuple[bytes, int]],
    /,
) -> tuple[int, bytes, bytes, bytes, bytes]: ...
