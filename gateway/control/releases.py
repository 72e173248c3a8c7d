"""The operator's commands about coordinated releases: begin one, look at them, pause, resume, abort."""

from typing import Protocol, assert_never

from aiohttp import web

from gateway.control import release_messages as messages
from gateway.control.peer import peer_of
from gateway.control.release_messages import ReleaseCommand
from gateway.edge import answer, read_message
from gateway.fleet.release_states import ReleaseState
from update.errors import NotFoundError


class _Releases(Protocol):
    async def start(self, release: str, repository: str, requested_by: str, reason: str) -> ReleaseState: ...
    async def pause(self, number: int, who: str) -> ReleaseState: ...
    async def resume(self, number: int, who: str) -> ReleaseState: ...
    async def abort(self, number: int, who: str) -> ReleaseState: ...
    async def state(self, number: int) -> ReleaseState: ...
    async def states(self) -> tuple[ReleaseState, ...]: ...


class ReleaseControl:
    """Passes commands on, with who gave them."""

    def __init__(self, releases: _Releases) -> None:
        self._releases = releases

    def routes(self) -> list[web.RouteDef]:
        """Each command at its path."""
        return [
            web.get(messages.RELEASES, self._list),
            web.post(messages.RELEASES, self._start),
            web.get(messages.RELEASE, self._show),
            web.post(messages.COMMAND, self._command),
        ]

    async def _list(self, _request: web.Request) -> web.Response:
        return answer(messages.RELEASES_REPLY, await self._releases.states())

    async def _show(self, request: web.Request) -> web.Response:
        return answer(messages.RELEASE_REPLY, await self._releases.state(_number(request)))

    async def _start(self, request: web.Request) -> web.Response:
        wanted = await read_message(request, messages.START_REQUEST)
        who = f"uid {peer_of(request).uid}"
        return answer(messages.RELEASE_REPLY, await self._releases.start(wanted.release, wanted.repository, who, wanted.reason))

    async def _command(self, request: web.Request) -> web.Response:
        number, command = _number(request), _command_in(request)
        wanted = await read_message(request, messages.COMMAND_REQUEST)
        who = f"uid {peer_of(request).uid}: {wanted.reason}".removesuffix(": ")
        match command:
            case ReleaseCommand.PAUSE:
                state = await self._releases.pause(number, who)
            case ReleaseCommand.RESUME:
                state = await self._releases.resume(number, who)
            case ReleaseCommand.ABORT:
                state = await self._releases.abort(number, who)
            case _:
                assert_never(command)
        return answer(messages.RELEASE_REPLY, state)


def _number(request: web.Request) -> int:
    text = request.match_info["number"]
    if not (text.isdecimal() and text.isascii() and len(text) <= 9):
        raise NotFoundError(f"a release has a number, not {text[:40]!r}")
    return int(text)


def _command_in(request: web.Request) -> ReleaseCommand:
    text = request.match_info["command"]
    if text not in list(ReleaseCommand):
        raise NotFoundError(f"there is no command {text[:40]!r} for a release; there are {', '.join(ReleaseCommand)}")
    return ReleaseCommand(text)
