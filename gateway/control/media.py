"""The operator's command about media: to accept one that is past its expiry, once and for a reason."""

from typing import Protocol

from aiohttp import web

from gateway.config import GatewayConfig
from gateway.control import media_messages as messages
from gateway.control.peer import peer_of
from gateway.edge import answer, read_message
from gateway.fleet.stale import StalePermits
from update.durable import Disk


class _Permits(Protocol):
    def allow(self, medium: str, reason: str, who: str) -> None: ...


def media_control(config: GatewayConfig, disk: Disk) -> "MediaControl":
    """As the site allows it."""
    media = config.media
    return MediaControl(StalePermits(disk, config.gateway.state, media.intake, grace_s=media.stale_grace_s))


class MediaControl:
    """Passes permissions on, with who gave them."""

    def __init__(self, permits: _Permits) -> None:
        self._permits = permits

    def routes(self) -> list[web.RouteDef]:
        """Each command at its path."""
        return [web.post(messages.ACCEPT_STALE, self._accept_stale)]

    async def _accept_stale(self, request: web.Request) -> web.Response:
        wanted, medium = await read_message(request, messages.STALE_REQUEST), request.match_info["medium"]
        self._permits.allow(medium, wanted.reason, f"uid {peer_of(request).uid}")
        return answer(messages.STALE_REPLY, messages.StaleReply(medium=medium))
