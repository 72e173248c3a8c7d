"""The controller resources as stock clients use them: with a token, in JSON or CBOR, and with whatever strangers send."""

import io
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass

import cbor2
import pytest
from aiohttp import ClientResponse, web
from aiohttp.test_utils import TestClient, TestServer

from gateway.database.engine import Database
from gateway.database.queries import actions, nodes, reports
from gateway.database.records import Action, ActionOutcome, ActionState, ClientKind, Digests, End, Release, Terms
from gateway.fleet.build import Fleet, make_fleet
from gateway.fleet.intervals import Intervals
from gateway.fleet.issuing import Wish
from gateway.fleet.telling import NOBODY
from gateway.fleet.windows import UNTIL_TOLD
from gateway.south.credentials import Credentials
from gateway.south.ddi.agreement import Agreement
from gateway.south.ddi.artifacts import Artifacts
from gateway.south.ddi.resources import AsOrdered, Ddi
from gateway.south.routes import Part, south_application
from tests.builders.fleet import Clock, Shelf
from update.digest import digest_of
from update.trust.verified import Provenance, TargetInfo

COMPANY = "hawkbit:company"
BASE = "/DEFAULT/controller/v1"
CONTENT = b"a whole bundle"
RELEASE = Release("plant", "os/board.swu", digest_of(CONTENT), len(CONTENT), "1.2", Provenance.CMS)
SUMS = Digests(RELEASE.sha256, "1" * 40, "2" * 32)
GOING = {"status": {"execution": "proceeding", "result": {"finished": "none"}, "details": ["downloading"]}}


class Known:
    """The digests of the one bundle that there is."""

    async def of(self, release: Release) -> Digests:
        assert release.sha256 == RELEASE.sha256
        return SUMS


class Sent:
    """Sends the one content that there is."""

    async def send(self, request: web.Request, info: TargetInfo) -> web.StreamResponse:
        assert (info.repository, info.path, info.sha256) == (RELEASE.repository, RELEASE.path, RELEASE.sha256)
        return web.Response(body=b"" if request.method == "HEAD" else CONTENT)


@dataclass(slots=True)
class Site:
    """Two nodes with tokens, assigned by a company elsewhere."""

    client: "TestClient[web.Request, web.Application]"
    database: Database
    fleet: Fleet
    tokens: dict[str, str]

    async def want(self, source: str = "17", *, confirm: bool = False, terms: Terms | None = None) -> Action:
        wish = Wish(RELEASE, COMPANY, COMPANY, source=source, confirm=confirm, terms=terms or Terms())
        taken = await self.fleet.takeover.take("n1", wish)
        assert taken.action is not None
        return taken.action

    def headers(self, node: str = "n1", **more: str) -> dict[str, str]:
        return {"Authorization": f"TargetToken {self.tokens[node]}", **more}

    async def get(self, path: str, **headers: str) -> ClientResponse:
        return await self.client.get(f"{BASE}/{path}", headers=self.headers(**headers))

    async def json(self, path: str) -> Mapping[str, object]:
        async with await self.get(path) as response:
            assert response.status == 200
            found: Mapping[str, object] = await response.json()
            return found

    async def post(self, path: str, body: object, *, method: str = "POST", **headers: str) -> int:
        data = io.BytesIO(body if isinstance(body, bytes) else json.dumps(body).encode())
        async with self.client.request(method, f"{BASE}/{path}", data=data, headers=self.headers(**headers)) as response:
            return response.status

    async def find(self, action: Action) -> Action:
        async with self.database.reading() as transaction:
            found = await actions.find(transaction, action.id)
        assert found is not None
        return found


