"""What shipper and receiver say to each other. Pure; docs/wire.md is the specification.

- Frames carry log bytes: a header of 64 bytes, then the bytes, plain or compressed.
- Messages carry everything else: JSON objects, whose field `type` says which.
- `answer_hello` decides what a receiver gets: the log, a baseline first, or a refusal.

Nothing read here is believed before it is in range, and no log byte before its digest matches.
A frame may end inside a record: whether the records are sound their own chain says, where they
are appended.
"""

from dataclasses import dataclass
from enum import Enum
from struct import Struct
from typing import Any, Final
from uuid import UUID

import lz4.block
import msgspec
import xxhash

from pmlog import limits
from pmlog.errors import ProtocolError
from pmlog.history import Beginnings
from pmlog.history import Place as Place  # noqa: PLC0414 - it is a word of the wire, too
from pmlog.identity import Identity, Mark

VERSION: Final = 1
"""Of the protocol: both sides have the same one."""

MAGIC: Final = b"PMLF"
HEADER: Final = Struct("<4sHH16sIIQII16s")
HEADER_BYTES: Final = HEADER.size
FRAME_BYTES_MAX: Final = HEADER_BYTES + limits.FRAME_RAW_BYTES_MAX
"""No frame is longer: what does not shrink is sent as it is."""


class Codec(Enum):
    """How a frame's bytes are packed."""

    NONE = 0
    LZ4 = 1
    """An lz4 block without a size in front."""


# ---- frames ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Frame:
    """A run of log bytes."""

    pool_id: UUID
    epoch: int
    """Of the primary that sent it."""
    lsn: int
    """Of the first byte."""
    data: bytes | memoryview
    """The bytes, verified."""


def encode_frame(
    pool_id: UUID, epoch: int, lsn: int, data: bytes | memoryview, codec: Codec
) -> bytes:
    """Pack a run of log bytes.

    Args:
        pool_id: The pool.
        epoch: Of the sender.
        lsn: Of the first byte.
        data: From 1 to `limits.FRAME_RAW_BYTES_MAX` bytes.
        codec: How to pack them; what does not shrink is sent as it is.

    Returns:
        The frame.

    Raises:
        ProtocolError: There are no bytes, or too many.
    """
    if not 0 < len(data) <= limits.FRAME_RAW_BYTES_MAX:
        raise ProtocolError(f"a frame of {len(data)} bytes")
    payload = data
    if codec is Codec.LZ4:
        packed: bytes = lz4.block.compress(data, store_size=False)
        if len(packed) < len(data):
            payload = packed
        else:
            codec = Codec.NONE
    header = HEADER.pack(
        MAGIC,
        VERSION,
        codec.value,
        pool_id.bytes,
        epoch,
        0,
        lsn,
        len(data),
        len(payload),
        _digest(lsn, data),
    )
    return b"".join((header, payload))  # the only copy of the bytes


def _digest(lsn: int, data: bytes | memoryview) -> bytes:
    # Of the place too: a block of a baseline that came to lie where another one was asked for would
    # be sound by itself, and nothing else tells them apart.
    return xxhash.xxh3_128_digest(data, seed=lsn)


def payload_bytes(header: bytes) -> int:
    """Read how many bytes follow a frame's header, where frames stand one after the other.

    Args:
        header: `HEADER_BYTES` bytes; nothing of it is verified yet.

    Returns:
        What it says.
    """
    return int(HEADER.unpack(header)[8])


def decode_frame(message: bytes | memoryview) -> Frame:
    """Unpack and verify a frame.

    Args:
        message: All of its bytes.

    Returns:
        The frame; its bytes are what was packed.

    Raises:
        ProtocolError: It is not a frame, or not what was sent.
    """
    view = memoryview(message)
    if not HEADER_BYTES < len(view) <= FRAME_BYTES_MAX:
        raise ProtocolError(f"a frame of {len(view)} bytes")
    magic, version, code, number, epoch, reserved, lsn, raw_bytes, wire_bytes, digest = (
        HEADER.unpack_from(view)
    )
    if magic != MAGIC or version != VERSION or reserved:
        raise ProtocolError("not a frame of this version")
    if not 0 < raw_bytes <= limits.FRAME_RAW_BYTES_MAX or wire_bytes != len(view) - HEADER_BYTES:
        raise ProtocolError(f"a frame's lengths are {raw_bytes} and {wire_bytes}")
    if not 0 < lsn < 1 << 63 or not epoch:
        raise ProtocolError(f"a frame of epoch {epoch} at LSN {lsn}")
    payload = view[HEADER_BYTES:]
    if code == Codec.NONE.value:
        if raw_bytes != wire_bytes:
            raise ProtocolError("a plain frame's lengths differ")
        data: bytes | memoryview = payload
    elif code == Codec.LZ4.value:
        try:
            data = lz4.block.decompress(payload, uncompressed_size=raw_bytes)
        except lz4.block.LZ4BlockError as error:
            raise ProtocolError(f"a frame at LSN {lsn} cannot be unpacked: {error}") from None
        if len(data) != raw_bytes:
            raise ProtocolError(f"a frame at LSN {lsn} unpacks to another size than it says")
    else:
        raise ProtocolError(f"a frame with codec {code}")
    if _digest(lsn, data) != digest:
        raise ProtocolError(f"a frame at LSN {lsn} does not match its digest")
    return Frame(UUID(bytes=number), epoch, lsn, data)


# ---- messages ----------------------------------------------------------------------------------


class Message(
    msgspec.Struct, frozen=True, tag_field="type", tag=str.lower, forbid_unknown_fields=True
):
    """Root of all messages."""


