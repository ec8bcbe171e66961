"""Options that several commands have."""

from pathlib import Path
from typing import Annotated

import typer

from pmlog.logs import LEVELS

TokenFile = Annotated[
    Path | None,
    typer.Option(
        "--token-file",
        help="File with the token that everybody who asks has to know; mode 600.",
    ),
]
TlsCert = Annotated[
    Path | None, typer.Option("--tls-cert", help="Certificate of this side, as PEM.")
]
TlsKey = Annotated[Path | None, typer.Option("--tls-key", help="Its private key, as PEM.")]
TlsCa = Annotated[
    Path | None,
    typer.Option(
        "--tls-ca",
        help="Who vouches for the other side, as PEM. A service that is given one wants "
        "certificates of those who ask.",
    ),
]
LogLevel = Annotated[str, typer.Option("--log-level", help=f"One of {', '.join(LEVELS)}.")]
