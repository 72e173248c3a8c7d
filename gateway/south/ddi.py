"""hawkBit's DDI towards the nodes: the resources that our own agent needs.

    GET  /DEFAULT/controller/v1/NODE                              what waits: one action, or attributes to send
    PUT  /DEFAULT/controller/v1/NODE/configData                   what the node says of itself
    GET  /DEFAULT/controller/v1/NODE/deploymentBase/ACTION        what to install
    POST /DEFAULT/controller/v1/NODE/deploymentBase/ACTION/feedback
    GET  /DEFAULT/controller/v1/NODE/cancelAction/ACTION          what to let go of
    POST /DEFAULT/controller/v1/NODE/cancelAction/ACTION/feedback

- A node sees its own resources only: the name in the path is the one in its certificate.
- Every success is answered 200: clients were seen to take 201 and 204 for failures.
- A feedback that is well-formed and about the node's own action is answered 200, also when it came before or too late: a node
  that is told otherwise would send it for ever, or stop its update.
- `?c=` changes whenever the document behind a deploymentBase link does.
- In which form a release is offered is chosen at every contact (`gateway.fleet.variants`); while nothing can be completed
  there is no link, except for who was told before.
- What is offered is a hint: the chunk's `fieldrelay.*` metadata names a target that the agent resolves in metadata that it
  verified itself.
"""

import re
import uuid
import zlib
from typing import Protocol, TypeVar

from aiohttp import web
from pydantic import BaseModel

from gateway.database.records import Action, ActionState, ClientKind, Node, Release
from gateway.fleet.judgement import Told
from gateway.fleet.progress import Progress
from gateway.south.identity import IDENTITY, Identity
from update.digest import digest_of
from update.errors import ForbiddenError, NotFoundError, ProtocolError, TooLargeError
from update.trust.verified import TargetCustom, TargetInfo
from update.wire import ddi
from update.wire.assignment import Assignment, Commit

_BASE = "/DEFAULT/controller/v1/{node}"
_HOST = re.compile(r"[A-Za-z0-9._-]{1,253}(:[0-9]{1,5})?|\[[0-9A-Fa-f:.%]{2,60}\](:[0-9]{1,5})?", re.ASCII)
_SAME_WORDS = uuid.UUID("0b4d8c36-7a55-5f0e-8f1b-8a9a6f3d2c11")
_KINDS = (("libcurl-agent/", ClientKind.SWUPDATE), ("rauc-hawkbit-c-agent/", ClientKind.RAUC))
_Message = TypeVar("_Message", bound=BaseModel)


class Offering(Protocol):
    """Who chooses in which form a node gets a release."""

    async def offered(self, node: Node, action: Action) -> Release | None:
        """The bundle to offer; None: nothing now."""
        ...


class AsOrdered:
    """Every node is offered what was ordered."""

    async def offered(self, node: Node, action: Action) -> Release | None:  # noqa: ARG002 - the same for all
        """The action's own release."""
        return action.release


class Ddi:
    """The controller resources. `polling_s` is how often nodes shall ask; `offering` chooses what they are offered."""

    def __init__(self, progress: Progress, *, polling_s: int, offering: Offering | None = None) -> None:
        self._progress = progress
        self._offering = offering or AsOrdered()
        self._polling = ddi.Config(polling=ddi.Polling(sleep=ddi.format_polling(polling_s)))

    def routes(self) -> list[web.RouteDef]:
        """Each resource at its path."""
        return [
            web.get(_BASE, self._root),
            web.put(f"{_BASE}/configData", self._attributes),
            web.get(f"{_BASE}/deploymentBase/{{action}}", self._deployment),
            web.post(f"{_BASE}/deploymentBase/{{action}}/feedback", self._feedback),
            web.get(f"{_BASE}/cancelAction/{{action}}", self._cancellation),
            web.post(f"{_BASE}/cancelAction/{{action}}/feedback", self._cancel_feedback),
        ]

    async def _root(self, request: web.Request) -> web.Response:
        node = _own(request)
        contact = await self._progress.contact(node.node, node.fingerprint, _kind(request))
        base = f"{_origin(request)}{_BASE.format(node=node.node)}"
        links = {} if contact.action is None else await self._action_link(base, contact.node, contact.action)
        if contact.node.attributes_wanted:
            links["config_data"] = ddi.Link(href=f"{base}/configData")
        return _answer(ddi.Root(config=self._polling, links=ddi.RootLinks(**links)))

    async def _attributes(self, request: web.Request) -> web.Response:
        node = _own(request)
        told = await _read(request, ddi.ConfigData, ddi.MAX_CONFIG_DATA_BYTES)
        await self._progress.describe(node.node, node.fingerprint, told.mode, told.data)
        return web.Response()

    async def _deployment(self, request: web.Request) -> web.Response:
        own, number = _own(request), _action(request)
        contact = await self._progress.contact(own.node, own.fingerprint, _kind(request))
        waiting = contact.action if contact.action is not None and contact.action.id == number else None
        release = None if waiting is None else await self._offered(contact.node, waiting)
        if waiting is not None and release is None:
            raise NotFoundError(f"no bundle of action {number} can be completed now; the link is back when one can")
        action = await self._progress.offer(own.node, number)
        return _answer(_document(action, release or action.release, _origin(request)))

    async def _offered(self, node: Node, action: Action) -> Release | None:
        """In which form a node gets the release. Who was told of it keeps it: a client reports by what it was offered."""
        chosen = await self._offering.offered(node, action)
        return chosen or (None if action.offered is None else action.release)

    async def _action_link(self, base: str, node: Node, action: Action) -> dict[str, ddi.Link]:
        """Of an action that nothing can be offered of now there is no link: a stock client would give it up."""
        if action.state is ActionState.CANCELLING:
            return {"cancel_action": ddi.Link(href=f"{base}/cancelAction/{action.id}")}
        release = await self._offered(node, action)
        if release is None:
            return {}
        changes = zlib.crc32(f"{action.id} {action.fence} {action.commit} {release.sha256}".encode()) & ddi.MAX_ACTION_ID
        return {"deployment_base": ddi.Link(href=f"{base}/deploymentBase/{action.id}?c={changes}")}

    async def _cancellation(self, request: web.Request) -> web.Response:
        node, action = _own(request), _action(request)
        stopped = str((await self._progress.cancellation(node.node, action)).id)
        return _answer(ddi.CancelAction(id=stopped, cancel_action=ddi.CancelStop(stop_id=stopped)))

    async def _feedback(self, request: web.Request) -> web.Response:
        node, action = _own(request), _action(request)
        await self._progress.feedback(node.node, action, await _told(request))
        return web.Response()

    async def _cancel_feedback(self, request: web.Request) -> web.Response:
        node, action = _own(request), _action(request)
        await self._progress.cancel_feedback(node.node, action, await _told(request))
        return web.Response()


