"""The jobs of a simulated wfx: workflows as graphs, who may take which step, and what is remembered (wfx's OpenAPI 1.1.0).

A step from a state to itself is always allowed, any other needs a transition whose `eligible` is the actor; transitions that are
immediate are then followed. Every status that is replaced goes into the history, the newest first.
"""

import json
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from update.digest import digest_of

DIRECT: Final = "wfx.workflow.dau.direct"
PHASED: Final = "wfx.workflow.dau.phased"
CLIENT: Final = "CLIENT"
WFX: Final = "WFX"

_INSTALL = ("INSTALL", "INSTALLING", "INSTALLED", "ACTIVATE", "ACTIVATING", "ACTIVATED")
_DOWNLOAD = ("DOWNLOAD", "DOWNLOADING", "DOWNLOADED")
_MAY_FAIL = frozenset({"DOWNLOAD", "DOWNLOADING", "INSTALL", "INSTALLING", "ACTIVATE", "ACTIVATING"})
_STAYS = frozenset({"CREATED", "DOWNLOADING", "INSTALLING", "ACTIVATING"})
_OPERATORS = frozenset({"CREATED", "DOWNLOADED"})

Json = dict[str, object]


class RefusedError(Exception):
    """A request that wfx refuses: its status and code; an empty code stands for a refusal in plain text."""

    def __init__(self, status: int, code: str, words: str) -> None:
        super().__init__(words)
        self.status = status
        self.code = code


def dau_workflow(name: str) -> Json:
    """One of both workflows of a device artifact update, by its name."""
    chain = _INSTALL if name == DIRECT else ("CREATED", *_DOWNLOAD, *_INSTALL)
    steps = list(_steps(chain))
    states = [*chain, "TERMINATED"]
    groups = [
        {"name": "OPEN", "states": [each for each in chain if each not in {"CREATED", "ACTIVATED"}]},
        {"name": "CLOSED", "states": ["ACTIVATED"]},
        {"name": "FAILED", "states": ["TERMINATED"]},
    ]
    return {"name": name, "groups": groups, "states": [{"name": each} for each in states], "transitions": steps}


def _steps(chain: tuple[str, ...]) -> Iterator[Json]:
    for number, state in enumerate(chain):
        if state in _MAY_FAIL:
            yield {"from": state, "to": "TERMINATED", "eligible": CLIENT}
        if state in _STAYS:
            yield {"from": state, "to": state, "eligible": WFX if state in _OPERATORS else CLIENT}
        if state == "INSTALLED":
            yield {"from": state, "to": "ACTIVATE", "eligible": WFX, "action": "IMMEDIATE"}
        elif number + 1 < len(chain):
            eligible = WFX if state in _OPERATORS else CLIENT
            yield {"from": state, "to": chain[number + 1], "eligible": eligible}


@dataclass(slots=True)
class SimulatedJob:
    """One job as it stands."""

    id: str
    client: str
    workflow: Json
    definition: Json
    tags: list[str]
    status: Json
    history: list[Json] = field(default_factory=list)
    created: str = ""
    changed: str = ""

    @property
    def state(self) -> str:
        """Where it is."""
        return str(self.status["state"])

    def groups(self) -> list[str]:
        """The groups that its state belongs to."""
        return [str(group["name"]) for group in _rows(self.workflow, "groups") if self.state in _list(group["states"])]

    def as_json(self, *, history: bool = False) -> Json:
        """The whole job."""
        shown: Json = {"id": self.id, "clientId": self.client, "workflow": self.workflow, "definition": self.definition}
        shown |= {"tags": self.tags, "status": self.status, "stime": self.created, "mtime": self.changed}
        return shown | ({"history": self.history} if history else {})


