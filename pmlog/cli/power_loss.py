"""`pmlog power-loss`: power is failing, save what has not been shipped; or it is back."""

import json
from typing import Annotated, Any

import typer

from pmlog import security
from pmlog.cli import ExitCode, reported
from pmlog.cli.options import TlsCa, TlsCert, TlsKey, TokenFile
from pmlog.cli.request import SHIPPER, ask_for


def power_loss(  # noqa: PLR0917 - options of a command
    url: Annotated[str, typer.Argument(help="The shipper, as http://HOST:PORT.")],
    restored: Annotated[
        bool, typer.Option("--restored", help="Power is back: let writers go on.")
    ] = False,
    timeout: Annotated[float, typer.Option(help="Seconds to wait for receivers.")] = 60.0,
    forget: Annotated[
        list[str] | None,
        typer.Option(
            help="With --restored: do not wait for this holder of the seal, which is lost and will "
            "never be promoted; repeatable."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False,
    token_file: TokenFile = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    tls_ca: TlsCa = None,
) -> None:
    """Stop writers, get the rest of the log to the receivers, and seal it.

    Exit code 0: the receivers have everything, and know it, or the vault has it. Otherwise 1: call
    again to go on waiting. Writers stay stopped until --restored, which waits for everybody who
    holds the seal to give it back.

    Example: pmlog power-loss http://127.0.0.1:7070
    """  # noqa: DOC501 - this is the help text
    with reported():
        has = security.load(token_file, tls_cert, tls_key, tls_ca)
        if restored:
            answer = ask_for(
                url,
                "/v1/power-loss",
                "restored",
                wanted=SHIPPER,
                has=has,
                method="DELETE",
                body={"timeout_s": timeout, "forget": forget or []},
                timeout_s=timeout + 30,
            )
        else:
            answer = ask_for(
                url,
                "/v1/power-loss",
                "saved",
                wanted=SHIPPER,
                has=has,
                method="POST",
                body={"timeout_s": timeout},
                timeout_s=timeout + 30,
            )
    word = "restored" if restored else "saved"
    if as_json:
        print(json.dumps(answer))
    else:
        _show(answer["pools"], word)
    if not answer[word]:
        raise typer.Exit(ExitCode.FAILED)


def _show(pools: list[dict[str, Any]], word: str) -> None:
    for pool in pools:
        state = pool.get("state") or (word if pool[word] else f"not {word}")
        reason = f": {pool['reason']}" if "reason" in pool else ""
        print(f"{pool['pool']}: {state}{reason}")
        for name, receiver in pool.get("receivers", {}).items():
            kept = "sealed" if receiver["sealed"] else f"lacks {receiver['lacks_bytes']} bytes"
            print(f"  {name}: {kept}")
        if vault := pool.get("vault"):
            print(f"  vault: {vault.get('path') or vault['error']}")
