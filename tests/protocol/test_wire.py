"""docs/wire.md is the specification of frames, messages and decisions; pmlog.wire follows it."""

from __future__ import annotations

import random
from itertools import product
from struct import Struct
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pmlog import limits, wire
from pmlog.errors import ProtocolError
from receiver.promote import Sealing, Verdict, judge
from tests.format.tables import DOCS, tables

POOL = UUID(int=0x1234567890ABCDEF)
PAGE = dict(tables(DOCS / "wire.md"))
FORMATS = {"u16": "H", "u32": "I", "u64": "Q"}
NO_YES = {"no": False, "yes": True}


def test_frame_header() -> None:
    """The page's table of the frame's header adds up to the compiled struct."""
    rows = PAGE["Frames"]
    layout, offset = "<", 0
    for row in rows:
        assert int(row["offset"]) == offset
        kind = row["type"]
        code = FORMATS.get(kind) or f"{kind.partition('[')[2].rstrip(']')}s"
        layout += code
        offset += Struct(f"<{code}").size
    assert layout == wire.HEADER.format
    assert offset == wire.HEADER_BYTES == 64


def test_messages() -> None:
    """The page lists every message with its fields and who says it."""
    rows = {row["message"]: row for row in PAGE["Messages"]}
    for union, speaker in ((wire.FromReceiver, "receiver"), (wire.FromShipper, "shipper")):
        for kind in union.__args__:
            info = msgspec.inspect.type_info(kind)
            assert isinstance(info, msgspec.inspect.StructType)
            row = rows.pop(str(info.tag))
            assert row["from"] == speaker
            fields = [field.name for field in info.fields]
            assert [name.strip(" `") for name in row["fields"].split(",") if name] == fields
    assert not rows


def test_limits() -> None:
    """The page's limits are those of limits.py."""
    for row in PAGE["Limits"]:
        assert int(row["value"].replace(",", "")) == getattr(limits, row["name"])


def _matches(row: dict[str, str], values: dict[str, str]) -> bool:
    return all(
        row[name] == "any" or value in [cell.strip() for cell in row[name].split(",")]
        for name, value in values.items()
    )


def test_answers_to_hello() -> None:
    """Exactly one row of the table speaks of each combination, and the function says the same."""
    rows = PAGE["Answers to hello"]
    for version, pool, later, earlier, found in product(NO_YES, NO_YES, NO_YES, NO_YES, wire.Found):
        values = {
            "version": version, "pool": pool, "later epoch": later, "earlier epoch": earlier,
            "found": found.value,
        }  # fmt: skip
        fitting = [row for row in rows if _matches(row, values)]
        assert len(fitting) == 1, values
        answer = wire.answer_hello(
            version=NO_YES[version],
            pool=NO_YES[pool],
            later_epoch=NO_YES[later],
            earlier_epoch=NO_YES[earlier],
            found=found,
        )
        assert answer.value == fitting[0]["answer"]


def test_promotion() -> None:
    """Exactly one row of the table speaks of each combination, and the function says the same."""
    rows = PAGE["Promotion"]
    seen = set()
    for promoted, empty, incomplete, sealing, accept in product(
        NO_YES, NO_YES, NO_YES, Sealing, NO_YES
    ):
        values = {
            "promoted": promoted, "empty": empty, "incomplete": incomplete,
            "sealing": sealing.value, "accept loss": accept,
        }  # fmt: skip
        fitting = [row for row in rows if _matches(row, values)]
        assert len(fitting) == 1, values
        verdict = judge(
            promoted=NO_YES[promoted],
            empty=NO_YES[empty],
            incomplete=NO_YES[incomplete],
            sealing=sealing,
            accept_loss=NO_YES[accept],
        )
        assert verdict.value == fitting[0]["verdict"]
        seen.add(verdict)
    assert seen == set(Verdict)


@given(
    data=st.binary(min_size=1, max_size=5000) | st.just(bytes(limits.FRAME_RAW_BYTES_MAX)),
    codec=st.sampled_from(wire.Codec),
    lsn=st.integers(1, (1 << 63) - 1),
    epoch=st.integers(1, (1 << 32) - 1),
)
def test_frames_survive(data: bytes, codec: wire.Codec, lsn: int, epoch: int) -> None:
    """What is packed is unpacked, and never grows."""
    message = wire.encode_frame(POOL, epoch, lsn, data, codec)
    assert len(message) <= wire.HEADER_BYTES + len(data)
    frame = wire.decode_frame(message)
    assert (frame.pool_id, frame.epoch, frame.lsn, bytes(frame.data)) == (POOL, epoch, lsn, data)


