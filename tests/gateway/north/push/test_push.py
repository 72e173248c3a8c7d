"""What a master pushes reaches the nodes proved, and the master hears what really became of it."""

import asyncio
import base64
from pathlib import Path

import aiohttp
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.database.queries import nodes
from gateway.database.records import ActionOutcome, ActionState, Release
from tests.builders.bundles import archive
from tests.builders.north_site import bundle_bytes
from tests.builders.push_site import ASSIGNER, PATIENCE_S, Master, PushSite, push_site
from tests.peers import need
from update.digest import Digest, digest_of
from update.trust.verified import Provenance, TargetCustom, TargetInfo


async def ordered(site: PushSite, master: Master, *names: str) -> None:
    """Wait until the nodes are ordered what was pushed."""
    await master.until(lambda: "RUN" in master.statuses)
    for name in names:
        assert (await site.action(name)).assigner == ASSIGNER


async def until_ordered(site: PushSite, node: str, sha256: Digest) -> None:
    """Wait until a node is ordered this."""

    async def wanted() -> Digest | None:
        action = (await site.ground.fleet.progress.standing(node)).action
        return None if action is None else action.release.sha256

    async with asyncio.timeout(PATIENCE_S):
        while await wanted() != sha256:  # noqa: ASYNC110 - the upload's own task orders it
            await asyncio.sleep(0.01)


async def test_a_master_hears_of_success_when_every_node_was_verified(tmp_path: Path) -> None:
    content = bundle_bytes(tmp_path)
    async with push_site(tmp_path) as site, site.master() as master:
        await site.add_node("n1")
        await site.add_node("n2")
        assert await master.push(content) == (200, f"Ok, swupdate.swu - {len(content)} bytes.\n")
        await ordered(site, master, "n1", "n2")
        action = await site.action("n1")
        assert action.release == Release("plant", "swupdate.swu", digest_of(content), len(content), "1.2", Provenance.CMS)
        await site.succeed("n1")
        await site.say("n2", "proceeding", "none", "All Chunks Installed.")
        await master.until(lambda: "n2: All Chunks Installed." in master.texts)
        assert master.statuses == ["START", "RUN"]
        await site.succeed("n2")
        assert await master.end() == "SUCCESS"
        assert {"type": "step", "number": "2", "step": "1", "name": "n1", "percent": "100"} in master.told
        assert site.stored() == [f"{digest_of(content)}.swupdate.swu"]


async def test_the_failure_of_one_node_is_the_masters_with_its_reason_after_the_others_ended(tmp_path: Path) -> None:
    content = bundle_bytes(tmp_path)
    async with push_site(tmp_path) as site, site.master() as master:
        await site.add_node("n1")
        await site.add_node("n2")
        await master.push(content)
        await ordered(site, master)
        await site.say("n1", "closed", "failure", "cannot write")
        await master.until(lambda: "n1: failure: cannot write" in master.texts)
        assert "FAILURE" not in master.statuses
        assert (await site.action("n2")).state is ActionState.OPEN
        await site.succeed("n2")
        assert await master.end() == "FAILURE"
        assert "n1: failure: cannot write; it runs on n2 and stays there" in master.texts
        state = await site.upstream.state()
        assert (state.name, state.nodes) == (ASSIGNER, 2)
        assert "n1" in state.problem


async def test_all_or_none_lets_go_of_what_is_open_elsewhere_and_says_what_stays(tmp_path: Path) -> None:
    content = bundle_bytes(tmp_path)
    async with push_site(tmp_path, all_or_none=True) as site, site.master() as master:
        for name in ("n1", "n2", "n3", "n4"):
            await site.add_node(name)
        await master.push(content)
        await ordered(site, master)
        await site.succeed("n1")
        await site.say("n2", "proceeding", "none", "Installing Update Chunk Artifacts.")
        await site.say("n3", "closed", "failure", "cannot write")
        await master.until(lambda: "n4: cancelled" in master.texts)  # it was never told
        assert (await site.action("n2")).state is ActionState.CANCELLING
        assert "FAILURE" not in master.statuses
        await site.say("n2", "closed", "success", "cancellation acknowledged.")
        assert await master.end() == "FAILURE"
        assert "n2: cancelled" in master.texts
        assert "it runs on n1 and stays there" in master.texts


