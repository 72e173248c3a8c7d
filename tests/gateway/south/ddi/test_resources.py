import io
import json
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, replace

import pytest
from aiohttp import ClientResponse, web
from aiohttp.test_utils import TestClient, TestServer
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.database.engine import Database
from gateway.database.queries import actions, nodes, reports
from gateway.database.records import Action, ActionOutcome, ActionState, ClientKind, Digests, Node, Release
from gateway.edge import MAX_BODY_BYTES
from gateway.fleet.intervals import Intervals
from gateway.fleet.nodes import Assigner, Order
from gateway.fleet.progress import Progress
from gateway.south.ddi.resources import Ddi
from gateway.south.identity import Identity
from gateway.south.routes import south_application
from tests.builders.fleet import Clock, Shelf, bundle, register, reports_about
from tests.builders.keys import make_pki
from update.digest import digest_of
from update.identity import Hardware
from update.wire.attributes import HARDWARE, VERSION
from update.wire.boot_proof import BootProof
from update.wire.ddi import MAX_FEEDBACK_BYTES, Execution, Feedback, Finished, Report, Result, Status, encode
from update.wire.ddi_client import Cancellation, DdiClient, Deployment

BASE = "/DEFAULT/controller/v1"
NODE_HEADER = "X-Test-Node"


def by_header(request: web.Request) -> Identity | None:
    """Stands for the TLS handshake: tests of that are in test_routes.py and test_app.py."""
    node = request.headers.get(NODE_HEADER)
    certificate = make_pki().signers[0].certificate.public_bytes(Encoding.DER)
    return None if node is None else Identity(node, digest_of(node.encode()), certificate)


@dataclass(slots=True)
class Form:
    """In which form releases are offered: as they were ordered, or as the test says."""

    chosen: Callable[[Node, Action], Release | None] = lambda _node, action: action.release

    async def offered(self, node: Node, action: Action) -> Release | None:
        return self.chosen(node, action)


@dataclass(slots=True)
class Site:
    """The south side over plain HTTP, and who is asking."""

    client: TestClient[web.Request, web.Application]
    database: Database
    assigner: Assigner
    form: "Form"

    async def order(self, release: str = "1.2", node: str = "n1") -> Action:
        (made,) = await self.assigner.assign(Order(release=release, nodes=(node,), requested_by="uid 0"))
        assert made.action is not None
        return made.action

    async def ask(self, method: str, path: str, body: bytes = b"", *, node: str = "n1") -> tuple[int, dict[str, object]]:
        async with self.client.request(method, path, data=io.BytesIO(body), headers={NODE_HEADER: node}) as response:
            return response.status, await _json(response)

    def agent(self, node: str = "n1") -> DdiClient:
        self.client.session.headers[NODE_HEADER] = node
        return DdiClient(self.client.session, str(self.client.make_url("")).rstrip("/"), node)

    async def find(self, action: Action) -> Action:
        async with self.database.reading() as transaction:
            found = await actions.find(transaction, action.id)
        assert found is not None
        return found

    async def reports(self, action: Action) -> int:
        async with self.database.reading() as transaction:
            return await reports.count(transaction, action.id)


async def _json(response: ClientResponse) -> dict[str, object]:
    text = await response.text()
    value: dict[str, object] = json.loads(text) if text else {}
    return value


@pytest.fixture
async def site(database: Database, shelf: Shelf, clock: Clock) -> AsyncIterator[Site]:
    await register(database, clock, "n1", "n2")
    form = Form()
    part = Ddi(Progress(database, clock), intervals=Intervals(90), sums=NoSums(), now=clock, offering=form)
    async with TestClient(TestServer(south_application([part], open_to_all=[], identify=by_header))) as client:
        yield Site(client, database, Assigner(database, shelf, clock), form)


class NoSums:
    """Nobody here compares more than SHA-256."""

    async def of(self, release: Release) -> Digests:
        return Digests(release.sha256, "1" * 40, "2" * 32)


def feedback(execution: Execution, finished: Finished = Finished.NONE, *, own: bool = True, **words: str) -> Feedback:
    report = Report(report=uuid.uuid4(), sequence=1, **words) if own else None  # type: ignore[arg-type]  # texts only
    return Feedback(status=Status(execution=execution, result=Result(finished=finished)), fieldrelay=report)


