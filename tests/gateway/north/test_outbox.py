"""What is stored for an upstream is sent: in order for each action, at least once, as long as it takes."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import pytest

from gateway.database.engine import Database, sqlite_url
from gateway.database.queries import outgoing
from gateway.database.records import Matter, Outgoing
from gateway.north.outbox import KEPT, Later, Outbox
from tests.builders.fleet import Clock
from update.errors import ConfigurationError, FieldrelayError, NotFoundError, ProtocolError, UnreachableError

SERVER = "wfx:plant"


@dataclass(slots=True)
class Site:
    """What waits, and what the server says to it: `answers` are used up one by one, then everything is taken."""

    database: Database
    clock: Clock = field(default_factory=Clock)
    told: list[str] = field(default_factory=list)
    sent: list[Mapping[str, object]] = field(default_factory=list)
    meanwhile: Callable[[Outgoing], Awaitable[None]] | None = None
    answers: list[str | Later | FieldrelayError] = field(default_factory=list)

    def outbox(self) -> Outbox:
        return Outbox(self.database, SERVER, self.clock, self._tell, chance=lambda: 1.0)

    async def store(self, *names: str, gathered: bool = False) -> None:
        """Messages `source/word`; a word `end` is final."""
        async with self.database.writing() as transaction:
            for name in names:
                source, _, word = name.partition("/")
                later = self.clock.now.replace(year=2030) if gathered else None
                await outgoing.add(
                    transaction, SERVER, "n1", source=source, matter=Matter.FEEDBACK, final=word == "end", report=name,
                    body={"name": name}, now=self.clock(), not_before=later,
                )  # fmt: skip

    async def waiting(self) -> list[Outgoing]:
        async with self.database.reading() as transaction:
            return list(await outgoing.waiting(transaction, SERVER))

    async def _tell(self, message: Outgoing) -> str | Later:
        if self.meanwhile is not None:
            await self.meanwhile(message)
        self.sent.append(message.body)
        answer = self.answers.pop(0) if self.answers else ""
        if isinstance(answer, FieldrelayError):
            raise answer
        if not isinstance(answer, Later):
            self.told.append(message.report)
        return answer


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    database = await Database.open(sqlite_url(tmp_path / "gateway.db"))
    yield Site(database)
    await database.close()


async def test_messages_of_an_action_go_in_order_and_once(site: Site) -> None:
    await site.store("a/1", "b/1", "a/2", "b/end", "a/end")
    done = await site.outbox().deliver()
    assert (done.sent, done.left, done.trouble) == (5, 0, None)
    assert site.told == ["a/1", "a/2", "a/end", "b/1", "b/end"]
    assert (await site.outbox().deliver()).sent == 0


async def test_trouble_of_the_server_stops_the_round_and_is_tried_again_ever_more_rarely(site: Site) -> None:
    await site.store("a/1", "a/end", "b/end")
    outbox, waits = site.outbox(), []
    for _ in range(6):
        site.answers = [UnreachableError("away")]
        done = await outbox.deliver()
        assert (done.sent, done.left) == (0, 3)
        assert isinstance(done.trouble, UnreachableError)
        again = (await site.waiting())[0].not_before
        assert again is not None
        waits.append((again - site.clock()).total_seconds())
        site.clock.now = again
    assert waits == [2, 4, 8, 16, 32, 64]
    assert (await outbox.deliver()).sent == 3
    assert site.told == ["a/1", "a/end", "b/end"]


async def test_trouble_with_one_credential_holds_up_no_other_action(site: Site) -> None:
    await site.store("a/1", "b/1")
    site.answers = [ConfigurationError("no token")]
    done = await site.outbox().deliver()
    assert (done.sent, done.left) == (1, 1)
    assert isinstance(done.trouble, ConfigurationError)


@pytest.mark.parametrize(("error", "words"), [(NotFoundError("410"), "closed there"), (ProtocolError("400"), "given up")])
async def test_what_will_never_be_taken_does_not_hold_back_the_rest(site: Site, error: FieldrelayError, words: str) -> None:
    await site.store("a/1", "a/end")
    site.answers = [error]
    done = await site.outbox().deliver()
    assert (done.sent, done.left, done.trouble) == (2, 0, None)
    async with site.database.reading() as transaction:
        told = await outgoing.of_action(transaction, SERVER, "n1", "a")
    assert told[0].trouble.startswith(words)
    assert told[1].trouble == ""


async def test_what_the_server_is_not_ready_for_waits_with_all_that_follows_it(site: Site) -> None:
    await site.store("a/1", "a/end", "b/1")
    site.answers = [Later("not yet", 60.0)]
    done = await site.outbox().deliver()
    assert (done.sent, done.left, done.trouble) == (1, 2, None)
    assert site.told == ["b/1"]
    site.clock.advance(59)
    assert (await site.outbox().deliver()).sent == 0
    site.clock.advance(1)
    assert (await site.outbox().deliver()).sent == 2
    assert site.told == ["b/1", "a/1", "a/end"]


async def test_what_is_gathered_waits_but_not_longer_than_the_last_word(site: Site) -> None:
    await site.store("a/1", gathered=True)
    assert (await site.outbox().deliver()).sent == 0
    await site.store("a/end")
    assert (await site.outbox().deliver()).sent == 2
    assert site.told == ["a/1", "a/end"]


async def test_what_was_delivered_long_ago_is_forgotten_and_what_waits_is_not(site: Site) -> None:
    outbox = site.outbox()
    await site.store("a/end")
    await outbox.deliver()
    site.answers = [UnreachableError("away")]
    await site.store("b/end")
    await outbox.deliver()
    site.clock.advance((KEPT + timedelta(days=1)).total_seconds())
    site.answers = [UnreachableError("away")]
    await outbox.deliver()
    async with site.database.reading() as transaction:
        left = [await outgoing.of_action(transaction, SERVER, "n1", source) for source in ("a", "b")]
    assert [len(each) for each in left] == [0, 1]


async def test_what_a_later_message_gains_during_the_round_is_sent_and_what_is_on_its_way_gains_nothing(site: Site) -> None:
    await site.store("a/1", "b/1")
    first, second = await site.waiting()
    gained: list[bool] = []

    async def both_are_to_say_more(message: Outgoing) -> None:
        if message.report == "a/1":
            async with site.database.writing() as transaction:
                gained.extend(
                    [await outgoing.replace_body(transaction, each.id, {"more": each.report}) for each in (first, second)]
                )

    site.meanwhile = both_are_to_say_more
    assert (await site.outbox().deliver()).sent == 2
    assert gained == [False, True]
    assert site.sent == [{"name": "a/1"}, {"more": "b/1"}]


async def test_a_message_whose_sending_was_broken_off_was_tried_and_is_due_at_once(site: Site) -> None:
    await site.store("a/1", gathered=True)
    (only,) = await site.waiting()
    async with site.database.writing() as transaction:
        await outgoing.begin(transaction, only.id)
    assert (await site.waiting())[0].attempts == 1
    assert (await site.outbox().deliver()).sent == 1
