"""The gateway's side of the operator's socket.

Nothing here is reachable over TCP. The socket file admits every local user where others than the gateway's own are
configured, because the answer "you may not, and who could let you" helps more than "permission denied"; who is calling is
what the kernel says, not what the caller says.
"""

import os
from collections.abc import Awaitable, Callable, Collection, Sequence
from pathlib import Path
from typing import Protocol

from aiohttp import web

from gateway.config import PrefetchMode
from gateway.control import messages
from gateway.control.peer import Allowed, Peer, peer_of
from gateway.edge import MAX_BODY_BYTES, answer, read_message, refuse_by_name
from gateway.fleet.catalogue import Repositories
from gateway.fleet.issuing import Assignment
from gateway.fleet.nodes import Order
from gateway.fleet.tokens import NewToken
from gateway.status import GatewayState, NodeState
from update.digest import Digest
from update.durable import Disk
from update.errors import ConfigurationError

_MAX_SOCKET_PATH_BYTES = 107  # sun_path, unix(7), less its final zero
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class _Status(Protocol):
    async def gateway(self) -> GatewayState: ...
    async def nodes(self) -> tuple[NodeState, ...]: ...


class _Assigner(Protocol):
    async def assign(self, order: Order) -> tuple[Assignment, ...]: ...


class _Tokens(Protocol):
    async def create(self, *, node: str, reason: str, valid_s: int) -> NewToken: ...


class _Modes(Protocol):
    async def choose(self, bundles: Collection[Digest], mode: PrefetchMode) -> None: ...


class Part(Protocol):
    """Some of the operator's commands."""

    def routes(self) -> list[web.RouteDef]:
        """Each command at its path."""
        ...


class Control:
    """The operator's commands; `modes` keeps how images of single orders are fetched beforehand."""

    def __init__(self, status: _Status, assigner: _Assigner, tokens: _Tokens, repositories: Repositories, modes: _Modes) -> None:
        self._status = status
        self._assigner = assigner
        self._tokens = tokens
        self._repositories = repositories
        self._modes = modes

    def routes(self) -> list[web.RouteDef]:
        """Each command at its path."""
        return [
            web.get(messages.STATUS, self._show_status),
            web.get(messages.NODES, self._show_nodes),
            web.post(messages.ASSIGN, self._assign),
            web.post(messages.TOKENS, self._make_token),
            web.post(messages.REFRESH, self._refresh),
        ]

    async def _show_status(self, _request: web.Request) -> web.Response:
        return answer(messages.STATUS_REPLY, await self._status.gateway())

    async def _show_nodes(self, _request: web.Request) -> web.Response:
        return answer(messages.NODES_REPLY, await self._status.nodes())

    async def _assign(self, request: web.Request) -> web.Response:
        wanted = await read_message(request, messages.ASSIGN_REQUEST)
        order = Order(
            release=wanted.release,
            nodes=wanted.nodes,
            requested_by=f"uid {peer_of(request).uid}",
            repository=wanted.repository,
            reason=wanted.reason,
            override=wanted.override,
        )
        made = await self._assigner.assign(order)
        if wanted.prefetch is not None:
            await self._modes.choose({each.release.sha256 for each in made}, wanted.prefetch)
        return answer(messages.ASSIGN_REPLY, tuple(map(_shown, made)))

    async def _make_token(self, request: web.Request) -> web.Response:
        wanted = await read_message(request, messages.TOKEN_REQUEST)
        reason = f"uid {peer_of(request).uid}: {wanted.reason}".removesuffix(": ")
        made = await self._tokens.create(node=wanted.node, reason=reason, valid_s=wanted.valid_s)
        return answer(messages.TOKEN_REPLY, messages.TokenReply(token=made.token, node=made.node, expires=made.expires))

    async def _refresh(self, request: web.Request) -> web.Response:
        return answer(messages.REFRESH_REPLY, await self._repositories.refresh(request.match_info["name"]))


def control_application(
    parts: Sequence[Part], allowed: Allowed, identify: Callable[[web.Request], Peer] = peer_of
) -> web.Application:
    """The application behind the socket; `identify` is another one in tests only."""

    @web.middleware
    async def admit(request: web.Request, handler: _Handler) -> web.StreamResponse:
        allowed.check(identify(request))
        return await handler(request)

    application = web.Application(middlewares=[refuse_by_name, admit], client_max_size=MAX_BODY_BYTES)
    application.add_routes([route for part in parts for route in part.routes()])
    return application


def allowed_peers(uids: tuple[int, ...], gids: tuple[int, ...]) -> Allowed:
    """The configured users and groups, and always root and the gateway's own user."""
    return Allowed(frozenset({0, os.geteuid(), *uids}), frozenset(gids))


async def listen(runner: web.AppRunner, socket: Path, allowed: Allowed, disk: Disk) -> None:
    """Open the socket; `ConfigurationError` where that cannot be. A socket left behind by a crash is replaced."""
    if len(os.fsencode(socket)) > _MAX_SOCKET_PATH_BYTES:
        raise ConfigurationError(f"control.socket is longer than {_MAX_SOCKET_PATH_BYTES} bytes: {socket}")
    disk.make_folder(socket.parent)
    try:
        await web.UnixSite(runner, str(socket)).start()
        _admit(socket, allowed)
    except OSError as error:
        raise ConfigurationError(f"cannot listen on control.socket {socket}: {error.strerror or error}") from error


def _admit(socket: Path, allowed: Allowed) -> None:
    others = allowed.uids - {0, os.geteuid()} or allowed.gids
    socket.chmod(0o666 if others else 0o600)


def _shown(assignment: Assignment) -> messages.AssignmentState:
    action, release = assignment.action, assignment.release
    return messages.AssignmentState(
        node=assignment.node,
        verdict=assignment.verdict,
        action=0 if action is None else action.id,
        fence=0 if action is None else action.fence,
        repository=release.repository,
        path=release.path,
        version=release.version,
    )
