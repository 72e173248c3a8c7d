"""`fieldrelay gateway plan`: a plan is judged by the running gateway, and nothing is begun."""

import asyncio
import json
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from gateway.cli.main import main
from gateway.control.client import ControlClient
from gateway.control.plan_messages import PlanRequest
from gateway.control.plans import PlanControl
from gateway.control.server import allowed_peers, control_application, listen
from gateway.database.engine import Database
from gateway.database.queries import actions, nodes
from gateway.database.records import Running
from gateway.fleet.build import make_fleet
from gateway.fleet.schedule import Obstacle
from gateway.fleet.telling import NOBODY
from tests.builders.fleet import Clock, Shelf, bundle, register
from update.digest import digest_of
from update.durable import Disk
from update.errors import PlanRefusedError, UnknownTargetError, UsageError
from update.plans.document import plan_bytes
from update.plans.plan import PlanBundle, PlanMember, ReleasePlan, Selector
from update.trust.verified import TargetCustom, TargetInfo

OLD, NEW = bundle("1.1", "board:1"), bundle("1.2", "board:1")


@pytest.fixture
async def socket(database: Database, clock: Clock, tmp_path: Path) -> AsyncIterator[Path]:
    """Of a gateway with two nodes that a plan changes one after the other."""
    pinned = PlanBundle(NEW.path, NEW.sha256, "1.2")
    members = [PlanMember(f"board-{name}", Selector(nodes=(name,)), pinned, group=at) for at, name in enumerate(("n1", "n2"))]
    data = plan_bytes(ReleasePlan("line", "7", tuple(members), description="spring cleaning"))
    target = TargetInfo("plant", "line-7.plan.json", len(data), digest_of(data), TargetCustom(version="7"), "targets")
    (file := tmp_path / "plan").write_bytes(data)
    await register(database, clock, "n1", "n2", running=Running("1.1", OLD.sha256, "a"))
    shelf = Shelf({"plant": [OLD, NEW, target]})
    fleet = make_fleet(database, shelf, clock, NOBODY, stuck_after_s=0, verify_within_s=60, find=lambda _target: file)
    with tempfile.TemporaryDirectory() as folder:
        place, allowed = Path(folder) / "s", allowed_peers((), ())
        runner = web.AppRunner(control_application([PlanControl(fleet.planner)], allowed))
        await runner.setup()
        await listen(runner, place, allowed, Disk())
        yield place
        await runner.cleanup()


async def say(socket: Path, *arguments: str) -> int:
    """`fieldrelay gateway plan …`, in a thread: it runs an event loop of its own."""
    return await asyncio.to_thread(main, ["gateway", "--socket", str(socket), "plan", *arguments])


async def test_the_schedule_comes_back_as_it_was_made_and_nothing_is_begun(socket: Path, database: Database) -> None:
    found = await ControlClient(socket).judge_plan(PlanRequest(release="line-7"))
    assert (found.repository, found.description, found.refused) == ("plant", "spring cleaning", None)
    assert found.schedule is not None
    assert [[each.id for each in step] for step in found.schedule.steps] == [["n1"], ["n2"]]
    assert [edge.reason for edge in found.schedule.edges] == ["group 0 before group 1"]
    async with database.reading() as transaction:
        assert await actions.everything_unfinished(transaction) == ()


async def test_the_command_shows_the_plan_short_explained_drawn_and_as_json(
    socket: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await say(socket, "line-7") == 0
    short = capsys.readouterr().out
    assert "release plan line 7 of plant: 2 devices in 2 steps\nspring cleaning\n" in short
    assert "because" not in short
    assert await say(socket, "line-7", "--explain") == 0
    assert "because n1 before n2: group 0 before group 1 (group)" in capsys.readouterr().out
    assert await say(socket, "line-7", "--mermaid") == 0
    assert capsys.readouterr().out.startswith("flowchart TD\n")
    assert await say(socket, "line-7", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["schema"], len(told["plan"]["schedule"]["steps"])) == ("fieldrelay.gateway.plan/1", 2)


async def test_a_refused_plan_shows_its_findings_and_ends_with_their_status(
    socket: Path, database: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    async with database.writing() as transaction:
        await nodes.set_assigner(transaction, "n2", "hawkbit:west")
    assert await say(socket, "line-7", "--explain") == PlanRefusedError.exit_status == 18
    assert "\n  assigner: node n2 takes its orders from hawkbit:west" in capsys.readouterr().out
    assert await say(socket, "line-7", "--json") == PlanRefusedError.exit_status
    (finding,) = json.loads(capsys.readouterr().out)["plan"]["refused"]["findings"]
    assert (finding["obstacle"], finding["devices"]) == (Obstacle.ASSIGNER, ["n2"])


async def test_an_unknown_plan_and_two_forms_at_once_are_refused(socket: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert await say(socket, "line-9") == UnknownTargetError.exit_status
    assert "no release plan is called 'line-9'" in capsys.readouterr().err
    assert await say(socket, "line-7", "--json", "--explain") == UsageError.exit_status
