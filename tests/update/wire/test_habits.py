"""What is learned of upstreams: from two answers in a row, for a day, across restarts, and never more than is bounded."""

import asyncio
import json
import logging
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from update.durable import Disk, Kind, Operation
from update.errors import NoSpaceError, ProtocolError
from update.store.journal import Journal
from update.wire.habits import (
    DOUBT_AFTER_S,
    FEWER_RANGES,
    GAP_BYTES,
    MAX_UPSTREAMS,
    MOST_RANGES,
    Asked,
    Form,
    Habits,
    Manners,
    Peer,
)

URL = "https://updates.example/vendor"
BAD = [Form.FIRST, Form.COVER, Form.DISORDER, Form.WHOLE, Form.REFUSED]


class Clock:
    def __init__(self) -> None:
        self.now_s = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now_s


def tell(peer: Peer, form: Form, ranges: int | None = None) -> None:
    """One request and its answer."""
    peer.learn(peer.ask(peer.limit() if ranges is None else ranges), form)


@pytest.mark.parametrize("form", BAD)
def test_one_answer_is_an_accident_and_two_are_a_habit(form: Form) -> None:
    peer = Peer()
    tell(peer, form)
    assert peer.limit() == MOST_RANGES
    tell(peer, form)
    assert peer.limit() == (FEWER_RANGES if form in {Form.WHOLE, Form.REFUSED} else 1)


@pytest.mark.parametrize("form", BAD)
def test_a_good_answer_in_between_takes_the_doubt_away(form: Form) -> None:
    peer = Peer()
    for _ in range(5):
        tell(peer, form)
        tell(peer, Form.PARTS)
    assert peer.limit() == MOST_RANGES


def test_a_good_answer_to_fewer_ranges_says_nothing_about_many() -> None:
    peer = Peer()
    tell(peer, Form.WHOLE, 60)
    tell(peer, Form.PARTS, 10)
    tell(peer, Form.ONE, 1)
    assert peer.limit() == MOST_RANGES
    tell(peer, Form.WHOLE, 60)
    assert peer.limit() == FEWER_RANGES


def test_answers_to_requests_that_were_under_way_together_count_once() -> None:
    peer = Peer()
    together = [peer.ask(60) for _ in range(4)]
    for asked in together:
        peer.learn(asked, Form.WHOLE)
    assert peer.limit() == MOST_RANGES


def test_who_refuses_several_ranges_is_asked_for_one() -> None:
    """As S3 answers one reader: 150 and 10 ranges with the whole file, one with that range."""
    peer = Peer()
    tell(peer, Form.WHOLE)
    assert peer.manners.fewer(MOST_RANGES) == FEWER_RANGES
    tell(peer, Form.WHOLE, FEWER_RANGES)
    tell(peer, Form.ONE, 1)
    assert (peer.limit(), peer.manners.partial, peer.manners.whole) == (1, True, False)


def test_who_ignores_ranges_is_known_until_it_answers_one() -> None:
    peer = Peer()
    tell(peer, Form.WHOLE, 1)
    assert peer.limit() == MOST_RANGES
    tell(peer, Form.WHOLE, 1)
    assert (peer.limit(), peer.manners.whole) == (1, True)
    tell(peer, Form.WHOLE)
    assert peer.limit() == 1
    tell(peer, Form.ONE)
    assert (peer.limit(), peer.manners.whole, peer.manners.partial) == (MOST_RANGES, False, True)


def test_who_ignores_one_range_and_then_many_is_known_at_once() -> None:
    peer = Peer()
    tell(peer, Form.WHOLE, 1)
    tell(peer, Form.WHOLE)
    assert (peer.limit(), peer.manners.whole) == (1, True)
    other = Peer()
    tell(other, Form.WHOLE, 1)
    tell(other, Form.REFUSED)
    assert not other.manners.whole


def test_a_habit_is_doubted_after_a_day_by_one_reader() -> None:
    clock = Clock()
    peer = Peer(clock=clock)
    tell(peer, Form.FIRST)
    tell(peer, Form.FIRST)
    clock.now_s += DOUBT_AFTER_S - 1
    assert peer.limit() == 1
    clock.now_s += 1
    asked = peer.ask(peer.limit())
    assert (asked.ranges, peer.limit()) == (MOST_RANGES, 1)
    peer.learn(asked, Form.WHOLE)
    assert peer.limit() == 1
    clock.now_s += DOUBT_AFTER_S
    tell(peer, Form.PARTS)
    clock.now_s += 1
    assert peer.limit() == MOST_RANGES


def test_a_clock_that_goes_back_only_makes_the_doubt_come_sooner() -> None:
    clock = Clock()
    peer = Peer(clock=clock)
    tell(peer, Form.FIRST)
    tell(peer, Form.FIRST)
    clock.now_s -= 10_000
    assert peer.limit() == MOST_RANGES