class Hello(Message, frozen=True):
    """Receiver: who I am and what I have. The first message of a connection."""

    version: int
    pool: str
    """The pool's number, or `any` for the only one."""
    name: str
    """The receiver's own; two of one name are one receiver."""
    place: Place | None = None
    """The end of my durable log; none: I have no copy yet."""
    rebuild: bool = False
    """My copy is not whole: compare its blocks."""
    whole: int = 0
    """My copy is of use only once the log is applied up to this LSN; 0: it is already."""
    heard: int = 0
    """The latest epoch that I have heard of."""
    history: Beginnings = ()
    """Where the epochs of my log began."""


class Stream(Message, frozen=True):
    """Shipper: the log follows, from exactly here."""

    lsn: int
    epoch: int
    identity: Identity
    history: Beginnings = ()
    """Where the epochs of the primary's log began."""


class Baseline(Message, frozen=True):
    """Shipper: compare blocks first, then the log follows from the mark."""

    mark: Mark
    epoch: int
    identity: Identity
    history: Beginnings = ()
    """Where the epochs of the primary's log began."""
    common: int | None = None
    """The receiver's log is the beginning of the primary's up to here; none: that is not known."""


class Refuse(Message, frozen=True):
    """Shipper: no, and why. The last message of a connection."""

    code: str
    reason: str


class Ack(Message, frozen=True):
    """Receiver: everything below is verified, durable, readable here."""

    received: int
    durable: int
    applied: int
    sealed: bool = False
    """The seal is durable here too."""


class Heartbeat(Message, frozen=True):
    """Shipper: I live, and the primary's log ends there."""

    lsn: int


class SaveStarted(Message, frozen=True):
    """Shipper: power is failing, the rest of the log follows."""


class Sealed(Message, frozen=True):
    """Shipper: the primary is frozen and its log ends here."""

    place: Place


class Unsealed(Message, frozen=True):
    """Shipper: power is back, the seal no longer holds; answered by an Ack that is not sealed."""


class BlocksDone(Message, frozen=True):
    """Shipper, in a baseline: of the blocks whose digests you sent, those that differ are there."""

    blocks: int
    """How many were sent, each as one frame with its offset in place of the LSN."""


class BaselineEnd(Message, frozen=True):
    """Shipper: all blocks are there; the copy is whole once the log is applied up to here."""

    lsn: int


FromReceiver = Hello | Ack
FromShipper = (
    Stream
    | Baseline
    | Refuse
    | Heartbeat
    | SaveStarted
    | Sealed
    | Unsealed
    | BlocksDone
    | BaselineEnd
)

_from_receiver: Final = msgspec.json.Decoder(FromReceiver)
_from_shipper: Final = msgspec.json.Decoder(FromShipper)
_encoder: Final = msgspec.json.Encoder()


def encode_message(message: Message) -> str:
    """Pack a message.

    Args:
        message: The message.

    Returns:
        One line of JSON.
    """
    return _encoder.encode(message).decode()


def decode_from_receiver(text: str) -> FromReceiver:
    """Unpack what a receiver said.

    Args:
        text: One JSON object.

    Returns:
        The message.

    Raises:
        ProtocolError: It is none of a receiver's messages.
    """
    return _decode(_from_receiver, text)  # type: ignore[no-any-return]


def decode_from_shipper(text: str) -> FromShipper:
    """Unpack what a shipper said.

    Args:
        text: One JSON object.

    Returns:
        The message.

    Raises:
        ProtocolError: It is none of a shipper's messages.
    """
    return _decode(_from_shipper, text)  # type: ignore[no-any-return]


def _decode(decoder: Any, text: str) -> Any:
    if len(text) > limits.MESSAGE_BYTES_MAX:
        raise ProtocolError(f"a message of {len(text)} characters")
    try:
        return decoder.decode(text)
    except (msgspec.MsgspecError, UnicodeError) as error:
        raise ProtocolError(f"not a message: {error}") from None


# ---- decisions ---------------------------------------------------------------------------------


class Found(Enum):
    """What the primary's log holds where the receiver's ends."""

    SAME = "same"
    """The same history."""
    OTHER = "other"
    """Another history, or the log ends before."""
    GONE = "gone"
    """Nothing any more: the ring has been reused."""
    START = "start"
    """The receiver has nothing, and the log is there from its first byte."""
    BROKEN = "broken"
    """The receiver says that its copy is not whole."""


class Answer(Enum):
    """What a receiver gets."""

    STREAM = "stream"
    BASELINE = "baseline"
    REFUSE_VERSION = "refuse version"
    REFUSE_POOL = "refuse pool"
    REFUSE_FENCED = "refuse fenced"
    """The receiver's epoch is later: this primary's is over."""
    REFUSE_DIVERGED = "refuse diverged"


def answer_hello(
    *, version: bool, pool: bool, later_epoch: bool, earlier_epoch: bool, found: Found
) -> Answer:
    """Decide what a receiver gets; the table is in docs/wire.md.

    Args:
        version: It speaks this version.
        pool: It wants this pool.
        later_epoch: It has, or has heard of, an epoch later than the primary's.
        earlier_epoch: Its log ends in an epoch before the primary's.
        found: What the primary's log holds where its own ends.

    Returns:
        The answer.
    """
    if not version:
        return Answer.REFUSE_VERSION
    if not pool:
        return Answer.REFUSE_POOL
    if later_epoch:
        return Answer.REFUSE_FENCED
    if found in (Found.SAME, Found.START):
        return Answer.STREAM
    if found is Found.OTHER and not earlier_epoch:
        return Answer.REFUSE_DIVERGED  # two wrote as one primary: no promotion explains it
    return Answer.BASELINE
