"""The controller resources of any target at one hawkBit server, as the gateway asks them for its nodes.

Rules:

1. Links of the server are read for the numbers in them and not followed: the credential goes to the configured server only.
   Artifacts alone lie where the server says; elsewhere than at the server itself they are fetched without the credential,
   and only from hosts that are configured. A hawkBit behind TLS writes http into these links unless it is told better
   (`hawkbit.artifact.url.protocols`): what is at its own host is asked for at the configured url.
2. One GatewayToken may act as any target; TargetTokens are one per node; with neither, the client certificate of the session
   speaks (hawkBit DDI, authentication).
3. All requests of one client keep a distance in time, so that a thousand nodes stay under the server's limits.
4. 404 and 410 about an action mean that the server has closed or withdrawn it: `NotFoundError`. 403 in hawkBit's own words
   means that it refuses what it is told (a quota is used up), and says nothing about the action: `ForbiddenError`. 403 without
   them, and what refuses our certificate before hawkBit is asked, is our credential: `UnauthorizedError`.
"""

import re
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Protocol, TypeVar
from urllib.parse import quote

import aiohttp
from pydantic import BaseModel

from gateway.north.in_front import refuses_certificate, words_of
from gateway.north.spacing import SpacedLine, Spacing
from update.chunks.ranges import Range
from update.errors import ForbiddenError, NotFoundError, ProtocolError, UnauthorizedError, WireError
from update.wire import ddi
from update.wire.ddi_confirmation import ConfirmationAction, ConfirmationFeedback, Installed
from update.wire.download import Sink, download
from update.wire.habits import Peer
from update.wire.http import PLAIN, Manner, exchange, parse_url, read_bounded, refusal
from update.wire.ranged import Spare, read_ranges
from update.wire.rate import Retry

_NUMBER = re.compile(r"/([1-9][0-9]{0,18})(?:\?|$)")
_TAKEN = frozenset({200, 201, 202, 204})
_OWN_WORD = b'"errorCode"'
"""In every refusal that hawkBit words itself."""
_JSON = {"Accept": "application/json", "Content-Type": "application/json"}
_Message = TypeVar("_Message", bound=BaseModel)


class Credential(Protocol):
    """What a request shows."""

    def header(self, controller: str) -> str:
        """The Authorization of a target; empty where the session's certificate speaks. `ConfigurationError` if it has none."""
        ...


@dataclass(frozen=True, slots=True)
class Standing:
    """What the root of a target says: when to ask again (seconds), and the action that waits, by the server's own number.

    `changes` tells one document of the same action from the next.
    """

    sleep_s: int
    deployment: str = ""
    cancellation: str = ""
    confirmation: str = ""
    changes: str = ""
    attributes_wanted: bool = False

    @property
    def idle(self) -> bool:
        """Whether nothing waits."""
        return not (self.deployment or self.cancellation or self.confirmation)


