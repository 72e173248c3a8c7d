"""What a polling RAUC is told, and what is made of what it says; by a client written from RAUC's documentation.

Debian's rauc has neither polling nor streaming.
"""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from hypothesis import given
from hypothesis import strategies as st

from gateway.database.engine import Database
from gateway.database.queries import actions
from gateway.database.records import Action, ActionOutcome, ActionState, ClientKind, Handling, Release, Terms
from gateway.fleet.build import Fleet, make_fleet
from gateway.fleet.intervals import Intervals
from gateway.fleet.issuing import Wish
from gateway.fleet.telling import NOBODY
from gateway.fleet.windows import UNTIL_TOLD
from gateway.south.credentials import Credentials
from gateway.south.ddi.build import ddi_parts
from gateway.south.ddi.rauc_headers import read_headers
from gateway.south.files import answer, etag_of
from gateway.south.routes import south_application
from tests.builders.fleet import Clock, Shelf
from tests.builders.rauc import bundle, payload, policy, written
from tests.builders.rauc_poller import PollingRauc
from update.bundle.rauc_reader import verify_rauc_bundle
from update.digest import digest_of
from update.errors import ForbiddenError, ProtocolError
from update.trust.verified import TargetInfo

CONTENT = bundle(payload(100))
HEADERS = ["RAUC-System-Version", "RAUC-Boot-ID", "RAUC-Variant", "RAUC-Serial", "RAUC-Transaction-ID"]
RELEASE = Release("plant", "os/press.raucb", digest_of(CONTENT), len(CONTENT), "1.2")


class Sent:
    """Sends the one bundle, as the content server answers."""

    async def send(self, request: web.Request, info: TargetInfo) -> web.StreamResponse:
        assert info.sha256 == RELEASE.sha256
        said = answer(request.method, request.headers, info.length, etag_of(info.sha256))
        head = said.head.decode().splitlines()[1:]
        body = b"".join(CONTENT[part.span.start : part.span.end] for part in said.parts)
        return web.Response(status=said.status, headers=dict(line.split(": ", 1) for line in head), body=body)


@dataclass(slots=True)
class Site:
    """One gateway, and a device that polls it."""

    client: "TestClient[web.Request, web.Application]"
    database: Database
    fleet: Fleet
    device: PollingRauc
    clock: Clock

    async def want(self, terms: Terms | None = None, *, source: str = "17", confirm: bool = False) -> Action:
        taken = await self.fleet.takeover.take(
            "n1", Wish(RELEASE, "test", source=source, terms=terms or Terms(), confirm=confirm)
        )
        assert taken.action is not None
        return taken.action

    async def find(self, action: Action) -> Action:
        async with self.database.reading() as transaction:
            found = await actions.find(transaction, action.id)
        assert found is not None
        return found

    async def outcome(self, action: Action) -> ActionOutcome | None:
        end = (await self.find(action)).end
        return None if end is None else end.outcome


@pytest.fixture
async def site(database: Database, shelf: Shelf, clock: Clock) -> AsyncIterator[Site]:
    fleet = make_fleet(database, shelf, clock, NOBODY, stuck_after_s=86400, verify_within_s=3600)
    token = await fleet.accounts.give_token("n1", ClientKind.RAUC)
    parts = ddi_parts(database, fleet, Sent(), lambda _: None, clock, intervals=Intervals(90))
    application = south_application(parts, open_to_all=[], credentials=Credentials(fleet.accounts))
    async with TestClient(TestServer(application)) as client:
        headers = {"Authorization": f"TargetToken {token}"}
        device = PollingRauc(client.session, str(client.make_url("/rauc")), headers, "1.1")
        yield Site(client, database, fleet, device, clock)


async def test_there_is_nothing_until_something_is_wanted(site: Site) -> None:
    assert await site.device.poll() == 204
    node = (await site.fleet.progress.standing("n1")).node
    assert (node.running.version, node.boot_id, node.attributes["rauc.serial"]) == ("1.1", site.device.boot_id, "S7")


async def test_a_bundle_is_streamed_and_succeeds_in_the_boot_that_runs_it(site: Site, tmp_path: Path) -> None:
    action = await site.want()
    assert await site.device.poll() == 206
    assert verify_rauc_bundle(written(tmp_path, site.device.written), policy()).manifest is not None
    assert await site.outcome(action) is None
    assert await site.device.poll() == 204, "who polls after an installation is offered nothing before its restart"
    site.device.restart("1.2")
    assert await site.device.poll() == 204
    assert await site.outcome(action) is ActionOutcome.SUCCESS
    running = (await site.fleet.progress.standing("n1")).node.running
    assert (running.version, running.sha256) == ("1.2", RELEASE.sha256)


async def test_another_boot_with_the_old_version_is_a_rollback(site: Site) -> None:
    action = await site.want()
    await site.device.poll()
    site.device.restart("1.1")
    assert await site.device.poll() == 204
    end = (await site.find(action)).end
    assert end is not None
    assert (end.outcome, end.code) == (ActionOutcome.ROLLED_BACK, "device.rolled-back")
    assert len(site.device.begun) == 0, "it does not go round in circles"


async def test_a_restart_before_it_began_says_nothing(site: Site) -> None:
    action = await site.want()
    assert await site.device.poll(install=False) == 206
    site.device.restart("1.1")
    assert await site.device.poll(install=False) == 206
    assert await site.outcome(action) is None


async def test_what_was_never_followed_by_a_restart_ends_at_its_deadline_and_not_as_a_success(site: Site) -> None:
    action = await site.want()
    await site.device.poll()
    site.device.version = "1.2"  # says the right version without another boot
    await site.device.poll()
    assert await site.outcome(action) is None
    site.clock.advance(86400)
    await site.fleet.deadlines.sweep()
    assert await site.outcome(action) is ActionOutcome.TIMED_OUT