async def test_all_or_none_takes_back_who_had_confirmed_already(tmp_path: Path) -> None:
    before, content = bundle_bytes(tmp_path), bundle_bytes(tmp_path, version="1.3")
    async with push_site(tmp_path, all_or_none=True) as site:
        for name in ("n1", "n2", "n3"):
            await site.add_node(name)
        async with site.master() as master:
            await master.push(before)
            await ordered(site, master)
            for name in ("n1", "n2", "n3"):
                await site.succeed(name)
            assert await master.end() == "SUCCESS"
        async with site.master() as master:
            await master.push(content)
            await ordered(site, master)
            await site.succeed("n1")
            await site.succeed("n2")
            await site.say("n3", "closed", "failure", "cannot write")
            await master.until(lambda: "n3: failure: cannot write" in master.texts)
            await until_ordered(site, "n1", digest_of(before))
            await site.succeed("n1")
            await until_ordered(site, "n2", digest_of(before))
            await site.say("n2", "closed", "failure", "no downgrading")
            assert await master.end() == "FAILURE"
            assert "taken back on n1; it runs on n2 and stays there; n2 could not be taken back: failure" in master.texts


async def test_installed_and_never_verified_is_no_success(tmp_path: Path) -> None:
    content = bundle_bytes(tmp_path)
    async with push_site(tmp_path) as site, site.master() as master:
        await site.add_node("n1")
        await master.push(content)
        await ordered(site, master)
        await site.say("n1", "proceeding", "none", "All Chunks Installed.")
        site.clock.advance(7200)
        assert await site.ground.fleet.deadlines.sweep() == 1
        assert await master.end() == "FAILURE"
        assert "n1: unverified" in master.texts


async def test_without_a_result_in_time_the_orders_are_withdrawn(tmp_path: Path) -> None:
    content = bundle_bytes(tmp_path)
    async with push_site(tmp_path, result_within_s=1) as site, site.master() as master:
        await site.add_node("n1")
        await master.push(content)
        assert await master.end() == "FAILURE"
        assert "no result within 1 s" in master.texts
        contact = await site.ground.fleet.progress.standing("n1")
        assert contact.action is None


async def test_pushing_again_joins_what_is_under_way(tmp_path: Path) -> None:
    content = bundle_bytes(tmp_path)
    async with push_site(tmp_path) as site:
        await site.add_node("n1")
        async with site.master() as master:
            await master.push(content)
            await ordered(site, master)
            first = await site.action("n1")
        async with site.master() as impatient:
            assert (await impatient.push(content))[0] == 503
        await site.ground.fleet.takeover.withdraw("n1", ASSIGNER, first.source, "somebody said so")
    async with push_site(tmp_path) as site, site.master() as master:  # it restarts: nobody waits for what is open then
        await master.push(content)
        await ordered(site, master)
        first = await site.action("n1")
    async with push_site(tmp_path) as site, site.master() as master:
        await master.push(content)
        await ordered(site, master)
        assert (await site.action("n1")).id == first.id
        await site.succeed("n1")
        assert await master.end() == "SUCCESS"


async def test_what_a_node_runs_already_is_a_success_at_once(tmp_path: Path) -> None:
    content = bundle_bytes(tmp_path)
    async with push_site(tmp_path) as site, site.master() as master:
        await site.add_node("n1")
        await master.push(content)
        await ordered(site, master)
        await site.succeed("n1")
        assert await master.end() == "SUCCESS"
        async with site.master() as again:
            assert (await again.push(content))[0] == 200
            assert await again.end() == "SUCCESS"
            assert again.statuses == ["START", "RUN", "SUCCESS"]
            assert site.stored() == [f"{digest_of(content)}.swupdate.swu"]


async def test_what_a_repository_lists_is_that_target_and_its_provenance_is_tuf(tmp_path: Path) -> None:
    content = bundle_bytes(tmp_path)
    info = TargetInfo("plant", "os/1.2.swu", len(content), digest_of(content), TargetCustom(version="1.2"), "targets")
    async with push_site(tmp_path) as site, site.master() as master:
        site.ground.shelf.content["plant"].append(info)
        await site.add_node("n1", accepts=Provenance.TUF)
        await master.push(content)
        await ordered(site, master)
        release = (await site.action("n1")).release
        assert (release.path, release.provenance) == ("os/1.2.swu", Provenance.TUF)
        assert site.ground.store.open_verified(info).file.read_bytes() == content


async def test_a_node_that_demands_tuf_hears_nothing_of_a_bundle_that_only_its_signature_vouches_for(tmp_path: Path) -> None:
    content = bundle_bytes(tmp_path)
    async with push_site(tmp_path) as site, site.master() as master:
        await site.add_node("n1", accepts=Provenance.TUF)
        await master.push(content)
        assert await master.end() == "FAILURE"
        assert "trust.provenance" in master.texts
        assert (await site.ground.fleet.progress.standing("n1")).action is None