def confirmed(action: Action, changed: Mapping[str, object] | None = None) -> Feedback:
    """The last word of our agent n1, proved; `changed` after it was signed."""
    proof = BootProof("n1", action.id, action.fence, action.release.version, "b", "", "boot-2")
    key = make_pki().signers[0].key
    assert isinstance(key, EllipticCurvePrivateKey)
    said = Report(
        report=uuid.uuid4(),
        sequence=1,
        fence=action.fence,
        outcome="confirmed",
        version=action.release.version,
        slot="b",
        boot_id="boot-2",
        proof=proof.sign(key),
    )
    status = Status(execution=Execution.CLOSED, result=Result(finished=Finished.SUCCESS))
    return Feedback(status=status, fieldrelay=said.model_copy(update=dict(changed or {})))


@pytest.mark.parametrize(
    "changed",
    [
        {"proof": ""},
        {"proof": "!"},
        {"proof": "A" * 96},
        {"boot_id": "boot-3"},
        {"slot": "c"},
        {"version": "1.3"},
        {"fence": 7},
        {"slot_sha256": "0" * 64},
    ],
    ids=" ".join,
)
async def test_what_the_nodes_key_does_not_vouch_for_is_installed_and_no_more(site: Site, changed: dict[str, object]) -> None:
    action, agent = await site.order(), site.agent()
    await agent.feedback(action.id, confirmed(action, changed))
    found = await site.find(action)
    assert (found.state, found.installed is not None) == (ActionState.OPEN, True)


@pytest.mark.parametrize(("version", "fence"), [("1.1", 1), ("1.2", 2)])
async def test_a_proof_of_another_order_proves_nothing_about_this_one(site: Site, version: str, fence: int) -> None:
    action, agent = await site.order(), site.agent()
    other = replace(action, release=replace(action.release, version=version), fence=fence)
    await agent.feedback(action.id, confirmed(other))
    assert (await site.find(action)).state is ActionState.OPEN


async def test_a_node_that_nothing_is_wanted_of_is_told_when_to_come_back(site: Site) -> None:
    assert await site.ask("GET", f"{BASE}/n1") == (200, {"config": {"polling": {"sleep": "00:01:30"}}, "_links": {}})


@pytest.mark.parametrize(
    ("agent", "kind"),
    [
        ("libcurl-agent/1.0", ClientKind.SWUPDATE),
        ("rauc-hawkbit-c-agent/1.0", ClientKind.RAUC),
        ("fieldrelay", ClientKind.AGENT),
    ],
)
async def test_an_unknown_node_with_a_certificate_is_registered_and_asked_what_it_is(
    site: Site, agent: str, kind: ClientKind
) -> None:
    headers = {NODE_HEADER: "n9", "User-Agent": agent}
    async with site.client.get(f"{BASE}/n9", headers=headers) as response:
        links = (await response.json())["_links"]
    assert set(links) == {"configData"}
    async with site.database.reading() as transaction:
        node = await nodes.find(transaction, "n9")
    assert node is not None
    assert (node.kind, node.fingerprint, node.hardware) == (kind, digest_of(b"n9"), None)


async def test_our_own_client_sees_an_order_through(site: Site) -> None:
    action, agent = await site.order(), site.agent()
    poll = await agent.poll()
    assert isinstance(poll.task, Deployment)
    assert poll.task.assignment is not None
    target = bundle("1.2", "board:1")
    offered = poll.task.assignment
    assert (offered.repository, offered.target, offered.sha256) == ("plant", target.path, target.sha256)
    assert (offered.action, offered.fence, offered.commit) == (action.id, 1, "commit")
    (chunk,) = poll.task.document.deployment.chunks
    (artifact,) = chunk.artifacts
    assert (artifact.filename, artifact.size, artifact.hashes.sha256) == ("board1-1.2.swu", 1000, target.sha256)
    assert artifact.links.download is not None
    assert artifact.links.download.href == str(site.client.make_url(f"/repositories/plant/{target.wire_path}"))
    await agent.feedback(action.id, feedback(Execution.PROCEEDING))
    await agent.feedback(action.id, confirmed(action))
    poll = await agent.poll()
    assert (poll.task, poll.attributes_wanted) == (None, True)
    await agent.config_data({HARDWARE: "board:2", VERSION: "1.2"})
    assert not (await agent.poll()).attributes_wanted
    async with site.database.reading() as transaction:
        node = await nodes.find(transaction, "n1")
    assert node is not None
    assert (node.hardware, node.running.version) == (Hardware("board", "2"), "1.2")


