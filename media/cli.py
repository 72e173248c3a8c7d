"""`fieldrelay media ...`: the two processes that bring updates from media to the gateway."""

import asyncio
import logging
import pwd
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from tempfile import mkdtemp

import click

from media.config import MediaConfig, load_config
from media.folders import Folders
from media.mount import Kernel, Owner
from media.mounter import Eyes, Mounter
from media.reading import Readers
from media.records import MediumState
from media.showing import Showing
from media.sinks.build import make_sinks
from media.udev import Udev, is_here_now, probe_node
from media.watcher import Source, Surroundings, Watch
from update.durable import Disk
from update.errors import ConfigurationError, UsageError

_CONFIG = "/etc/fieldrelay/media.toml"
_PATH = click.Path(path_type=Path)
_LINES = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"


@click.group()
def media() -> None:
    """Updates that travel by hand: what reads sticks, and what mounts them."""


@media.command()
@click.option("--config", "file", type=_PATH, default=_CONFIG, show_default=True, help="The configuration.")
@click.option("--folder", type=_PATH, help="A folder that stands for a stick; devices are not watched then.")
def watch(file: Path, folder: Path | None) -> None:
    """Watch for media, and bring to the gateway what it asks for; needs no privilege, no network and no key."""
    config = load_config(file)
    _log()
    source = Udev(config.media.events) if folder is None else Folders(folder)
    asyncio.run(_until_told(lambda stop: _watch(config, source, stop)))


@media.command()
@click.option(
    "--config", "file", type=_PATH, default=_CONFIG, show_default=True, help="The same configuration as that of `watch`."
)
def mounter(file: Path) -> None:
    """Mount media for `watch` and for nobody else; runs as root, in a mount namespace of its own."""
    config = load_config(file)
    _log()
    reader = _user(config.media.user)
    kernel = Kernel()
    try:
        kernel.separate()
    except OSError as error:
        raise UsageError(f"cannot leave the mount namespace: {error.strerror}; this needs CAP_SYS_ADMIN") from error
    udev = Udev(config.media.events)
    folder = Path(mkdtemp(prefix="media-", dir=config.media.socket.parent))
    eyes = Eyes(udev.look, probe_node, is_here_now)
    try:
        asyncio.run(_until_told(Mounter(config, eyes, kernel, reader, folder).run))
    finally:
        folder.rmdir()


async def _watch(config: MediaConfig, source: Source, stop: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()
    disk = Disk()
    showing = Showing(disk, config.media.intake, make_sinks(config.signals, config.media.language, loop.call_later))

    def told(_state: MediumState) -> None:
        loop.call_soon_threadsafe(showing.wake)

    around = Surroundings(source, Readers(config.media).open, disk, time.time, time.monotonic, told)
    shown = asyncio.create_task(showing.run())
    try:
        await Watch(config, around).run(stop)
    finally:
        shown.cancel()
        await asyncio.gather(shown, return_exceptions=True)


async def _until_told(run: Callable[[asyncio.Event], Awaitable[None]]) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await run(stop)


def _user(name: str) -> Owner:
    try:
        found = pwd.getpwnam(name)
    except KeyError as error:
        raise ConfigurationError(
            f"there is no user {name!r} on this machine ([media] user); create it, or name another"
        ) from error
    return Owner(found.pw_uid, found.pw_gid)


def _log() -> None:
    logging.basicConfig(level=logging.INFO, format=_LINES, stream=sys.stderr, force=True)
