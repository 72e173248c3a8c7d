"""The pitfalls of stock clients of hawkBit's DDI, on the wire; `docs/explanation/stock-clients.md` has the table."""

import asyncio
import hashlib
import json
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from aiohttp import web

from gateway.database.engine import Database
from gateway.database.queries import actions, nodes
from gateway.database.records import Action, ActionOutcome, ActionState, ClientKind, Release, Terms
from gateway.fleet.build import Fleet, make_fleet
from gateway.fleet.intervals import Intervals
from gateway.fleet.issuing import Wish
from gateway.fleet.telling import NOBODY
from gateway.fleet.windows import UNTIL_TOLD
from gateway.south.credentials import Credentials
from gateway.south.ddi.build import ddi_parts
from gateway.south.files import answer, etag_of
from gateway.south.open_files import OpenFiles
from gateway.south.range_response import RangeResponse
from gateway.south.routes import make_runner, south_application
from tests.builders.fleet import Clock, Shelf
from update.digest import digest_of
from update.trust.verified import Provenance, TargetInfo

CONTENT = b"an image that is longer than all of its heads " * 500
RELEASE = Release("plant", "os/board.swu", digest_of(CONTENT), len(CONTENT), "1.2", Provenance.CMS)
COMPANY = "hawkbit:company"
BEGINS, WRITTEN, PROVED = "Installing Update Chunk Artifacts.", "All Chunks Installed.", "Update Installed."


