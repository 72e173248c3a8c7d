"""One look for everybody."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from gateway.database.records import Running
from gateway.status import NodeState
from gateway.web.looking import LOOK_S, MAX_STICKS, Looking
from media.intake import Intake
from media.records import Answer, Course, MediumState, Stage
from media.signals import Show
from update.durable import Disk

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
SECONDS = int(NOW.timestamp())
NODE = NodeState("n1", "agent", "site", "", Running("1"), None, {}, NOW, NOW, late=False)


class Status:
    def __init__(self) -> None:
        self.asked = 0
        self.shown = (NODE,)

    async def nodes(self) -> tuple[NodeState, ...]:
        self.asked += 1
        await asyncio.sleep(0)
        return self.shown


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def look(status: Status, root: Path | None = None, clock: Clock | None = None) -> Looking:
    intake = None if root is None else (Disk(), root)
    return Looking(status, intake, name="gw", version="1", now=lambda: NOW, clock=clock or Clock())


def put(root: Path, medium: str, stage: Stage, *, since: int = SECONDS, answer: Course | None = None) -> None:
    intake = Intake(Disk(), root, medium)
    intake.begin()
    intake.write_state(MediumState(medium=medium, label=medium.upper(), stage=stage, since=since))
    if answer:
        intake.write_answer(Answer(medium=medium, course=answer, since=since))


async def test_many_who_watch_cost_one_look() -> None:
    status, clock = Status(), Clock()
    looking = look(status, clock=clock)
    seen = await asyncio.gather(*(looking.snapshot() for _ in range(50)))
    assert status.asked == 1
    assert len({id(each) for each in seen}) == 1
    clock.now += LOOK_S
    assert await looking.snapshot() is seen[0], "nothing has changed"
    assert status.asked == 2
    clock.now += LOOK_S
    status.shown = (replace(NODE, late=True),)
    fresh = await looking.snapshot()
    assert fresh.nodes[0].late


async def test_sticks_are_shown_as_everywhere_and_old_ones_no_more(tmp_path: Path) -> None:
    put(tmp_path, "done", Stage.GONE, answer=Course.DONE, since=SECONDS - 50)
    put(tmp_path, "copying", Stage.COPYING, since=SECONDS - 90)
    put(tmp_path, "long-gone", Stage.GONE, answer=Course.DONE, since=SECONDS - 90_000)
    put(tmp_path, "left-in", Stage.SAFE, answer=Course.DONE, since=SECONDS - 90_000)
    put(tmp_path, "pulled", Stage.GONE)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "state.json").write_text("{")
    snapshot = await look(Status(), tmp_path).snapshot()
    assert [(stick.medium, stick.show) for stick in snapshot.sticks] == [
        ("copying", Show.COPYING),
        ("done", Show.DONE),
        ("left-in", Show.DONE),
    ]


async def test_no_more_sticks_than_fit(tmp_path: Path) -> None:
    for number in range(MAX_STICKS + 2):
        put(tmp_path, f"m{number}", Stage.SAFE, since=SECONDS + number)
    snapshot = await look(Status(), tmp_path).snapshot()
    assert len(snapshot.sticks) == MAX_STICKS
    assert snapshot.sticks[0].medium == f"m{MAX_STICKS + 1}"


async def test_without_an_intake_there_are_no_sticks(tmp_path: Path) -> None:
    assert (await look(Status()).snapshot()).sticks == ()
    assert (await look(Status(), tmp_path / "none").snapshot()).sticks == ()