async def test_patterns_choose_among_the_listeners_own_nodes(tmp_path: Path) -> None:
    content = bundle_bytes(tmp_path)
    async with push_site(tmp_path, nodes=["press-*"]) as site, site.master() as master:
        for name in ("press-1", "oven-1", "press-2"):
            await site.add_node(name)
        async with site.database.writing() as transaction:
            await nodes.set_assigner(transaction, "press-2", "site")
        await master.push(content)
        await ordered(site, master, "press-1")
        for name in ("oven-1", "press-2"):
            assert (await site.ground.fleet.progress.standing(name)).action is None


async def test_an_upload_for_nobody_fails(tmp_path: Path) -> None:
    async with push_site(tmp_path) as site, site.master() as master:
        assert (await master.push(bundle_bytes(tmp_path)))[0] == 200
        assert await master.end() == "FAILURE"
        assert "no node is assigned to swuforward:line" in master.texts


def _altered(content: bytes) -> bytes:
    at = content.index(b"root file system")
    return content[:at] + b"R" + content[at + 1 :]


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (_altered, "bundle.hash"),
        (lambda content: content[: len(content) // 2], "bundle.container"),
        (lambda _: b"", "bundle.container"),
        (lambda _: archive([("sw-description", b"{}")]), "bundle.container"),
    ],
    ids=["a flipped byte", "half of it", "nothing", "no signature"],
)
async def test_what_cannot_be_proved_is_refused_by_name_and_no_node_hears_of_it(tmp_path: Path, spoil: object, code: str) -> None:
    assert callable(spoil)
    async with push_site(tmp_path) as site, site.master() as master:
        await site.add_node("n1")
        status, text = await master.push(spoil(bundle_bytes(tmp_path)))
        assert (status, code in text) == (422, True)
        assert await master.end() == "FAILURE"
        assert code in master.texts
        assert (await site.ground.fleet.progress.standing("n1")).action is None
        assert site.stored() == []
        assert (await master.push(bundle_bytes(tmp_path)))[0] == 200  # and the listener is free again


async def test_a_form_is_refused_by_name_before_it_is_read(tmp_path: Path) -> None:
    async with push_site(tmp_path, max_bundle_bytes=1000) as site, site.master() as master:
        await site.add_node("n1")

        async def chunked() -> object:
            yield b"x"

        text = {"Content-Type": "text/plain"}
        form = {"Content-Type": "multipart/form-data; boundary=x"}
        assert (await master.post(b"plain", headers=text))[0] == 400
        assert (await master.post(chunked(), headers=form))[0] == 400
        assert (await master.push(bytes(1000 + (64 << 10))))[0] == 413
        assert (await master.post(b"--x\r\n\r\nno file\r\n--x--\r\n", headers=form))[0] == 400
        assert (await master.post(b"", headers={"Content-Type": "multipart/form-data"}))[0] == 400
        assert site.stored() == []


async def test_a_master_that_stalls_is_given_up(tmp_path: Path) -> None:
    async with push_site(tmp_path, stalled_after_s=1) as site, site.master() as master:
        reader, writer = await asyncio.open_connection("127.0.0.1", site.upstream.door.port)
        head = "POST /upload HTTP/1.1\r\nHost: gateway\r\nContent-Length: 1000\r\n"
        head += "Content-Type: multipart/form-data; boundary=x\r\n\r\n--x\r\n"
        writer.write(head.encode())
        assert b"504" in await reader.readline()
        assert await master.end() == "FAILURE"
        assert "stalled" in master.texts
        writer.close()
        await writer.wait_closed()
        assert site.stored() == []


async def test_a_cut_connection_leaves_nothing_behind(tmp_path: Path) -> None:
    async with push_site(tmp_path) as site, site.master() as master:
        _, writer = await asyncio.open_connection("127.0.0.1", site.upstream.door.port)
        head = "POST /upload HTTP/1.1\r\nHost: gateway\r\nContent-Length: 100000\r\n"
        head += "Content-Type: multipart/form-data; boundary=x\r\n\r\n--x\r\n"
        head += 'Content-Disposition: form-data; name="swupdate-package"; filename="swupdate.swu"\r\n\r\n'
        writer.write(head.encode() + bytes(50_000))
        await writer.drain()
        await master.until(lambda: "START" in master.statuses)
        writer.close()
        await writer.wait_closed()
        assert await master.end() == "FAILURE"
        assert "ended after" in master.texts
        assert site.stored() == []


async def test_only_allowed_addresses_are_answered(tmp_path: Path) -> None:
    async with push_site(tmp_path, allowed=["127.0.0.2", "192.0.2.0/24"]) as site:
        with pytest.raises(aiohttp.WSServerHandshakeError, match="403"):
            async with site.master():
                need(present=True, reason="")
        async with site.master("127.0.0.2") as master:
            await site.add_node("n1")
            assert (await master.push(bundle_bytes(tmp_path)))[0] == 200


