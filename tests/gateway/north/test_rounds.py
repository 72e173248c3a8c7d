"""Asking one server for many nodes: spread, backing off, and at once where there is news."""

from dataclasses import dataclass, field

import pytest

from gateway.north.rounds import Rounds
from tests.builders.fleet import Clock
from update.errors import FieldrelayError, NotFoundError, ProtocolError, StoreError, UnreachableError


@dataclass(slots=True)
class Site:
    """Nodes `names`, asked for by `rounds`; what `failing` names fails so."""

    names: list[str]
    chance: float = 0.0
    asked: list[str] = field(default_factory=list)
    failing: dict[str, FieldrelayError] = field(default_factory=dict)
    time_s: float = 0.0
    clock: Clock = field(default_factory=Clock)

    def rounds(self) -> Rounds[str]:
        return Rounds("server", self._everybody, self._ask, now=self.clock, clock=lambda: self.time_s, chance=lambda: self.chance)

    async def look(self, rounds: Rounds[str], after_s: float = 0.0) -> list[str]:
        self.time_s += after_s
        self.asked.clear()
        await rounds.poll_all()
        return list(self.asked)

    async def _everybody(self) -> dict[str, str]:
        return {name: name for name in self.names}

    async def _ask(self, name: str) -> float:
        self.asked.append(name)
        if name in self.failing:
            raise self.failing[name]
        return 100.0


def is_in_trouble(rounds: Rounds[str]) -> bool:
    return rounds.trouble is not None


async def test_everybody_is_asked_for_after_the_time_that_the_server_gave() -> None:
    site = Site(["a", "b"])
    rounds = site.rounds()
    assert await site.look(rounds) == ["a", "b"]
    assert await site.look(rounds, 89) == []
    assert await site.look(rounds, 1) == ["a", "b"]
    assert rounds.contact == site.clock()


async def test_first_polls_are_spread() -> None:
    site = Site([f"n{number:03}" for number in range(100)], chance=0.5)
    rounds = site.rounds()
    assert await site.look(rounds) == []
    assert await site.look(rounds, 4.9) == []
    assert len(await site.look(rounds, 0.1)) == 100


async def test_who_left_is_forgotten_and_who_came_is_asked_for() -> None:
    site = Site(["a"])
    rounds = site.rounds()
    await site.look(rounds)
    site.names = ["b"]
    assert await site.look(rounds) == ["b"]
    assert rounds.names == ("b",)


@pytest.mark.parametrize("error", [NotFoundError("x"), ProtocolError("x"), StoreError("x")])
async def test_trouble_with_one_holds_up_no_other(error: FieldrelayError) -> None:
    site = Site(["a", "b"], failing={"a": error})
    rounds = site.rounds()
    await site.look(rounds)
    waits = []
    for _ in range(4):
        waited = 0
        while "a" not in await site.look(rounds, 0.5):
            waited += 1
        waits.append(waited)
    assert waits == sorted(waits)
    assert waits[-1] > 4 * waits[0]
    assert "b" in await site.look(rounds, 100)


async def test_while_the_server_is_away_one_poll_at_a_time_tries() -> None:
    site = Site(["a", "b", "c"], failing={name: UnreachableError("away") for name in "abc"})
    rounds = site.rounds()
    await site.look(rounds)
    assert len(await site.look(rounds, 1000)) == 1
    assert is_in_trouble(rounds)
    site.failing.clear()
    assert len(await site.look(rounds, 1000)) == 1
    assert not is_in_trouble(rounds)
    assert len(await site.look(rounds, 1000)) == 3


async def test_news_of_one_has_it_asked_for_at_once_unless_it_is_in_trouble() -> None:
    site = Site(["a", "b"])
    rounds = site.rounds()
    await site.look(rounds)
    for name in ("a", "stranger"):
        rounds.hasten(name)
    assert await site.look(rounds, 1) == ["a"]
    site.failing["b"] = ProtocolError("x")
    await site.look(rounds, 1000)
    rounds.hasten("b")
    assert "b" not in await site.look(rounds)
