"""What a mirror verifies is registered: at the first refresh, again after a restart without upstream, and not when it left."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from gateway.north.sources import Current, FolderUpstream
from gateway.north.upstream import Mirror
from gateway.south.registry import Registry
from tests.builders.bundles import cms_policy
from tests.builders.delta_bundle import delta_bundle
from tests.builders.keys import make_pki
from tests.builders.relayed import custom_of, make_zck
from tests.builders.repository import START, RepositoryBuilder
from update.bundle.reader import verify_bundle
from update.durable import Disk
from update.store.store import Store
from update.trust.client import Repository
from update.trust.floor import Floor
from update.trust.verified import Provenance, TargetInfo

URL = "http://cdn.vendor.example/a.zck"


class Plant:
    """One repository upstream, in a folder, and gateways that mirror it into one state folder."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.upstream = folder, folder / "upstream"
        self.zck = make_zck(folder, blocks=60)
        self.builder = RepositoryBuilder()
        self.builder.add_target("a/body.zck", self.zck.read_bytes(), custom_of(self.zck).as_json())

    def publish(self) -> None:
        self.builder.publish()
        self.builder.write_to(self.upstream)

    def gateway(self) -> tuple[Mirror, Registry]:
        """A gateway after its start: everything that it knows is on disk."""
        disk, registry = Disk(), Registry(["plant"])
        store = Store(disk, self.folder / "store")
        floor = Floor(disk, (self.folder / "floor-1", self.folder / "floor-2"))
        if not floor.exists():
            floor.create()
        upstream = FolderUpstream(self.upstream)
        current = Current(upstream)
        repository = Repository(
            "plant",
            trusted=store.layout.trusted("plant"),
            root=self.builder.root_bytes,
            fetcher=current,
            disk=disk,
            floor=floor,
            now=lambda: START,
        )

        def inspect(file: Path, info: TargetInfo) -> None:
            if info.path.endswith(".swu"):
                registry.learn(info, verify_bundle(file, cms_policy(), provenance=Provenance.TUF, target=info))

        mirror = Mirror(
            repository,
            current,
            [upstream],
            store,
            hardware=(),
            inspect=inspect,
            now=lambda: datetime.now(UTC),
            shown=registry.shown,
        )
        return mirror, registry


@pytest.fixture
def plant(tmp_path: Path) -> Plant:
    return Plant(tmp_path)


async def test_a_mirrored_bundle_is_registered_also_after_a_restart_without_upstream(plant: Plant) -> None:
    plant.builder.add_target("a/one.swu", delta_bundle(plant.folder, plant.zck, URL).read_bytes())
    plant.publish()
    mirror, registry = plant.gateway()
    assert (await mirror.refresh()).problem == ""
    found = registry.find(URL)
    assert found is not None
    assert found.path == "a/body.zck"
    plant.upstream.rename(plant.folder / "away")
    mirror, registry = plant.gateway()
    assert registry.find(URL) is None
    await mirror.restore()
    assert registry.find(URL) == found
    assert (await mirror.refresh()).code
    assert registry.find(URL) == found, "a refresh that fails takes nothing away"


async def test_a_bundle_that_leaves_and_comes_back_is_dropped_and_registered_again(plant: Plant) -> None:
    content = delta_bundle(plant.folder, plant.zck, URL).read_bytes()
    plant.builder.add_target("a/one.swu", content)
    plant.publish()
    mirror, registry = plant.gateway()
    await mirror.refresh()
    del plant.builder.targets.targets["a/one.swu"]
    plant.publish()
    await mirror.refresh()
    assert len(registry) == 0
    plant.builder.add_target("a/one.swu", content)
    plant.publish()
    await mirror.refresh()
    assert registry.find(URL) is not None


async def test_a_bundle_of_other_signers_registers_nothing(plant: Plant) -> None:
    bundle = delta_bundle(plant.folder, plant.zck, URL, by=[make_pki().stranger])
    plant.builder.add_target("a/one.swu", bundle.read_bytes())
    plant.publish()
    mirror, registry = plant.gateway()
    assert (await mirror.refresh()).code.startswith("trust.")
    assert len(registry) == 0


async def test_a_body_that_is_no_longer_listed_takes_its_url_along(plant: Plant) -> None:
    plant.builder.add_target("a/one.swu", delta_bundle(plant.folder, plant.zck, URL).read_bytes())
    plant.publish()
    mirror, registry = plant.gateway()
    await mirror.refresh()
    del plant.builder.targets.targets["a/body.zck"]
    plant.publish()
    await mirror.refresh()
    assert len(registry) == 0
