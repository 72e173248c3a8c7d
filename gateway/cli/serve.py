"""`fieldrelay gateway serve`: runs the gateway until SIGTERM or SIGINT, then ends it cleanly."""

import asyncio
import gc
import logging
import os
import signal
import sys
from datetime import UTC, datetime
from pathlib import Path

from gateway.app import Listening, run
from gateway.cli.event_loop import loop_factory
from gateway.cli.logs import set_up_logging
from gateway.cli.supervision import ServiceManager
from gateway.config import GatewayConfig, load_config
from update.durable import Disk

_LOG = logging.getLogger(__name__)


def serve(file: Path) -> None:
    """Run with the configuration in `file`; returns after a signal to end. Errors: as `gateway.app.run`."""
    config = load_config(file)
    set_up_logging(config.log, sys.stderr)
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(_serve(config, ServiceManager(os.environ)))


async def _serve(config: GatewayConfig, manager: ServiceManager) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)

    def ready(listening: Listening) -> None:
        gc.collect()
        gc.freeze()  # what a gateway is made of stays: collections need not look through it again and again
        _LOG.info("%s serves on port %s", config.gateway.name, listening.port)
        manager.tell("READY=1", f"STATUS=serving on port {listening.port}")

    alive = asyncio.create_task(manager.keep_alive())
    try:
        await run(config, Disk(), now=_now, stop=stop, ready=ready)
    finally:
        manager.tell("STOPPING=1")
        alive.cancel()
    _LOG.info("%s has ended", config.gateway.name)


def _now() -> datetime:
    return datetime.now(UTC)