@pytest.fixture
async def site(database: Database, shelf: Shelf, clock: Clock) -> AsyncIterator[Site]:
    fleet = make_fleet(database, shelf, clock, NOBODY, stuck_after_s=0, verify_within_s=60)
    tokens = {name: await fleet.accounts.give_token(name, ClientKind.RAUC) for name in ("n1", "n2")}
    async with database.writing() as transaction:
        for name in tokens:
            await nodes.set_assigner(transaction, name, COMPANY)
    parts: list[Part] = [
        Ddi(fleet.progress, intervals=Intervals(90), sums=Known(), now=clock),
        Artifacts(fleet.progress, Sent(), sums=Known(), offering=AsOrdered()),
        Agreement(fleet.confirmations, clock),
    ]
    application = south_application(parts, open_to_all=[], credentials=Credentials(fleet.accounts))
    async with TestClient(TestServer(application)) as client:
        yield Site(client, database, fleet, tokens)


@pytest.mark.parametrize(
    ("authorization", "status"),
    [("", 401), ("TargetToken nonsense", 401), ("GatewayToken {n1}", 401), ("Basic {n1}", 401), ("TargetToken {n2}", 403)],
)
async def test_only_the_nodes_own_token_opens_it(site: Site, authorization: str, status: int) -> None:
    headers = {"Authorization": authorization.format(**site.tokens)} if authorization else {}
    async with site.client.get(f"{BASE}/n1", headers=headers) as response:
        assert response.status == status
        assert set(await response.json()) == {"code", "message"}


async def test_the_root_is_tagged_and_not_sent_twice(site: Site) -> None:
    await site.want()
    async with await site.get("n1") as first:
        tag = first.headers["ETag"]
    async with await site.get("n1", **{"If-None-Match": tag}) as again:
        assert (again.status, await again.read()) == (304, b"")
    await site.fleet.takeover.change_terms("n1", COMPANY, "17", Terms(opens=UNTIL_TOLD))
    async with await site.get("n1", **{"If-None-Match": tag}) as changed:
        assert changed.status == 200


async def test_cbor_is_spoken_with_who_speaks_nothing_else(site: Site) -> None:
    action = await site.want()
    async with await site.get("n1", Accept="application/cbor") as response:
        assert response.content_type == "application/cbor"
        assert "deploymentBase" in cbor2.loads(await response.read())["_links"]
    async with await site.get(f"n1/deploymentBase/{action.id}", Accept="application/cbor") as response:
        document = cbor2.loads(await response.read())
    assert document["deployment"]["chunks"][0]["artifacts"][0]["size"] == len(CONTENT)
    kind = {"Content-Type": "application/cbor"}
    assert await site.post(f"n1/deploymentBase/{action.id}/feedback", cbor2.dumps(GOING), **kind) == 200
    assert await site.fleet.progress.history(action.id, 10) == ("downloading",)


async def test_the_bundle_is_below_the_nodes_own_resource(site: Site) -> None:
    action = await site.want()
    path = f"n1/softwaremodules/{action.id}/artifacts"
    async with await site.get(f"{path}/board.swu") as early:
        assert early.status == 404, "it was not offered yet"
    document = json.loads(json.dumps(await site.json(f"n1/deploymentBase/{action.id}")))
    (file,) = document["deployment"]["chunks"][0]["artifacts"]
    assert file["hashes"] == {"sha1": SUMS.sha1, "md5": SUMS.md5, "sha256": RELEASE.sha256}
    async with await site.get(path) as listed:
        assert await listed.json() == [file]
    link = file["_links"]["download-http"]["href"]
    async with site.client.session.get(link, headers=site.headers()) as response:
        assert await response.read() == CONTENT
    async with site.client.session.head(link, headers=site.headers()) as response:
        assert response.status == 200
    async with site.client.session.get(f"{link}.MD5SUM", headers=site.headers()) as response:
        assert await response.text() == f"{SUMS.md5}  board.swu"
    for other in ("other.swu", "..%2Fboard.swu", "board.swu.md5sum"):
        async with await site.get(f"{path}/{other}") as refused:
            assert refused.status == 404
    async with site.client.session.get(link, headers=site.headers("n2")) as refused:
        assert refused.status == 403


