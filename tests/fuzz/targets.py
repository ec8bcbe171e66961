"""What is fuzzed in Python: everything that unpacks bytes of a stranger.

A target takes any bytes; what it raises but the errors that it may raise is a fault.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final
from uuid import UUID

from pmlog import limits, wire
from pmlog.errors import ConfigError, ProtocolError
from pmlog.position import Position
from pmlog.record import parse_record

CORPUS: Final = Path(__file__).with_name("corpus")


def frame(data: bytes) -> None:
    """A frame that is taken carries what its digest says, and packs to the same bytes again."""
    try:
        found = wire.decode_frame(data)
    except ProtocolError:
        return
    assert 0 < len(found.data) <= limits.FRAME_RAW_BYTES_MAX
    again = wire.encode_frame(found.pool_id, found.epoch, found.lsn, found.data, wire.Codec.NONE)
    assert wire.decode_frame(again) == wire.Frame(
        found.pool_id, found.epoch, found.lsn, memoryview(bytes(found.data))
    )


def message(decode: Callable[[str], wire.Message], data: bytes) -> None:
    """A message that is taken says the same again."""
    text = data.decode(errors="surrogateescape")
    try:
        found = decode(text)
    except ProtocolError:
        return
    assert decode(wire.encode_message(found)) == found


def from_receiver(data: bytes) -> None:
    """What a shipper is told."""
    message(wire.decode_from_receiver, data)


def from_shipper(data: bytes) -> None:
    """What a receiver is told."""
    message(wire.decode_from_shipper, data)


def record(data: bytes) -> None:
    """A record that is read has its ranges inside."""
    found = parse_record(data)
    if found is None:
        return
    assert found.length == len(data)
    for one in found.ranges:
        if one.kind == "data":
            found.data(one)


def position(data: bytes) -> None:
    """A position that is read is written in the same way."""
    text = data.decode(errors="replace")
    try:
        found = Position.parse(text)
    except ConfigError:
        return
    assert Position.parse(str(found)) == found


TARGETS: Final[dict[str, Callable[[bytes], None]]] = {
    target.__name__: target for target in (frame, from_receiver, from_shipper, record, position)
}


def seeds() -> dict[str, list[bytes]]:
    """Make the inputs that the corpus begins with: one of each kind that is right."""
    from pmlog.identity import Identity, Mark

    number = UUID(int=0x1234)
    identity = Identity(number, 5, 65536, (1, 2), 1 << 20)
    place = wire.Place(2, 4096, 77, 9)
    mark = Mark(2, 4096, 77, 9, 3, 1 << 20)
    said: list[wire.Message] = [
        wire.Stream(4096, 2, identity), wire.Baseline(mark, 2, identity),
        wire.Refuse("fenced", "over"), wire.Heartbeat(4096), wire.SaveStarted(),
        wire.Sealed(place), wire.Unsealed(), wire.BlocksDone(3), wire.BaselineEnd(9000),
    ]  # fmt: skip
    header = bytes.fromhex("00000000") + bytes(60)
    return {
        "frame": [
            wire.encode_frame(number, 2, 4096, bytes(range(100)), wire.Codec.NONE),
            wire.encode_frame(number, 2, 4096, b"abc" * 300, wire.Codec.LZ4),
        ],
        "from_receiver": [
            wire.encode_message(wire.Hello(wire.VERSION, "any", "one", place)).encode(),
            wire.encode_message(wire.Ack(3, 2, 1, True)).encode(),
        ],
        "from_shipper": [wire.encode_message(one).encode() for one in said],
        "record": [header, _record_bytes()],
        "position": [str(Position(2, 4096, 77)).encode()],
    }


def _record_bytes() -> bytes:
    import tempfile

    import pmlog
    from pmlog.log import LogReader

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "pool")
        with pmlog.open(path, size="1MiB", log_size="256KiB") as pool:
            lsn = pool.position.lsn
            pool.region("r", 64).write(0, b"x" * 40)
            with LogReader(path, lsn) as reader:
                found = reader.next()
                assert found is not None
                return found.raw


def write_corpus() -> None:
    """Write the corpus's first inputs; what a fuzzer finds later is added by hand, with a test."""
    for name, inputs in seeds().items():
        folder = CORPUS / name
        folder.mkdir(parents=True, exist_ok=True)
        for number, data in enumerate(inputs):
            (folder / f"seed{number}").write_bytes(data)
