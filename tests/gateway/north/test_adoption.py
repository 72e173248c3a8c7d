"""Signed URLs of bundles that no metadata lists are served while an open action wants them, and after a start as well."""

import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from gateway.database.engine import Database, sqlite_url
from gateway.database.queries import nodes
from gateway.database.records import ClientKind
from gateway.fleet.issuing import Wish
from gateway.fleet.telling import NOBODY
from gateway.fleet.unlisted import Unlisted
from gateway.north.adoption import GRACE_S, Adoption
from gateway.north.joined import JoinedPairs
from gateway.north.joining import Joining
from gateway.north.vouched import Obtained, Vouched
from gateway.south.registry import Registry
from tests.builders.bundles import describe, image, signed
from tests.builders.delta_bundle import delta_bundle
from tests.builders.fleet import Clock
from tests.builders.north_site import Ground, make_ground
from tests.builders.relayed import make_zck
from update.digest import digest_file
from update.durable import Disk
from update.errors import BundleError, UnsupportedError
from update.store.journal import Journal
from update.trust.verified import Provenance

URL = "http://cdn.example/a.zck"
COMPANY = "hawkbit:company"


@dataclass
class Site:
    """A store and a fleet with one node; `registry` and `adoption` are of one process, `start` begins the next one."""

    folder: Path
    database: Database
    ground: Ground
    now_s: float = 1000.0

    def __post_init__(self) -> None:
        self.start()

    def start(self) -> None:
        self.registry, self.forms = Registry(["plant"]), Unlisted()
        store, prove = self.ground.store, self.ground.vouched.prove
        self.adoption = Adoption(self.database, store, prove, self.registry, self.forms, clock=lambda: self.now_s)
        self.journal = self.folder / "joined.json"
        self.joining = Joining(store, prove, self.forms, JoinedPairs(Journal(Disk(), self.journal)))
        self.vouched = Vouched(self.ground.vouched.room, repository="plant", listed=tuple, prove=prove, adoption=self.adoption)

    async def have(self, file: Path) -> Obtained:
        """As if it had been fetched, or were here already."""
        sha256, length = digest_file(file)
        info = self.vouched.info(file.name, sha256, length)
        if (kept := await self.vouched.kept(info)) is not None:
            return kept
        with self.ground.store.stage(info) as staged:
            staged.write_at(0, file.read_bytes())
        return await self.vouched.keep(info, staged)

    async def want(self, obtained: Obtained, source: str = "1") -> None:
        wish = Wish(obtained.release, COMPANY, COMPANY, source=source)
        await self.ground.fleet.takeover.take("n1", wish)

    async def look(self, *, later: bool = False) -> bool:
        """Whether the URL is served after a look at the open actions."""
        self.now_s += GRACE_S if later else 0
        await self.adoption.look()
        return self.registry.find(URL) is not None


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    database = await Database.open(sqlite_url(tmp_path / "gateway.db"))
    ground = make_ground(tmp_path, database, Clock(), NOBODY)
    await ground.fleet.accounts.give_token("n1", ClientKind.SWUPDATE)
    async with database.writing() as transaction:
        await nodes.set_assigner(transaction, "n1", COMPANY)
        await nodes.set_accepts(transaction, "n1", Provenance.CMS)
    yield Site(tmp_path, database, ground)
    await database.close()


def delta_of(folder: Path) -> Path:
    return delta_bundle(folder, make_zck(folder, blocks=40), URL)


def whole_of(folder: Path, *, device: str = "/dev/a", version: str = "1.0") -> Path:
    content = (folder / "image").read_bytes()
    described = describe(images=[image("rootfs.img", content, device=device)], version=version)
    return signed(folder, described, {"rootfs.img": content}, name="whole.swu")


async def test_what_was_proved_is_served_until_there_is_an_action_or_nobody_wants_it(site: Site) -> None:
    obtained = await site.have(delta_of(site.folder))
    assert len(obtained.bodies) == 1
    assert await site.look()
    assert not await site.look(later=True)