async def test_our_own_client_lets_go_of_a_superseded_action_before_it_gets_the_next(site: Site) -> None:
    agent = site.agent()
    old = await site.order("1.1")
    await agent.poll()
    new = await site.order("1.2")
    poll = await agent.poll()
    assert poll.task == Cancellation(old.id, str(old.id))
    await agent.feedback(old.id, feedback(Execution.CLOSED, Finished.SUCCESS), cancel=True)
    poll = await agent.poll()
    assert isinstance(poll.task, Deployment)
    assert poll.task.assignment is not None
    assert (poll.task.action, poll.task.assignment.fence) == (new.id, 2)
    assert (await site.find(old)).superseded_by == new.id


async def test_the_link_changes_with_the_action_and_only_with_it(site: Site) -> None:
    async def link() -> object:
        _, root = await site.ask("GET", f"{BASE}/n1")
        links = root["_links"]
        assert isinstance(links, dict)
        return links["deploymentBase"]["href"]

    await site.order("1.1")
    first = await link()
    assert await link() == first
    await site.order("1.2")
    assert str(await link()).rpartition("?c=")[2] != str(first).rpartition("?c=")[2]


async def link_of(site: Site) -> str | None:
    _, root = await site.ask("GET", f"{BASE}/n1")
    links = root["_links"]
    assert isinstance(links, dict)
    return str(links["deploymentBase"]["href"]) if "deploymentBase" in links else None


async def test_a_release_is_offered_in_the_form_that_is_chosen_and_the_link_changes_with_it(site: Site) -> None:
    action = await site.order()
    before = await link_of(site)
    other = replace(action.release, path="os/delta.swu", sha256=digest_of(b"delta"), length=7)
    site.form.chosen = lambda node, asked: other if (node.id, asked.id) == ("n1", action.id) else None
    assert await link_of(site) != before
    poll = await site.agent().poll()
    assert isinstance(poll.task, Deployment)
    assert poll.task.assignment is not None
    assert (poll.task.assignment.target, poll.task.assignment.sha256) == (other.path, other.sha256)
    (artifact,) = poll.task.document.deployment.chunks[0].artifacts
    assert (artifact.filename, artifact.size, artifact.hashes.sha256) == ("delta.swu", 7, other.sha256)


async def test_while_nothing_can_be_completed_there_is_no_link_but_for_who_was_told(site: Site) -> None:
    action = await site.order()
    path = f"{BASE}/n1/deploymentBase/{action.id}"
    site.form.chosen = lambda _node, _action: None
    assert await link_of(site) is None
    assert (await site.ask("GET", path))[0] == 404
    assert (await site.find(action)).offered is None
    site.form.chosen = Form().chosen
    assert (await site.ask("GET", path))[0] == 200
    site.form.chosen = lambda _node, _action: None
    assert await link_of(site) is not None
    assert (await site.ask("GET", path))[0] == 200


async def test_a_feedback_sent_twice_counts_once_and_is_answered_alike(site: Site) -> None:
    action = await site.order()
    path = f"{BASE}/n1/deploymentBase/{action.id}/feedback"
    for message in (feedback(Execution.PROCEEDING), feedback(Execution.PROCEEDING, own=False)):
        for _ in range(3):
            assert (await site.ask("POST", path, encode(message)))[0] == 200
    assert await site.reports(action) == 2


async def test_a_feedback_that_comes_too_late_is_answered_and_kept(site: Site) -> None:
    action = await site.order()
    path = f"{BASE}/n1/deploymentBase/{action.id}/feedback"
    for finished in (Finished.FAILURE, Finished.SUCCESS):
        assert (await site.ask("POST", path, encode(feedback(Execution.CLOSED, finished))))[0] == 200
    closed = await site.find(action)
    assert closed.end is not None
    assert (closed.end.outcome, await site.reports(action)) == (ActionOutcome.FAILURE, 2)


