"""`pmlog promote`: make a receiver's replica a primary."""

import json
from dataclasses import asdict, dataclass
from typing import Annotated, Any

import typer

from pmlog import security
from pmlog.addresses import parse_source
from pmlog.cli import ExitCode, reported
from pmlog.cli.options import TlsCa, TlsCert, TlsKey, TokenFile
from pmlog.cli.request import RECEIVER, ask_for, ask_receiver
from pmlog.errors import ConfigError, PmlogError
from pmlog.logs import plain
from pmlog.security import Security


@dataclass(frozen=True, slots=True)
class Candidate:
    """What one receiver says of its copy."""

    url: str
    pool: str | None = None
    epoch: int | None = None
    """None: it has no copy."""
    lsn: int | None = None
    txn: int | None = None
    state: str = ""
    incomplete: bool = False
    error: str | None = None
    """Why it could not be asked."""

    def __str__(self) -> str:
        if self.error is not None:
            return self.error
        if self.state in _PRIMARY:
            return f"{self.url} is the primary of epoch {self.epoch} already"
        if self.incomplete:
            return f"{self.url} is incomplete"
        if self.lsn is None:
            return f"{self.url} has no copy"
        return f"{self.url} is at epoch {self.epoch}, LSN {self.lsn}, transaction {self.txn}"


_PRIMARY = ("promoting", "promoted")


def objections(own: Candidate, peers: list[Candidate]) -> list[str]:
    """Find out which peers speak against a promotion. Pure.

    A copy that is incomplete or not there cannot be promoted itself, and speaks against nothing.

    Args:
        own: The one that is to be promoted.
        peers: The others.

    Returns:
        A line for each that is farther, is the primary already, or cannot be asked.
    """
    found = []
    for peer in peers:
        if peer.error is not None:
            found.append(f"{peer}: what it has is unknown")
        elif peer.state in _PRIMARY:
            found.append(str(peer))
        elif not peer.incomplete and peer.lsn is not None and _place(peer) > _place(own):
            found.append(f"{peer}, and {own}")
    return found


def _place(one: Candidate) -> tuple[int, int]:
    return one.epoch or 0, one.lsn or 0


def promote(  # noqa: PLR0917 - options of a command
    url: Annotated[str, typer.Argument(help="The receiver, as http://HOST:PORT.")],
    peer: Annotated[
        list[str] | None,
        typer.Option(help="Another receiver of the same pool, which is asked first; repeatable."),
    ] = None,
    accept_loss: Annotated[
        bool,
        typer.Option(
            "--accept-loss",
            help="Take what the receiver has, though what the primary, or a peer, still held is "
            "unknown or more.",
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False,
    token_file: TokenFile = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    tls_ca: TlsCa = None,
) -> None:
    """Make a receiver's replica a primary, with the next epoch, and start its application.

    It is refused (exit code 1) unless the primary has sealed its log and the receiver has all of
    it; --accept-loss takes what there is.
    With --peer it is refused too if a peer has more, is the primary already, or does not answer.

    Example: pmlog promote http://127.0.0.1:7071 --peer http://127.0.0.1:7072
    """  # noqa: DOC501 - this is the help text
    with reported():
        has = security.load(token_file, tls_cert, tls_key, tls_ca)
        for each in (url, *(peer or ())):
            parse_source(each, has)
        # The peers first: what this one gets meanwhile makes the comparison only safer.
        peers = [_look(each, has) for each in peer or ()]
        reasons = _compare(url, peers, has)
        if reasons and not accept_loss:
            answer: dict[str, Any] = {"promoted": False, "reason": "; ".join(reasons)}
        else:
            answer = ask_for(
                url,
                "/v1/promote",
                "promoted",
                wanted=RECEIVER,
                has=has,
                method="POST",
                body={"accept_loss": accept_loss},
            )
    if as_json:
        print(json.dumps(answer | ({"peers": [asdict(one) for one in peers]} if peers else {})))
    else:
        _show(answer, reasons)
    if not answer["promoted"]:
        raise typer.Exit(ExitCode.FAILED)


def _show(answer: dict[str, Any], reasons: list[str]) -> None:
    if not answer["promoted"]:
        hint = " (--accept-loss promotes it all the same)" if reasons else ""
        print(f"refused: {answer['reason']}{hint}")
        return
    for reason in reasons:
        print(f"accepted: {reason}")
    what = "complete" if answer["complete"] else "what came after is lost"
    print(
        f"promoted: {answer['path']}, epoch {answer['epoch']}, up to transaction "
        f"{answer['txn']} ({what})"
    )


def _compare(url: str, peers: list[Candidate], has: Security) -> list[str]:
    if not peers:
        return []
    own = _candidate(url, ask_receiver(url, has))
    for one in peers:
        if one.pool is not None and own.pool is not None and one.pool != own.pool:
            raise ConfigError(
                f"{one.url} has pool {one.pool}, {url} has {own.pool}",
                hint="peers are receivers of the same pool",
            )
    return objections(own, peers)


def _look(url: str, has: Security) -> Candidate:
    try:
        return _candidate(url, ask_receiver(url, has))
    except ConfigError:
        raise  # a mistake of the command line
    except PmlogError as error:
        return Candidate(url, error=plain(error.message))


def _candidate(url: str, known: dict[str, Any]) -> Candidate:
    return Candidate(
        url,
        known.get("pool"),
        known.get("epoch"),
        known.get("lsn_durable"),
        known.get("txn_durable"),
        str(known.get("state")),
        bool(known.get("incomplete")),
    )
