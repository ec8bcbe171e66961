"""What `keys`, `values` and `items` of a dict in a pool give."""

from collections.abc import ItemsView, Iterator, KeysView, Mapping, MappingView, ValuesView
from typing import Any, Final

from pmlog._handle import Handle
from pmlog.containers.codec import ValueDecoder
from pmlog.containers.dict_scan import ITEMS, KEYS, VALUES, walk

_NONE: Final = object()


class _View(MappingView):
    """What the three have in common.

    Args:
        mapping: The dict.
        handle: Its handle.
        decoder: Of its values.
    """

    __slots__ = ("_decoder", "_handle")

    _mapping: Mapping[Any, Any]
    _want: int

    def __init__(self, mapping: Mapping[Any, Any], handle: Handle, decoder: ValueDecoder) -> None:
        super().__init__(mapping)
        self._handle = handle
        self._decoder = decoder

    def __iter__(self) -> Iterator[Any]:
        return walk(self._handle, self._decoder, self._want)

    def __reversed__(self) -> Iterator[Any]:
        return walk(self._handle, self._decoder, self._want, reverse=True)


class DictKeys(_View, KeysView[Any]):
    """The keys of a dict in a pool."""

    __slots__ = ()
    _want = KEYS


class DictValues(_View, ValuesView[Any]):
    """The values of a dict in a pool."""

    __slots__ = ()
    _want = VALUES

    def __contains__(self, value: object) -> bool:
        return any(other is value or other == value for other in self)


class DictItems(_View, ItemsView[Any, Any]):
    """The entries of a dict in a pool."""

    __slots__ = ()
    _want = ITEMS

    def __contains__(self, item: object) -> bool:
        if not isinstance(item, tuple) or len(item) != 2:
            return False
        value = self._mapping.get(item[0], _NONE)
        return value is not _NONE and bool(value == item[1])