def _own(request: web.Request) -> Identity:
    identity, asked = request[IDENTITY], request.match_info["node"]
    if asked != identity.node:
        raise ForbiddenError(f"node {identity.node} may not ask for what belongs to {asked[:80]!r}")
    return identity


def _action(request: web.Request) -> int:
    return ddi.parse_action_id(request.match_info["action"])


def _kind(request: web.Request) -> ClientKind:
    """A default for a node that is new, by the programs that stock clients say to be."""
    agent = request.headers.get("User-Agent", "")
    return next((kind for prefix, kind in _KINDS if agent.startswith(prefix)), ClientKind.AGENT)


def _origin(request: web.Request) -> str:
    """Scheme and host as the node addressed us: links lead back to where it asked."""
    if not _HOST.fullmatch(request.host):
        raise ProtocolError(f"the Host header is malformed: {request.host[:80]!r}")
    return f"{request.scheme}://{request.host}"


def _document(action: Action, release: Release, origin: str) -> ddi.DeploymentBase:
    """One chunk with one artifact: the bundle."""
    target = TargetInfo(release.repository, release.path, release.length, release.sha256, TargetCustom(), "")
    assignment = Assignment(release.repository, release.path, release.sha256, action.id, action.fence, Commit(action.commit))
    artifact = ddi.Artifact(
        filename=target.base_name,
        hashes=ddi.Hashes(sha256=release.sha256),
        size=release.length,
        links=ddi.ArtifactLinks(download=ddi.Link(href=f"{origin}/repositories/{release.repository}/{target.wire_path}")),
    )
    chunk = ddi.Chunk(
        part="os", version=release.version, name=target.base_name, artifacts=(artifact,), metadata=assignment.metadata()
    )
    body = ddi.DeploymentBody(download=ddi.Handling.FORCED, update=ddi.Handling.FORCED, chunks=(chunk,))
    return ddi.DeploymentBase(id=str(action.id), deployment=body)


async def _told(request: web.Request) -> Told:
    message = await _read(request, ddi.Feedback, ddi.MAX_FEEDBACK_BYTES)
    status, own = message.status, message.fieldrelay
    details = tuple(status.details or ())
    if own is None:  # another client: the same words about the same action are the same report
        report = uuid.uuid5(_SAME_WORDS, f"{request.path} {digest_of(await request.read())}")
        return Told(str(report), status.execution, status.result.finished, details=details)
    return Told(
        report=str(own.report),
        execution=status.execution,
        finished=status.result.finished,
        sequence=own.sequence,
        details=details,
        outcome=own.outcome,
        code=own.code[:64],
        message=own.message,
        body=own.model_dump(mode="json"),
        proven=True,
    )


async def _read(request: web.Request, model: type[_Message], max_bytes: int) -> _Message:
    if request.headers.get("Content-Encoding", "identity") != "identity":
        raise ProtocolError("a message is sent without Content-Encoding")
    body = await request.read()
    if len(body) > max_bytes:
        raise TooLargeError(f"a message of {len(body)} bytes; at most {max_bytes} are taken here")
    return ddi.decode(model, body, max_bytes=max_bytes)


def _answer(message: BaseModel) -> web.Response:
    return web.Response(body=ddi.encode(message), content_type="application/json")
