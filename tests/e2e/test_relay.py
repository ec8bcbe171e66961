"""The relay that stands for the network: it carries, cuts, slows and delays what it should."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from tests.e2e.relay import Cut, Relay
from tests.e2e.services import until
from tests.support import PATIENCE_S


class Ends:
    """A relay with a listener behind it."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.settimeout(PATIENCE_S)
        self.relay = Relay(self.listener.getsockname()[1])
        self.sockets: list[socket.socket] = []

    def connect(self) -> tuple[socket.socket, socket.socket]:
        """Return both ends of a new connection."""
        dialler = socket.create_connection(("127.0.0.1", self.relay.port), PATIENCE_S)
        source, _ = self.listener.accept()
        source.settimeout(PATIENCE_S)
        self.sockets += [dialler, source]
        return dialler, source

    def close(self) -> None:
        """Close everything."""
        self.relay.close()
        for one in (*self.sockets, self.listener):
            one.close()


@pytest.fixture
def ends() -> Iterator[Ends]:
    """Give a relay and both of its ends."""
    made = Ends()
    yield made
    made.close()


def is_silent(one: socket.socket) -> bool:
    """Whether nothing has come, no byte and no end."""
    one.setblocking(False)
    try:
        one.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return True
    finally:
        one.settimeout(PATIENCE_S)
    return False


def read(one: socket.socket, size: int) -> bytes:
    """Read so many bytes."""
    data = b""
    while len(data) < size:
        piece = one.recv(size - len(data))
        assert piece, "the connection has ended"
        data += piece
    return data


def test_carries(ends: Ends) -> None:
    """Bytes come out at the other end as they went in, in both directions, and so does the end."""
    dialler, source = ends.connect()
    blob = bytes(range(256)) * 8192
    sender = threading.Thread(target=source.sendall, args=(blob,))
    sender.start()
    assert read(dialler, len(blob)) == blob
    sender.join()
    dialler.sendall(b"ack")
    assert read(source, 3) == b"ack"
    assert (ends.relay.bytes_to_dialler, ends.relay.bytes_to_source) == (len(blob), 3)
    source.close()
    assert dialler.recv(1) == b""


def test_reset(ends: Ends) -> None:
    """Both ends see a reset, new connections are reset, and after that all is well."""
    dialler, source = ends.connect()
    ends.relay.cut()
    for one in (dialler, source):
        with pytest.raises(ConnectionResetError):
            one.recv(1)
    with (
        contextlib.closing(socket.create_connection(("127.0.0.1", ends.relay.port))) as again,
        pytest.raises(ConnectionResetError),
    ):
        again.recv(1)
    ends.relay.restore()
    dialler, source = ends.connect()
    dialler.sendall(b"x")
    assert read(source, 1) == b"x"


def test_silence(ends: Ends) -> None:
    """Nobody is told of a silent cut; what was sent meanwhile comes when it is over."""
    dialler, source = ends.connect()
    ends.relay.cut(Cut.SILENT)
    source.sendall(b"late")
    time.sleep(0.05)
    assert is_silent(dialler)
    ends.relay.restore()
    assert read(dialler, 4) == b"late"


@pytest.mark.parametrize("kind", [Cut.HALF_OPEN, Cut.HALF_OPEN_SOURCE])
def test_half_open(ends: Ends, kind: Cut) -> None:
    """One end is reset at once, the other one when the network is back."""
    dialler, source = ends.connect()
    ends.relay.cut(kind)
    told, untold = (source, dialler) if kind is Cut.HALF_OPEN else (dialler, source)
    with pytest.raises(ConnectionResetError):
        told.recv(1)
    assert is_silent(untold)
    ends.relay.restore()
    with pytest.raises(ConnectionResetError):
        untold.recv(1)


def test_slow(ends: Ends) -> None:
    """A throttle holds bytes up, a delay too; without them they come."""
    dialler, source = ends.connect()
    ends.relay.throttle(1 << 20)
    begun = time.monotonic()
    sender = threading.Thread(target=source.sendall, args=(bytes(1 << 19),))
    sender.start()
    read(dialler, 1 << 19)
    sender.join()
    assert time.monotonic() - begun >= 0.4
    ends.relay.throttle(None)
    ends.relay.delay_s = 0.1
    begun = time.monotonic()
    source.sendall(b"x")
    read(dialler, 1)
    assert time.monotonic() - begun >= 0.09


def test_nobody_listens(ends: Ends) -> None:
    """A connection to a service that is not there is reset; the relay goes on."""
    port, ends.relay.target_port = ends.relay.target_port, 9
    with (
        contextlib.closing(socket.create_connection(("127.0.0.1", ends.relay.port))) as dialler,
        pytest.raises(ConnectionResetError),
    ):
        dialler.recv(1)
    ends.relay.target_port = port
    dialler, source = ends.connect()
    source.close()
    until(lambda: dialler.recv(1) == b"")


def test_flip(ends: Ends) -> None:
    """Ordered to harm frames it changes one bit of each, on the way to the dialler, and no more."""
    dialler, source = ends.connect()
    frame = b"PMLF" + bytes(100)
    ends.relay.flip(1)
    source.sendall(b"no frame")
    assert read(dialler, 8) == b"no frame"
    dialler.sendall(frame)
    assert read(source, len(frame)) == frame
    source.sendall(frame)
    harmed = int.from_bytes(read(dialler, len(frame))) ^ int.from_bytes(frame)
    assert harmed.bit_count() == 1
    source.sendall(frame)
    assert read(dialler, len(frame)) == frame
    assert ends.relay.flipped == 1