async def test_the_body_of_our_own_report_is_kept_whole(site: Site) -> None:
    action = await site.order()
    message = feedback(Execution.CLOSED, Finished.FAILURE, outcome="rolled-back", code="device.health", message="no answer")
    await site.ask("POST", f"{BASE}/n1/deploymentBase/{action.id}/feedback", encode(message))
    async with site.database.reading() as transaction:
        (kept,) = await reports_about(transaction, action.id)
    assert message.fieldrelay is not None
    assert kept.body == message.fieldrelay.model_dump(mode="json")
    assert kept.report == str(message.fieldrelay.report)
    end = (await site.find(action)).end
    assert end is not None
    assert (end.outcome, end.code, end.message) == (ActionOutcome.ROLLED_BACK, "device.health", "no answer")


RESOURCES = [
    ("GET", "{base}/n1"),
    ("PUT", "{base}/n1/configData"),
    ("GET", "{base}/n1/deploymentBase/{action}"),
    ("POST", "{base}/n1/deploymentBase/{action}/feedback"),
    ("GET", "{base}/n1/cancelAction/{action}"),
    ("POST", "{base}/n1/cancelAction/{action}/feedback"),
]


@pytest.mark.parametrize(("method", "path"), RESOURCES)
async def test_a_node_sees_no_resource_of_another(site: Site, method: str, path: str) -> None:
    action = await site.order()
    body = encode(feedback(Execution.CLOSED, Finished.SUCCESS))
    status, answer = await site.ask(method, path.format(base=BASE, action=action.id), body, node="n2")
    assert (status, answer["code"]) == (403, "wire.forbidden")
    assert await site.find(action) == action


@pytest.mark.parametrize(("method", "path"), RESOURCES[2:])
async def test_a_node_sees_no_action_of_another_below_its_own_name(site: Site, method: str, path: str) -> None:
    action = await site.order()
    body = encode(feedback(Execution.CLOSED, Finished.SUCCESS))
    own = path.replace("/n1", "/n2").format(base=BASE, action=action.id)
    status, answer = await site.ask(method, own, body, node="n2")
    assert (status, answer["code"]) == (403, "wire.forbidden")
    assert await site.find(action) == action
    assert await site.reports(action) == 0


@pytest.mark.parametrize(("method", "path"), RESOURCES)
async def test_nobody_without_a_certificate_sees_anything(site: Site, method: str, path: str) -> None:
    async with site.client.request(method, path.format(base=BASE, action=1)) as response:
        assert (response.status, (await response.json())["code"]) == (401, "wire.unauthorized")


@pytest.mark.parametrize("action", ["0", "-1", "2147483648", "3000000000", "1e3", "x", "%00", "01", "9" * 400])
@pytest.mark.parametrize(("method", "path"), RESOURCES[2:])
async def test_action_ids_out_of_range_are_refused_by_name(site: Site, method: str, path: str, action: str) -> None:
    body = encode(feedback(Execution.CLOSED, Finished.SUCCESS))
    status, answer = await site.ask(method, path.format(base=BASE, action=action), body)
    assert (status, answer["code"]) == (400, "wire.protocol")


@pytest.mark.parametrize(("method", "path"), RESOURCES[2:])
async def test_an_action_that_never_was_is_not_found(site: Site, method: str, path: str) -> None:
    body = encode(feedback(Execution.CLOSED, Finished.SUCCESS))
    status, answer = await site.ask(method, path.format(base=BASE, action=2**31 - 1), body)
    assert (status, answer["code"]) == (404, "wire.not-found")


MALFORMED = [
    b"",
    b"{",
    b"null",
    b"[]",
    b"\xff\xfe",
    b'{"status": {}}',
    b'{"status": {"execution": "closed"}}',
    b'{"status": {"execution": "closed", "result": {}}}',
    b'{"status": {"execution": "finished", "result": {"finished": "success"}}}',
    b'{"status": {"execution": "closed", "result": {"finished": "success"}, "details": "text"}}',
    b'{"status": {"execution": "closed", "result": {"finished": "success"}}, "fieldrelay": {"report": "x", "sequence": 1}}',
    b'{"status": {"execution": "closed", "result": {"finished": "success"}}, "fieldrelay": {"sequence": -1}}',
    b'{"status": ' + b"[" * 10_000,
]


