"""A wfx that misbehaves on demand, for what a real one cannot be made to do: errors, lost answers, broken streams, lies.

It speaks both sides of wfx's published OpenAPI 1.1.0 as far as jobs need it (`wfx_jobs` has the rules), on ports of 127.0.0.1.
`Faults` are of the south side only.
"""

import asyncio
import json
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Final, Self
from urllib.parse import unquote

from aiohttp import web

from gateway.simulators.wfx_jobs import CLIENT, WFX, Jobs, Json, RefusedError, SimulatedJob

BASE: Final = "/api/wfx/v1"
_HOST: Final = "127.0.0.1"
_UNTRUSTED: Final = "<html><title>400 No required SSL certificate was sent</title></html>"


@dataclass(slots=True)
class Faults:
    """How the south side misbehaves; changed while it runs."""

    failing: int = 0  # so many next requests are answered with 503
    unanswered: int = 0  # so many next steps are taken, and the connection is cut before the answer
    refusing: bool = False  # no step is allowed, whatever the workflow says
    held: asyncio.Event | None = None  # answers begin when it is set
    absent: bool = False  # 404 for everything, as a proxy without a server behind it says it
    forbidding: bool = False  # 403 for everything, as a guard before it says it
    untrusting: bool = False  # 400 for everything, as nginx says it that does not trust our certificate
    overtaken: tuple[str, ...] = ()  # before the next step, somebody takes the job through these states
    cut_events_after: int | None = None  # the stream breaks off after so many events
    garbage: bool = False  # 200 with something that is no JSON
    state: str = ""  # every job is said to be in this state
    foreign: bool = False  # lists hold jobs of other clients too


