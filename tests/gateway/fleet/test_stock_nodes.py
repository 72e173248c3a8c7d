"""What stock nodes need beside actions: tokens of their own, confirmations, digests."""

import hashlib
from pathlib import Path

import pytest

from gateway.database.engine import Database
from gateway.database.queries import actions, nodes
from gateway.database.records import Action, ActionState, ClientKind, Release
from gateway.fleet.accounts import Accounts
from gateway.fleet.confirmations import Confirmations
from gateway.fleet.digests import ContentDigests
from gateway.fleet.issuing import Wish
from gateway.fleet.takeover import Takeover
from gateway.fleet.telling import NOBODY
from tests.builders.fleet import Clock, register, reports_about
from update.digest import digest_of
from update.errors import ConfigurationError, CorruptError, ForbiddenError, NotFoundError, NotStoredError, UnknownNodeError
from update.trust.verified import Provenance

COMPANY = "hawkbit:company"


@pytest.fixture
def accounts(database: Database, clock: Clock) -> Accounts:
    return Accounts(database, clock)


@pytest.fixture
async def waiting(database: Database, clock: Clock) -> Action:
    """An action of n1 that waits for its confirmation."""
    await register(database, clock, "n1", "n2")
    async with database.writing() as transaction:
        await nodes.set_assigner(transaction, "n1", COMPANY)
    release = Release("plant", "os.swu", digest_of(b"os"), 10, "1.2")
    taken = await Takeover(database, clock, NOBODY).take("n1", Wish(release, COMPANY, COMPANY, source="17", confirm=True))
    assert taken.action is not None
    return taken.action


@pytest.fixture
def confirmations(database: Database, clock: Clock) -> Confirmations:
    return Confirmations(database, clock, NOBODY)


async def state(database: Database, action: Action) -> ActionState:
    async with database.reading() as transaction:
        found = await actions.find(transaction, action.id)
    assert found is not None
    return found.state


async def test_a_token_opens_its_own_node(accounts: Accounts) -> None:
    first, second = await accounts.give_token("n1", ClientKind.SWUPDATE), await accounts.give_token("n2", ClientKind.RAUC)
    assert 32 <= len(first) <= 128
    assert first.isalnum()
    for token, name, kind in ((first, "n1", ClientKind.SWUPDATE), (second, "n2", ClientKind.RAUC)):
        node = await accounts.node_of(token)
        assert node is not None
        assert (node.id, node.kind, node.kind_fixed, node.accepts) == (name, kind, True, Provenance.CMS)


async def test_a_new_token_takes_the_old_ones_place(accounts: Accounts) -> None:
    old, new = [await accounts.give_token("n1", ClientKind.SWUPDATE) for _ in range(2)]
    assert await accounts.node_of(old) is None
    assert await accounts.node_of(new) is not None
    await accounts.take_token("n1")
    assert await accounts.node_of(new) is None


@pytest.mark.parametrize("token", ["", "short", "ä" * 32, "a b", "'" * 40, "a" * 129, "f" * 64])
async def test_what_is_no_token_opens_nothing(accounts: Accounts, token: str) -> None:
    await accounts.give_token("n1", ClientKind.SWUPDATE)
    assert await accounts.node_of(token) is None


async def test_a_name_that_no_node_can_have_gets_no_token(accounts: Accounts) -> None:
    with pytest.raises(ConfigurationError):
        await accounts.give_token("../n1", ClientKind.SWUPDATE)


async def test_only_a_node_that_was_here_loses_its_token(accounts: Accounts) -> None:
    with pytest.raises(UnknownNodeError, match="n9"):
        await accounts.take_token("n9")


async def test_an_action_opens_when_somebody_agrees(database: Database, confirmations: Confirmations, waiting: Action) -> None:
    assert (await confirmations.standing("n1"))[1] == waiting
    await confirmations.answer("n1", waiting.id, confirmed=False, details=("the line runs",))
    assert await state(database, waiting) is ActionState.WAITING
    await confirmations.answer("n1", waiting.id, confirmed=True, details=())
    assert await state(database, waiting) is ActionState.OPEN
    async with database.reading() as transaction:
        said = await reports_about(transaction, waiting.id)
    assert [report.details for report in said] == [("denied at the node", "the line runs"), ("confirmed at the node",)]


async def test_agreeing_beforehand_opens_what_waits(database: Database, confirmations: Confirmations, waiting: Action) -> None:
    await confirmations.agree_beforehand("n1", "the plant", "tested")
    assert await state(database, waiting) is ActionState.OPEN
    node, left = await confirmations.standing("n1")
    assert node.auto_confirm is not None
    assert (node.auto_confirm.initiator, left) == ("the plant", None)
    await confirmations.ask_again("n1")
    assert (await confirmations.standing("n1"))[0].auto_confirm is None


async def test_what_does_not_wait_cannot_be_agreed_to(confirmations: Confirmations, waiting: Action) -> None:
    with pytest.raises(ForbiddenError):
        await confirmations.answer("n2", waiting.id, confirmed=True, details=())
    with pytest.raises(NotFoundError):
        await confirmations.answer("n1", waiting.id + 1, confirmed=True, details=())
    await confirmations.answer("n1", waiting.id, confirmed=True, details=())
    with pytest.raises(NotFoundError, match="waits for no confirmation"):
        await confirmations.waiting("n1", waiting.id)
    with pytest.raises(NotFoundError):
        await confirmations.standing("n9")


def release(content: bytes) -> Release:
    return Release("plant", "os.swu", digest_of(content), len(content), "1.2")


async def test_digests_are_computed_once(database: Database, tmp_path: Path) -> None:
    file = tmp_path / "os.swu"
    file.write_bytes(b"bundle" * 400_000)
    asked: list[Release] = []

    def find(wanted: Release) -> Path:
        asked.append(wanted)
        return file

    contents, wanted = ContentDigests(database, find), release(file.read_bytes())
    for _ in range(2):
        found = await contents.of(wanted)
        assert found.sha1 == hashlib.sha1(file.read_bytes(), usedforsecurity=False).hexdigest()
        assert found.md5 == hashlib.md5(file.read_bytes(), usedforsecurity=False).hexdigest()
    assert asked == [wanted]


async def test_digests_of_other_bytes_are_not_kept(database: Database, tmp_path: Path) -> None:
    file = tmp_path / "os.swu"
    file.write_bytes(b"rotten")
    with pytest.raises(CorruptError):
        await ContentDigests(database, lambda _: file).of(release(b"bundle"))
    with pytest.raises(NotStoredError):
        await ContentDigests(database, lambda _: None).of(release(b"bundle"))
    file.write_bytes(b"bundle")
    assert (await ContentDigests(database, lambda _: file).of(release(b"bundle"))).sha256 == digest_of(b"bundle")
