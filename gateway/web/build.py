"""The page, built and served as it is configured."""

import asyncio
import logging
import ssl
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Final

from aiohttp import web

from gateway.config import GatewayConfig
from gateway.edge import refuse_by_name
from gateway.web.guard import Budgets, guarded, strict_headers
from gateway.web.listener import listening
from gateway.web.looking import Looking, Nodes
from gateway.web.pages import Pages
from update.durable import Disk
from update.errors import ConfigurationError

_LOG = logging.getLogger(__name__)

_RENEWED_EVERY_S: Final = 3600.0
_MAX_BODY_BYTES: Final = 1024
Begin = Callable[[Coroutine[object, object, object], str], None]


@dataclass(frozen=True, slots=True)
class Means:
    """What the page is made of: the disk (for what is told of media), the clock, certificate and key, and background work."""

    disk: Disk
    now: Callable[[], datetime]
    certificate: tuple[Path, Path]
    begin: Begin


@asynccontextmanager
async def serve_page(config: GatewayConfig, status: Nodes, means: Means) -> AsyncGenerator[int | None]:
    """As long as the block lasts, where it is switched on; the port. Errors: `ConfigurationError`."""
    if not config.web.enabled:
        yield None
        return
    intake = (means.disk, config.media.intake) if config.media.enabled else None
    looking = Looking(status, intake, name=config.gateway.name, version=version("fieldrelay"), now=means.now)
    application = web_application(Pages(looking.snapshot, means.now), [config.gateway.name, *config.south.hosts])
    tls = None
    if config.web.tls:
        tls = _context(means.certificate)
        means.begin(_keep(tls, means.certificate), "certificate of the page")
    async with listening(application, config.web.addresses, config.web.port, tls) as port:
        _LOG.info("the page is at %s port %s", "https" if tls else "http", port)
        yield port


def web_application(pages: Pages, hosts: Sequence[str], budgets: Budgets | None = None) -> web.Application:
    """The application; `hosts` are names of this gateway."""
    middlewares = [refuse_by_name, guarded(hosts, budgets or Budgets())]
    application = web.Application(middlewares=middlewares, client_max_size=_MAX_BODY_BYTES)
    application.add_routes(pages.routes())
    application.on_response_prepare.append(strict_headers)
    application.on_shutdown.append(pages.close)
    return application


def _context(certificate: tuple[Path, Path]) -> ssl.SSLContext:
    """For browsers: nobody is asked for a certificate, unlike on the south side, where a browser would offer its own."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(*certificate)
    except OSError as error:
        raise ConfigurationError(f"[web] cannot use the gateway's certificate {certificate[0]}: {error}") from error
    return context


async def _keep(tls: ssl.SSLContext, certificate: tuple[Path, Path]) -> None:
    """Take the renewed certificate; connections made afterwards see it."""
    while True:
        await asyncio.sleep(_RENEWED_EVERY_S)
        try:
            tls.load_cert_chain(*certificate)
        except OSError as error:
            _LOG.error("cannot read the gateway's certificate again: %s", error)
