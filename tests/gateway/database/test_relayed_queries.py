"""What is kept of deployments that come from upstreams: terms, confirmations, digests, messages and standings."""

from datetime import UTC, datetime, timedelta

from gateway.database.engine import Database, Transaction
from gateway.database.queries import actions, digests, nodes, outgoing, standings
from gateway.database.records import (
    Action,
    ActionOutcome,
    ActionState,
    AutoConfirm,
    ClientKind,
    Digests,
    End,
    Handling,
    Matter,
    Release,
    Standing,
    Terms,
)
from update.digest import digest_of
from update.trust.verified import Provenance

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
SOON = NOW + timedelta(hours=1)
LATER = NOW + timedelta(hours=2)
RELEASE = Release("plant", "os.swu", digest_of(b"os"), 10, "1.2", Provenance.CMS)
TERMS = Terms(Handling.TIME_FORCED, forced_at=SOON, opens=NOW, closes=LATER, deadline=LATER)


async def order(transaction: Transaction, terms: Terms = TERMS, *, source: str = "17", waiting: bool = False) -> Action:
    if await nodes.find(transaction, "n1") is None:
        await nodes.register(transaction, "n1", kind=ClientKind.SWUPDATE, fingerprint=digest_of(b"n1"), now=NOW)
    return await actions.add(
        transaction,
        "n1",
        RELEASE,
        fence=await nodes.raise_fence(transaction, "n1"),
        assigner="hawkbit:company",
        requested_by="hawkbit:company",
        reason="",
        now=NOW,
        terms=terms,
        source=source,
        waiting=waiting,
    )


async def message(transaction: Transaction, report: str, *, upstream: str = "company") -> bool:
    return await outgoing.add(
        transaction, upstream, "n1", source="17", matter=Matter.FEEDBACK, final=False, report=report, body={"n": 1}, now=NOW
    )


async def test_terms_source_and_provenance_come_back(database: Database) -> None:
    async with database.writing() as transaction:
        added = await order(transaction)
        assert await actions.find(transaction, added.id) == added
        assert await actions.of_source(transaction, "n1", "hawkbit:company", "17") == added
        assert await actions.of_source(transaction, "n1", "hawkbit:other", "17") is None
    assert (added.terms, added.source, added.release) == (TERMS, "17", RELEASE)


async def test_changed_terms_count_until_the_action_is_closed(database: Database) -> None:
    async with database.writing() as transaction:
        added = await order(transaction, Terms(Handling.SOFT))
        await actions.set_terms(transaction, added.id, Terms(Handling.FORCED, closes=LATER))
        found = await actions.find(transaction, added.id)
        assert found is not None
        assert found.terms == Terms(Handling.FORCED, closes=LATER)
        await actions.close(transaction, added.id, End(NOW, ActionOutcome.SUCCESS, "", ""))
        await actions.set_terms(transaction, added.id, Terms())
        found = await actions.find(transaction, added.id)
        assert found is not None
        assert found.terms == Terms(Handling.FORCED, closes=LATER)


async def test_a_waiting_action_opens_when_it_is_confirmed(database: Database) -> None:
    async with database.writing() as transaction:
        added = await order(transaction, waiting=True)
        assert added.state is ActionState.WAITING
        await actions.confirm(transaction, added.id)
        found = await actions.find(transaction, added.id)
        assert found is not None
        assert found.state is ActionState.OPEN


async def test_a_waiting_action_can_be_cancelled(database: Database) -> None:
    async with database.writing() as transaction:
        added = await order(transaction, waiting=True)
        await actions.mark_cancelling(transaction, added.id, superseded_by=None)
        found = await actions.find(transaction, added.id)
        assert found is not None
        assert found.state is ActionState.CANCELLING


async def test_offers_are_counted_and_the_first_installation_stays(database: Database) -> None:
    async with database.writing() as transaction:
        added = await order(transaction)
        for moment in (NOW, SOON):
            await actions.mark_offered(transaction, added.id, now=moment)
            await actions.mark_installed(transaction, added.id, boot_id=moment.isoformat(), now=moment)
        found = await actions.find(transaction, added.id)
    assert found is not None
    assert (found.offers, found.offered, found.installed, found.boot_id) == (2, NOW, NOW, NOW.isoformat())


async def test_only_what_is_closed_is_finished(database: Database) -> None:
    async with database.writing() as transaction:
        first, second = await order(transaction, source="1"), await order(transaction, source="2", waiting=True)
        assert await actions.everything_unfinished(transaction) == (first, second)
        await actions.close(transaction, first.id, End(NOW, ActionOutcome.TIMED_OUT, "", ""))
        assert await actions.everything_unfinished(transaction) == (second,)


