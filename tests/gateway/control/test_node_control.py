"""What people decide about nodes, by the socket of the running gateway."""

import tempfile
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
from aiohttp import ClientSession, UnixConnector, web

from gateway.control import node_messages as messages
from gateway.control.client import ControlClient
from gateway.control.nodes import NodeControl
from gateway.control.server import allowed_peers, control_application, listen
from gateway.database.engine import Database, Transaction
from gateway.database.queries import actions
from gateway.database.records import Action, ActionState, ClientKind, End, Node, Release, ReportRecord
from gateway.fleet.build import Fleet, make_fleet
from gateway.fleet.issuing import Wish
from gateway.fleet.nodes import Order
from gateway.fleet.telling import Telling
from tests.builders.fleet import Clock, Shelf, register
from update.digest import digest_of
from update.durable import Disk
from update.errors import AssignerError, ForbiddenError, NotFoundError, UnknownNodeError
from update.trust.verified import Provenance

COMPANY = "hawkbit:company"
RELEASE = Release("plant", "os.swu", digest_of(b"os"), 10, "1.9")


class Company:
    """An assigner that hears of ends."""

    def __init__(self) -> None:
        self.ends: list[str] = []

    async def said(self, _transaction: Transaction, _action: Action, _report: ReportRecord) -> None:
        """Not of interest."""

    async def written(self, _transaction: Transaction, _action: Action) -> None:
        """Not of interest."""

    async def ended(self, _transaction: Transaction, _action: Action, end: End) -> None:
        self.ends.append(f"{end.outcome}: {end.message}")

    async def answered(self, _transaction: Transaction, _action: Action, *, confirmed: bool, details: Sequence[str]) -> None:
        self.ends.append(f"{confirmed}: {details}")

    async def installed(self, _transaction: Transaction, _node: Node, _name: str, _version: str) -> None:
        """Not of interest."""


@pytest.fixture
def company() -> Company:
    return Company()


@pytest.fixture
async def fleet(database: Database, shelf: Shelf, clock: Clock, company: Company) -> Fleet:
    await register(database, clock, "n1", "n2")
    return make_fleet(database, shelf, clock, Telling({COMPANY: company}), stuck_after_s=0, verify_within_s=60)


@pytest.fixture
async def client(fleet: Fleet) -> AsyncIterator[ControlClient]:
    with tempfile.TemporaryDirectory() as folder:
        socket, allowed = Path(folder) / "s", allowed_peers((), ())
        control = NodeControl(fleet.ownership, fleet.accounts, fleet.confirmations)
        runner = web.AppRunner(control_application([control], allowed))
        await runner.setup()
        await listen(runner, socket, allowed, Disk())
        yield ControlClient(socket)
        await runner.cleanup()


async def unfinished(database: Database, node: str) -> tuple[Action, ...]:
    async with database.reading() as transaction:
        return await actions.unfinished(transaction, node)


async def test_what_is_not_said_stays(client: ControlClient) -> None:
    found = await client.set_node("n1", messages.SettingsRequest())
    assert (found.assigner, found.client, found.accepts) == ("site", ClientKind.AGENT, Provenance.TUF)
    request = messages.SettingsRequest(client=ClientKind.RAUC, accepts=Provenance.CMS)
    found = await client.set_node("n1", request)
    assert (found.assigner, found.client, found.accepts) == ("site", ClientKind.RAUC, Provenance.CMS)


async def test_a_node_that_is_handed_over_ends_what_was_wanted_of_it(
    client: ControlClient, fleet: Fleet, database: Database, company: Company
) -> None:
    await fleet.assigner.assign(Order(release="1.2", nodes=("n1",), requested_by="uid 0"))
    await client.set_node("n1", messages.SettingsRequest(assigner=COMPANY))
    assert await unfinished(database, "n1") == ()
    await fleet.takeover.take("n1", Wish(RELEASE, COMPANY, COMPANY, source="17"))
    found = await client.set_node("n1", messages.SettingsRequest(assigner="site", reason="the line is ours again"))
    assert found.assigner == "site"
    ((told),) = company.ends
    assert "the line is ours again" in told