@pytest.mark.parametrize("body", MALFORMED)
@pytest.mark.parametrize("resource", ["deploymentBase", "cancelAction"])
async def test_a_malformed_feedback_is_refused_and_changes_nothing(site: Site, resource: str, body: bytes) -> None:
    action = await site.order()
    status, answer = await site.ask("POST", f"{BASE}/n1/{resource}/{action.id}/feedback", body)
    assert (status, answer["code"]) == (400, "wire.protocol")
    assert await site.find(action) == action
    assert await site.reports(action) == 0


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b'{"data": []}',
        b'{"data": {"a": {}}}',
        b'{"data": {}, "mode": "forget"}',
        b'{"data": {"fieldrelay.hardware": "board"}}',
        json.dumps({"data": {f"a{number}": "" for number in range(101)}}).encode(),
    ],
)
async def test_malformed_attributes_are_refused_and_change_nothing(site: Site, body: bytes) -> None:
    async with site.database.reading() as transaction:
        before = await nodes.find(transaction, "n1")
    status, answer = await site.ask("PUT", f"{BASE}/n1/configData", body)
    assert (status, answer["code"]) == (400, "wire.protocol")
    async with site.database.reading() as transaction:
        assert await nodes.find(transaction, "n1") == before


@pytest.mark.parametrize("size", [MAX_FEEDBACK_BYTES + 1, MAX_BODY_BYTES + 1, 10_000_000])
async def test_a_message_above_the_limit_is_refused_and_changes_nothing(site: Site, size: int) -> None:
    action = await site.order()
    whole = encode(feedback(Execution.CLOSED, Finished.SUCCESS))
    status, answer = await site.ask("POST", f"{BASE}/n1/deploymentBase/{action.id}/feedback", whole + b" " * (size - len(whole)))
    assert (status, answer["code"]) == (413, "wire.too-large")
    assert await site.find(action) == action


async def test_a_compressed_message_is_refused_and_never_unpacked(site: Site) -> None:
    action = await site.order()
    headers = {NODE_HEADER: "n1", "Content-Encoding": "gzip"}
    path = f"{BASE}/n1/deploymentBase/{action.id}/feedback"
    async with site.client.post(path, data=b"\x1f\x8b not gzip", headers=headers, compress=False) as response:
        assert response.status == 400
    assert await site.reports(action) == 0


@pytest.mark.parametrize("host", ["a b", "x/../y", "[::1", "evil\\", "h:port", "a" * 300])
async def test_a_malformed_host_gets_no_links(site: Site, host: str) -> None:
    async with site.client.get(f"{BASE}/n1", headers={NODE_HEADER: "n1", "Host": host}) as response:
        assert response.status == 400


async def test_an_action_that_waits_behind_a_cancellation_is_not_given_out(site: Site) -> None:
    old = await site.order("1.1")
    await site.agent().poll()
    new = await site.order("1.2")
    for action in (old, new):
        status, answer = await site.ask("GET", f"{BASE}/n1/deploymentBase/{action.id}")
        assert (status, answer["code"]) == (404, "wire.not-found")
    assert (await site.find(new)).offered is None
    assert (await site.find(old)).state is ActionState.CANCELLING


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    body=st.binary(max_size=200)
    | st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=10),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["status", "result", "execution"]), inner),
        max_leaves=10,
    ).map(lambda value: json.dumps(value).encode())
)
async def test_hostile_bodies_meet_only_named_refusals(hostile: Callable[[bytes], Awaitable[int]], body: bytes) -> None:
    assert await hostile(body) in {200, 400}


@pytest.fixture
async def hostile(site: Site) -> Callable[[bytes], Awaitable[int]]:
    action = await site.order()

    async def send(body: bytes) -> int:
        status, _ = await site.ask("POST", f"{BASE}/n1/deploymentBase/{action.id}/feedback", body)
        return status

    return send