async def test_what_people_set_of_a_node_comes_back(database: Database) -> None:
    confirmed = AutoConfirm("the plant", "tested in the lab", NOW)
    async with database.writing() as transaction:
        node = await nodes.register(transaction, "n1", kind=ClientKind.AGENT, fingerprint=digest_of(b"n1"), now=NOW)
        assert (node.accepts, node.kind_fixed, node.token, node.auto_confirm) == (Provenance.TUF, False, None, None)
        await nodes.set_kind(transaction, "n1", ClientKind.RAUC, fixed=True)
        await nodes.set_token(transaction, "n1", digest_of(b"token"))
        await nodes.set_assigner(transaction, "n1", "hawkbit:company")
        await nodes.set_accepts(transaction, "n1", Provenance.CMS)
        await nodes.set_auto_confirm(transaction, "n1", confirmed)
        await nodes.booted(transaction, "n1", "boot-2")
        found = await nodes.find(transaction, "n1")
        assert found is not None
        assert (found.kind, found.kind_fixed, found.token) == (ClientKind.RAUC, True, digest_of(b"token"))
        assert (found.assigner, found.accepts, found.auto_confirm) == ("hawkbit:company", Provenance.CMS, confirmed)
        assert found.boot_id == "boot-2"
        await nodes.set_auto_confirm(transaction, "n1", None)
        found = await nodes.find(transaction, "n1")
        assert found is not None
        assert found.auto_confirm is None


async def test_digests_are_kept_once(database: Database) -> None:
    kept = Digests(digest_of(b"x"), "1" * 40, "2" * 32)
    async with database.writing() as transaction:
        assert await digests.find(transaction, kept.sha256) is None
        await digests.add(transaction, kept)
        await digests.add(transaction, Digests(kept.sha256, "3" * 40, "4" * 32))
        assert await digests.find(transaction, kept.sha256) == kept


async def test_messages_wait_in_order_until_they_are_delivered(database: Database) -> None:
    async with database.writing() as transaction:
        assert await message(transaction, "a")
        assert await message(transaction, "b")
        assert await message(transaction, "a", upstream="other")
        assert not await message(transaction, "a")
        first, second = await outgoing.waiting(transaction, "company")
        assert (first.report, second.report, first.body) == ("a", "b", {"n": 1})
        begun = await outgoing.begin(transaction, first.id)
        assert begun is not None
        assert begun.attempts == 0
        await outgoing.mark_failed(transaction, first.id, trouble="gone", not_before=SOON)
        again = (await outgoing.waiting(transaction, "company"))[0]
        assert (again.attempts, again.trouble, again.not_before) == (1, "gone", SOON)
        await outgoing.mark_delivered(transaction, first.id, now=NOW)
        assert await outgoing.begin(transaction, first.id) is None
        assert [each.report for each in await outgoing.waiting(transaction, "company")] == ["b"]
        assert await outgoing.count_waiting(transaction) == {"company": 1, "other": 1}
        assert [each.report for each in await outgoing.of_action(transaction, "company", "n1", "17")] == ["a", "b"]


async def test_only_a_message_whose_sending_has_not_begun_can_say_more(database: Database) -> None:
    async with database.writing() as transaction:
        await message(transaction, "a")
        (only,) = await outgoing.waiting(transaction, "company")
        assert await outgoing.replace_body(transaction, only.id, {"n": 2})
        begun = await outgoing.begin(transaction, only.id)
        assert begun is not None
        assert begun.body == {"n": 2}
        assert not await outgoing.replace_body(transaction, only.id, {"n": 3})
        assert (await outgoing.waiting(transaction, "company"))[0].body == {"n": 2}


async def test_only_what_was_delivered_before_is_swept(database: Database) -> None:
    async with database.writing() as transaction:
        for report in ("a", "b", "c"):
            await message(transaction, report)
        first, second, _ = await outgoing.waiting(transaction, "company")
        await outgoing.mark_delivered(transaction, first.id, now=NOW)
        await outgoing.mark_delivered(transaction, second.id, now=LATER)
        await outgoing.sweep(transaction, SOON)
        assert [each.report for each in await outgoing.of_action(transaction, "company", "n1", "17")] == ["b", "c"]


async def test_a_standing_is_kept_per_upstream_and_node(database: Database) -> None:
    async with database.writing() as transaction:
        assert await standings.find(transaction, "company", "n1") == Standing("company", "n1", "", None)
        for moment in (NOW, SOON):
            await standings.note(transaction, Standing("company", "n1", "digest", moment))
        assert await standings.find(transaction, "company", "n1") == Standing("company", "n1", "digest", SOON)
        assert await standings.find(transaction, "other", "n1") == Standing("other", "n1", "", None)
