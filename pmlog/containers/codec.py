"""Keys and values as bytes: MessagePack by msgspec, never pickle. Pure.

The engine stores (bytes, kind) and compares keys by both:

- `bytes` and `str` keys, and `bytes` values, are stored as they are;
- everything else is MessagePack.

Keys that are equal in Python must be equal bytes, so keys are put into one form before they are
encoded: an int for every bool and every float of integral value that MessagePack's integers can
hold, and one NaN; within tuples too.
"""

import math
from collections import deque
from collections.abc import Callable
from typing import Any, Final

import msgspec

from pmlog import limits
from pmlog._engine import KIND_BYTES, KIND_MSGPACK, KIND_STR, fast
from pmlog.errors import DecodeError, EncodeError

# MessagePack's integers.
_INT_MIN: Final = -(1 << 63)
_INT_MAX: Final = (1 << 64) - 1

_KEY_TYPES: Final = "str, bytes, int, float, bool, None and tuples of them"


def _encode_other(value: Any) -> Any:
    """Give msgspec what it knows in place of what it does not.

    Args:
        value: Of a type that msgspec does not encode.

    Returns:
        A value of a builtin type with the same content.

    Raises:
        TypeError: There is none.
    """
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value)
    if isinstance(value, bytes):
        return bytes(value)
    if isinstance(value, deque):
        return list(value)
    # numpy's scalars, without importing numpy.
    if type(value).__module__ == "numpy" and hasattr(value, "item"):
        item = value.item()
        if type(item) is not type(value):
            return item
    raise TypeError(f"objects of type {type(value).__qualname__} cannot be stored")


encode_msgpack: Final[Callable[[Any], bytes]] = msgspec.msgpack.Encoder(
    enc_hook=_encode_other
).encode
fast.configure(encode_msgpack)
_decode_any: Final[Callable[[Any], Any]] = msgspec.msgpack.Decoder().decode


# ---- keys --------------------------------------------------------------------------------------


def _canonical(key: Any) -> Any:
    """Put a key that is neither str nor bytes into the one form of all keys equal to it.

    Args:
        key: The key, or an element of a key that is a tuple.

    Returns:
        None, int, float, str, bytes, or a tuple of these.

    Raises:
        EncodeError: Keys cannot be of this type.
        TypeError: It is not hashable.
    """
    if isinstance(key, tuple):
        return tuple(_canonical(element) for element in key)
    if key is None:
        return None
    if isinstance(key, str):
        return str.__str__(key)
    if isinstance(key, bytes):
        return bytes(key)
    if isinstance(key, int):
        number = int(key)
    elif isinstance(key, float):
        if not (key.is_integer() and _INT_MIN <= key <= _INT_MAX):
            return math.nan if math.isnan(key) else float(key)
        number = int(key)
    else:
        hash(key)  # lists, dicts and sets: TypeError, as dict says it
        if isinstance(key, memoryview):
            return bytes(key)
        if type(key).__module__ == "numpy" and hasattr(key, "item"):
            item = key.item()
            if isinstance(item, (int, float, str, bytes)):
                return _canonical(item)
        raise EncodeError(
            f"keys cannot be of type {type(key).__qualname__}", hint=f"keys are {_KEY_TYPES}"
        )
    if not _INT_MIN <= number <= _INT_MAX:
        raise EncodeError(f"keys cannot be integers beyond 64 bits: {number}")
    return number


def encode_key(key: Any) -> tuple[bytes, int]:
    """Encode a key of any type.

    Args:
        key: str, bytes, int, float, bool, None, or a tuple of these.

    Returns:
        Its bytes, and their word for the engine.

    Raises:
        EncodeError: Keys cannot be of this type, or the key is too long.
        TypeError: It is not hashable.
    """
    try:
        if type(key) is not str and type(key) is not bytes:
            key = _canonical(key)
        if type(key) is str:
            data, kind = key.encode(), KIND_STR
        elif type(key) is bytes:
            data, kind = key, KIND_BYTES
        else:
            data, kind = encode_msgpack(key), KIND_MSGPACK
    except (UnicodeEncodeError, RecursionError) as error:
        raise EncodeError(f"the key cannot be encoded: {error}") from error
    if len(data) > limits.KEY_BYTES_MAX:
        raise EncodeError(
            f"the key takes {len(data)} bytes encoded, at most {limits.KEY_BYTES_MAX} are allowed"
        )
    return data, len(data) << 8 | kind


def _tuples(value: Any) -> Any:
    return tuple(_tuples(element) for element in value) if type(value) is list else value


def decode_key(data: bytes, word: int) -> Any:
    """Decode a key.

    Args:
        data: Its bytes.
        word: Their word from the engine.

    Returns:
        The key; tuples come back as tuples.
    """
    kind = word & 0xFF
    if kind == KIND_STR:
        return data.decode()
    if kind == KIND_BYTES:
        return data
    return _tuples(_decode_any(data))


# ---- values ------------------------------------------------------------------------------------


def encode_value(value: Any) -> tuple[bytes, int]:
    """Encode a value of any type.

    Args:
        value: The value.

    Returns:
        Its bytes, and their word for the engine.

    Raises:
        EncodeError: It cannot be stored.
    """
    if type(value) is bytes:
        data, kind = value, KIND_BYTES
    else:
        try:
            data, kind = encode_msgpack(value), KIND_MSGPACK
        except Exception as error:
            refusal = encode_failure(value, error)
            raise refusal from error
    return data, len(data) << 8 | kind


def encode_failure(value: Any, error: Exception) -> EncodeError:
    """Make the error for a value that msgspec does not encode.

    Args:
        value: The value.
        error: What msgspec said.

    Returns:
        The error, to be raised.
    """
    hint = (
        "the value is nested too deeply"
        if isinstance(error, RecursionError)
        else "values are str, bytes, int, float, bool, None, lists, tuples and dicts of them, "
        "msgspec Structs and dataclasses"
    )
    return EncodeError(
        f"a value of type {type(value).__qualname__} cannot be encoded: {error}", hint=hint
    )


class ValueDecoder:
    """Decode the values of one container.

    Args:
        type: What the values are; None: whatever they are.
    """

    __slots__ = ("decode_msgpack", "plain_bytes", "type")

    def __init__(self, type: Any) -> None:
        self.type = type
        self.decode_msgpack: Callable[[Any], Any]
        if type is None:
            self.decode_msgpack = _decode_any
            self.plain_bytes = True
        else:
            self.decode_msgpack = msgspec.msgpack.Decoder(type).decode
            self.plain_bytes = type in (bytes, Any)

    def decode(self, data: bytes, word: int) -> Any:
        """Decode a value.

        Args:
            data: Its bytes.
            word: Their word from the engine.

        Returns:
            The value.

        Raises:
            DecodeError: It is not of the type.
        """
        try:
            if word & 0xFF != KIND_BYTES:
                return self.decode_msgpack(data)
            if self.plain_bytes:
                return data
            return msgspec.convert(data, type=self.type)
        except (msgspec.MsgspecError, RecursionError, ValueError) as error:
            raise self.failure(error) from error

    def failure(self, error: Exception) -> DecodeError:
        """Make the error for a value that is not of the type.

        Args:
            error: What msgspec said.

        Returns:
            The error, to be raised.
        """
        if self.type is None:
            return DecodeError(f"a stored value cannot be decoded: {error}", hint="")
        return DecodeError(f"a stored value is not of type {self.type!r}: {error}")
