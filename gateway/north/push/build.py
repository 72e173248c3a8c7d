"""The listeners for masters that push, built as they are configured."""

import ssl
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from gateway.config import GatewayConfig
from gateway.database.engine import Database
from gateway.fleet.catalogue import AssignerState
from gateway.fleet.takeover import Takeover
from gateway.north.means import Common
from gateway.north.push.door import Admission, Door, peer_of, push_application
from gateway.north.push.orders import NoTeller, Orders
from gateway.north.push.push import Manner, Push
from gateway.north.push.receiving import Receiving
from gateway.north.push.watchers import Watchers
from gateway.north.vouched import Vouched
from gateway.sections.pushed import SwuforwardSection
from update.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class PushUpstream:
    """One listener with its uploads, beside the upstreams that are polled."""

    push: Push
    door: Door

    async def run(self) -> None:
        """Listen until it is cancelled. Errors: `ConfigurationError`."""
        await self.push.run(self.door)

    async def state(self) -> AssignerState:
        """How it stands."""
        return await self.push.state()


def swuforward_assigner(section: SwuforwardSection) -> str:
    """The name under which a listener assigns."""
    return f"swuforward:{section.name}"


def push_tellers(sections: Iterable[SwuforwardSection]) -> dict[str, NoTeller]:
    """What is stored for each listener, by assigner: nothing."""
    return {swuforward_assigner(section): NoTeller() for section in sections}


def push_upstreams(
    config: GatewayConfig, takeover: Takeover, common: Common, now: Callable[[], datetime]
) -> Sequence[PushUpstream]:
    """One of each listener. Errors: `ConfigurationError`."""
    return [
        push_upstream(section, takeover, common.vouched(section.repository), database=common.database, now=now)
        for section in config.swuforward
    ]


def push_upstream(
    section: SwuforwardSection,
    takeover: Takeover,
    vouched: Vouched,
    *,
    database: Database,
    now: Callable[[], datetime],
    look_s: float = 15.0,
) -> PushUpstream:
    """The listener of one section."""
    assigner, watchers = swuforward_assigner(section), Watchers(peer_of)
    push = Push(
        assigner,
        Receiving(vouched, max_bytes=section.max_bundle_bytes, stalled_after_s=section.stalled_after_s),
        Orders(database, takeover, assigner, section.nodes),
        watchers,
        database=database,
        manner=Manner(section.all_or_none, section.result_within_s, look_s),
        peer_of=peer_of,
        now=now,
    )
    application = push_application(push, watchers, Admission(section.allowed, section.credentials))
    return PushUpstream(push, Door(application, section.addresses, section.port, _tls(section), key=assigner))


def _tls(section: SwuforwardSection) -> ssl.SSLContext | None:
    if section.certificate is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(section.certificate, section.key)
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(
            f"swuforward {section.name}: cannot read certificate {section.certificate} with its key: {error}"
        ) from error
    return context
