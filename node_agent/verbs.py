"""What the sub-commands of `update` do: values in, values out; printing and exit codes are `node_agent.cli`'s.

`status` only reads, so it works while an agent is at work; everything else holds the agent's lock.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final
from uuid import uuid4

from node_agent.agent import Agent, Turn, Watch
from node_agent.assembly import Node
from node_agent.control import ask_to_look, is_running, only_one
from node_agent.drivers.driver import RESTART_STATUS
from node_agent.record import Entry, entry_from_mapping, reports_from_list
from node_agent.service import serve
from node_agent.source import DdiSource, FileSource
from node_agent.states import Outcome, State
from update.errors import FieldrelayError, InterlockError, UnreachableError

NOTHING_STATUS: Final = 3


@dataclass(frozen=True, slots=True)
class Answer:
    """What a sub-command found: `text` for people, `values` for programs (`--json`), and how the process ends."""

    text: str
    values: Mapping[str, object]
    exit_status: int = 0


async def status(node: Node) -> Answer:
    """What runs, what is under way, and how the last update ended."""
    entry = entry_from_mapping(node.journal.read())
    slots = await node.driver.slots()
    waiting = reports_from_list((node.reports.read() or {}).get("reports", []))
    values: dict[str, object] = {
        **_said(node, entry),
        "agent_running": is_running(node.config.node.state),
        "slots": [
            {
                "name": slot.name,
                "state": slot.state,
                "version": slot.version,
                "booted": slot.booted,
                "trial": slot.trial,
                "bundle": slot.bundle,
            }
            for slot in slots
        ],
        "reports_waiting": len(waiting),
    }
    lines = [f"{'* ' if slot.booted else '  '}slot {slot.name}  {slot.state:<10} {slot.version or '-'}" for slot in slots]
    return Answer("\n".join([*lines, _sentence(entry)]), values)


async def look_now(node: Node, watch: Watch, *, nothing_status: int) -> Answer:
    """`update --now`: let the running agent look, or look here, and carry out what is ordered."""
    if is_running(node.config.node.state) and await ask_to_look(node.config.node.state):
        return Answer("the running agent looks now; `update status` shows what comes of it", {"asked": "running agent"})
    with only_one(node.config.node.state):
        async with node.link:
            agent = node.agent(_ddi(node), watch)
            return await _carry_out(node, agent, nothing_status=nothing_status)


async def install(node: Node, file: Path, reason: str, watch: Watch) -> Answer:
    """`update install FILE`: one bundle, brought by hand; a file of a repository counts as what the metadata says of it."""
    with only_one(node.config.node.state):
        async with node.link:
            action = f"file-{uuid4()}"
            agent = node.agent(FileSource(file, action, reason), watch)
            return await _carry_out(node, agent, action=action)


async def confirm(node: Node, watch: Watch) -> Answer:
    """`update confirm`: keep the version on trial without its health checks."""
    with only_one(node.config.node.state):
        async with node.link:
            agent = node.agent(_ddi(node), watch)
            return _answer(node, agent, await agent.confirm())


async def roll_back(node: Node, reason: str, watch: Watch) -> Answer:
    """`update rollback`: return to the previous version."""
    with only_one(node.config.node.state):
        async with node.link:
            agent = node.agent(_ddi(node), watch)
            return _answer(node, agent, await agent.roll_back(reason))


async def run_agent(node: Node, watch: Watch) -> Answer:
    """`update agent`: until told to end, or until the device restarts."""
    with only_one(node.config.node.state):
        async with node.link:
            source = _ddi(node)
            agent = node.agent(source, watch)
            turn = await serve(agent, node.config.node.state, _Pauses(node, source))
            exit_status = RESTART_STATUS if turn is Turn.EXIT else 0
            return Answer("", _said(node, agent.entry), exit_status)


@dataclass(frozen=True, slots=True)
class _Pauses:
    """`Rhythm`: what the assigner wishes, within the configured bounds."""

    node: Node
    source: DdiSource

    def pause_s(self, turn: Turn) -> float:
        poll = self.node.config.poll
        if turn is Turn.WAITING:
            return poll.retry_s
        if turn is Turn.HELD:
            return self.node.look_s
        return min(poll.maximum_s, max(poll.minimum_s, self.source.interval_s or poll.maximum_s))


def _ddi(node: Node) -> DdiSource:
    async def attributes() -> Mapping[str, str]:
        return (await node.device.facts()).attributes()

    return DdiSource(node.config.node.id, node.link.controller, attributes, node.link.prove)


async def _carry_out(node: Node, agent: Agent, *, action: str = "", nothing_status: int = 0) -> Answer:
    """One turn; a second one if the first only ended what had been interrupted before `action`."""
    turn = await agent.turn()
    if turn is Turn.ENDED and action and agent.entry.action != action:
        turn = await agent.turn()
    return _answer(node, agent, turn, nothing_status=nothing_status)


def _answer(node: Node, agent: Agent, turn: Turn, *, nothing_status: int = 0) -> Answer:
    entry = agent.entry
    values = {**_said(node, entry), "turn": turn}
    match turn:
        case Turn.NOTHING:
            return Answer("nothing to do", values, nothing_status)
        case Turn.WAITING:
            shut = entry.state in {State.ACTIVATING, State.RESTARTING, State.REVERTING}
            error, why = (InterlockError, "an interlock is shut, ") if shut else (UnreachableError, "")
            return Answer(f"not now: {why}{_sentence(entry)}", values, error.exit_status)
        case Turn.HELD:
            return Answer(f"{_sentence(entry)}; what follows is decided at the gateway, for several devices together", values)
        case Turn.EXIT:
            return Answer("installed; restart the device to try it", values, RESTART_STATUS)
        case Turn.GOING_DOWN:
            return Answer("installed; the device restarts", values)
        case Turn.ENDED:
            ended_well = entry.outcome is Outcome.CONFIRMED
            return Answer(_sentence(entry), values, 0 if ended_well else exit_status_of(entry.code))


def exit_status_of(code: str) -> int:
    """The exit status that belongs to an error's code; 1 for a code that no error has."""
    return next((kind.exit_status for kind in _kinds(FieldrelayError) if kind.code == code), 1)


def _kinds(kind: type[FieldrelayError]) -> Iterator[type[FieldrelayError]]:
    yield kind
    for each in kind.__subclasses__():
        yield from _kinds(each)


def _said(node: Node, entry: Entry) -> dict[str, object]:
    return {
        "schema": "fieldrelay.update/1",
        "node": node.config.node.id,
        "state": entry.state,
        "action": entry.action,
        "outcome": entry.outcome,
        "code": entry.code,
        "message": entry.message,
        "release": asdict(entry.release) if entry.release else None,
    }


def _sentence(entry: Entry) -> str:
    """State or outcome in one line."""
    version = f" {entry.release.version}" if entry.release and entry.release.version else ""
    if entry.state is not State.IDLE:
        return f"{entry.state}{version} (action {entry.action})"
    if entry.outcome is None:
        return "no update under way"
    reason = f": {entry.message} ({entry.code})" if entry.code else ""
    return f"the last update{version} was {entry.outcome}{reason}"