class Jobs:
    """All jobs of one server."""

    def __init__(self) -> None:
        self.workflows: dict[str, Json] = {name: dau_workflow(name) for name in (DIRECT, PHASED)}
        self.all: dict[str, SimulatedJob] = {}

    def create(self, wish: Mapping[str, object]) -> SimulatedJob:
        """A new job, in the first state of its workflow."""
        client, name = wish.get("clientId"), wish.get("workflow")
        if not isinstance(client, str) or not client or not isinstance(name, str):
            raise RefusedError(400, "", "request body has an error: doesn't match schema")
        if name not in self.workflows:
            raise RefusedError(400, "wfx.workflowNotFound", "Workflow not found for given name")
        definition, tags = wish.get("definition") or {}, wish.get("tags") or []
        assert isinstance(definition, dict)
        assert isinstance(tags, list)
        workflow = self.workflows[name]
        status: Json = {"state": _first(workflow), "clientId": client, "definitionHash": _hash(definition)}
        job = SimulatedJob(str(uuid.uuid4()), client, workflow, definition, [str(tag) for tag in tags], status)
        job.created = job.changed = _now()
        self.all[job.id] = job
        return job

    def find(self, number: str) -> SimulatedJob:
        """One job."""
        if number not in self.all:
            raise RefusedError(404, "wfx.jobNotFound", "Job ID was not found")
        return self.all[number]

    def select(self, *, client: str = "", group: str = "", tags: frozenset[str] = frozenset()) -> list[SimulatedJob]:
        """Jobs that fit, the oldest first; empty values fit all."""
        found = [job for job in self.all.values() if not client or job.client == client]
        found = [job for job in found if not group or set(group.split(",")) & set(job.groups())]
        return [job for job in found if not tags or tags & set(job.tags)]

    def set_status(self, number: str, wish: Mapping[str, object], actor: str) -> SimulatedJob:
        """Take a step as `actor`."""
        job, state = self.find(number), wish.get("state")
        _check_status(wish)
        steps = [(each["from"], each["to"]) for each in _rows(job.workflow, "transitions") if each["eligible"] == actor]
        if state != job.state and (job.state, state) not in steps:
            raise RefusedError(400, "wfx.invalidRequest", f"transition from '{job.state}' to '{state}' does not exist")
        told = {key: wish[key] for key in ("clientId", "state", "progress", "message", "context") if wish.get(key)}
        self._replace(job, told)
        return job

    def define(self, number: str, definition: Json) -> SimulatedJob:
        """Have a job ask for something else."""
        job = self.find(number)
        job.history.insert(0, {"mtime": job.changed, "definition": job.definition})
        job.definition, job.changed = definition, _now()
        job.status = {**job.status, "definitionHash": _hash(definition)}
        return job

    def _replace(self, job: SimulatedJob, status: Json) -> None:
        job.history.insert(0, {"mtime": job.changed, "status": job.status})
        status["definitionHash"] = _hash(job.definition)
        job.status, job.changed = status, _now()
        for each in _rows(job.workflow, "transitions"):
            if each.get("action") == "IMMEDIATE" and each["from"] == job.state:
                job.status = {"state": each["to"], "definitionHash": status["definitionHash"]}


def _check_status(wish: Mapping[str, object]) -> None:
    state, progress, message = wish.get("state"), wish.get("progress", 0), wish.get("message", "")
    fits = isinstance(state, str) and state and isinstance(progress, int) and isinstance(message, str)
    if not fits or not isinstance(progress, int) or progress > 100 or len(str(message)) > 1024:
        raise RefusedError(400, "", "request body has an error: doesn't match schema #/components/schemas/JobStatus")


def _first(workflow: Json) -> str:
    """The state that no other leads to."""
    ends = {each["to"] for each in _rows(workflow, "transitions") if each["from"] != each["to"]}
    return next(str(each["name"]) for each in _rows(workflow, "states") if each["name"] not in ends)


def _rows(workflow: Json, key: str) -> list[Json]:
    rows = workflow[key]
    assert isinstance(rows, list)
    return rows


def _list(value: object) -> list[object]:
    assert isinstance(value, list)
    return value


def _hash(definition: Json) -> str:
    return digest_of(json.dumps(definition, sort_keys=True).encode())


def _now() -> str:
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")
