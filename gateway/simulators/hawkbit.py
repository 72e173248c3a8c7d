"""A hawkBit that misbehaves on demand, for what a real one cannot be made to do: floods, lost answers, lies, newer resources.

It speaks DDI v1 to devices that show `GatewayToken <token>`, at a port of 127.0.0.1; `holdings` has its rules and what an
operator does. It knows what releases after 0.3.0M7 have: `confirmationBase`, PUT `installedBase`, and closed actions that are
gone (`closed_status`).
"""

import asyncio
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final, Self
from zlib import crc32

from aiohttp import web

from gateway.simulators.hawkbit_actions import Holdings, Kind, RefusedError, SimulatedAction

_HOST: Final = "127.0.0.1"
_BASE: Final = "/DEFAULT/controller/v1/{target}"
_LARGEST_BODY: Final = 1 << 20
_UNTRUSTED: Final = "<html><title>400 The SSL certificate error</title><center>nginx</center></html>"

Json = dict[str, object]


@dataclass(slots=True)
class Faults:
    """How it misbehaves; changed while it runs."""

    failing: int = 0  # so many next requests are answered with 500, and do nothing
    flooded: int = 0  # so many next requests are answered with 429, as its filter does: without a Retry-After
    unanswered: int = 0  # so many next messages are taken, and the connection is cut before the answer
    refusing: bool = False  # 401 for everything
    forbidding: bool = False  # 403 for everything, as a proxy says it that checks certificates by itself
    untrusting: bool = False  # 400 for everything, as nginx says it that does not trust our certificate
    absent: bool = False  # 404 for everything, as a proxy without a server behind it says it
    garbage: bool = False  # 200 with something that is no JSON
    held: asyncio.Event | None = None  # answers begin when it is set
    without_newer: bool = False  # as releases before confirmationBase and installedBase
    closed_status: int = 410  # what is closed: 410, or 404
    takes_closed: bool = False  # what is closed takes words all the same, and can be read
    linked: str = ""  # links name this action, whichever it is
    elsewhere: str = ""  # artifacts are linked at this origin
    sized_off_by: int = 0  # artifacts are announced with so many bytes more
    falsified: bool = False  # an artifact has one wrong byte
    cut_after: int | None = None  # an artifact breaks off after so many bytes


