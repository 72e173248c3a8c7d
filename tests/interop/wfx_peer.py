"""A real wfx on free ports of 127.0.0.1 with its DAU workflows, and its northbound API for the operator's side of a test.

- It comes from `make interop-tools` (`tests.interop.servers.wfx_parts`); storage is SQLite in a folder of its own.
- `south` is what devices ask, `north` what the operator asks; neither knows a credential. The base path is `/api/wfx/v1`.
- wfx stores workflows as JSON; the published ones are YAML.
"""

import json
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp
import pytest
import yaml
from pydantic import BaseModel, ConfigDict, Field

from tests.interop.servers import wfx_parts
from tests.interop.servers.running import running
from tests.peers import need

MARKS: Final = [pytest.mark.interop, pytest.mark.xdist_group("wfx"), pytest.mark.timeout(400)]
"""For every module that uses the server: one worker runs them all, and starting it counts as time of the first test."""

DIRECT: Final = "wfx.workflow.dau.direct"
PHASED: Final = "wfx.workflow.dau.phased"

_BASE = "/api/wfx/v1"
_ANSWER = ConfigDict(frozen=True, extra="ignore", validate_by_name=True, validate_by_alias=True)


class WfxError(Exception):
    """The server's status, its first error code (e.g. `wfx.invalidRequest`), and its words."""

    def __init__(self, status: int, code: str, text: str) -> None:
        super().__init__(f"{status} {code}: {text[:500]}")
        self.status = status
        self.code = code


@dataclass(frozen=True, slots=True)
class WfxServer:
    """Both sides, with the base path and without a slash at the end."""

    south: str
    north: str


class JobStatus(BaseModel):
    """Where a job is and what was last said of it."""

    model_config = _ANSWER
    state: str
    client: str = Field(default="", alias="clientId")
    progress: int | None = None
    message: str = ""


class Past(BaseModel):
    """One earlier status of a job."""

    model_config = _ANSWER
    status: JobStatus | None = None


class Job(BaseModel):
    """One job; `history` is filled where it was asked for, the newest first."""

    model_config = _ANSWER
    id: str
    client: str = Field(alias="clientId")
    status: JobStatus
    tags: list[str] = []
    definition: dict[str, object] = {}
    history: list[Past] = []

    def states(self) -> list[str]:
        """Every state that the job is known to have been in, the oldest first, each once in a row."""
        past = [entry.status.state for entry in reversed(self.history) if entry.status is not None]
        states = [*past, self.status.state]
        return [state for number, state in enumerate(states) if number == 0 or states[number - 1] != state]


class WfxNorth:
    """The operator of one server."""

    def __init__(self, session: aiohttp.ClientSession, server: WfxServer) -> None:
        self._session = session
        self._url = server.north

    async def load_workflow(self, workflow: Mapping[str, object]) -> None:
        """Have a workflow; nothing happens when one of its name is there."""
        try:
            await self._ask("POST", "workflows", workflow)
        except WfxError as error:
            if error.code != "wfx.workflowNotUnique":
                raise

    async def create(
        self, client: str, workflow: str, definition: Mapping[str, object] | None = None, tags: Sequence[str] = ()
    ) -> Job:
        """A new job, in the first state of its workflow."""
        wish = {"clientId": client, "workflow": workflow, "tags": list(tags), "definition": definition or {}}
        return Job.model_validate(await self._ask("POST", "jobs", wish))

    async def job(self, number: str, *, history: bool = True) -> Job:
        """One job."""
        return Job.model_validate(await self._ask("GET", f"jobs/{number}{'?history=true' if history else ''}"))

    async def of_client(self, client: str) -> list[Job]:
        """Jobs of one device, as the list shows them."""
        answer = await self._ask("GET", f"jobs?clientId={client}&limit=1000")
        return [Job.model_validate(each) for each in answer["content"]]

    async def advance(self, number: str, state: str, message: str = "") -> JobStatus:
        """Take a transition that is the operator's (`eligible: WFX`)."""
        return JobStatus.model_validate(await self._ask("PUT", f"jobs/{number}/status", {"state": state, "message": message}))

    async def define(self, number: str, definition: Mapping[str, object]) -> None:
        """Have a job ask for something else."""
        await self._ask("PUT", f"jobs/{number}/definition", definition)

    async def tag(self, number: str, tags: Sequence[str]) -> list[str]:
        """Add tags; all that the job has then."""
        return list(await self._ask("POST", f"jobs/{number}/tags", list(tags)))

    async def delete(self, number: str) -> None:
        """Forget a job."""
        await self._ask("DELETE", f"jobs/{number}")

    async def _ask(self, method: str, path: str, body: object = None) -> Any:  # JSON, read by the caller
        async with self._session.request(method, f"{self._url}/{path}", json=body) as response:
            text = await response.text()
            if response.status >= 400:
                raise WfxError(response.status, _code(text), text)
            return json.loads(text) if text else None


@contextmanager
def wfx_server(folder: Path, south_port: int = 0, north_port: int = 0) -> Iterator[WfxServer]:
    """A server of this context alone, without workflows yet; in a folder that was used before it goes on with what it had."""
    need(present=wfx_parts.is_installed(), reason="wfx is not there; `make interop-tools` builds it")
    command: list[str | Path] = [wfx_parts.PROGRAM, "--log-format", "json", "--scheme", "http", "--storage", "sqlite"]
    command += ["--storage-opt", f"file:{folder / 'wfx.db'}?_fk=1&_journal=WAL", "--config", folder / "none.yml"]
    command += ["--client-host", "127.0.0.1", "--client-port", str(south_port)]
    command += ["--mgmt-host", "127.0.0.1", "--mgmt-port", str(north_port)]
    with running(command, folder, _addresses) as server:
        yield server


@asynccontextmanager
async def wfx_north(server: WfxServer) -> AsyncIterator[WfxNorth]:
    """The operator of `server`, which then knows both DAU workflows, while the context lasts."""
    async with aiohttp.ClientSession() as session:
        operator = WfxNorth(session, server)
        for name in (DIRECT, PHASED):
            await operator.load_workflow(published_workflow(name))
        yield operator


def published_workflow(name: str) -> dict[str, object]:
    """A workflow from wfx's own source tree."""
    workflow = yaml.safe_load((wfx_parts.WORKFLOWS / f"{name}.yml").read_text())
    assert isinstance(workflow, dict)
    return workflow


def _addresses(log: str) -> WfxServer | None:
    """wfx logs the address of each side as it begins to listen."""
    found = {}
    for line in log.splitlines():
        if not line.startswith("{") or not line.endswith("}"):
            continue
        entry = json.loads(line)
        if "addr" in entry:
            found[entry["message"]] = f"http://{entry['addr']}{_BASE}"
    try:
        return WfxServer(south=found["Starting southbound server"], north=found["Starting northbound server"])
    except KeyError:
        return None


def _code(text: str) -> str:
    """The code of a refusal; what does not even fit the schema is refused in plain text."""
    try:
        return str(json.loads(text)["errors"][0]["code"])
    except (ValueError, KeyError, IndexError, TypeError):
        return ""