async def test_it_is_served_as_long_as_an_action_is_open(site: Site) -> None:
    await site.want(await site.have(delta_of(site.folder)))
    assert await site.look(later=True)
    await site.ground.fleet.takeover.withdraw("n1", COMPANY, "1", "no longer")
    assert not await site.look()


async def test_after_a_start_it_is_proved_again_from_the_store(site: Site) -> None:
    await site.want(await site.have(delta_of(site.folder)))
    site.start()
    assert site.registry.find(URL) is None
    assert await site.look(later=True)
    assert not site.forms.is_whole((await site.have(site.folder / "delta.swu")).release)


async def test_what_cannot_be_proved_after_a_start_is_not_served(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    await site.want(await site.have(delta_of(site.folder)))
    (file,) = site.ground.store.layout.repositories.rglob("*.swu")
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.chmod(0o600)
    file.write_bytes(content)
    site.start()
    assert not await site.look()
    assert not await site.look()
    assert caplog.text.count("are not served") == 1, "it is not read at every change"
    assert not await site.look(later=True)
    assert caplog.text.count("are not served") == 2


async def test_what_metadata_lists_is_not_adopted(site: Site) -> None:
    obtained = await site.have(delta_of(site.folder))
    await site.want(replace(obtained, release=replace(obtained.release, provenance=Provenance.TUF)))
    assert not await site.look(later=True)


async def test_what_was_forgotten_is_proved_again_when_it_is_wanted_again(site: Site) -> None:
    file = delta_of(site.folder)
    await site.have(file)
    assert not await site.look(later=True)
    await site.have(file)
    assert site.registry.find(URL) is not None


async def test_the_delta_beside_a_wanted_whole_bundle_is_served(site: Site) -> None:
    delta = await site.have(delta_of(site.folder))
    whole = await site.have(whole_of(site.folder))
    assert await site.joining.join([delta, whole]) == await site.joining.join([whole, delta]) == whole
    assert site.forms.forms(whole.release) == (whole.release, delta.release)
    await site.want(whole)
    assert await site.look(later=True)


async def test_after_a_start_both_forms_are_known_and_proved_again(site: Site) -> None:
    found = [await site.have(delta_of(site.folder)), await site.have(whole_of(site.folder))]
    whole = await site.joining.join(found)
    await site.want(whole)
    site.start()
    assert await site.look(later=True)
    assert site.forms.forms(whole.release) == (whole.release, found[0].release)


@pytest.mark.parametrize("damage", [b"{", b'{"pairs": 3}', b"not json at all\n"])
async def test_without_its_record_the_whole_form_is_wanted_alone(
    site: Site, damage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    whole = await site.joining.join([await site.have(delta_of(site.folder)), await site.have(whole_of(site.folder))])
    await site.want(whole)
    site.journal.write_bytes(damage)
    site.start()
    assert "is lost" in caplog.text
    assert not await site.look(later=True)
    assert site.forms.forms(whole.release) == (whole.release,)


async def test_bundles_that_do_not_install_the_same_are_not_joined(site: Site) -> None:
    delta = await site.have(delta_of(site.folder))
    for different in ({"version": "1.1"}, {"device": "/dev/b"}):
        with pytest.raises(UnsupportedError, match="exactly one bundle"):
            await site.joining.join([delta, await site.have(whole_of(site.folder, **different))])


async def test_two_deltas_or_two_whole_bundles_are_not_joined(site: Site) -> None:
    delta = await site.have(delta_of(site.folder))
    whole = await site.have(whole_of(site.folder))
    for each in (delta, whole):
        with pytest.raises(BundleError, match="exactly one bundle"):
            await site.joining.join([each, each])


async def test_a_whole_bundle_is_known_to_be_one(site: Site) -> None:
    delta_of(site.folder)
    whole = await site.have(whole_of(site.folder))
    assert site.forms.is_whole(whole.release)
    assert whole.bodies == ()
