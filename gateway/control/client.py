"""The command line's side of the operator's socket: each command is one request; a refusal comes back as its own error."""

from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path
from typing import TypeVar

from aiohttp import ClientError, ClientResponse, ClientSession, ClientTimeout, UnixConnector
from pydantic import TypeAdapter, ValidationError

from gateway.control import media_messages, messages, node_messages, plan_messages, release_messages, report_messages
from gateway.edge import Refusal
from gateway.fleet.catalogue import RepositoryState
from gateway.fleet.release_states import ReleaseState
from gateway.status import GatewayState, NodeState
from update.errors import FieldrelayError, ForbiddenError, ProtocolError, SlowError, UnreachableError

MAX_REPLY_BYTES = 64 << 20
_TIMEOUT_S = 120.0
_Reply = TypeVar("_Reply")
_NO_BODY = b""


class ControlClient:
    """One operator's commands to the gateway behind `socket`. Errors: the gateway's refusals, `UnreachableError`."""

    def __init__(self, socket: Path, *, timeout_s: float = _TIMEOUT_S) -> None:
        self._socket = socket
        self._timeout = ClientTimeout(total=timeout_s)

    async def status(self) -> GatewayState:
        """The state of everything."""
        return await self._call("GET", messages.STATUS, messages.STATUS_REPLY)

    async def nodes(self) -> tuple[NodeState, ...]:
        """The state of every node."""
        return await self._call("GET", messages.NODES, messages.NODES_REPLY)

    async def assign(self, request: messages.AssignRequest) -> tuple[messages.AssignmentState, ...]:
        """Order a release."""
        body = messages.ASSIGN_REQUEST.dump_json(request)
        return await self._call("POST", messages.ASSIGN, messages.ASSIGN_REPLY, body)

    async def token(self, request: messages.TokenRequest) -> messages.TokenReply:
        """Make a one-time token."""
        return await self._call("POST", messages.TOKENS, messages.TOKEN_REPLY, messages.TOKEN_REQUEST.dump_json(request))

    async def refresh(self, repository: str) -> RepositoryState:
        """Have a repository's upstreams asked for news."""
        return await self._call("POST", messages.REFRESH.format(name=repository), messages.REFRESH_REPLY)

    async def set_node(self, node: str, request: node_messages.SettingsRequest) -> node_messages.NodeSettings:
        """Decide something about a node."""
        path, body = node_messages.SETTINGS.format(name=node), node_messages.SETTINGS_REQUEST.dump_json(request)
        return await self._call("PATCH", path, node_messages.SETTINGS_REPLY, body)

    async def give_token(self, node: str, request: node_messages.AccountRequest) -> node_messages.AccountReply:
        """Give a node its own token."""
        path, body = node_messages.ACCOUNT.format(name=node), node_messages.ACCOUNT_REQUEST.dump_json(request)
        return await self._call("POST", path, node_messages.ACCOUNT_REPLY, body)

    async def take_token(self, node: str) -> node_messages.AccountReply:
        """Have a node's token open nothing."""
        return await self._call("DELETE", node_messages.ACCOUNT.format(name=node), node_messages.ACCOUNT_REPLY)

    async def cancel(self, node: str, request: node_messages.CancelRequest) -> node_messages.CancelReply:
        """Let go of what the site ordered."""
        path, body = node_messages.CANCEL.format(name=node), node_messages.CANCEL_REQUEST.dump_json(request)
        return await self._call("POST", path, node_messages.CANCEL_REPLY, body)

    async def confirm(self, node: str, request: node_messages.ConfirmRequest) -> node_messages.ConfirmReply:
        """Agree to what waits."""
        path, body = node_messages.CONFIRM.format(name=node), node_messages.CONFIRM_REQUEST.dump_json(request)
        return await self._call("POST", path, node_messages.CONFIRM_REPLY, body)

    async def reports(self) -> tuple[report_messages.ReportState, ...]:
        """What receivers elsewhere do not have."""
        return await self._call("GET", report_messages.REPORTS, report_messages.REPORTS_REPLY)

    async def resend(self, request: report_messages.ResendRequest) -> tuple[report_messages.ReportState, ...]:
        """Have messages sent now; those that it was done for."""
        body = report_messages.RESEND_REQUEST.dump_json(request)
        return await self._call("POST", report_messages.RESEND, report_messages.REPORTS_REPLY, body)

    async def judge_plan(self, request: plan_messages.PlanRequest) -> plan_messages.PlanReply:
        """What a release plan would do now."""
        body = plan_messages.PLAN_REQUEST.dump_json(request)
        return await self._call("POST", plan_messages.PLANS, plan_messages.PLAN_REPLY, body)

    async def accept_stale(self, medium: str, request: media_messages.StaleRequest) -> media_messages.StaleReply:
        """Accept a medium past its expiry."""
        path, body = media_messages.ACCEPT_STALE.format(medium=medium), media_messages.STALE_REQUEST.dump_json(request)
        return await self._call("POST", path, media_messages.STALE_REPLY, body)

    async def start_release(self, request: release_messages.StartRequest) -> ReleaseState:
        """Begin a release plan."""
        body = release_messages.START_REQUEST.dump_json(request)
        return await self._call("POST", release_messages.RELEASES, release_messages.RELEASE_REPLY, body)

    async def releases(self) -> tuple[ReleaseState, ...]:
        """The newest releases."""
        return await self._call("GET", release_messages.RELEASES, release_messages.RELEASES_REPLY)

    async def release(self, number: int) -> ReleaseState:
        """One release."""
        return await self._call("GET", release_messages.RELEASE.format(number=number), release_messages.RELEASE_REPLY)

    async def command_release(
        self, number: int, command: release_messages.ReleaseCommand, request: release_messages.CommandRequest
    ) -> ReleaseState:
        """Pause, resume or abort a release."""
        path = release_messages.COMMAND.format(number=number, command=command)
        body = release_messages.COMMAND_REQUEST.dump_json(request)
        return await self._call("POST", path, release_messages.RELEASE_REPLY, body)

    async def _call(self, method: str, path: str, reply: TypeAdapter[_Reply], body: bytes = _NO_BODY) -> _Reply:
        status, data = await self._exchange(method, path, body)
        try:
            if status != HTTPStatus.OK:
                raise _as_error(messages.REFUSAL.validate_json(data))
            return reply.validate_json(data)
        except ValidationError as error:
            raise ProtocolError(f"{self._socket} does not answer like a gateway of this release (status {status})") from error

    async def _exchange(self, method: str, path: str, body: bytes) -> tuple[int, bytes]:
        try:
            async with (
                ClientSession(connector=UnixConnector(str(self._socket)), timeout=self._timeout) as session,
                session.request(method, f"http://gateway{path}", data=body) as response,
            ):
                return response.status, await _read(response)
        except TimeoutError as error:
            raise SlowError(f"the gateway at {self._socket} did not answer in {self._timeout.total} s; see its log") from error
        except ClientError as error:
            if isinstance(error.__cause__, PermissionError) or isinstance(error, PermissionError):
                raise ForbiddenError(f"you may not open {self._socket}; become root or the gateway's user") from error
            raise UnreachableError(f"no gateway answers at {self._socket}; is `fieldrelay gateway serve` running?") from error


async def _read(response: ClientResponse) -> bytes:
    data = await response.content.read(MAX_REPLY_BYTES + 1)
    while len(data) <= MAX_REPLY_BYTES and (more := await response.content.read(MAX_REPLY_BYTES + 1 - len(data))):
        data += more
    if len(data) > MAX_REPLY_BYTES:
        raise ProtocolError(f"the gateway's answer is larger than {MAX_REPLY_BYTES} bytes")
    return data


def _as_error(refusal: Refusal) -> FieldrelayError:
    """The error that the gateway met, by its code, so that the exit status is the same as if it had happened here."""
    by_code = {leaf.code: leaf for leaf in _leaves(FieldrelayError)}
    return by_code.get(refusal.code, FieldrelayError)(refusal.message)


def _leaves(error: type[FieldrelayError]) -> Iterator[type[FieldrelayError]]:
    yield error
    for kind in error.__subclasses__():
        yield from _leaves(kind)
