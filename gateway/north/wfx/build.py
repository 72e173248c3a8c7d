"""The wfx servers of this gateway, built as they are configured."""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path

from gateway.config import GatewayConfig
from gateway.fleet.takeover import Takeover
from gateway.north.means import Common
from gateway.north.spacing import Spacing
from gateway.north.token_file import read_token
from gateway.north.wfx.client import Shown, WfxClient
from gateway.north.wfx.delivery import Delivery
from gateway.north.wfx.following import Following, Server
from gateway.north.wfx.obtain import Obtain
from gateway.north.wfx.telling import WfxTeller
from gateway.north.wfx.upstream import WfxUpstream
from gateway.north.wfx.workflow import State
from gateway.sections.assigners import WfxSection
from update.wire.http import Manner
from update.wire.session import showing, wan_context

Now = Callable[[], datetime]


def assigner_of(section: WfxSection) -> str:
    """The name under which a server assigns."""
    return f"wfx:{section.name}"


def wfx_tellers(sections: Iterable[WfxSection], now: Now) -> dict[str, WfxTeller]:
    """What stores messages for each server, by assigner."""
    return {
        assigner_of(section): WfxTeller(
            assigner_of(section), now, unverified=State.ACTIVATED if section.unverified_is_success else State.TERMINATED
        )
        for section in sections
    }


def wfx_upstreams(
    config: GatewayConfig, tellers: dict[str, WfxTeller], takeover: Takeover, common: Common, now: Now
) -> Sequence[WfxUpstream]:
    """One of each server."""
    extra_ca = config.wan.extra_ca
    return [
        _upstream(section, tellers[assigner_of(section)], takeover, common, now=now, shown=_shown(section, extra_ca))
        for section in config.wfx
    ]


def _upstream(
    section: WfxSection, teller: WfxTeller, takeover: Takeover, common: Common, *, now: Now, shown: Shown
) -> WfxUpstream:
    assigner = assigner_of(section)
    client = WfxClient(
        common.session,
        str(section.url),
        Spacing(section.requests_per_s, now=asyncio.get_running_loop().time),
        shown,
        manner=Manner(line=common.line),
        artifact_hosts=frozenset(section.artifact_hosts),
        tags=section.tags,
    )
    obtain = Obtain(client, common.vouched(section.repository), max_bytes=section.max_bundle_bytes)
    server = Server(assigner, client, obtain, teller, frozenset(section.workflows))

    def client_id(node: str) -> str:
        return section.client.replace("{node}", node)

    return WfxUpstream(
        common.database,
        server,
        Following(common.database, takeover, server, now),
        Delivery(common.database, client, assigner, now, client_id=client_id),
        now=now,
        client_id=client_id,
        poll_interval_s=section.poll_interval_s,
        events=section.events,
    )


def _shown(section: WfxSection, extra_ca: Path | None) -> Shown:
    tls = None
    if section.certificate is not None and section.key is not None:
        tls = showing(wan_context(extra_ca), section.certificate, section.key)
    return Shown(partial(_bearer, section.token), section.client_header, tls)


def _bearer(token: Path | None) -> dict[str, str]:
    return {} if token is None else {"Authorization": f"Bearer {read_token(token)}"}
