"""Zephyr's client of DDI by its requests, written from its source (`subsys/mgmt/hawkbit`): no toolchain of Zephyr is at hand.

- It has room for a `deploymentBase/…` of 49 characters and a path to its artifact of 199, and polls as `HH:MM:SS` says.
- It takes one chunk, whose part is `bApp`, with one artifact, linked as `download-http` below `/DEFAULT/controller/v1`.
- It keeps the number of the action that it has written, and restarts. It reports success when it then finds that action still
  linked, whichever image MCUboot started: that proves nothing.
"""

import json
import re

import pytest

from gateway.database.queries import nodes
from gateway.database.records import ActionOutcome, ActionState, ClientKind
from tests.gateway.south.ddi.test_pitfalls import COMPANY, Reply, Site, site
from update.digest import digest_of
from update.trust.verified import Provenance

__all__ = ["site"]

NODE = "board-0011"


class Zephyr:
    """The client; `written` is what its flash remembers."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self.written = 0

    async def probe(self) -> str:
        """One turn; what it did."""
        root = json.loads((await self._ask("GET", "")).body)
        assert re.fullmatch(r"\d\d:\d\d:\d\d", root["config"]["polling"]["sleep"])
        links = root["_links"]
        if "cancelAction" in links:
            path = links["cancelAction"]["href"].partition(f"{NODE}/")[2]
            number = path.removeprefix("cancelAction/")
            await self._close(path, number)
            return "cancelled"
        if "configData" in links:
            status = {"execution": "closed", "result": {"finished": "success"}}
            said = {"mode": "merge", "data": {"VIN": "0011", "hwRevision": "3"}, "id": "", "time": "", "status": status}
            await self._ask("PUT", "configData", said)
        if "deploymentBase" not in links:
            return "nothing"
        path = links["deploymentBase"]["href"].partition(f"{NODE}/")[2]
        assert len(path) < 50
        return await self._install(path)

    async def _install(self, path: str) -> str:
        document = json.loads((await self._ask("GET", path)).body)
        (chunk,) = document["deployment"]["chunks"]
        (file,) = chunk["artifacts"]
        assert (chunk["part"], type(file["size"])) == ("bApp", int)
        if int(document["id"]) == self.written:
            await self._close(f"deploymentBase/{document['id']}", document["id"])
            return "reported"
        place = file["_links"]["download-http"]["href"]
        place = place[place.index("/DEFAULT/controller/v1") :]
        assert len(place) < 200
        content = (await self._site.ask(NODE, "GET", place)).body
        assert digest_of(content) == file["hashes"]["sha256"]
        self.written = int(document["id"])
        return "written"

    async def _close(self, resource: str, number: str) -> None:
        status = {"execution": "closed", "result": {"finished": "success"}}
        await self._ask("POST", f"{resource}/feedback", {"id": number, "status": status})

    async def _ask(self, method: str, path: str, body: object = None) -> Reply:
        reply = await self._site.ask(NODE, method, path, body)
        assert reply.status == 200
        return reply


@pytest.fixture
async def board(site: Site) -> Zephyr:
    site.tokens[NODE] = await site.fleet.accounts.give_token(NODE, ClientKind.ZEPHYR)
    async with site.database.writing() as transaction:
        await nodes.set_assigner(transaction, NODE, COMPANY)
        await nodes.set_accepts(transaction, NODE, Provenance.CMS)
    return Zephyr(site)


@pytest.mark.parametrize(("runs", "end"), [("1.2", ActionOutcome.SUCCESS), ("1.1", ActionOutcome.ROLLED_BACK)])
async def test_what_runs_after_the_restart_decides_and_not_the_clients_word(
    site: Site, board: Zephyr, runs: str, end: ActionOutcome
) -> None:
    assert await board.probe() == "nothing"
    action = await site.want(NODE)
    assert await board.probe() == "written"
    await site.fleet.progress.observe(NODE, "1.1", "boot-1")
    assert (await site.find(action)).installed is None
    assert await board.probe() == "reported", "after its restart, whichever image was started"
    found = await site.find(action)
    assert (found.state, found.installed is not None) == (ActionState.OPEN, True)
    assert await board.probe() == "nothing"
    await site.fleet.progress.observe(NODE, runs, "boot-2")
    found = await site.find(action)
    assert found.end is not None
    assert found.end.outcome is end


async def test_it_need_not_have_told_when_it_is_seen_to_run_the_release(site: Site, board: Zephyr) -> None:
    action = await site.want(NODE)
    await board.probe()
    await site.fleet.progress.observe(NODE, "1.1", "boot-1")
    await site.fleet.progress.observe(NODE, "1.2", "boot-2")
    found = await site.find(action)
    assert found.end is not None
    assert found.end.outcome is ActionOutcome.SUCCESS
    assert await board.probe() == "nothing"


async def test_a_restart_before_it_has_written_is_no_rollback(site: Site, board: Zephyr) -> None:
    action = await site.want(NODE)
    await site.fleet.progress.offer(NODE, action.id)
    for boot in ("boot-1", "boot-2"):
        await site.fleet.progress.observe(NODE, "1.1", boot)
    assert (await site.find(action)).state is ActionState.OPEN
    assert await board.probe() == "written"


async def test_a_cancelled_action_is_let_go_of(site: Site, board: Zephyr) -> None:
    action = await site.want(NODE)
    await site.fleet.progress.offer(NODE, action.id)
    await site.fleet.takeover.withdraw(NODE, COMPANY, "17", "cancelled")
    assert await board.probe() == "cancelled"
    assert (await site.find(action)).state is ActionState.CLOSED
