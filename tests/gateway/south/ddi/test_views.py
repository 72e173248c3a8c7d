"""What each kind of client is shown: the traps that stock clients fall into, one test each."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from gateway.database.records import (
    SITE,
    Action,
    ActionState,
    ClientKind,
    Commit,
    Digests,
    Handling,
    Node,
    Release,
    Running,
    Terms,
)
from gateway.fleet.windows import UNTIL_TOLD
from gateway.south.ddi.views import Place, Shown, artifact, deployment, links, needs_sums
from update.digest import digest_of
from update.wire import ddi

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
RELEASE = Release("plant", "os/board-1.2.swu", digest_of(b"os"), 2**40, "1.2")
SUMS = Digests(RELEASE.sha256, "1" * 40, "2" * 32)
OPEN = Action(
    2**31 - 1,
    "n1",
    RELEASE,
    1,
    Commit.COMMIT,
    ActionState.OPEN,
    SITE,
    "uid 0",
    "",
    NOW,
    offered=NOW,
    superseded_by=None,
    end=None,
)
HERE = Place("https://gateway:8443", "n1")
STOCK = [ClientKind.SWUPDATE, ClientKind.RAUC, ClientKind.ZEPHYR]


def node(kind: ClientKind) -> Node:
    return Node("n1", kind, SITE, digest_of(b"n1"), None, {}, False, Running(), 1, NOW, NOW)


def shown(kind: ClientKind, action: Action = OPEN, release: Release | None = RELEASE) -> set[str]:
    return set(links(HERE, node(kind), action, release, NOW))


@pytest.mark.parametrize("terms", [Terms(Handling.DOWNLOAD_ONLY), Terms(opens=UNTIL_TOLD), Terms(closes=NOW)])
def test_swupdate_is_never_told_to_skip(terms: Terms) -> None:
    waiting = replace(OPEN, terms=terms)
    assert shown(ClientKind.SWUPDATE, waiting) == set()
    for kind in (ClientKind.AGENT, ClientKind.RAUC):
        assert shown(kind, waiting) == {"deployment_base"}
        assert deployment(Shown(waiting, RELEASE, kind, HERE, SUMS), NOW).update is ddi.Handling.SKIP


def test_swupdate_keeps_its_link_until_its_result_is_in() -> None:
    assert shown(ClientKind.SWUPDATE, replace(OPEN, installed=NOW)) == {"deployment_base"}


@pytest.mark.parametrize("kind", [ClientKind.RAUC, ClientKind.ZEPHYR])
def test_a_client_that_closed_its_action_before_its_restart_is_not_shown_it_again(kind: ClientKind) -> None:
    assert shown(kind) == {"deployment_base"}
    assert shown(kind, replace(OPEN, installed=NOW)) == set()


@pytest.mark.parametrize("kind", ClientKind)
def test_every_client_gets_one_chunk_with_one_artifact(kind: ClientKind) -> None:
    body = deployment(Shown(OPEN, RELEASE, kind, HERE, SUMS), NOW)
    (chunk,) = body.chunks
    (file,) = chunk.artifacts
    assert (file.filename, file.size) == ("board-1.2.swu", 2**40)
    assert '"size":1099511627776' in ddi.encode(body).decode(), "a number, not a text"


@pytest.mark.parametrize("kind", STOCK)
def test_stock_clients_get_every_digest_and_a_link_where_their_token_is_good(kind: ClientKind) -> None:
    assert needs_sums(kind)
    file = deployment(Shown(OPEN, RELEASE, kind, HERE, SUMS), NOW).chunks[0].artifacts[0]
    assert (file.hashes.sha1, file.hashes.md5, file.hashes.sha256) == (SUMS.sha1, SUMS.md5, RELEASE.sha256)
    link = file.links.download_http if kind is ClientKind.ZEPHYR else file.links.download
    assert link is not None
    assert link.href.startswith("https://gateway:8443/DEFAULT/controller/v1/n1/softwaremodules/")


@pytest.mark.parametrize("kind", STOCK)
def test_without_tls_only_the_plain_links_are_there(kind: ClientKind) -> None:
    found = artifact(Shown(OPEN, RELEASE, kind, Place("http://gateway:8080", "n1"), SUMS)).links
    assert (found.download, found.md5sum) == (None, None)
    assert found.download_http is not None
    assert found.md5sum_http is not None


def test_our_agent_gets_its_assignment_and_the_repositorys_own_path() -> None:
    chunk = deployment(Shown(OPEN, RELEASE, ClientKind.AGENT, HERE), NOW).chunks[0]
    assert {entry.key for entry in chunk.metadata or ()} >= {"fieldrelay.target", "fieldrelay.sha256", "fieldrelay.fence"}
    link = chunk.artifacts[0].links.download
    assert link is not None
    assert link.href == f"https://gateway:8443/repositories/plant/targets/os/{RELEASE.sha256}.board-1.2.swu"
    for kind in STOCK:
        assert deployment(Shown(OPEN, RELEASE, kind, HERE, SUMS), NOW).chunks[0].metadata is None


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        (ActionState.OPEN, {"deployment_base"}),
        (ActionState.CANCELLING, {"cancel_action"}),
        (ActionState.WAITING, {"confirmation_base"}),
    ],
)
def test_there_is_one_link_at_a_time(state: ActionState, expected: set[str]) -> None:
    for kind in ClientKind:
        assert shown(kind, replace(OPEN, state=state)) == expected


def test_what_cannot_be_had_now_is_not_linked_and_can_still_be_cancelled() -> None:
    assert shown(ClientKind.SWUPDATE, OPEN, None) == set()
    assert shown(ClientKind.SWUPDATE, replace(OPEN, state=ActionState.CANCELLING), None) == {"cancel_action"}


def test_attributes_are_asked_for_beside_everything() -> None:
    asked = replace(node(ClientKind.AGENT), attributes_wanted=True)
    assert set(links(HERE, asked, OPEN, RELEASE, NOW)) == {"deployment_base", "config_data"}
    assert set(links(HERE, asked, None, None, NOW)) == {"config_data"}


def test_the_link_changes_with_what_may_be_done() -> None:
    timed = replace(OPEN, terms=Terms(Handling.TIME_FORCED, forced_at=NOW + timedelta(hours=1)))

    def link(action: Action, moment: datetime = NOW) -> str:
        return links(HERE, node(ClientKind.RAUC), action, RELEASE, moment)["deployment_base"].href

    different = {
        link(OPEN),
        link(replace(OPEN, fence=2)),
        link(replace(OPEN, commit=Commit.HOLD)),
        link(replace(OPEN, terms=Terms(Handling.DOWNLOAD_ONLY))),
        link(replace(OPEN, terms=Terms(opens=NOW))),
        link(timed),
    }
    assert len(different) == 6
    assert link(timed, NOW + timedelta(hours=1)) == link(OPEN)
    assert link(OPEN).partition("?c=")[2].isdecimal()


@pytest.mark.parametrize("action_id", [1, 2**31 - 1])
def test_action_ids_fit_a_c_int(action_id: int) -> None:
    link = links(HERE, node(ClientKind.SWUPDATE), replace(OPEN, id=action_id), RELEASE, NOW)["deployment_base"].href
    assert 0 < int(link.partition("deploymentBase/")[2].partition("?")[0]) < 2**31
