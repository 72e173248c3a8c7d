"""Our own agent's side of DDI: one poll, one feedback, one set of attributes at a time.

Rules:

1. Links are followed only below the node's own resource on the server that was asked: a link elsewhere would take the
   node's credential to whoever wrote it. Redirects are not followed for the same reason.
2. Every answer has a limit: 64 KiB for the root and small answers, 1 MiB for a deployment.
3. 404 on a deployment or cancellation means that it was withdrawn between two requests: nothing to do. 404 and 410 on a
   feedback mean that the action is closed: `NotFoundError`, and the report need not be sent again.
4. 401 and 403 are about our credential: `UnauthorizedError`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

import aiohttp
from pydantic import BaseModel, ValidationError

from update.errors import ConfigurationError, NotFoundError, ProtocolError, UnauthorizedError, WireError
from update.identity import check_name
from update.wire.assignment import Assignment
from update.wire.ddi import (
    MAX_CONFIG_DATA_BYTES,
    MAX_DEPLOYMENT_BYTES,
    MAX_FEEDBACK_BYTES,
    MAX_ROOT_BYTES,
    CancelAction,
    ConfigData,
    DeploymentBase,
    Feedback,
    Link,
    Mode,
    Root,
    decode,
    encode,
    parse_action_id,
    parse_polling,
)
from update.wire.http import PLAIN, Manner, exchange, parse_url, read_bounded, refusal

_JSON = {"Accept": "application/json", "Content-Type": "application/json"}
_Message = TypeVar("_Message", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Deployment:
    """The one deployment that counts now. `assignment` is None where the server is not a Fieldrelay gateway."""

    action: int
    document: DeploymentBase
    assignment: Assignment | None


@dataclass(frozen=True, slots=True)
class Cancellation:
    """The order to stop `stop`; the answer goes to `action`."""

    action: int
    stop: str


@dataclass(frozen=True, slots=True)
class Poll:
    """What one poll found: when to come back (seconds), what to do, and whether attributes are asked for."""

    sleep_s: int
    task: Deployment | Cancellation | None
    attributes_wanted: bool


class DdiClient:
    """The controller resource of one node. Errors of every method: leaves of `WireError`, `EndlessDataError`."""

    def __init__(
        self, session: aiohttp.ClientSession, base_url: str, node: str, *, tenant: str = "DEFAULT", manner: Manner = PLAIN
    ) -> None:
        path = f"{check_name(tenant, 'a tenant')}/controller/v1/{check_name(node, 'a node')}"
        self._base = f"{str(parse_url(base_url)).rstrip('/')}/{path}"
        self._session = session
        self._manner = manner

    async def poll(self) -> Poll:
        """Ask the root, then for the task that it links."""
        root = await self._get(Root, self._base, MAX_ROOT_BYTES)
        links = root.links
        task: Deployment | Cancellation | None = None
        try:
            if links.cancel_action is not None:
                task = await self._cancellation(links.cancel_action)
            elif links.deployment_base is not None:
                task = await self._deployment(links.deployment_base)
        except NotFoundError:
            task = None  # rule 3
        return Poll(parse_polling(root.config.polling.sleep), task, links.config_data is not None)

    async def feedback(self, action: int, feedback: Feedback, *, cancel: bool = False) -> None:
        """Tell how far `action` is; `cancel` answers a cancellation. `NotFoundError`: it is closed, do not repeat."""
        resource = "cancelAction" if cancel else "deploymentBase"
        body = encode(feedback)
        if len(body) > MAX_FEEDBACK_BYTES:
            raise ProtocolError(f"a feedback of {len(body)} bytes; at most {MAX_FEEDBACK_BYTES} are sent")
        await self._send("POST", f"{self._base}/{resource}/{parse_action_id(str(action))}/feedback", body)

    async def config_data(self, data: Mapping[str, str], mode: Mode = Mode.MERGE) -> None:
        """Send the node's attributes: at most 100, names of 128 characters, values of 1024; else `ConfigurationError`."""
        try:
            body = encode(ConfigData(mode=mode, data=dict(data)))
        except ValidationError as error:
            raise ConfigurationError("attributes: at most 100, names of 1 to 128 characters, values of up to 1024") from error
        if len(body) > MAX_CONFIG_DATA_BYTES:
            raise ProtocolError(f"attributes of {len(body)} bytes; at most {MAX_CONFIG_DATA_BYTES} are sent")
        await self._send("PUT", f"{self._base}/configData", body)

    async def _deployment(self, link: Link) -> Deployment:
        document = await self._get(DeploymentBase, self._follow(link, "deploymentBase"), MAX_DEPLOYMENT_BYTES)
        entries = [entry for chunk in document.deployment.chunks for entry in chunk.metadata or ()]
        assignment = Assignment.parse(entries)
        action = parse_action_id(document.id)
        if assignment is not None and assignment.action != action:
            raise ProtocolError(f"deployment {action} carries the assignment of action {assignment.action}")
        return Deployment(action, document, assignment)

    async def _cancellation(self, link: Link) -> Cancellation:
        document = await self._get(CancelAction, self._follow(link, "cancelAction"), MAX_ROOT_BYTES)
        return Cancellation(parse_action_id(document.id), document.cancel_action.stop_id)

    def _follow(self, link: Link, resource: str) -> str:
        """Rule 1."""
        address, inside = parse_url(link.href), parse_url(f"{self._base}/{resource}/")
        action = address.raw_path.removeprefix(inside.raw_path)
        if address.origin() != inside.origin() or address.user is not None:
            raise ProtocolError(f"the server links {link.href[:200]!r}, which is not below {inside}")
        parse_action_id(action)
        return str(address)

    async def _get(self, model: type[_Message], url: str, max_bytes: int) -> _Message:
        async with exchange(self._session, "GET", url, self._manner, headers=_JSON, small=True, redirects=False) as response:
            if response.status != 200:
                raise _refused(response)
            body = await read_bounded(response, max_bytes, self._manner)
        return decode(model, body, max_bytes=max_bytes)

    async def _send(self, method: str, url: str, body: bytes) -> None:
        async with exchange(
            self._session, method, url, self._manner, headers=_JSON, body=body, small=True, redirects=False
        ) as response:
            if response.status not in {200, 201, 202, 204}:
                raise _refused(response)


def _refused(response: aiohttp.ClientResponse) -> WireError:
    if response.status == 403:
        return UnauthorizedError(f"{response.url} refuses our credential (403); enrol this node again")
    return refusal(response)