async def test_an_action_waits_until_somebody_agrees(site: Site) -> None:
    action = await site.want(confirm=True)
    root = json.loads(json.dumps(await site.json("n1")))
    assert set(root["_links"]) == {"confirmationBase", "configData"}
    async with await site.get(f"n1/deploymentBase/{action.id}") as response:
        assert response.status == 404
    base = json.loads(json.dumps(await site.json("n1/confirmationBase")))
    assert base["autoConfirm"] == {"active": False}
    assert set(base["_links"]) == {"confirmationBase", "activateAutoConfirm"}
    waiting = json.loads(json.dumps(await site.json(f"n1/confirmationBase/{action.id}")))
    assert waiting["confirmation"]["chunks"][0]["version"] == "1.2"
    feedback = f"n1/confirmationBase/{action.id}/feedback"
    assert await site.post(feedback, {"confirmation": "perhaps"}) == 400
    assert await site.post(feedback, {"confirmation": "denied", "details": ["the line runs"]}) == 200
    assert (await site.find(action)).state is ActionState.WAITING
    assert await site.post(feedback, {"confirmation": "confirmed"}) == 200
    assert (await site.find(action)).state is ActionState.OPEN
    assert await site.post(feedback, {"confirmation": "confirmed"}) == 404


@pytest.mark.parametrize("body", [b"", b'{"initiator": "the plant", "remark": "tested"}'])
async def test_all_can_be_agreed_to_beforehand(site: Site, body: bytes) -> None:
    assert await site.post("n1/confirmationBase/activateAutoConfirm", body) == 200
    base = json.loads(json.dumps(await site.json("n1/confirmationBase")))
    assert base["autoConfirm"]["active"] is True
    assert set(base["_links"]) == {"deactivateAutoConfirm"}
    assert (await site.want(confirm=True)).state is ActionState.OPEN
    assert await site.post("n1/confirmationBase/deactivateAutoConfirm", b"") == 200
    base = json.loads(json.dumps(await site.json("n1/confirmationBase")))
    assert base["autoConfirm"] == {"active": False}


async def test_what_was_installed_stays_to_be_read(site: Site) -> None:
    action = await site.want()
    async with await site.get(f"n1/installedBase/{action.id}") as response:
        assert response.status == 404
    async with site.database.writing() as transaction:
        await actions.close(transaction, action.id, End(action.created, ActionOutcome.SUCCESS, "", ""))
    root = json.loads(json.dumps(await site.json("n1")))
    assert root["_links"]["installedBase"]["href"].endswith(f"/installedBase/{action.id}")
    document = json.loads(json.dumps(await site.json(f"n1/installedBase/{action.id}?actionHistory=-1")))
    assert document["actionHistory"] == {"status": "FINISHED", "messages": []}


async def test_what_came_by_hand_is_noted_and_answered_200(site: Site) -> None:
    assert await site.post("n1/installedBase", {"name": "os", "version": "1.4"}, method="PUT") == 200
    assert (await site.fleet.progress.standing("n1")).node.running.version == "1.4"
    assert await site.post("n1/installedBase", {"name": "os"}, method="PUT") == 400


@pytest.mark.parametrize(("most", "lines"), [("0", None), ("1", ["third"]), ("-1", ["third", "second", "first"]), ("x", None)])
async def test_the_history_is_newest_first(site: Site, most: str, lines: list[str] | None) -> None:
    action = await site.want()
    for details in (["first", "second"], ["third"]):
        said = {"status": {"execution": "proceeding", "result": {"finished": "none"}, "details": details}}
        await site.post(f"n1/deploymentBase/{action.id}/feedback", said)
    document = json.loads(json.dumps(await site.json(f"n1/deploymentBase/{action.id}?actionHistory={most}")))
    assert document.get("actionHistory", {}).get("messages") == lines


async def test_what_is_hidden_cannot_be_fetched_by_its_number(site: Site) -> None:
    await site.fleet.ownership.set_kind("n1", ClientKind.SWUPDATE)
    action = await site.want(terms=Terms(opens=UNTIL_TOLD))
    assert "deploymentBase" not in str(await site.json("n1"))
    async with await site.get(f"n1/deploymentBase/{action.id}") as response:
        assert response.status == 404
    assert (await site.find(action)).offered is None