async def test_where_credentials_are_configured_an_upload_shows_them(tmp_path: Path) -> None:
    (tmp_path / "credentials").write_text("line:secret\n")
    content = bundle_bytes(tmp_path)
    async with push_site(tmp_path, credentials=tmp_path / "credentials") as site, site.master() as master:
        await site.add_node("n1")
        for wrong in ("", "Basic", "Basic !", "Bearer x", "Basic " + base64.b64encode(b"line:secre").decode()):
            status, text = await master.push(content, headers={"Authorization": wrong} if wrong else {})
            assert (status, "wire.unauthorized" in text) == (401, True)
        assert set(master.statuses) == {"FAILURE"}
        assert (await master.push(content, headers={"Authorization": "Basic " + base64.b64encode(b"line:secret").decode()}))[
            0
        ] == 200


async def test_one_master_hears_nothing_of_anothers_upload(tmp_path: Path) -> None:
    content = bundle_bytes(tmp_path)
    async with push_site(tmp_path) as site, site.master() as master, site.master("127.0.0.2") as other:
        await site.add_node("n1")
        await master.push(content)
        await ordered(site, master)
        assert (await other.push(content))[0] == 503
        assert await other.end() == "FAILURE"
        await site.succeed("n1")
        assert await master.end() == "SUCCESS"
        assert other.statuses == ["FAILURE"]
        assert master.statuses == ["START", "RUN", "SUCCESS"]


async def test_the_websocket_that_follows_a_refused_upload_hears_of_it_and_the_one_under_way_does_not(tmp_path: Path) -> None:
    content = bundle_bytes(tmp_path)
    async with push_site(tmp_path) as site, site.master() as master:
        await site.add_node("n1")
        await master.push(content)
        await ordered(site, master)
        assert (await master.push(content))[0] == 503  # as a second process at the same address, whose websocket comes now
        async with site.master() as second:
            assert await second.end() == "FAILURE"
            assert "usage.busy" in second.texts
        async with site.master() as third:
            await third.until(lambda: third.statuses == ["RUN"])
        await site.succeed("n1")
        assert await master.end() == "SUCCESS"
        assert (await master.push(b""))[0] == 422
        await master.push(content)
        async with site.master() as fresh:  # of an upload that was taken: what was refused before is forgotten
            assert await fresh.end() == "SUCCESS"


async def test_who_connects_in_the_middle_is_told_where_the_upload_stands_and_never_of_an_end_before(tmp_path: Path) -> None:
    content = bundle_bytes(tmp_path)
    async with push_site(tmp_path) as site, site.master() as master:
        await site.add_node("n1")
        await master.push(content)
        await ordered(site, master)
        async with site.master() as late:
            await late.until(lambda: late.statuses == ["RUN"])
            await site.succeed("n1")
            assert await late.end() == "SUCCESS"
        async with site.master() as after:
            await after.push(b"nothing")
            assert await after.end() == "FAILURE"
            assert after.statuses == ["START", "FAILURE"]


async def test_what_is_overridden_by_hand_is_a_failure_that_says_so(tmp_path: Path) -> None:
    content = bundle_bytes(tmp_path)
    async with push_site(tmp_path) as site, site.master() as master:
        await site.add_node("n1")
        await master.push(content)
        await ordered(site, master)
        source = (await site.action("n1")).source
        await site.ground.fleet.takeover.withdraw("n1", ASSIGNER, source, "the plant needs another version")
        assert await master.end() == "FAILURE"
        assert f"n1: {ActionOutcome.CANCELLED}: the plant needs another version" in master.texts


async def test_nothing_else_is_answered(tmp_path: Path) -> None:
    async with push_site(tmp_path) as site, aiohttp.ClientSession() as session:
        for method, path, status in (("GET", "/", 404), ("GET", "/targets/x", 404), ("PUT", "/upload", 405), ("POST", "/", 405)):
            async with session.request(method, site.url + path) as answer:
                assert answer.status == status
                assert "code" in await answer.json()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    body=st.binary(max_size=400)
    | st.lists(st.sampled_from([b"--x", b"--x--", b"\r\n", b":", b'filename="a.swu"', b"\xff"])).map(b"".join)
)
def test_no_form_breaks_the_listener(tmp_path: Path, body: bytes) -> None:
    async def push() -> None:
        folder = tmp_path / digest_of(body)[:16]
        folder.mkdir(exist_ok=True)
        async with push_site(folder, stalled_after_s=5) as site, site.master() as master:
            headers = {"Content-Type": "multipart/form-data; boundary=x"}
            status, text = await master.post(body, headers=headers)
            assert status >= 400
            assert '"code"' in text
            assert "Traceback" not in text
            assert '"error"' not in text
            assert await master.end() == "FAILURE"
            assert site.stored() == []

    asyncio.run(push())
