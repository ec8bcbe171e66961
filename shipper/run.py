"""Runs a shipper in the foreground: signals, logging, the loop."""

import asyncio
import signal

from pmlog import logs, memory
from shipper.config import Config
from shipper.service import serve


def run(config: Config, log_level: str = "info") -> int:
    """Ship until SIGTERM or SIGINT; with the power source `term` SIGTERM saves first.

    Args:
        config: What to ship, and where.
        log_level: Lowest level of what is logged.

    Returns:
        The exit code.

    Raises:
        PmlogError: A pool cannot be read.
        OSError: The address cannot be used.
    """
    logs.setup(log_level, is_queued=True)
    memory.keep_buffers()
    return asyncio.run(_main(config))


async def _main(config: Config) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return await serve(config, stop)
