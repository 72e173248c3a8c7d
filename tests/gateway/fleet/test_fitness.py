"""No RAUC node is ordered or offered what its RAUC would refuse, as far as it is known."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import pytest

from gateway.database.engine import Database
from gateway.database.queries import actions, nodes
from gateway.database.records import Action, ActionOutcome, ClientKind, Node, Release, Running
from gateway.fleet.build import Fleet, make_fleet
from gateway.fleet.fitness import Fitness, OfferedIfFit, RaucContent, hardware_of, judge_node
from gateway.fleet.issuing import Wish
from gateway.fleet.nodes import Order, release_of
from gateway.fleet.telling import NOBODY
from tests.builders.fleet import Clock, Shelf, bundle
from tests.builders.rauc import COMPATIBLE, IMAGES, manifest, payload
from update.bundle.rauc_manifest import parse_manifest
from update.digest import digest_of
from update.errors import CorruptError, FieldrelayError, HardwareError, RollbackError, UnsupportedError
from update.identity import Hardware
from update.trust.verified import Provenance
from update.wire.ddi import Mode

NOW = datetime(2026, 11, 20, tzinfo=UTC)
GENERAL = parse_manifest(manifest(payload(2)))
FOR_BIG = parse_manifest(manifest(payload(2), more=IMAGES.replace("rootfs]", "rootfs.big]")))
LISTED = bundle("1.2.0", f"{COMPATIBLE}:#RE:", path="os/press.raucb")
RELEASE = release_of(LISTED)


def node(**attributes: str) -> Node:
    said = {name.replace("_", "-"): value for name, value in attributes.items()}
    known = {f"rauc.{name}": value for name, value in said.items()}
    return Node("n1", ClientKind.RAUC, "site", digest_of(b"n1"), None, known, False, Running(), 1, NOW, NOW)


@pytest.mark.parametrize(
    ("content", "known", "refusal"),
    [
        (RaucContent(GENERAL, 1), {}, None),
        (RaucContent(GENERAL, 1), {"compatible": COMPATIBLE, "variant": "big"}, None),
        (RaucContent(GENERAL, 1), {"compatible": COMPATIBLE.upper()}, HardwareError),
        (RaucContent(FOR_BIG, 1), {}, None),  # nobody has said which variant it is
        (RaucContent(FOR_BIG, 1), {"variant": "big"}, None),
        (RaucContent(FOR_BIG, 1), {"variant": "small"}, HardwareError),
        (RaucContent(FOR_BIG, 1), {"variant": ""}, HardwareError),
        (RaucContent(GENERAL, 1), {"min_bundle_version": "1.2.0"}, None),
        (RaucContent(GENERAL, 1), {"min_bundle_version": "1.2.1"}, RollbackError),
        (RaucContent(GENERAL, 1), {"min_bundle_version": "the newest"}, None),
        (RaucContent(GENERAL, 2), {}, None),
        (RaucContent(GENERAL, 2), {"signers": "several"}, None),
        (RaucContent(GENERAL, 2), {"signers": "one"}, UnsupportedError),
        (RaucContent(replace(GENERAL, min_rauc_version="1.10"), 1), {"version": "1.8"}, UnsupportedError),
        (RaucContent(replace(GENERAL, min_rauc_version="1.10"), 1), {"version": "1.16"}, None),
        (RaucContent(replace(GENERAL, min_rauc_version="1.10"), 1), {}, None),
        (None, {"compatible": "another"}, None),
    ],
)
def test_a_node_is_judged_as_far_as_it_is_known(
    content: RaucContent | None, known: Mapping[str, str], refusal: type[FieldrelayError] | None
) -> None:
    if refusal is None:
        judge_node(node(**known), content)
    else:
        with pytest.raises(refusal, match="node n1: "):
            judge_node(node(**known), content)


@pytest.mark.parametrize(
    ("attributes", "hardware"),
    [
        ({}, None),
        ({"rauc.variant": "big"}, None),
        ({"rauc.compatible": "press"}, Hardware("press", "-")),
        ({"rauc.compatible": "Foo Bar", "rauc.variant": "big"}, Hardware("Foo Bar", "big")),
        ({"rauc.compatible": "a:b"}, None),
        ({"rauc.compatible": "x" * 81}, None),
    ],
)
def test_the_hardware_follows_from_compatible_and_variant(attributes: dict[str, str], hardware: Hardware | None) -> None:
    assert hardware_of(attributes) == hardware


@dataclass(slots=True)
class Known:
    """What is in the bundle; a test changes it."""

    content: RaucContent | None = None
    trouble: FieldrelayError | None = None
    asked: int = 0

    async def of(self, release: Release) -> RaucContent | None:
        assert release.sha256 == RELEASE.sha256
        self.asked += 1
        if self.trouble is not None:
            raise self.trouble
        return self.content


class AsOrdered:
    """Offers what was ordered."""

    async def offered(self, _node: Node, action: Action) -> Release | None:
        return action.release


@pytest.fixture
def known() -> Known:
    return Known(RaucContent(GENERAL, 1))


@pytest.fixture
async def fleet(database: Database, clock: Clock, known: Known) -> Fleet:
    made = make_fleet(
        database, Shelf({"plant": [LISTED]}), clock, NOBODY, stuck_after_s=0, verify_within_s=60, fitness=Fitness(known)
    )
    await made.accounts.give_token("n1", ClientKind.RAUC)
    return made


async def unfinished(database: Database) -> tuple[Action, ...]:
    async with database.reading() as transaction:
        return tuple(await actions.unfinished(transaction, "n1"))


async def test_an_order_that_a_node_would_not_take_is_refused_whole(fleet: Fleet, database: Database) -> None:
    data = {"rauc.compatible": COMPATIBLE, "rauc.min-bundle-version": "2.0.0"}
    await fleet.progress.describe("n1", digest_of(b"n1"), Mode.MERGE, data)
    with pytest.raises(RollbackError, match=r"node n1.*1\.2\.0.*2\.0\.0"):
        await fleet.assigner.assign(Order("1.2.0", None, "test"))
    assert await unfinished(database) == ()
    await fleet.progress.describe("n1", digest_of(b"n1"), Mode.MERGE, {"rauc.min-bundle-version": "1.0.0"})
    assert len(await fleet.assigner.assign(Order("1.2.0", None, "test"))) == 1


async def test_a_wish_that_a_node_would_not_take_is_refused_to_who_has_it(fleet: Fleet, database: Database) -> None:
    company = "hawkbit:company"
    async with database.writing() as transaction:
        await nodes.set_assigner(transaction, "n1", company)
    await fleet.progress.describe("n1", digest_of(b"n1"), Mode.MERGE, {"rauc.compatible": "another"})
    wish = Wish(replace(RELEASE, provenance=Provenance.CMS), company, company, source="17")
    with pytest.raises(HardwareError, match="node n1"):
        await fleet.takeover.take("n1", wish)
    assert await unfinished(database) == ()


async def test_what_turns_out_later_ends_the_action_before_the_node_hears_of_it(
    fleet: Fleet, database: Database, known: Known
) -> None:
    await fleet.progress.describe("n1", digest_of(b"n1"), Mode.MERGE, {"rauc.compatible": COMPATIBLE})
    (made,) = await fleet.assigner.assign(Order("1.2.0", None, "test"))
    assert made.action is not None
    offering = OfferedIfFit(AsOrdered(), fleet.fitness, fleet.progress)
    contact = await fleet.progress.standing("n1")
    assert await offering.offered(contact.node, made.action) == RELEASE
    await fleet.progress.describe("n1", digest_of(b"n1"), Mode.MERGE, {"rauc.min-bundle-version": "3"})
    contact = await fleet.progress.standing("n1")
    assert await offering.offered(contact.node, made.action) is None
    async with database.reading() as transaction:
        found = await actions.find(transaction, made.action.id)
    assert found is not None
    assert found.end is not None
    assert (found.end.outcome, found.end.code) == (ActionOutcome.REFUSED, RollbackError.code)
    asked = known.asked
    assert await offering.offered(contact.node, replace(made.action, offered=NOW)) == RELEASE
    assert known.asked == asked, "what was offered is not judged again"


async def test_a_store_in_trouble_refuses_nothing_for_good(fleet: Fleet, database: Database, known: Known) -> None:
    await fleet.progress.describe("n1", digest_of(b"n1"), Mode.MERGE, {"rauc.compatible": COMPATIBLE})
    (made,) = await fleet.assigner.assign(Order("1.2.0", None, "test"))
    assert made.action is not None
    known.trouble = CorruptError("a bad block")
    offering = OfferedIfFit(AsOrdered(), fleet.fitness, fleet.progress)
    assert await offering.offered((await fleet.progress.standing("n1")).node, made.action) == RELEASE
    assert len(await unfinished(database)) == 1