async def test_the_same_bundle_is_not_sent_twice(site: Site) -> None:
    await site.want()
    assert await site.device.poll(install=False) == 206
    assert await site.device.poll(install=False) == 304


async def test_a_poll_without_news_writes_nothing(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    await site.want()
    assert [await site.device.poll(install=False) for _ in range(2)] == [206, 304]
    with monkeypatch.context() as patched:
        patched.setattr(site.database, "writing", None)
        assert await site.device.poll(install=False) == 304


async def test_redirects_stay_on_this_gateway_and_below_the_nodes_own_resource(site: Site) -> None:
    action = await site.want()
    async with site.client.get("/rauc", headers=site.device.headers, allow_redirects=False) as response:
        assert response.status == 307
        own = site.client.make_url(f"/DEFAULT/controller/v1/n1/softwaremodules/{action.id}/artifacts/press.raucb")
        assert response.headers["Location"] == str(own)


@pytest.mark.parametrize("terms", [Terms(opens=UNTIL_TOLD), Terms(Handling.DOWNLOAD_ONLY)])
async def test_what_may_not_be_installed_now_is_not_offered(site: Site, terms: Terms) -> None:
    action = await site.want(terms)
    assert await site.device.poll() == 204
    assert (await site.find(action)).offered is None
    await site.fleet.takeover.change_terms("n1", "site", "17", Terms())
    assert await site.device.poll() == 206


async def test_a_window_that_closes_takes_the_offer_back(site: Site) -> None:
    await site.want()
    assert await site.device.poll(install=False) == 206
    await site.fleet.takeover.change_terms("n1", "site", "17", Terms(opens=UNTIL_TOLD))
    assert await site.device.poll(install=False) == 204


async def test_what_waits_for_somebody_is_not_offered(site: Site) -> None:
    action = await site.want(confirm=True)
    assert await site.device.poll() == 204
    assert (await site.find(action)).state is ActionState.WAITING


async def test_a_cancelled_action_is_let_go_of_at_the_next_poll(site: Site) -> None:
    action = await site.want()
    await site.device.poll(install=False)
    await site.fleet.takeover.withdraw("n1", "site", "17", "not today")
    assert (await site.find(action)).state is ActionState.CANCELLING
    assert await site.device.poll() == 204
    assert await site.outcome(action) is ActionOutcome.CANCELLED
    again = await site.want(source="18")
    assert await site.device.poll() == 206
    assert (await site.find(again)).boot_id == site.device.boot_id


async def test_what_has_begun_is_not_undone_by_cancelling(site: Site) -> None:
    action = await site.want()
    await site.device.poll()
    await site.fleet.takeover.withdraw("n1", "site", "17", "too late")
    assert await site.device.poll() == 204
    assert await site.outcome(action) is None
    site.device.restart("1.2")
    await site.device.poll()
    assert await site.outcome(action) is ActionOutcome.SUCCESS


async def test_only_rauc_nodes_poll_here_and_only_as_themselves(site: Site) -> None:
    async with site.client.get("/rauc") as response:
        assert response.status == 401
    await site.fleet.ownership.set_kind("n1", ClientKind.SWUPDATE)
    async with site.client.get("/rauc", headers=site.device.headers) as response:
        assert (response.status, (await response.json())["code"]) == (403, ForbiddenError.code)


@pytest.mark.parametrize("name", HEADERS)
@pytest.mark.parametrize("value", ["x" * 400, "a\u0085b", "a\u202eb"])
async def test_malformed_headers_are_refused_and_change_nothing(site: Site, name: str, value: str) -> None:
    async with site.client.get("/rauc", headers={**site.device.headers, name: value}) as response:
        assert (response.status, (await response.json())["code"]) == (400, ProtocolError.code)
    node = (await site.fleet.progress.standing("n1")).node
    assert (node.running.version, node.boot_id, dict(node.attributes)) == ("", "", {})


async def test_who_streams_by_order_of_an_updater_is_seen_too(site: Site) -> None:
    """rauc-hawkbit-updater's `stream_bundle`: the updater reports, RAUC fetches with its own headers."""
    action = await site.want()
    await site.fleet.progress.offer("n1", action.id)
    path = f"/DEFAULT/controller/v1/n1/softwaremodules/{action.id}/artifacts/press.raucb"
    said = {**site.device.headers, "RAUC-Boot-ID": "b1", "RAUC-System-Version": "1.1", "Range": "bytes=0-3"}
    for _ in range(3):
        async with site.client.get(path, headers=said) as response:
            assert (response.status, await response.read()) == (206, b"hsqs")
    assert (await site.fleet.progress.standing("n1")).node.boot_id == "b1"
    assert (await site.find(action)).boot_id == "", "it reports its own beginning and end"


async def test_polls_at_once_do_not_disturb_one_another(site: Site) -> None:
    action = await site.want()
    statuses = await asyncio.gather(*(site.device.poll(install=False) for _ in range(8)))
    assert set(statuses) <= {206, 304}
    assert (await site.find(action)).state is ActionState.OPEN


@given(st.dictionaries(st.sampled_from([*HEADERS, "RAUC-Uptime", "Range"]), st.text(max_size=400)))
def test_any_headers_are_read_or_refused_and_keep_their_limits(headers: dict[str, str]) -> None:
    try:
        said = read_headers(headers)
    except ProtocolError:
        return
    if said is None:
        assert set(headers).isdisjoint(HEADERS)
        return
    found = said.sighting
    for text, most in ((found.version, 300), (found.boot_id, 64), (found.serial, 128), (found.variant or "", 80)):
        assert len(text) <= most
        assert text.isprintable()
    assert said.transaction == headers.get("RAUC-Transaction-ID", "").strip()