@dataclass(slots=True)
class HawkbitSimulator:
    """Runs as a context; `asked` is every request (method, path below the target) that reached it."""

    token: str
    sleep: str = "00:00:01"
    faults: Faults = field(default_factory=Faults)
    holdings: Holdings = field(default_factory=Holdings)
    asked: list[tuple[str, str]] = field(default_factory=list)
    url: str = ""
    _runner: web.AppRunner | None = None

    async def __aenter__(self) -> Self:
        application = web.Application(client_max_size=_LARGEST_BODY)
        application.router.add_route("*", _BASE, self._serve)
        application.router.add_route("*", f"{_BASE}/{{path:.*}}", self._serve)
        self._runner = web.AppRunner(application, shutdown_timeout=1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, _HOST, 0)
        await site.start()
        self.url = f"http://{_HOST}:{site.port}"
        return self

    async def __aexit__(self, *_exception: object) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        target, path = request.match_info["target"], request.match_info.get("path", "")
        self.asked.append((request.method, path))
        if (early := await self._disturbed(request)) is not None:
            return early
        try:
            answer = await self._answer(request, target, path)
        except RefusedError as error:
            return web.json_response({"errorCode": error.code}, status=error.status)
        if request.method != "GET" and self.faults.unanswered:
            self.faults.unanswered -= 1
            return _cut(request)
        return answer

    async def _disturbed(self, request: web.Request) -> web.Response | None:
        faults = self.faults
        if faults.held is not None:
            await faults.held.wait()
        if faults.refusing or request.headers.get("Authorization") != f"GatewayToken {self.token}":
            return web.Response(status=401)
        if faults.forbidding or faults.untrusting:
            return web.Response(status=403 if faults.forbidding else 400, text=_UNTRUSTED, content_type="text/html")
        if faults.absent:
            return web.Response(status=404)
        if faults.flooded:
            faults.flooded -= 1
            return web.Response(status=429)
        if faults.failing:
            faults.failing -= 1
            return web.Response(status=500)
        return web.Response(text="<html>", content_type="text/html") if faults.garbage else None

    async def _answer(self, request: web.Request, target: str, path: str) -> web.StreamResponse:
        parts = path.split("/") if path else []
        match (request.method, *parts):
            case ("GET",):
                return web.json_response(self._root(target))
            case ("PUT", "configData"):
                said = await request.json()
                self.holdings.describe(target, str(said.get("mode", "merge")), dict(said["data"]))
            case ("PUT", "installedBase") if not self.faults.without_newer:
                return web.Response(status=self._installed(target, await request.json()))
            case ("GET", "deploymentBase", number):
                return self._deployment(target, number)
            case ("POST", "deploymentBase", number, "feedback"):
                await self._feedback(request, self._open(target, number))
            case ("POST", "cancelAction", number, "feedback"):
                action, (execution, finished, details) = self._open(target, number), _said(await request.json())
                action.cancel_feedback(execution, finished, details)
                self.holdings.settle(action)
            case ("GET", "confirmationBase", number) if not self.faults.without_newer:
                action = self._in_stage(target, number, "waiting")
                return web.json_response({"id": number, "confirmation": self._document(action)})
            case ("POST", "confirmationBase", number, "feedback") if not self.faults.without_newer:
                self._confirm(self._in_stage(target, number, "waiting"), await request.json())
            case ("GET", "softwaremodules", number, "artifacts", filename):
                return await self._artifact(request, number, filename)
            case _:
                raise RefusedError(404)
        return web.Response()

    def _root(self, target: str) -> Json:
        known, links = self.holdings.known(target), {}
        if active := self.holdings.active(target):
            action = active[0]
            names = {"canceling": "cancelAction", "waiting": "confirmationBase"}
            name, number = names.get(action.stage, "deploymentBase"), self.faults.linked or str(action.id)
            changes = f"?c={crc32(f'{action.kind} {action.closed_window}'.encode())}" if action.stage == "running" else ""
            links[name] = self._link(target, f"{name}/{number}{changes}")
        if known.attributes_wanted:
            links["configData"] = self._link(target, "configData")
        return {"config": {"polling": {"sleep": self.sleep}}, "_links": links}

    def _deployment(self, target: str, number: str) -> web.Response:
        action = self._in_stage(target, number, "running")
        if action.entries[-1].type != "retrieved":
            with suppress(RefusedError):  # it can be read when its history is full
                action.note("retrieved", [])
        return web.json_response({"id": number, "deployment": self._document(action)})

    def _document(self, action: SimulatedAction) -> Json:
        download = "attempt" if action.kind is Kind.SOFT else "forced"
        waits = action.closed_window or action.kind is Kind.DOWNLOAD_ONLY
        artifacts = [
            {
                "filename": each.filename,
                "hashes": each.digests(),
                "size": len(each.content) + self.faults.sized_off_by,
                "_links": {
                    "download-http": self._link(
                        action.target, f"softwaremodules/{action.wanted.id}/artifacts/{each.filename}", self.faults.elsewhere
                    )
                },
            }
            for each in action.wanted.files
        ]
        chunk = {"part": "os", "name": action.wanted.name, "version": action.wanted.version, "artifacts": artifacts}
        window = {"maintenanceWindow": "unavailable"} if action.closed_window else {}
        return {"download": download, "update": "skip" if waits else download, "chunks": [chunk], **window}

    async def _feedback(self, request: web.Request, action: SimulatedAction) -> None:
        if action.stage == "waiting":
            raise RefusedError(404)
        action.feedback(*_said(await request.json()))
        self.holdings.settle(action)

    def _confirm(self, action: SimulatedAction, said: Mapping[str, object]) -> None:
        confirmed = said["confirmation"] == "confirmed"
        details = said.get("details")
        action.note("running" if confirmed else "wait_for_confirmation", list(details) if isinstance(details, list) else [])
        action.stage = "running" if confirmed else "waiting"

    def _installed(self, target: str, said: Mapping[str, object]) -> int:
        known, wanted = self.holdings.known(target), (str(said["name"]), str(said["version"]))
        before, known.installed = known.installed, wanted
        return 200 if before == wanted else 201

    async def _artifact(self, request: web.Request, number: str, filename: str) -> web.StreamResponse:
        found = [each for each in self.holdings.sets[int(number)].files if each.filename == filename]
        if not found:
            raise RefusedError(404)
        content = bytearray(found[0].content)
        if self.faults.falsified:
            content[len(content) // 2] ^= 1
        first = int(request.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")[0])
        ranged = {"Content-Range": f"bytes {first}-{len(content) - 1}/{len(content)}"} if "Range" in request.headers else {}
        response = web.StreamResponse(status=206 if ranged else 200, headers=ranged)
        response.content_length = len(content) - first
        await response.prepare(request)
        last = len(content) if self.faults.cut_after is None else min(len(content), first + self.faults.cut_after)
        await response.write(bytes(content[first:last]))
        if last < len(content):
            return _cut(request)
        return response

    def _open(self, target: str, number: str) -> SimulatedAction:
        action = self.holdings.of(target, number)
        if not action.active and not self.faults.takes_closed:
            raise RefusedError(self.faults.closed_status, "hawkbit.server.error.repo.actionNotActive")
        return action

    def _in_stage(self, target: str, number: str, stage: str) -> SimulatedAction:
        action = self._open(target, number)
        if action.stage != stage:
            raise RefusedError(404)
        return action

    def _link(self, target: str, path: str, origin: str = "") -> dict[str, str]:
        return {"href": f"{origin or self.url}{_BASE.format(target=target)}/{path}"}


def _said(body: object) -> tuple[str, str, list[str]]:
    """Execution, result and lines of a feedback; 400 for anything else."""
    try:
        status = json.loads(json.dumps(body))["status"]
        return str(status["execution"]), str(status["result"]["finished"]), [str(line) for line in status.get("details") or ()]
    except (KeyError, TypeError) as error:
        raise RefusedError(400, "hawkbit.server.error.rest.body.notReadable") from error


def _cut(request: web.Request) -> web.Response:
    """Break the connection off; what is returned reaches nobody."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response()
