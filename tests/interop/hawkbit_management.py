"""hawkBit's management API, as far as tests need it to be the company's operator: `/rest/v1`.

Every method is one request unless it says otherwise. What the server refuses is a `ManagementError` with its own words.
Names of targets, modules and sets are the caller's to keep apart: the server is shared by all tests of a run.
"""

import asyncio
import io
import json
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

import aiohttp
from pydantic import BaseModel, ConfigDict, Field

from tests.interop.hawkbit_peer import HawkbitServer

GATEWAY_TOKEN: Final = "gatewaytokenofthewholetenant0001"  # noqa: S105 - of servers that live as long as a test run
_ROLLOUT_PATIENCE_S = 60.0
_LOOK_EVERY_S = 0.1

_ANSWER = ConfigDict(frozen=True, extra="ignore", validate_by_name=True, validate_by_alias=True)


class ManagementError(Exception):
    """The server's status and words."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"{status}: {text[:500]}")
        self.status = status


class Kind(StrEnum):
    """How urgent an assignment is."""

    FORCED = "forced"
    SOFT = "soft"
    TIME_FORCED = "timeforced"
    DOWNLOAD_ONLY = "downloadonly"


@dataclass(frozen=True, slots=True)
class Window:
    """A maintenance window: Quartz cron schedule, `hh:mm:ss`, `+hh:mm`."""

    schedule: str
    duration: str
    timezone: str = "+00:00"


class Target(BaseModel):
    """A device; `update_status`: unknown, in_sync, pending, error, registered."""

    model_config = _ANSWER
    name: str = Field(alias="controllerId")
    token: str = Field(alias="securityToken")
    update_status: str = Field(alias="updateStatus")


class Artifact(BaseModel):
    """A file of a module; `hashes` by md5, sha1, sha256."""

    model_config = _ANSWER
    id: int
    filename: str = Field(alias="providedFilename")
    size: int
    hashes: dict[str, str]


class Action(BaseModel):
    """`type`: update or cancel; `status`: pending or finished."""

    model_config = _ANSWER
    id: int
    type: str
    status: str
    force_type: str = Field(alias="forceType")


class Entry(BaseModel):
    """One line of an action's history: `type` is hawkBit's word for the status, `messages` what came with it."""

    model_config = _ANSWER
    id: int
    type: str
    messages: list[str | None]


class Rollout(BaseModel):
    """`status`: creating, ready, starting, running, paused, finished, ..."""

    model_config = _ANSWER
    id: int
    status: str
    total_targets: int = Field(alias="totalTargets")


class Management:
    """The operator of one server."""

    def __init__(self, session: aiohttp.ClientSession, server: HawkbitServer) -> None:
        self._session = session
        self._url = f"{server.url}/rest/v1"

    async def configure(self, key: str, value: str | bool | int) -> None:
        """Set one key of the tenant, e.g. `pollingTime` (`hh:mm:ss`)."""
        await self._ask("PUT", f"system/configs/{key}", {"value": value})

    async def setting(self, key: str) -> str | bool | int:
        """The value of one key of the tenant."""
        value: str | bool | int = (await self._ask("GET", f"system/configs/{key}"))["value"]
        return value

    async def admit_devices(self, gateway_token: str = GATEWAY_TOKEN) -> None:
        """Let devices in by their own token and by the gateway's (three requests)."""
        await self.configure("authentication.targettoken.enabled", value=True)
        await self.configure("authentication.gatewaytoken.enabled", value=True)
        await self.configure("authentication.gatewaytoken.key", gateway_token)

    async def create_target(self, name: str, token: str | None = None) -> Target:
        """A device before its first contact; without `token` the server invents one."""
        wish = {"controllerId": name, "name": name, **({"securityToken": token} if token else {})}
        return Target.model_validate((await self._ask("POST", "targets", [wish]))[0])

    async def target(self, name: str) -> Target:
        """What is known of a device."""
        return Target.model_validate(await self._ask("GET", f"targets/{name}"))

    async def attributes(self, name: str) -> dict[str, str]:
        """What the device said of itself; empty before it did."""
        return dict(await self._ask("GET", f"targets/{name}/attributes") or {})

    async def delete_target(self, name: str) -> None:
        """Forget a device and its actions."""
        await self._ask("DELETE", f"targets/{name}")

    async def create_module(self, name: str, version: str, kind: str = "os") -> int:
        """A software module: `os` or `application`."""
        return int((await self._ask("POST", "softwaremodules", [{"name": name, "version": version, "type": kind}]))[0]["id"])

    async def upload(self, module: int, filename: str, content: bytes) -> Artifact:
        """Add a file to a module."""
        form = aiohttp.FormData()
        form.add_field("file", io.BytesIO(content), filename=filename, content_type="application/octet-stream")
        async with self._session.post(f"{self._url}/softwaremodules/{module}/artifacts", data=form) as response:
            return Artifact.model_validate(await _answer(response))

    async def delete_artifact(self, module: int, artifact: Artifact) -> None:
        """Take a file from a module, also while devices have it assigned."""
        await self._ask("DELETE", f"softwaremodules/{module}/artifacts/{artifact.id}")

    async def describe_module(self, module: int, metadata: Mapping[str, str]) -> None:
        """Metadata that devices see."""
        entries = [{"key": key, "value": value, "targetVisible": True} for key, value in metadata.items()]
        await self._ask("POST", f"softwaremodules/{module}/metadata", entries)

    async def create_set(self, name: str, version: str, modules: Sequence[int], kind: str = "os") -> int:
        """A distribution set: `os`, `app` or `os_app`."""
        wish = {"name": name, "version": version, "type": kind, "modules": [{"id": module} for module in modules]}
        return int((await self._ask("POST", "distributionsets", [wish]))[0]["id"])

    async def publish(self, name: str, version: str, filename: str, content: bytes) -> int:
        """A set of one module with one file (three requests); its number."""
        module = await self.create_module(name, version)
        await self.upload(module, filename, content)
        return await self.create_set(name, version, [module])

    async def assign(
        self, target: str, number: int, kind: Kind = Kind.FORCED, *, forced_at_ms: int | None = None, window: Window | None = None
    ) -> int:
        """Assign a set to a device; the number of the action."""
        wish: dict[str, object] = {"id": number, "type": kind.value}
        if forced_at_ms is not None:
            wish["forcetime"] = forced_at_ms
        if window is not None:
            wish["maintenanceWindow"] = {
                "schedule": window.schedule,
                "duration": window.duration,
                "timezone": window.timezone,
            }
        answer = await self._ask("POST", f"targets/{target}/assignedDS", wish)
        return int(answer["assignedActions"][0]["id"])

    async def cancel(self, target: str, action: int, *, force: bool = False) -> None:
        """Ask the device to stop; `force` closes an action whose cancellation it does not answer."""
        await self._ask("DELETE", f"targets/{target}/actions/{action}{'?force=true' if force else ''}")

    async def actions(self, target: str) -> list[Action]:
        """All actions of a device, the newest first."""
        answer = await self._ask("GET", f"targets/{target}/actions?sort=id:DESC&limit=500")
        return [Action.model_validate(each) for each in answer["content"]]

    async def action(self, target: str, number: int) -> Action:
        """One action."""
        return Action.model_validate(await self._ask("GET", f"targets/{target}/actions/{number}"))

    async def history(self, target: str, action: int) -> list[Entry]:
        """Every status that an action went through, the oldest first."""
        answer = await self._ask("GET", f"targets/{target}/actions/{action}/status?sort=id:ASC&limit=500")
        return [Entry.model_validate(each) for each in answer["content"]]

    async def assigned_set(self, target: str) -> int | None:
        """The set that a device shall have."""
        return _number(await self._ask("GET", f"targets/{target}/assignedDS"))

    async def installed_set(self, target: str) -> int | None:
        """The set that a device is known to have."""
        return _number(await self._ask("GET", f"targets/{target}/installedDS"))

    async def create_rollout(self, name: str, number: int, query: str, groups: int = 1, kind: Kind = Kind.FORCED) -> Rollout:
        """A rollout of a set over the devices of a query (`controllerId==plant-*`), each group after all of the one before."""
        wish = {
            "name": name,
            "distributionSetId": number,
            "targetFilterQuery": query,
            "amountGroups": groups,
            "type": kind.value,
            "successCondition": {"condition": "THRESHOLD", "expression": "100"},
            "successAction": {"action": "NEXTGROUP", "expression": ""},
            "errorCondition": {"condition": "THRESHOLD", "expression": "50"},
            "errorAction": {"action": "PAUSE", "expression": ""},
        }
        return Rollout.model_validate(await self._ask("POST", "rollouts", wish))

    async def start_rollout(self, number: int) -> None:
        """Begin with the first group; the rollout must be ready."""
        await self._ask("POST", f"rollouts/{number}/start")

    async def rollout_is(self, number: int, status: str) -> Rollout:
        """The rollout once it has `status`; asks until then, for a minute at most."""
        deadline = time.monotonic() + _ROLLOUT_PATIENCE_S
        while True:
            found = Rollout.model_validate(await self._ask("GET", f"rollouts/{number}"))
            if found.status == status:
                return found
            assert time.monotonic() < deadline, f"rollout {number} is {found.status}, not {status}"
            await asyncio.sleep(_LOOK_EVERY_S)

    async def _ask(self, method: str, path: str, body: object = None) -> Any:  # JSON, read by the caller
        headers = {"Content-Type": "application/json"}
        data = None if body is None else json.dumps(body)
        async with self._session.request(method, f"{self._url}/{path}", data=data, headers=headers) as response:
            return await _answer(response)


@asynccontextmanager
async def management(server: HawkbitServer) -> AsyncIterator[Management]:
    """The operator of `server` while the context lasts."""
    credential = aiohttp.encode_basic_auth(server.user, server.password)
    async with aiohttp.ClientSession(headers={"Authorization": credential}) as session:
        yield Management(session, server)


async def _answer(response: aiohttp.ClientResponse) -> Any:  # JSON, read by the caller
    text = await response.text()
    if response.status >= 400:
        raise ManagementError(response.status, text)
    return json.loads(text) if text else None


def _number(answer: Mapping[str, int] | None) -> int | None:
    return None if not answer else answer["id"]
