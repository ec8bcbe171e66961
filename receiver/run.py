"""Runs a receiver in the foreground: signals, logging, the loop."""

import asyncio
import signal

from pmlog import logs, memory
from receiver.config import Config
from receiver.service import serve


def run(config: Config, log_level: str = "info") -> None:
    """Receive until SIGTERM or SIGINT.

    Args:
        config: What it is told.
        log_level: Lowest level of what is logged.

    Raises:
        PmlogError: The replica cannot be opened.
        OSError: The address cannot be used.
    """
    logs.setup(log_level, is_queued=True)
    memory.keep_buffers()
    asyncio.run(_main(config))


async def _main(config: Config) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await serve(config, stop)