@pytest.mark.parametrize("codec", wire.Codec)
def test_no_flipped_bit_passes(codec: wire.Codec) -> None:
    """A frame with one bit changed is refused, or differs in epoch or pool, which are checked.

    Its place is covered by its digest: of two blocks that a baseline asks for either would fit.
    """
    data = b"abc" * 40
    message = wire.encode_frame(POOL, 7, 4096, data, codec)
    for bit in range(8 * len(message)):
        damaged = bytearray(message)
        damaged[bit // 8] ^= 1 << bit % 8
        try:
            frame = wire.decode_frame(bytes(damaged))
        except ProtocolError:
            continue
        # lz4 packs the same bytes in more than one way.
        same_bytes_packed_otherwise = codec is wire.Codec.LZ4 and bit >= 8 * wire.HEADER_BYTES
        assert (frame.pool_id, frame.epoch) != (POOL, 7) or same_bytes_packed_otherwise
        assert (frame.lsn, bytes(frame.data)) == (4096, data)


@pytest.mark.parametrize(
    "changes",
    [
        {"raw": 1 << 31},
        {"raw": limits.FRAME_RAW_BYTES_MAX + 1},
        {"raw": 0},
        {"raw": 119},
        {"raw": 121},
        {"wire": 0},
        {"wire": 1 << 31},
        {"codec": 2},
        {"version": 2},
        {"reserved": 1},
        {"lsn": 0},
        {"lsn": 1 << 63},
        {"epoch": 0},
    ],
    ids=str,
)
@pytest.mark.parametrize("codec", wire.Codec)
def test_bounds(codec: wire.Codec, changes: dict[str, int]) -> None:
    """Lengths, numbers and codecs out of range are refused before anything is unpacked."""
    message = wire.encode_frame(POOL, 7, 4096, b"abc" * 40, codec)
    names = (
        "magic", "version", "codec", "pool", "epoch", "reserved", "lsn", "raw", "wire", "digest",
    )  # fmt: skip
    fields = dict(zip(names, wire.HEADER.unpack_from(message), strict=True)) | changes
    with pytest.raises(ProtocolError):
        wire.decode_frame(wire.HEADER.pack(*fields.values()) + message[wire.HEADER_BYTES :])


def test_bomb() -> None:
    """A frame that unpacks to more than it says is refused without being unpacked further."""
    import lz4.block

    payload = lz4.block.compress(bytes(1 << 20), store_size=False)
    header = wire.HEADER.pack(
        wire.MAGIC, wire.VERSION, 1, POOL.bytes, 1, 0, 4096, 4096, len(payload), bytes(16)
    )
    with pytest.raises(ProtocolError):
        wire.decode_frame(header + payload)


def test_rubbish(rng: random.Random) -> None:
    """Rubbish of any length is refused, as frame and as message."""
    for size in [*range(130), wire.FRAME_BYTES_MAX + 1]:
        rubbish = rng.randbytes(size)
        with pytest.raises(ProtocolError):
            wire.decode_frame(rubbish)
        text = rubbish.decode("latin1")
        for decode in (wire.decode_from_receiver, wire.decode_from_shipper):
            with pytest.raises(ProtocolError):
                decode(text)


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        "[]",
        '{"type":"hello"}',
        '{"type":"ack","received":-1,"durable":0,"applied":"x"}',
        '{"type":"ack","received":1,"durable":1,"applied":1,"extra":1}',
        '{"type":"nonsense"}',
        " " * (limits.MESSAGE_BYTES_MAX + 1),
    ],
)
def test_wrong_messages(text: str) -> None:
    """Messages with missing, unknown or wrong fields, or too long, are refused."""
    with pytest.raises(ProtocolError):
        wire.decode_from_receiver(text)


def test_message_limit() -> None:
    """A message is refused for its length alone, though it is one."""
    frame = len(wire.encode_message(wire.Refuse("ended", "")))
    longest = wire.encode_message(wire.Refuse("ended", "x" * (limits.MESSAGE_BYTES_MAX - frame)))
    assert len(longest) == limits.MESSAGE_BYTES_MAX
    assert isinstance(wire.decode_from_shipper(longest), wire.Refuse)
    with pytest.raises(ProtocolError):
        wire.decode_from_shipper(longest.replace("x", "xx", 1))