@given(st.lists(st.tuples(st.integers(1, 100), st.integers(0, 2), st.sampled_from(Form), st.integers(0, 100_000)), max_size=40))
def test_whatever_is_answered_the_next_request_is_within_bounds_and_fewer_is_fewer(
    answers: list[tuple[int, int, Form, int]],
) -> None:
    manners, now_s = Manners(), 1_800_000_000.0
    for ranges, strikes, form, later_s in answers:
        now_s += later_s
        manners = manners.asking(ranges, now_s).after(Asked(ranges, strikes), form, now_s)
        assert 1 <= manners.limit(now_s) <= MOST_RANGES
        assert all(1 <= manners.fewer(count) < count for count in range(2, 101))
        assert not (manners.whole and manners.partial)


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(Disk(), tmp_path / "habits.json")


async def test_what_was_learned_is_known_after_a_restart(journal: Journal) -> None:
    clock = Clock()
    habits = Habits(journal, clock=clock)
    peer = habits.of(URL)
    tell(peer, Form.ONE, 1)
    tell(peer, Form.FIRST)
    tell(peer, Form.FIRST)
    await habits.keep()
    again = Habits(journal, clock=clock).of(URL)
    assert (again.limit(), again.manners.partial, again.gap_bytes) == (1, True, GAP_BYTES)
    clock.now_s += DOUBT_AFTER_S
    assert again.limit() == MOST_RANGES


async def test_only_news_are_written(journal: Journal, tmp_path: Path) -> None:
    operations: list[Operation] = []
    habits = Habits(Journal(Disk(operations.append), journal.path))
    peer = habits.of(URL)
    await habits.keep()
    assert operations == []
    tell(peer, Form.PARTS)
    await habits.keep()
    written = len(operations)
    for _ in range(100):
        tell(peer, Form.PARTS)
        tell(peer, Form.FIRST)
        await habits.keep()
    assert written > 0
    assert len(operations) == written


async def test_several_readers_keep_at_once(journal: Journal) -> None:
    habits = Habits(journal)
    peers = [habits.of(f"http://u{number}") for number in range(5)]

    async def learn(peer: Peer) -> None:
        tell(peer, Form.ONE, 1)
        await habits.keep()

    await asyncio.gather(*map(learn, peers))
    again = Habits(journal)
    assert all(again.of(f"http://u{number}").manners.partial for number in range(5))


def test_an_upstream_is_scheme_host_port_and_path_and_no_credential_is_kept(journal: Journal) -> None:
    habits = Habits(journal)
    assert habits.of("https://u:secret@Updates.example:443/vendor/") is habits.of(URL)
    others = [URL, "http://updates.example/vendor", "https://updates.example:8443/vendor", "https://updates.example/other"]
    assert len({id(habits.of(other)) for other in others}) == len(others)
    with pytest.raises(ProtocolError):
        habits.of("ftp://updates.example")


async def test_no_secret_reaches_the_disk(journal: Journal) -> None:
    habits = Habits(journal)
    tell(habits.of("https://user:secret@updates.example/x"), Form.ONE, 1)
    await habits.keep()
    assert "secret" not in journal.path.read_text()


async def test_the_upstreams_that_were_used_last_are_kept(journal: Journal) -> None:
    habits = Habits(journal)
    for number in range(MAX_UPSTREAMS + 10):
        tell(habits.of(f"http://u{number}"), Form.ONE, 1)
        habits.of("http://u0")
    await habits.keep()
    body = journal.read()
    assert body is not None
    upstreams = body["upstreams"]
    assert isinstance(upstreams, dict)
    assert len(upstreams) == MAX_UPSTREAMS
    assert "http://u0:80" in upstreams
    assert "http://u5:80" not in upstreams


GOOD = {"ranges": 1, "whole": False, "partial": True, "since_s": 5}
DAMAGED = [
    {"upstreams": []},
    {"upstreams": {"nonsense": GOOD}},
    {"upstreams": {"http://a:80": {**GOOD, "ranges": 0}}},
    {"upstreams": {"http://a:80": {**GOOD, "ranges": MOST_RANGES + 1}}},
    {"upstreams": {"http://a:80": {**GOOD, "whole": 1}}},
    {"upstreams": {"http://a:80": [1]}},
    {},
]


@pytest.mark.parametrize("body", DAMAGED, ids=json.dumps)
def test_damaged_memory_is_logged_and_learned_anew(
    journal: Journal, body: dict[str, object], caplog: pytest.LogCaptureFixture
) -> None:
    journal.write(json.loads(json.dumps(body)))
    with caplog.at_level(logging.WARNING):
        assert Habits(journal).of("http://a").manners == Manners()
    assert "learned again" in caplog.text


def test_a_torn_file_is_damage_too(journal: Journal) -> None:
    journal.path.write_bytes(b'{"body": {"upstre')
    assert Habits(journal).of("http://a").manners == Manners()


async def test_a_full_disk_is_logged_and_nothing_more(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def full(operation: Operation) -> None:
        if operation.kind is Kind.WRITE:
            raise NoSpaceError("no space left")

    habits = Habits(Journal(Disk(full), tmp_path / "habits.json"))
    tell(habits.of(URL), Form.ONE, 1)
    await habits.keep()
    assert "store.no-space" in caplog.text