class HawkbitClient:
    """One server. Errors of every method: leaves of `WireError`, `EndlessDataError`, `ConfigurationError` of the credential."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        url: str,
        tenant: str,
        credential: Credential,
        spacing: Spacing,
        *,
        manner: Manner = PLAIN,
        artifact_hosts: frozenset[str] = frozenset(),
    ) -> None:
        self.url = url
        self._session = session
        self._server = parse_url(url)
        self._root = f"{str(self._server).rstrip('/')}/{quote(tenant, safe='')}/controller/v1"
        self._credential = credential
        self._spacing = spacing
        self._manner = manner
        self._artifact_hosts = artifact_hosts

    async def root(self, controller: str) -> Standing:
        """What waits for a target; the server registers one that it does not know."""
        root = await self._get(ddi.Root, controller, "", ddi.MAX_ROOT_BYTES)
        links = root.links
        deployment, confirmation = links.deployment_base, links.confirmation_base
        shown = deployment or confirmation
        return Standing(
            sleep_s=ddi.parse_polling(root.config.polling.sleep),
            deployment=_number(deployment),
            cancellation=_number(links.cancel_action),
            confirmation=_number(confirmation),
            changes="" if shown is None else shown.href.partition("?")[2],
            attributes_wanted=links.config_data is not None,
        )

    async def deployment(self, controller: str, action: str) -> ddi.DeploymentBody:
        """What is to be installed."""
        path = f"deploymentBase/{action}"
        return (await self._get(ddi.DeploymentBase, controller, path, ddi.MAX_DEPLOYMENT_BYTES)).deployment

    async def confirmation(self, controller: str, action: str) -> ddi.DeploymentBody:
        """What is to be agreed to."""
        path = f"confirmationBase/{action}"
        return (await self._get(ConfirmationAction, controller, path, ddi.MAX_DEPLOYMENT_BYTES)).confirmation

    async def feedback(self, controller: str, action: str, feedback: ddi.Feedback, *, cancel: bool = False) -> None:
        """Tell how far an action is, or answer its cancellation. Older servers find no action without its `id`."""
        resource = "cancelAction" if cancel else "deploymentBase"
        named = feedback.model_copy(update={"id": action})
        await self._send("POST", controller, f"{resource}/{action}/feedback", named)

    async def confirm(self, controller: str, action: str, answer: ConfirmationFeedback) -> None:
        """Agree to an action, or not."""
        await self._send("POST", controller, f"confirmationBase/{action}/feedback", answer)

    async def is_open(self, controller: str, action: str) -> bool:
        """Whether the server still waits for the end of an action, or of its cancellation.

        The root alone tells it of every release: older ones show closed actions at `deploymentBase` as well. What stands
        behind another action in the root is asked for by its number.
        """
        standing = await self.root(controller)
        if action in {standing.deployment, standing.cancellation, standing.confirmation}:
            return True
        if standing.idle:
            return False
        try:
            await self.deployment(controller, action)
        except NotFoundError:
            return False
        return True

    async def attributes(self, controller: str, data: Mapping[str, str], mode: ddi.Mode = ddi.Mode.REPLACE) -> None:
        """Tell what a target is."""
        await self._send("PUT", controller, "configData", ddi.ConfigData(mode=mode, data=dict(data)))

    async def installed(self, controller: str, name: str, version: str) -> None:
        """Tell of what came by hand; `NotFoundError` or `ProtocolError` from a server that does not know the resource."""
        await self._send("PUT", controller, "installedBase", Installed(name=name, version=version))

    async def download(self, controller: str, href: str, sink: Sink, *, length: int) -> None:
        """Fetch an artifact (rule 1). Errors also: `StoreError`."""
        manner, url = self._shown_at(controller, href)
        await self._spacing.wait()
        await download(self._session, url, sink, length=length, manner=manner, retry=Retry(attempts=3))

    async def read_ranges(
        self, controller: str, href: str, ranges: Sequence[Range], *, peer: Peer | None = None, spare: Spare | None = None
    ) -> AsyncGenerator[tuple[int, bytes], None]:
        """Yield (offset, bytes) of an artifact (rule 1), as `update.wire.ranged` has it; each of its requests waits (rule 3)."""
        manner, url = self._shown_at(controller, href)
        spaced = replace(manner, line=SpacedLine(manner.line, self._spacing))
        reading = read_ranges(self._session, url, ranges, manner=spaced, retry=Retry(attempts=3), peer=peer, spare=spare)
        async with aclosing(reading) as pieces:
            async for piece in pieces:
                yield piece

    async def _get(self, model: type[_Message], controller: str, path: str, max_bytes: int) -> _Message:
        manner, url = self._shown(controller), self._url(controller, path)
        await self._spacing.wait()
        async with exchange(self._session, "GET", url, manner, headers=_JSON, small=True, redirects=False) as response:
            if response.status != 200:
                raise await _refusal(response, manner)
            return ddi.decode(model, await read_bounded(response, max_bytes, manner), max_bytes=max_bytes)

    async def _send(self, method: str, controller: str, path: str, message: BaseModel) -> None:
        manner, url = self._shown(controller), self._url(controller, path)
        body = ddi.encode(message)
        await self._spacing.wait()
        async with exchange(
            self._session, method, url, manner, headers=_JSON, body=body, small=True, redirects=False
        ) as response:
            if response.status not in _TAKEN:
                raise await _refusal(response, manner)

    def _url(self, controller: str, path: str) -> str:
        return f"{self._root}/{quote(controller, safe='')}{'/' if path else ''}{path}"

    def _shown_at(self, controller: str, href: str) -> tuple[Manner, str]:
        """How and where an artifact is asked for that the server says is there (rule 1)."""
        address, server = parse_url(href), self._server
        if address.origin() == server.origin():
            return self._shown(controller), href
        if address.host in self._artifact_hosts:
            return self._manner, href
        if (address.scheme, server.scheme, address.host) == ("http", "https", server.host):
            return self._shown(controller), f"{server.origin()}{address.raw_path_qs}"
        raise ProtocolError(
            f"the server offers an artifact at {address.host}; add that host to artifact_hosts if it belongs to it"
        )

    def _shown(self, controller: str) -> Manner:
        header = self._credential.header(controller)
        return replace(self._manner, headers={**self._manner.headers, "Authorization": header}) if header else self._manner


async def _refusal(response: aiohttp.ClientResponse, manner: Manner) -> WireError:
    """Rule 4."""
    status, words = response.status, await words_of(response, manner)
    if status == HTTPStatus.FORBIDDEN and _OWN_WORD in words:
        return ForbiddenError(f"{response.url} refuses this ({status}): a quota of the server is used up")
    if status == HTTPStatus.FORBIDDEN or refuses_certificate(status, words):
        return UnauthorizedError(f"{response.url} refuses us ({status}), before hawkBit is asked; check the certificate or token")
    return refusal(response)


def _number(link: ddi.Link | None) -> str:
    """The server's number of an action; it may be larger than ours."""
    if link is None:
        return ""
    found = _NUMBER.search(link.href)
    if found is None:
        raise ProtocolError(f"the server's link {link.href[:200]!r} names no action")
    return found[1]