async def test_only_assigners_that_there_are_get_nodes(client: ControlClient) -> None:
    with pytest.raises(AssignerError, match="hawkbit:company"):
        await client.set_node("n1", messages.SettingsRequest(assigner="hawkbit:other"))
    with pytest.raises(UnknownNodeError):
        await client.set_node("n9", messages.SettingsRequest(assigner="site"))


async def test_a_token_is_told_once_and_taken_away(client: ControlClient, fleet: Fleet) -> None:
    given = await client.give_token("press-7", messages.AccountRequest(client=ClientKind.SWUPDATE))
    node = await fleet.accounts.node_of(given.token)
    assert node is not None
    assert (node.id, node.kind) == ("press-7", ClientKind.SWUPDATE)
    assert (await client.take_token("press-7")).token == ""
    assert await fleet.accounts.node_of(given.token) is None


async def test_what_the_site_ordered_is_let_go_of_and_others_orders_are_not(
    client: ControlClient, fleet: Fleet, database: Database
) -> None:
    (made,) = await fleet.assigner.assign(Order(release="1.2", nodes=("n1",), requested_by="uid 0"))
    assert made.action is not None
    await fleet.progress.offer("n1", made.action.id)
    reply = await client.cancel("n1", messages.CancelRequest(reason="wrong line"))
    assert reply.actions == (made.action.id,)
    (left,) = await unfinished(database, "n1")
    assert left.state is ActionState.CANCELLING
    assert (await client.cancel("n1", messages.CancelRequest())).actions == ()
    await client.set_node("n2", messages.SettingsRequest(assigner=COMPANY))
    await fleet.takeover.take("n2", Wish(RELEASE, COMPANY, COMPANY, source="17"))
    with pytest.raises(AssignerError, match="cancel it there"):
        await client.cancel("n2", messages.CancelRequest())


async def test_people_agree_for_a_node(client: ControlClient, fleet: Fleet, database: Database, company: Company) -> None:
    await client.set_node("n1", messages.SettingsRequest(assigner=COMPANY))
    with pytest.raises(NotFoundError, match="nothing waits"):
        await client.confirm("n1", messages.ConfirmRequest())
    taken = await fleet.takeover.take("n1", Wish(RELEASE, COMPANY, COMPANY, source="17", confirm=True))
    assert taken.action is not None
    denied = await client.confirm("n1", messages.ConfirmRequest(confirmed=False, reason="the line runs"))
    assert (denied.action, denied.beforehand) == (taken.action.id, False)
    assert (await unfinished(database, "n1"))[0].state is ActionState.WAITING
    await client.confirm("n1", messages.ConfirmRequest())
    assert (await unfinished(database, "n1"))[0].state is ActionState.OPEN
    assert [told.partition(":")[0] for told in company.ends] == ["False", "True"]
    assert (await client.confirm("n1", messages.ConfirmRequest(beforehand=True))).beforehand
    assert not (await client.confirm("n1", messages.ConfirmRequest(beforehand=False))).beforehand


async def test_strangers_decide_nothing(fleet: Fleet) -> None:
    with tempfile.TemporaryDirectory() as folder:
        socket, allowed = Path(folder) / "s", allowed_peers((), ())
        control = NodeControl(fleet.ownership, fleet.accounts, fleet.confirmations)

        def stranger(_request: web.Request) -> object:
            raise ForbiddenError("a stranger")

        runner = web.AppRunner(control_application([control], allowed, stranger))  # type: ignore[arg-type]  # it never returns
        await runner.setup()
        await listen(runner, socket, allowed, Disk())
        async with ClientSession(connector=UnixConnector(str(socket))) as session:
            for route in control.routes():
                path = route.path.format(name="n1")
                async with session.request(route.method, f"http://gateway{path}", json={}) as response:
                    assert response.status == 403
        await runner.cleanup()