class Files:
    """Sends the one bundle that there is."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.opened = OpenFiles()

    async def send(self, request: web.Request, info: TargetInfo) -> web.StreamResponse:
        lease = self.opened.borrow(info.sha256) or self.opened.open(info.sha256, self.file)
        return RangeResponse(answer(request.method, request.headers, info.length, etag_of(info.sha256)), lease)


@dataclass(frozen=True, slots=True)
class Reply:
    """What came over the wire."""

    status: int
    headers: dict[str, str]
    body: bytes


@dataclass(slots=True)
class Site:
    """Nodes `swupdate` and `rauc`, of these kinds, at a listener as they would meet it."""

    port: int
    database: Database
    fleet: Fleet
    tokens: dict[str, str]

    async def want(self, node: str, terms: Terms | None = None) -> Action:
        wish = Wish(RELEASE, COMPANY, COMPANY, source="17", terms=terms or Terms())
        taken = await self.fleet.takeover.take(node, wish)
        assert taken.action is not None
        return taken.action

    async def ask(self, node: str, method: str, path: str, body: object = None, *headers: str) -> Reply:
        """One request, written by hand, on a connection of its own."""
        data = b"" if body is None else json.dumps(body).encode()
        place = path if path.startswith("/") else f"/DEFAULT/controller/v1/{node}{'/' * bool(path)}{path}"
        head = [f"{method} {place} HTTP/1.1", f"Host: 127.0.0.1:{self.port}", f"Authorization: TargetToken {self.tokens[node]}"]
        head += ["Connection: close", "Content-Type: application/json", f"Content-Length: {len(data)}", *headers]
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write("\r\n".join([*head, "", ""]).encode())
            if any(line.startswith("Expect:") for line in headers):
                assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100 Continue")
            writer.write(data)
            answered = await reader.read()
        finally:
            writer.close()
        first, _, content = answered.partition(b"\r\n\r\n")
        lines = first.decode().split("\r\n")
        found = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:])}
        return Reply(int(lines[0].split()[1]), found, content)

    async def links(self, node: str) -> dict[str, str]:
        """What the root shows: the path of each link."""
        reply = await self.ask(node, "GET", "")
        return {name: link["href"].partition(f":{self.port}")[2] for name, link in json.loads(reply.body)["_links"].items()}

    async def file(self, node: str) -> dict[str, object]:
        """The artifact as it is offered."""
        document = json.loads((await self.ask(node, "GET", (await self.links(node))["deploymentBase"])).body)
        ((found,),) = [chunk["artifacts"] for chunk in document["deployment"]["chunks"]]
        assert isinstance(found, dict)
        return found

    async def fetch(self, node: str, method: str, *headers: str) -> Reply:
        """The bundle, where it is offered."""
        links = json.loads(json.dumps((await self.file(node))["_links"]))
        return await self.ask(node, method, links["download-http"]["href"].partition(f":{self.port}")[2], None, *headers)

    async def say(self, node: str, action: Action, execution: str, finished: str, *details: str) -> int:
        status = {"execution": execution, "result": {"finished": finished}, "details": details}
        return (await self.ask(node, "POST", f"deploymentBase/{action.id}/feedback", {"id": action.id, "status": status})).status

    async def find(self, action: Action) -> Action:
        async with self.database.reading() as transaction:
            found = await actions.find(transaction, action.id)
        assert found is not None
        return found


@pytest.fixture
async def site(tmp_path: Path, database: Database, shelf: Shelf, clock: Clock) -> AsyncIterator[Site]:
    (tmp_path / "board.swu").write_bytes(CONTENT)
    files = Files(tmp_path / "board.swu")
    fleet = make_fleet(database, shelf, clock, NOBODY, stuck_after_s=0, verify_within_s=60)
    kinds = {"swupdate": ClientKind.SWUPDATE, "rauc": ClientKind.RAUC}
    tokens = {name: await fleet.accounts.give_token(name, kind) for name, kind in kinds.items()}
    async with database.writing() as transaction:
        for name in kinds:
            await nodes.set_assigner(transaction, name, COMPANY)
            await nodes.set_accepts(transaction, name, Provenance.CMS)
    parts = ddi_parts(database, fleet, files, lambda _: files.file, clock, intervals=Intervals(60))
    runner = make_runner(south_application(parts, open_to_all=[], credentials=Credentials(fleet.accounts)))
    await runner.setup()
    listener = web.TCPSite(runner, "127.0.0.1", 0)
    await listener.start()
    yield Site(listener.port, database, fleet, tokens)
    await runner.cleanup()
    files.opened.close()


KINDS = pytest.mark.parametrize("node", ["swupdate", "rauc"])


async def test_a_closed_window_is_hidden_from_swupdate(site: Site) -> None:
    action = await site.want("swupdate", Terms(opens=UNTIL_TOLD))
    assert "deploymentBase" not in await site.links("swupdate")
    assert (await site.ask("swupdate", "GET", f"deploymentBase/{action.id}")).status == 404
    assert await site.say("swupdate", action, "closed", "success", "Skipped Update.") == 200
    assert (await site.find(action)).state is ActionState.OPEN


@KINDS
async def test_every_message_is_answered_200(site: Site, node: str) -> None:
    action = await site.want(node)
    assert (await site.ask(node, "PUT", "configData", {"data": {"serial": "7"}})).status == 200
    assert await site.say(node, action, "proceeding", "none", BEGINS) == 200
    assert await site.say(node, action, "closed", "failure", "no") == 200
    assert await site.say(node, action, "closed", "failure", "no") == 200, "again"
    assert await site.say(node, action, "proceeding", "none", "too late") == 200
    assert (await site.ask(node, "PUT", "installedBase", {"name": "os", "version": "1"})).status == 200
    assert (await site.ask(node, "POST", "confirmationBase/activateAutoConfirm", {})).status == 200
    assert (await site.ask(node, "POST", "confirmationBase/deactivateAutoConfirm")).status == 200


@KINDS
async def test_what_is_offered_is_what_strict_clients_read(site: Site, node: str) -> None:
    action = await site.want(node)
    file = await site.file(node)
    assert 0 < action.id < 2**31
    assert file["size"] == len(CONTENT)
    assert isinstance(file["size"], int)
    assert str(file["filename"]).endswith(".swu")
    wanted = {name: hashlib.new(name, CONTENT, usedforsecurity=False).hexdigest() for name in ("sha1", "md5", "sha256")}
    assert file["hashes"] == wanted
    assert "download-http" in json.dumps(file["_links"])


@KINDS
async def test_head_tells_the_length(site: Site, node: str) -> None:
    await site.want(node)
    reply = await site.fetch(node, "HEAD")
    assert (reply.status, reply.headers["content-length"], reply.body) == (200, str(len(CONTENT)), b"")


async def test_a_client_that_runs_in_circles_is_told_to_stop(site: Site) -> None:
    action = await site.want("swupdate")
    await site.file("swupdate")
    for time in ("first", "second"):
        for words in (BEGINS, WRITTEN):
            assert await site.say("swupdate", action, "proceeding", "none", words, time) == 200
        assert "deploymentBase" in await site.links("swupdate")
    assert await site.say("swupdate", action, "proceeding", "none", BEGINS, "once more") == 200
    stop = (await site.links("swupdate"))["cancelAction"]
    done = {"status": {"execution": "closed", "result": {"finished": "success"}, "details": ["cancellation acknowledged."]}}
    assert (await site.ask("swupdate", "POST", f"{stop}/feedback", done)).status == 200
    end = (await site.find(action)).end
    assert end is not None
    assert end.outcome is ActionOutcome.UNVERIFIED
    assert "deploymentBase" not in await site.links("swupdate")


async def test_a_failure_after_a_word_that_came_too_early_is_a_failure(site: Site) -> None:
    action = await site.want("swupdate")
    await site.file("swupdate")
    for words in (BEGINS, WRITTEN):
        assert await site.say("swupdate", action, "proceeding", "none", words) == 200
    assert await site.say("swupdate", action, "proceeding", "none", BEGINS, "the next attempt") == 200
    assert "deploymentBase" in await site.links("swupdate")
    assert await site.say("swupdate", action, "closed", "failure", "No suitable .swu image found") == 200
    end = (await site.find(action)).end
    assert end is not None
    assert end.outcome is ActionOutcome.FAILURE


async def test_the_link_stays_until_the_result_is_in(site: Site) -> None:
    action = await site.want("swupdate")
    await site.file("swupdate")
    for words in (BEGINS, WRITTEN):
        await site.say("swupdate", action, "proceeding", "none", words)
    assert "deploymentBase" in await site.links("swupdate")
    await site.say("swupdate", action, "closed", "success", PROVED)
    end = (await site.find(action)).end
    assert end is not None
    assert end.outcome is ActionOutcome.SUCCESS
    assert "deploymentBase" not in await site.links("swupdate")


@pytest.mark.parametrize(("finished", "words"), [("success", PROVED), ("failure", "Update Failed.")])
async def test_what_swupdate_says_at_its_start_of_what_it_never_began_ends_nothing(site: Site, finished: str, words: str) -> None:
    action = await site.want("swupdate")
    await site.file("swupdate")
    assert await site.say("swupdate", action, "closed", finished, words) == 200
    assert (await site.find(action)).state is ActionState.OPEN
    await site.say("swupdate", action, "proceeding", "none", BEGINS)  # what came after it was lost with the gateway
    assert await site.say("swupdate", action, "closed", finished, words, "after the restart") == 200
    assert (await site.find(action)).state is ActionState.CLOSED


@KINDS
async def test_closed_without_a_result_is_no_success(site: Site, node: str) -> None:
    action = await site.want(node)
    assert await site.say(node, action, "closed", "none", "done") == 200
    found = await site.find(action)
    assert (found.state, found.installed is not None) == (ActionState.OPEN, True)


async def test_a_success_before_the_restart_is_not_the_end(site: Site) -> None:
    action = await site.want("rauc")
    assert await site.say("rauc", action, "closed", "success", "Software bundle installed successfully.") == 200
    found = await site.find(action)
    assert (found.state, found.installed is not None) == (ActionState.OPEN, True)


@KINDS
async def test_several_ranges_come_in_parts(site: Site, node: str) -> None:
    await site.want(node)
    reply = await site.fetch(node, "GET", "Range: bytes=0-9,100-119")
    assert reply.status == 206
    assert re.fullmatch(r"multipart/byteranges; boundary=[0-9a-z]+", reply.headers["content-type"])
    assert CONTENT[:10] in reply.body
    assert CONTENT[100:120] in reply.body


@KINDS
async def test_who_waits_to_continue_may(site: Site, node: str) -> None:
    reply = await site.ask(node, "PUT", "configData", {"data": {"serial": "7"}}, "Expect: 100-continue")
    assert reply.status == 200


@KINDS
async def test_nothing_is_compressed(site: Site, node: str) -> None:
    await site.want(node)
    reply = await site.fetch(node, "GET", "Accept-Encoding: gzip, deflate, br, zstd")
    assert (reply.headers["content-length"], reply.body) == (str(len(CONTENT)), CONTENT)
    assert "content-encoding" not in reply.headers


@KINDS
async def test_who_has_everything_is_answered_416(site: Site, node: str) -> None:
    await site.want(node)
    reply = await site.fetch(node, "GET", f"Range: bytes={len(CONTENT)}-")
    assert (reply.status, reply.headers["content-range"]) == (416, f"bytes */{len(CONTENT)}")


@KINDS
async def test_every_link_leads_back_here(site: Site, node: str) -> None:
    await site.want(node)
    root = await site.ask(node, "GET", "")
    document = await site.ask(node, "GET", (await site.links(node))["deploymentBase"])
    content = await site.fetch(node, "GET")
    assert {root.status, document.status, content.status} == {200}
    found = re.findall(rb'"href":\s*"([^"]+)"', root.body + document.body)
    assert len(found) > 2
    assert all(link.startswith(f"http://127.0.0.1:{site.port}/DEFAULT/controller/v1/{node}/".encode()) for link in found)


def test_the_table_names_every_pitfall_and_tests_that_are_there() -> None:
    root = Path(__file__).parents[4]
    lines = (root / "docs" / "explanation" / "stock-clients.md").read_text().splitlines()
    table = [line for line in lines if re.match(r"\| [pt]\d", line)]
    marks = [mark for line in table for mark in line.split("|")[1].split()]
    assert sorted(marks) == sorted([f"p{number}" for number in range(1, 17)] + [f"t{number}" for number in range(1, 6)])
    for line in table:
        names = re.findall(r"`([^`]*)`", line.split("|")[4])
        assert names
        for name in names:
            path, _, function = name.rpartition("::")
            text = Path(__file__).read_text() if not path else (root / "tests" / path).read_text()
            assert re.search(rf"^(async )?def {function}\(", text, re.MULTILINE), name
