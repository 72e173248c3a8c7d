"""The streams of this gateway, built as they are configured."""

import ssl
from collections.abc import Callable, Sequence

import aiohttp

from gateway.config import GatewayConfig
from gateway.north.calls.call import Call, Line
from gateway.north.looking import Looking
from gateway.north.token_file import read_token
from gateway.sections.calls import CallSection
from update.wire.http import Manner
from update.wire.tls import GATEWAY_IDENTITY, client_context


def calls(config: GatewayConfig, session: aiohttp.ClientSession, looking: Looking) -> Sequence[Call]:
    """One for each section. Errors: `ConfigurationError` for a CA that cannot be read."""
    every = [section.name for section in config.repository]
    return [
        Call(
            Line(section.name, str(section.url), _manner_of(section), section.idle_s),
            session,
            looking,
            section.repositories or every,
        )
        for section in config.call
    ]


def _manner_of(section: CallSection) -> Callable[[], Manner]:
    """A token is read at each call, so it may be changed while the gateway runs."""
    tls: ssl.SSLContext | None = None if section.site_ca is None else client_context(section.site_ca)
    hostname = None if section.site_ca is None else GATEWAY_IDENTITY

    def manner() -> Manner:
        shown = {} if section.token is None else {"Authorization": f"Bearer {read_token(section.token)}"}
        return Manner(headers=shown, server_hostname=hostname, tls=tls)

    return manner
