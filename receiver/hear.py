"""Waiting for what a shipper says."""

from aiohttp import ClientWebSocketResponse, WSMessage, WSMsgType

from pmlog import wire
from pmlog.errors import FencedError, PeerUnavailableError, ProtocolError
from receiver.config import ANSWER_TIMEOUT_S


def refused(message: wire.Refuse) -> Exception:
    """Make the error for a refusal.

    Args:
        message: The refusal.

    Returns:
        The error, to be raised.
    """
    text = f"the shipper refused: {message.reason} ({message.code})"
    if message.code == "fenced":
        return FencedError(text)
    hint = (
        "two pools wrote as one primary: `pmlog repair POOL --from URL` saves what only this one "
        "has, and makes it a copy of the other"
    )
    return PeerUnavailableError(text, hint=hint if message.code == "diverged" else None)


async def hear(socket: ClientWebSocketResponse) -> wire.FromShipper:
    """Wait for a shipper's answer to hello.

    Args:
        socket: The connection.

    Returns:
        The answer.

    Raises:
        FencedError: It refuses because its epoch is over.
        PeerUnavailableError: It refuses, or says nothing.
        ProtocolError: It says what is no message.
    """
    answer = wire.decode_from_shipper(await hear_text(socket))
    if isinstance(answer, wire.Refuse):
        error = refused(answer)
        raise error
    return answer


async def hear_text(socket: ClientWebSocketResponse) -> str:
    """Wait for a text message.

    Args:
        socket: The connection.

    Returns:
        The text.

    Raises:
        PeerUnavailableError: Nothing comes any more.
        ProtocolError: Bytes came in its place.
    """
    message = await hear_any(socket)
    if message.type is not WSMsgType.TEXT:
        raise ProtocolError("bytes in place of a message")
    return str(message.data)


async def hear_any(socket: ClientWebSocketResponse) -> WSMessage:
    """Wait for whatever comes.

    Args:
        socket: The connection.

    Returns:
        Bytes or text.

    Raises:
        PeerUnavailableError: Nothing comes any more.
    """
    try:
        message = await socket.receive(timeout=ANSWER_TIMEOUT_S)
    except TimeoutError:
        raise PeerUnavailableError("no answer") from None
    if message.type not in (WSMsgType.TEXT, WSMsgType.BINARY):
        raise PeerUnavailableError("the connection has ended")
    return message
