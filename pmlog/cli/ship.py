"""`pmlog ship`: ship the log of pools to receivers."""

from pathlib import Path
from typing import Annotated

import typer

from pmlog import security
from pmlog.addresses import parse_listen
from pmlog.cli import reported
from pmlog.cli.options import LogLevel, TlsCa, TlsCert, TlsKey, TokenFile
from pmlog.errors import ConfigError, MediumError, PmlogError


def ship(  # noqa: PLR0917 - options of a command
    pools: Annotated[list[str], typer.Argument(help="Folders of the pools.")],
    listen: Annotated[
        str, typer.Option(help="HOST:PORT to listen at; port 0 takes any free one.")
    ] = "127.0.0.1:7070",
    require: Annotated[
        int, typer.Option(min=1, help="Receivers that a level needs, as for Level.REPLICATED.")
    ] = 1,
    required: Annotated[
        list[str] | None,
        typer.Option(help="A receiver for which writers wait when the log is full; repeatable."),
    ] = None,
    battery: Annotated[
        str,
        typer.Option(
            help="How long there is power once it fails: 45s, 900J/20W, or sim:20s for a simulated "
            "one, at whose end the shipper dies and the pools are removed (tmpfs only)."
        ),
    ] = "",
    max_lag: Annotated[
        str,
        typer.Option(
            help="How far receivers may be behind, in bytes (64MiB) or in seconds of shipping at "
            "their rate (2s): writers wait before it is more."
        ),
    ] = "",
    power: Annotated[
        list[str] | None,
        typer.Option(
            help="Where to hear that power fails: pwr, term:25s, nut:UPS@HOST:PORT, sysfs[:DIR], "
            "aws[:URL], gcp[:URL], azure[:URL]; repeatable."
        ),
    ] = None,
    vault: Annotated[
        Path | None,
        typer.Option(help="Directory on a disk for what no receiver could be given in time."),
    ] = None,
    token_file: TokenFile = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    tls_ca: TlsCa = None,
    log_level: LogLevel = "info",
) -> None:
    """Ship the log of pools to the receivers that dial in, until SIGTERM.

    Writers need not run, and may come and go.
    The first line on standard output says where it listens, as JSON.
    Status is at / and /v1/pools, figures for Prometheus at /metrics.
    Any --listen but loopback needs a token and TLS.

    Example: pmlog ship /dev/shm/orders --listen 127.0.0.1:7070
    """  # noqa: DOC501 - this is the help text
    with reported():
        from shipper.backlog import parse_max_lag
        from shipper.battery import parse_battery
        from shipper.config import Config
        from shipper.run import run

        if len(set(pools)) != len(pools):
            raise ConfigError("a pool is named twice")
        has = security.load(token_file, tls_cert, tls_key, tls_ca)
        config = Config(
            tuple(pools),
            parse_listen(listen, has),
            require,
            frozenset(required or ()),
            battery=parse_battery(battery) if battery else None,
            max_lag=parse_max_lag(max_lag) if max_lag else None,
            power=tuple(power or ()),
            vault=vault,
            security=has,
        )
        try:
            code = run(config, log_level)
        except PmlogError:
            raise  # some are OSErrors too
        except OSError as error:
            raise MediumError(
                f"cannot listen at {listen}: {error}",
                hint="is another service there? port 0 takes any free one",
            ) from error
    if code:
        raise typer.Exit(code)