@pytest.mark.parametrize(
    ("body", "content_type", "status"),
    [
        (b"", "application/json", 400),
        (b"{", "application/json", 400),
        (b"[" * 50_000, "application/json", 400),
        (b'{"status": 1}', "application/json", 400),
        (b'{"status": {"execution": "closed"}}', "application/json", 400),
        (b'{"status": {"execution": "done", "result": {"finished": "none"}}}', "application/json", 400),
        (b'{"status": {"execution": "closed", "result": {"finished": "none"}, "code": "x"}}', "application/json", 400),
        (b"\x9f" * 1000, "application/cbor", 400),
        (b"\xa1", "application/cbor", 400),
        (cbor2.dumps([GOING]), "application/cbor", 400),
        (b" " * (200 << 10), "application/json", 413),
        (b" " * (10 << 20), "application/json", 413),
    ],
    ids=range(12),
)
async def test_what_is_no_feedback_changes_nothing(site: Site, body: bytes, content_type: str, status: int) -> None:
    action = await site.want()
    kind = {"Content-Type": content_type}
    assert await site.post(f"n1/deploymentBase/{action.id}/feedback", body, **kind) == status
    assert await site.find(action) == action
    async with site.database.reading() as transaction:
        assert await reports.count(transaction, action.id) == 0


@pytest.mark.parametrize(
    ("raw", "kept"),
    [
        (b"\x1b[31mcannot open\x1b[0m", " [31mcannot open [0m"),
        (b"tab\tand\x00null", "tab and null"),
        (b"gr\xfc\xdfe", "gr\ufffd\ufffde"),
        ("grü".encode()[:-1], "gr\ufffd"),
        ("grüße \\u00e9".encode(), "grüße é"),
    ],
    ids=range(5),
)
async def test_a_result_is_taken_with_whatever_a_script_has_written_into_the_log(site: Site, raw: bytes, kept: str) -> None:
    action = await site.want()
    body = b'{"status":\r\n\t{"execution":"closed","result":{"finished":"failure"},"details":["' + raw + b'"]}}'
    assert await site.post(f"n1/deploymentBase/{action.id}/feedback", body, **{"Content-Type": "application/json"}) == 200
    async with site.database.reading() as transaction:
        (report,) = await reports.newest(transaction, action.id, 2)
    assert report.details == (kept,)
    assert (await site.find(action)).end is not None


async def test_as_much_as_swupdate_sends_at_once_is_taken(site: Site) -> None:
    action, details = await site.want(), [f"{number:02}" + "x" * 2045 for number in range(48)]
    going = {"status": {"execution": "proceeding", "result": {"finished": "none"}, "details": details}}
    assert await site.post(f"n1/deploymentBase/{action.id}/feedback", going) == 200
    async with site.database.reading() as transaction:
        (report,) = await reports.newest(transaction, action.id, 2)
    assert list(report.details) == details


@pytest.mark.parametrize("number", ["0", "-1", "2147483648", "3000000000", "99999999999999999999", "x", "1e3", "%00"])
async def test_a_number_that_no_action_has_is_refused(site: Site, number: str) -> None:
    assert await site.post(f"n1/deploymentBase/{number}/feedback", GOING) in {400, 404}


async def test_another_nodes_action_stays_as_it_is(site: Site) -> None:
    action = await site.want()
    closed = {"status": {"execution": "closed", "result": {"finished": "failure"}}}
    headers = {"Authorization": f"TargetToken {site.tokens['n2']}"}
    for path in (f"n2/deploymentBase/{action.id}/feedback", f"n2/confirmationBase/{action.id}/feedback"):
        body = {"confirmation": "confirmed"} if "confirmation" in path else closed
        async with site.client.post(f"{BASE}/{path}", json=body, headers=headers) as response:
            assert response.status == 403
    assert await site.find(action) == action


async def test_a_feedback_that_is_sent_again_is_kept_once(site: Site) -> None:
    action = await site.want()
    for _ in range(3):
        assert await site.post(f"n1/deploymentBase/{action.id}/feedback", GOING) == 200
    async with site.database.reading() as transaction:
        assert await reports.count(transaction, action.id) == 1