@dataclass(slots=True)
class WfxSimulator:
    """Runs as a context; `south` and `north` are base addresses."""

    faults: Faults = field(default_factory=Faults)
    jobs: Jobs = field(default_factory=Jobs)
    south: str = ""
    north: str = ""
    _listeners: list[asyncio.Queue[Json | None]] = field(default_factory=list)
    _events: int = 0
    _stack: AsyncExitStack = field(default_factory=AsyncExitStack)

    async def __aenter__(self) -> Self:
        self.south = await self._serve(CLIENT)
        self.north = await self._serve(WFX)
        return self

    async def __aexit__(self, *_exception: object) -> None:
        self.cut_events()
        await self._stack.aclose()

    def cut_events(self) -> None:
        """Break off every stream."""
        for queue in self._listeners:
            queue.put_nowait(None)

    @property
    def listeners(self) -> int:
        """How many streams are open."""
        return len(self._listeners)

    async def _serve(self, actor: str) -> str:
        application = web.Application(client_max_size=8 << 20)

        async def answer(request: web.Request) -> web.StreamResponse:
            return await self._answer(request, actor)

        application.router.add_route("*", f"{BASE}/{{path:.*}}", answer)
        runner = web.AppRunner(application, shutdown_timeout=1)
        await runner.setup()
        self._stack.push_async_callback(runner.cleanup)
        site = web.TCPSite(runner, _HOST, 0)
        await site.start()
        return f"http://{_HOST}:{runner.addresses[0][1]}{BASE}"

    async def _answer(self, request: web.Request, actor: str) -> web.StreamResponse:
        path, asked = request.match_info["path"], await request.read()
        response = await self._spoilt(request) if actor == CLIENT else None
        if response is None and path == "jobs/events":
            return await self._stream(request)
        if response is None:
            response = self._do(request, path, asked, actor)
        if actor == CLIENT and request.method == "PUT" and self.faults.unanswered and response.status == 200:
            self.faults.unanswered -= 1
            assert request.transport is not None
            request.transport.abort()
        return response

    async def _spoilt(self, request: web.Request) -> web.Response | None:
        faults = self.faults
        if faults.held is not None:
            await faults.held.wait()
        if faults.failing:
            faults.failing -= 1
            return web.Response(status=503, text="try later")
        if faults.absent:
            return web.Response(status=404, text="<h1>no such page</h1>")
        if faults.forbidding or faults.untrusting:
            return web.Response(status=403) if faults.forbidding else web.Response(status=400, text=_UNTRUSTED)
        if faults.garbage and request.method == "GET":
            return web.Response(text="<html>sign in first</html>")
        if faults.refusing and request.method == "PUT":
            return _refusal(RefusedError(400, "wfx.invalidRequest", "transition does not exist"))
        return None

    def _do(self, request: web.Request, path: str, asked: bytes, actor: str) -> web.Response:
        try:
            if request.method == "GET":
                return self._read(request, path.split("/"), actor)
            if request.method == "PUT":
                return self._change(path.split("/"), asked, actor)
            return web.Response(status=403) if actor == CLIENT else self._manage(request.method, path.split("/"), asked)
        except RefusedError as error:
            return _refusal(error)

    def _read(self, request: web.Request, path: list[str], actor: str) -> web.Response:
        match path:
            case ["jobs"]:
                return _json(self._list(request, actor))
            case ["jobs", number]:
                return _json(self._shown(self.jobs.find(number), actor, history="history" in request.query))
            case ["jobs", number, "status"]:
                return _json(self.jobs.find(number).status)
            case ["workflows", name]:
                return self._workflow(unquote(name))
        return web.Response(status=404)

    def _change(self, path: list[str], asked: bytes, actor: str) -> web.Response:
        match path:
            case ["jobs", number, "status"]:
                return self._step(number, json.loads(asked), actor)
            case ["jobs", number, "definition"]:
                changed = self.jobs.define(number, json.loads(asked))
                self._tell("UPDATE_DEFINITION", changed)
                return _json(changed.definition)
        return web.Response(status=404)

    def _manage(self, method: str, path: list[str], asked: bytes) -> web.Response:
        """What the north side alone may do."""
        match method, path:
            case "POST", ["workflows"]:
                workflow = json.loads(asked)
                if workflow["name"] in self.jobs.workflows:
                    raise RefusedError(400, "wfx.workflowNotUnique", "Workflow with name already exists")
                self.jobs.workflows[workflow["name"]] = workflow
                return _json(workflow, 201)
            case "POST", ["jobs"]:
                job = self.jobs.create(json.loads(asked))
                self._tell("CREATE", job)
                return _json(job.as_json(), 201)
            case "DELETE", ["jobs", number]:
                gone = self.jobs.find(number)
                del self.jobs.all[number]
                self._tell("DELETE", gone)
                return web.Response(status=204)
            case "POST", ["jobs", number, "tags"]:
                tagged = self.jobs.find(number)
                tagged.tags += [tag for tag in json.loads(asked) if tag not in tagged.tags]
                return _json(tagged.tags)
        return web.Response(status=405)

    def _list(self, request: web.Request, actor: str) -> Json:
        query = request.query
        tags = frozenset(query.get("tag", "").split(",")) - {""}
        client = "" if actor == CLIENT and self.faults.foreign else query.get("clientId", "")
        found = self.jobs.select(client=client, group=query.get("group", ""), tags=tags)
        if query.get("sort") == "desc":
            found.reverse()
        return {"content": [self._shown(job, actor) for job in found[: int(query.get("limit", "10"))]]}

    def _shown(self, job: SimulatedJob, actor: str, *, history: bool = False) -> Json:
        shown = job.as_json(history=history)
        if actor == CLIENT and self.faults.state:
            shown["status"] = {**job.status, "state": self.faults.state}
        return shown

    def _step(self, number: str, wish: Mapping[str, object], actor: str) -> web.Response:
        if actor == CLIENT and self.faults.overtaken:
            for state in self.faults.overtaken:
                self.jobs.set_status(number, {"state": state}, actor)
            self.faults.overtaken = ()
        job = self.jobs.set_status(number, wish, actor)
        self._tell("UPDATE_STATUS", job)
        return _json(job.status)

    def _workflow(self, name: str) -> web.Response:
        if name not in self.jobs.workflows:
            raise RefusedError(404, "wfx.workflowNotFound", "Workflow not found for given name")
        return _json(self.jobs.workflows[name])

    def _tell(self, action: str, job: SimulatedJob) -> None:
        shown = job.as_json() if action == "CREATE" else {**job.as_json(), "workflow": {"name": job.workflow["name"]}}
        event: Json = {"action": action, "ctime": job.changed, "job": shown, "tags": None}
        for queue in self._listeners:
            queue.put_nowait(event)

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        clients = frozenset(request.query.get("clientIds", "").split(",")) - {""}
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        queue: asyncio.Queue[Json | None] = asyncio.Queue()
        self._listeners.append(queue)
        try:
            await self._send_events(response, queue, clients)
        finally:
            self._listeners.remove(queue)
        return response

    async def _send_events(
        self, response: web.StreamResponse, queue: asyncio.Queue[Json | None], clients: frozenset[str]
    ) -> None:
        sent = 0
        while sent != self.faults.cut_events_after and (event := await queue.get()) is not None:
            job = event["job"]
            assert isinstance(job, dict)
            if not clients or job["clientId"] in clients:
                sent, self._events = sent + 1, self._events + 1
                await response.write(f"data: {json.dumps(event)}\nid: {self._events}\n\n".encode())


def _json(body: object, status: int = 200) -> web.Response:
    return web.json_response(body, status=status)


def _refusal(error: RefusedError) -> web.Response:
    if not error.code:
        return web.Response(status=error.status, text=str(error))
    return _json({"errors": [{"code": error.code, "logref": "0" * 32, "message": str(error)}]}, error.status)
