"""Every result reaches a webhook once, whoever assigned, whatever the receiver does meanwhile."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest

from gateway.config import parse_config
from gateway.database.engine import Database
from gateway.database.queries import nodes, outgoing
from gateway.database.records import Release
from gateway.fleet.build import Fleet, make_fleet
from gateway.fleet.issuing import Wish
from gateway.fleet.judgement import Told
from gateway.fleet.nodes import Order
from gateway.fleet.telling import Telling
from gateway.north.elsewhere import Elsewhere
from gateway.north.webhook.messages import read_secret
from gateway.north.webhook.webhook import Webhook, WebhookWitness
from tests.builders.fleet import Clock, Shelf, bundle, register
from tests.builders.webhook_receiver import Receiver
from update.digest import digest_of
from update.errors import ConfigurationError, FieldrelayError, UnauthorizedError, UnreachableError
from update.trust.verified import Provenance
from update.wire import ddi
from update.wire.http import PLAIN

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"  # noqa: S105 - of a receiver that lives as long as a test
COMPANY = "hawkbit:company"
RELEASE = Release("plant", "os.swu", digest_of(b"os"), 10, "1.9")
REASON = "the slot is too small"


@dataclass(slots=True)
class Site:
    """Nodes whose results one receiver is told."""

    database: Database
    fleet: Fleet
    clock: Clock
    receiver: Receiver
    webhook: Webhook
    secret: Path

    async def fail(self, node: str) -> int:
        """The site orders a release, and the node cannot install it."""
        (made,) = await self.fleet.assigner.assign(Order(release="1.2", nodes=(node,), requested_by="uid 0", reason="a test"))
        assert made.action is not None
        await self.fleet.progress.offer(node, made.action.id)
        told = Told(f"r{made.action.id}", ddi.Execution.CLOSED, ddi.Finished.FAILURE, details=(REASON,))
        await self.fleet.progress.feedback(node, made.action.id, told)
        return made.action.id

    async def deliver(self) -> FieldrelayError | None:
        """Send everything, also what was put off; what stood in the way."""
        self.clock.advance(3600)
        return (await self.webhook.deliver()).trouble

    async def waiting(self) -> int:
        return (await self.webhook.state()).waiting


@pytest.fixture
async def site(tmp_path: Path, database: Database, clock: Clock) -> AsyncIterator[Site]:
    secret = tmp_path / "secret"
    secret.write_text(SECRET)
    secret.chmod(0o600)
    await register(database, clock, "n1", "n2")
    telling = Telling({}, [WebhookWitness("webhook:mes", "gw", clock)])
    shelf = Shelf({"plant": [bundle("1.2", "board:1")]})
    fleet = make_fleet(database, shelf, clock, telling, stuck_after_s=0, verify_within_s=60)
    async with Receiver(read_secret(secret)) as receiver, aiohttp.ClientSession() as session:
        webhook = Webhook("webhook:mes", database, session, receiver.url, secret, gateway="gw", manner=PLAIN, now=clock)
        yield Site(database, fleet, clock, receiver, webhook, secret)


async def test_a_result_is_told_once_with_everything_about_it(site: Site) -> None:
    action = await site.fail("n1")
    assert await site.deliver() is None
    assert await site.deliver() is None
    ((message, body),) = site.receiver.taken
    data = body["data"]
    assert (message, body["type"], body["timestamp"]) == (f"gw.{action}", "update.ended", "2026-11-20T12:00:00+00:00")
    assert (data["gateway"], data["node"], data["action"], data["assigner"]) == ("gw", "n1", action, "site")
    assert (data["outcome"], data["message"], data["version"], data["provenance"]) == ("failure", REASON, "1.2", "tuf")
    assert (data["reason"], data["installed"]) == ("a test", None)
    assert (await site.webhook.state()).waiting == 0


async def test_what_others_assigned_is_told_too(site: Site) -> None:
    wish = Wish(RELEASE, COMPANY, COMPANY, source="17")
    async with site.database.writing() as transaction:
        await nodes.set_assigner(transaction, "n1", COMPANY)
        await nodes.set_accepts(transaction, "n1", Provenance.CMS)
    await site.fleet.takeover.take("n1", wish)
    await site.fleet.takeover.withdraw("n1", COMPANY, "17", "cancelled by hawkbit:company")
    await site.deliver()
    ((_, body),) = site.receiver.taken
    assert (body["data"]["assigner"], body["data"]["source"], body["data"]["outcome"]) == (COMPANY, "17", "cancelled")


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (500, UnreachableError),
        (429, UnreachableError),
        (404, UnreachableError),
        (302, UnreachableError),
        (401, UnauthorizedError),
        (403, UnauthorizedError),
    ],
)
async def test_who_cannot_take_it_now_gets_it_later(site: Site, status: int, error: type[FieldrelayError]) -> None:
    await site.fail("n1")
    await site.fail("n2")
    site.receiver.status = status
    assert isinstance(await site.deliver(), error)
    assert (await site.waiting(), site.receiver.taken) == (2, [])
    site.receiver.status = 200
    assert await site.deliver() is None
    assert [body["data"]["node"] for _, body in site.receiver.taken] == ["n1", "n2"]


@pytest.mark.parametrize("status", [400, 410, 422])
async def test_what_is_refused_for_good_is_given_up_until_an_operator_resends_it(site: Site, status: int) -> None:
    await site.fail("n1")
    site.receiver.status = status
    await site.deliver()
    assert await site.waiting() == 0
    async with site.database.writing() as transaction:
        (given_up,) = await outgoing.undelivered(transaction)
        await outgoing.resend(transaction, [given_up.id])
    site.receiver.status = 200
    await site.deliver()
    assert len(site.receiver.taken) == 1


async def test_a_lost_answer_brings_the_same_id_again(site: Site) -> None:
    await site.fail("n1")
    site.receiver.cut = True
    assert isinstance(await site.deliver(), UnreachableError)
    site.receiver.cut = False
    await site.deliver()
    assert len({message for message, _ in site.receiver.taken}) == 1
    assert len(site.receiver.taken) == 2


async def test_another_secret_is_not_accepted_and_no_secret_sends_nothing(site: Site) -> None:
    await site.fail("n1")
    site.secret.write_text("whsec_" + "A" * 32)
    assert isinstance(await site.deliver(), UnauthorizedError)
    asked = site.receiver.asked
    site.secret.write_text("changeme")
    assert isinstance(await site.deliver(), ConfigurationError)
    assert site.receiver.asked == asked
    site.secret.write_text(SECRET)
    assert await site.deliver() is None


async def test_every_configured_webhook_hears_of_every_end(tmp_path: Path, site: Site, database: Database, clock: Clock) -> None:
    section = '[[webhook]]\nname = "{}"\nurl = "https://mes.example/hook"\nsecret = "secret"\n'
    text = "format_version = 1\n" + section.format("mes") + section.format("erp")
    telling = Elsewhere(parse_config(text, tmp_path / "gateway.toml"), clock).telling
    assert not telling.assigners, "they assign nothing"
    shelf = Shelf({"plant": [bundle("1.2", "board:1")]})
    site.fleet = make_fleet(database, shelf, clock, telling, stuck_after_s=0, verify_within_s=60)
    await site.fail("n2")
    async with database.reading() as transaction:
        assert await outgoing.count_waiting(transaction) == {"webhook:mes": 1, "webhook:erp": 1}
