"""Who is probed, when, and what comes of it."""

import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestServer

from gateway.database.engine import Database
from gateway.database.queries import actions
from gateway.database.records import ActionOutcome, ClientKind, Release
from gateway.fleet.build import Fleet, make_fleet
from gateway.fleet.issuing import Wish
from gateway.fleet.judgement import Told
from gateway.fleet.telling import NOBODY
from gateway.sections.probes import ProbeSection
from gateway.south.probes.rounds import Probes
from tests.builders.fleet import Clock, Shelf
from update.digest import digest_of
from update.wire.ddi import Execution, Finished

RELEASE = Release("plant", "os/press.raucb", digest_of(b"press"), 100, "1.2")


@dataclass(slots=True)
class Site:
    """Nodes that answer at one place, and the probes that ask them."""

    database: Database
    fleet: Fleet
    probes: Probes
    passed_s: list[float]
    runs: dict[str, tuple[str, str] | None] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    async def answer(self, request: web.Request) -> web.Response:
        node = request.match_info["node"]
        self.asked.append(node)
        found = self.runs.get(node)
        return web.Response(status=503) if found is None else web.json_response({"version": found[0], "boot_id": found[1]})

    async def round(self) -> int:
        self.passed_s[0] += 100
        return await self.probes.round()

    async def want(self, node: str) -> int:
        await self.fleet.accounts.give_token(node, ClientKind.RAUC)
        made = await self.fleet.takeover.take(node, Wish(RELEASE, "test", source=f"17 {node}"))
        assert made.action is not None
        await self.fleet.progress.offer(node, made.action.id)
        return made.action.id

    async def install(self, node: str, action: int) -> None:
        told = Told(f"done {node}", Execution.CLOSED, Finished.SUCCESS, details=("installed",))
        await self.fleet.progress.feedback(node, action, told)

    async def outcome(self, action: int) -> ActionOutcome | None:
        async with self.database.reading() as transaction:
            found = await actions.find(transaction, action)
        assert found is not None
        return None if found.end is None else found.end.outcome


@pytest.fixture
async def site(database: Database, shelf: Shelf, clock: Clock) -> AsyncIterator[Site]:
    fleet = make_fleet(database, shelf, clock, NOBODY, stuck_after_s=0, verify_within_s=60)
    passed_s = [0.0]
    application = web.Application()
    async with ClientSession() as session:
        made: list[Site] = []

        async def answer(request: web.Request) -> web.Response:
            return await made[0].answer(request)

        application.add_routes([web.get("/{node}", answer)])
        async with TestServer(application) as server:
            url = str(server.make_url("/")) + "{node}"
            sections = (
                ProbeSection(name="presses", nodes=("press-*",), url=url, every_s=60),
                ProbeSection(name="saws", nodes=("saw-?",), url=url, every_s=60),
            )
            made.append(
                Site(database, fleet, Probes(sections, database, fleet.sightings, session, lambda: passed_s[0]), passed_s)
            )
            yield made[0]


@pytest.mark.parametrize(("version", "end"), [("1.2", ActionOutcome.SUCCESS), ("1.1", ActionOutcome.ROLLED_BACK)])
async def test_a_probe_ends_what_was_installed_after_the_restart(site: Site, version: str, end: ActionOutcome) -> None:
    action = await site.want("press-1")
    site.runs["press-1"] = ("1.1", "boot-1")
    assert await site.round() == 1
    await site.install("press-1", action)
    assert await site.round() == 1
    assert await site.outcome(action) is None
    site.runs["press-1"] = None  # it restarts
    assert await site.round() == 1
    site.runs["press-1"] = (version, "boot-2")
    assert await site.round() == 1
    assert await site.outcome(action) is end
    assert await site.round() == 0, "nothing is under way any more"


async def test_a_boot_of_the_past_is_not_taken_for_the_one_of_the_installation(site: Site) -> None:
    site.runs["press-1"] = ("1.1", "boot-1")
    first = await site.want("press-1")
    await site.round()
    await site.fleet.takeover.withdraw("press-1", "site", "17 press-1", "not now")
    await site.fleet.progress.cancel_feedback("press-1", first, Told("c", Execution.CLOSED, Finished.SUCCESS))
    site.runs["press-1"] = ("1.1", "boot-2")  # while nobody asked
    wish = Wish(RELEASE, "test", source="18")
    made = await site.fleet.takeover.take("press-1", wish)
    assert made.action is not None
    await site.fleet.progress.offer("press-1", made.action.id)
    await site.install("press-1", made.action.id)
    await site.round()
    assert await site.outcome(made.action.id) is None, "it has not restarted since, so it has not gone back"
    site.runs["press-1"] = ("1.2", "boot-3")
    await site.round()
    assert await site.outcome(made.action.id) is ActionOutcome.SUCCESS


async def test_only_nodes_that_are_named_and_have_something_under_way_are_asked(site: Site) -> None:
    for node in ("press-1", "saw-1", "saw-11", "mill"):
        site.runs[node] = ("1.1", "b")
        await site.want(node)
    await site.fleet.accounts.give_token("press-2", ClientKind.RAUC)
    assert await site.round() == 2
    assert sorted(site.asked) == ["press-1", "saw-1"]


async def test_nobody_is_asked_before_the_time(site: Site) -> None:
    await site.want("press-1")
    site.runs["press-1"] = ("1.1", "b")
    assert [await site.round(), await site.probes.round()] == [1, 0]


async def test_trouble_is_told_once_and_does_not_stop_the_others(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    for node in ("press-1", "press-2"):
        await site.want(node)
    site.runs["press-2"] = ("1.1", "b")
    with caplog.at_level(logging.WARNING):
        await site.round()
        await site.round()
    assert [record.getMessage().split(":")[0] for record in caplog.records] == ["probe presses of node press-1"]
    assert (await site.fleet.progress.standing("press-2")).node.boot_id == "b"
