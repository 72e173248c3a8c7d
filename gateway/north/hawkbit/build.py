"""The hawkBit servers of this gateway, built as they are configured."""

import asyncio
import ssl
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path

from gateway.config import GatewayConfig
from gateway.fleet.takeover import Takeover
from gateway.north.hawkbit.client import Credential, HawkbitClient
from gateway.north.hawkbit.credentials import ByCertificate, GatewayToken, TargetTokens
from gateway.north.hawkbit.delivery import Delivery
from gateway.north.hawkbit.following import Following, Server
from gateway.north.hawkbit.obtain import Obtain
from gateway.north.hawkbit.telling import HawkbitTeller
from gateway.north.hawkbit.upstream import Gateway, HawkbitUpstream
from gateway.north.means import Common
from gateway.north.spacing import Spacing
from gateway.sections.assigners import HawkbitSection
from update.wire import ddi
from update.wire.http import Manner
from update.wire.session import showing, wan_context

Now = Callable[[], datetime]


def assigner_of(section: HawkbitSection) -> str:
    """The name under which a server assigns."""
    return f"hawkbit:{section.name}"


def hawkbit_tellers(sections: Iterable[HawkbitSection], now: Now) -> dict[str, HawkbitTeller]:
    """What stores messages for each server, by assigner."""
    return {
        assigner_of(section): HawkbitTeller(
            assigner_of(section),
            now,
            unverified=ddi.Finished.SUCCESS if section.unverified_is_success else ddi.Finished.FAILURE,
        )
        for section in sections
    }


def hawkbit_upstreams(
    config: GatewayConfig, tellers: dict[str, HawkbitTeller], takeover: Takeover, common: Common, now: Now
) -> Sequence[HawkbitUpstream]:
    """One of each server."""
    make = partial(_upstream, config=config, takeover=takeover, common=common, now=now)
    return [make(section, tellers[assigner_of(section)]) for section in config.hawkbit]


def _upstream(
    section: HawkbitSection, teller: HawkbitTeller, *, config: GatewayConfig, takeover: Takeover, common: Common, now: Now
) -> HawkbitUpstream:
    assigner = assigner_of(section)
    client = HawkbitClient(
        common.session,
        str(section.url),
        section.tenant,
        _credential(section),
        Spacing(section.requests_per_s, now=asyncio.get_running_loop().time),
        manner=Manner(line=common.line, tls=_certificate(section, config.wan.extra_ca)),
        artifact_hosts=frozenset(section.artifact_hosts),
    )
    unlisted = common.unlisted
    obtain = Obtain(client, common.vouched(section.repository), unlisted.joining, unlisted.bodies)
    server = Server(assigner, client, obtain, teller)

    def controller(node: str) -> str:
        return section.controller.replace("{node}", node)

    return HawkbitUpstream(
        common.database,
        server,
        Following(common.database, takeover, server),
        Delivery(common.database, client, assigner, now, controller=controller),
        Gateway(config.gateway.name, version("fieldrelay"), section.gateway_controller),
        now=now,
        controller=controller,
    )


def _certificate(section: HawkbitSection, extra_ca: Path | None) -> ssl.SSLContext | None:
    if section.certificate is None or section.key is None:
        return None
    return showing(wan_context(extra_ca), section.certificate, section.key)


def _credential(section: HawkbitSection) -> Credential:
    if section.gateway_token is not None:
        return GatewayToken(section.gateway_token)
    return ByCertificate() if section.target_tokens is None else TargetTokens(section.target_tokens)
