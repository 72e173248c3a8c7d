"""What is seen of nodes decides what was installed, and is kept where it says something."""

import pytest

from gateway.database.engine import Database
from gateway.database.queries import actions
from gateway.database.records import Action, ActionOutcome, ClientKind, Release
from gateway.fleet.build import Fleet, make_fleet
from gateway.fleet.issuing import Wish
from gateway.fleet.judgement import Told
from gateway.fleet.sightings import Sighting
from gateway.fleet.telling import NOBODY
from tests.builders.fleet import Clock, Shelf
from update.digest import digest_of
from update.wire.ddi import Execution, Finished, Mode

RELEASE = Release("plant", "os/press.raucb", digest_of(b"press"), 100, "1.2")


@pytest.fixture
async def fleet(database: Database, shelf: Shelf, clock: Clock) -> Fleet:
    made = make_fleet(database, shelf, clock, NOBODY, stuck_after_s=0, verify_within_s=60)
    await made.accounts.give_token("n1", ClientKind.RAUC)
    return made


async def ordered(fleet: Fleet) -> int:
    made = await fleet.takeover.take("n1", Wish(RELEASE, "test", source="17"))
    assert made.action is not None
    await fleet.progress.offer("n1", made.action.id)
    return made.action.id


async def closed(fleet: Fleet, action: int) -> None:
    await fleet.progress.feedback("n1", action, Told("r1", Execution.CLOSED, Finished.SUCCESS, details=("installed",)))


async def find(database: Database, action: int) -> Action:
    async with database.reading() as transaction:
        found = await actions.find(transaction, action)
    assert found is not None
    return found


async def outcome(database: Database, action: int) -> ActionOutcome | None:
    end = (await find(database, action)).end
    return None if end is None else end.outcome


async def test_serial_and_variant_are_kept_beside_what_the_node_says(fleet: Fleet) -> None:
    await fleet.progress.describe("n1", digest_of(b"n1"), Mode.MERGE, {"rauc.compatible": "press", "line": "4"})
    await fleet.sightings.seen("n1", Sighting("1.1", "boot-1", serial="S7", variant="big"))
    node = (await fleet.progress.standing("n1")).node
    assert dict(node.attributes) == {"rauc.compatible": "press", "line": "4", "rauc.serial": "S7", "rauc.variant": "big"}
    assert (str(node.hardware), node.running.version, node.boot_id) == ("press:big", "1.1", "boot-1")
    await fleet.sightings.seen("n1", Sighting("1.1", "boot-1"))
    assert (await fleet.progress.standing("n1")).node.attributes["rauc.variant"] == "big"


@pytest.mark.parametrize(("runs", "end"), [("1.2", ActionOutcome.SUCCESS), ("1.1", ActionOutcome.ROLLED_BACK)])
async def test_what_was_seen_to_begin_is_judged_in_the_next_boot(
    fleet: Fleet, database: Database, runs: str, end: ActionOutcome
) -> None:
    action = await ordered(fleet)
    await fleet.sightings.seen("n1", Sighting("1.1", "boot-1"))
    await fleet.sightings.seen("n1", Sighting(runs, "boot-2"))
    assert await outcome(database, action) is None, "it restarted for reasons of its own"
    await fleet.sightings.seen("n1", Sighting("1.1", "boot-2"))
    await fleet.progress.begins("n1", action, "boot-2")
    await fleet.sightings.seen("n1", Sighting(runs, "boot-2"))
    assert await outcome(database, action) is None
    await fleet.sightings.seen("n1", Sighting(runs, "boot-3"))
    assert await outcome(database, action) is end


async def test_a_node_whose_boot_was_not_known_is_judged_once_it_was_seen_before_its_restart(
    fleet: Fleet, database: Database
) -> None:
    action = await ordered(fleet)
    await closed(fleet, action)
    await fleet.sightings.seen("n1", Sighting("1.1", "boot-7"))
    assert await outcome(database, action) is None
    await fleet.sightings.seen("n1", Sighting("1.2", "boot-8"))
    assert await outcome(database, action) is ActionOutcome.SUCCESS
    assert (await fleet.progress.standing("n1")).node.running.sha256 == RELEASE.sha256


async def test_a_node_first_seen_with_the_new_version_has_proved_no_restart(fleet: Fleet, database: Database) -> None:
    action = await ordered(fleet)
    await closed(fleet, action)
    await fleet.sightings.seen("n1", Sighting("1.2", "boot-8"))
    assert await outcome(database, action) is None


async def test_what_was_proved_to_run_is_not_forgotten_for_a_client_that_never_says(fleet: Fleet, database: Database) -> None:
    action = await ordered(fleet)
    await fleet.sightings.seen("n1", Sighting("1.1", "boot-1"))
    await closed(fleet, action)
    await fleet.sightings.seen("n1", Sighting("1.2", "boot-2"))
    assert await outcome(database, action) is ActionOutcome.SUCCESS
    await fleet.progress.describe("n1", digest_of(b"n1"), Mode.MERGE, {"MAC": "12:34"})
    node = (await fleet.progress.standing("n1")).node
    assert (node.running.version, node.running.sha256) == ("1.2", RELEASE.sha256)


async def test_the_same_again_costs_nothing(fleet: Fleet, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    await fleet.sightings.seen_again("n1", 7, Sighting("1.1", "boot-1"))
    with monkeypatch.context() as patched:
        patched.setattr(database, "writing", None)
        await fleet.sightings.seen_again("n1", 7, Sighting("1.1", "boot-1"))
    await fleet.sightings.seen_again("n1", 7, Sighting("1.1", "boot-2"))
    assert (await fleet.progress.standing("n1")).node.boot_id == "boot-2"


async def test_which_boot_a_node_is_in_counts_from_the_offer_on(fleet: Fleet) -> None:
    await fleet.sightings.seen_again("n1", 7, Sighting("1.1", "boot-1"))
    action = await ordered(fleet)
    assert (await fleet.progress.standing("n1")).node.boot_id == ""
    await fleet.sightings.seen_again("n1", action, Sighting("1.1", "boot-1"))
    assert (await fleet.progress.standing("n1")).node.boot_id == "boot-1"
