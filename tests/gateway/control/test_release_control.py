"""Coordinated releases, by the socket of the running gateway and by the command line."""

import asyncio
import json
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from aiohttp import ClientSession, UnixConnector, web

from gateway.cli.main import main
from gateway.control import release_messages as messages
from gateway.control.client import ControlClient
from gateway.control.release_messages import ReleaseCommand
from gateway.control.releases import ReleaseControl
from gateway.control.server import allowed_peers, control_application, listen
from gateway.database.engine import Database
from gateway.database.queries import actions, nodes
from gateway.database.records import Running
from gateway.fleet.build import Fleet, make_fleet
from gateway.fleet.nodes import release_of
from gateway.fleet.telling import NOBODY
from tests.builders.fleet import Clock, Shelf, bundle, register
from update.digest import digest_of
from update.durable import Disk
from update.errors import NotFoundError, PlanRefusedError, StateError, UnknownTargetError
from update.plans.document import plan_bytes
from update.plans.plan import PlanBundle, PlanMember, ReleasePlan, Selector
from update.trust.verified import TargetCustom, TargetInfo

OLD, NEW = bundle("1.1", "board:1"), bundle("1.2", "board:1")


@dataclass(frozen=True, slots=True)
class Gateway:
    """What operators speak to."""

    client: ControlClient
    socket: Path
    fleet: Fleet


@pytest.fixture
async def gateway(database: Database, clock: Clock, tmp_path: Path) -> AsyncIterator[Gateway]:
    member = PlanMember("board", Selector(nodes=("n1", "n2")), PlanBundle(NEW.path, NEW.sha256, "1.2"))
    data = plan_bytes(ReleasePlan("line", "7", (member,)))
    plan = TargetInfo("plant", "line-7.plan.json", len(data), digest_of(data), TargetCustom(version="7"), "targets")
    (file := tmp_path / "plan").write_bytes(data)
    await register(database, clock, "n1", "n2", running=Running("1.1", OLD.sha256, "a"))
    shelf = Shelf({"plant": [OLD, NEW, plan]})
    fleet = make_fleet(database, shelf, clock, NOBODY, stuck_after_s=0, verify_within_s=60, find=lambda _target: file)
    with tempfile.TemporaryDirectory() as folder:
        socket, allowed = Path(folder) / "s", allowed_peers((), ())
        runner = web.AppRunner(control_application([ReleaseControl(fleet.releases)], allowed))
        await runner.setup()
        await listen(runner, socket, allowed, Disk())
        yield Gateway(ControlClient(socket), socket, fleet)
        await runner.cleanup()


async def command_line(gateway: Gateway, *arguments: str) -> int:
    """`fieldrelay gateway release …`, in a thread: it runs an event loop of its own."""
    return await asyncio.to_thread(main, ["gateway", "--socket", str(gateway.socket), "release", *arguments])


async def test_a_release_is_begun_paused_resumed_and_aborted(gateway: Gateway) -> None:
    begun = await gateway.client.start_release(messages.StartRequest(release="line-7", reason="spring"))
    assert (begun.id, begun.plan, begun.standing, begun.reason) == (1, "line", "preparing", "spring")
    assert begun.members[0].version == release_of(NEW).version
    request = messages.CommandRequest(reason="lunch")
    assert (await gateway.client.command_release(1, ReleaseCommand.PAUSE, request)).standing == "preparing (paused)"
    assert (await gateway.client.command_release(1, ReleaseCommand.RESUME, request)).standing == "preparing"
    aborted = await gateway.client.command_release(1, ReleaseCommand.ABORT, request)
    assert aborted.decision == "revert"
    assert aborted.why.endswith(": lunch")
    await gateway.fleet.coordinator.advance()
    assert (await gateway.client.release(1)).standing == "reverted"
    assert [each.id for each in await gateway.client.releases()] == [1]
    with pytest.raises(StateError, match="release 1 has ended: reverted"):
        await gateway.client.command_release(1, ReleaseCommand.PAUSE, request)


async def test_what_cannot_be_begun_or_found_is_refused_by_name(gateway: Gateway) -> None:
    with pytest.raises(UnknownTargetError, match="no release plan is called 'line-9'"):
        await gateway.client.start_release(messages.StartRequest(release="line-9"))
    with pytest.raises(NotFoundError, match="there is no coordinated release 4"):
        await gateway.client.release(4)
    async with ClientSession(connector=UnixConnector(str(gateway.socket))) as session:
        async with session.get("http://gateway/v1/releases/one") as response:
            assert response.status == 404
        async with session.post("http://gateway/v1/releases/1/delete", data=b"{}") as response:
            assert "there are pause, resume, abort" in await response.text()


async def test_a_plan_that_cannot_be_carried_out_touches_nothing(gateway: Gateway, database: Database) -> None:
    async with database.writing() as transaction:
        await nodes.set_assigner(transaction, "n2", "hawkbit:west")
    with pytest.raises(PlanRefusedError, match="n2"):
        await gateway.client.start_release(messages.StartRequest(release="line-7"))
    assert await gateway.client.releases() == ()
    async with database.reading() as transaction:
        assert await actions.everything_unfinished(transaction) == ()


async def test_the_command_line_shows_members_and_what_happened(gateway: Gateway, capsys: pytest.CaptureFixture[str]) -> None:
    assert await command_line(gateway, "start", "line-7") == 0
    shown = capsys.readouterr().out
    assert "release 1, plan line 7: preparing" in shown
    assert "NODE" in shown
    assert "n2" in shown
    assert await command_line(gateway, "pause", "1", "--reason", "lunch") == 0
    assert "paused by uid" in capsys.readouterr().out
    assert await command_line(gateway, "status") == 0
    assert "preparing (paused)" in capsys.readouterr().out
    assert await command_line(gateway, "resume", "1", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["schema"], told["release"]["phase"]) == ("fieldrelay.gateway.release/1", "preparing")
    assert await command_line(gateway, "abort", "1") == 0
    assert await command_line(gateway, "status", "1") == 0
    assert "decided to go back: aborted by uid" in capsys.readouterr().out
    assert await command_line(gateway, "status", "2") == NotFoundError.exit_status
