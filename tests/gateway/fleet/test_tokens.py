import asyncio

import pytest

from gateway.database.engine import Database
from gateway.database.queries import tokens
from gateway.fleet.tokens import Tokens
from tests.builders.fleet import Clock
from update.digest import digest_of
from update.errors import ConfigurationError


async def test_a_token_is_good_once(database: Database, clock: Clock) -> None:
    made = await Tokens(database, clock).create(node="", reason="", valid_s=60)

    answers = await asyncio.gather(*(Tokens(database, clock).redeem(node, made.token) for node in ("n1", "n2", "n3")))
    assert sorted(answers) == [False, False, True]


async def test_the_database_never_holds_the_token(database: Database, clock: Clock) -> None:
    made = await Tokens(database, clock).create(node="n1", reason="bench 3", valid_s=60)
    async with database.reading() as transaction:
        (kept,) = await tokens.everything(transaction)
    assert made.token not in repr(kept)
    assert len(made.token) >= 43
    assert (kept.digest, kept.node, kept.reason) == (digest_of(made.token.encode()), "n1", "bench 3")


async def test_a_token_ends_with_its_time(database: Database, clock: Clock) -> None:
    made = await Tokens(database, clock).create(node="", reason="", valid_s=60)
    clock.advance(60)
    assert not await Tokens(database, clock).redeem("n1", made.token)


async def test_a_token_for_one_node_is_not_spent_by_another(database: Database, clock: Clock) -> None:
    made = await Tokens(database, clock).create(node="n1", reason="", valid_s=60)
    assert not await Tokens(database, clock).redeem("n2", made.token)
    assert await Tokens(database, clock).redeem("n1", made.token)


@pytest.mark.parametrize("token", ["", "x", "\ud800", "a" * 100_000])
async def test_nonsense_is_no_token(database: Database, clock: Clock, token: str) -> None:
    assert not await Tokens(database, clock).redeem("n1", token)


async def test_a_name_that_no_node_can_have_is_refused(database: Database, clock: Clock) -> None:
    with pytest.raises(ConfigurationError):
        await Tokens(database, clock).create(node="../n1", reason="", valid_s=60)
