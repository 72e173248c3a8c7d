"""python-tuf's own client reads what we publish; our client reads repositories that python-tuf's library made."""

import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from securesystemslib.signer import CryptoSigner
from tuf.api.exceptions import DownloadHTTPError, RepositoryError
from tuf.ngclient.fetcher import FetcherInterface
from tuf.ngclient.updater import Updater

from tests.builders.repository import RepositoryBuilder
from tests.builders.trust import Device
from update.durable import Disk
from update.publish.repository import PublishedRepository
from update.publish.roles import RoleKeys
from update.store.directory import DirectoryFetcher
from update.trust.verified import TargetCustom

pytestmark = pytest.mark.interop

ROLES = (("root", 3), ("targets", 3), ("snapshot", 1), ("timestamp", 1))


class FolderFetcher(FetcherInterface):
    """python-tuf's fetcher over a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def _fetch(self, url: str) -> Iterator[bytes]:
        file = self.folder / unquote(urlsplit(url).path).lstrip("/")
        if not file.is_file():
            raise DownloadHTTPError(f"{url} is not there", 404)
        yield file.read_bytes()


class Publisher:
    """A published repository with keys at hand. The peers judge by the real clock, so this one does as well."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.keys = {role: [CryptoSigner.generate_ecdsa() for _ in range(count)] for role, count in ROLES}
        self.repository = PublishedRepository(folder, Disk(), lambda: datetime.now(UTC))
        plan = {role: RoleKeys(tuple(key.public_key for key in keys), (len(keys) + 1) // 2) for role, keys in self.keys.items()}
        self.repository.init(plan)

    def publish(self, *roles: str) -> None:
        for role in roles:
            for key in self.keys[role][:2]:
                self.repository.sign(role, key)
        self.repository.publish({role: self.keys[role] for role in ("snapshot", "timestamp")})


@pytest.fixture
def publisher(tmp_path: Path) -> Publisher:
    made = Publisher(tmp_path / "repository")
    (tmp_path / "bundle").write_bytes(b"the bundle")
    made.repository.add(tmp_path / "bundle", "line/app.swu", TargetCustom(hw_ids=("imx8:1",), version="1.0", release_counter=4))
    made.publish("root", "targets")
    return made


def updater(publisher: Publisher, home: Path) -> Updater:
    home.mkdir(exist_ok=True)
    (home / "targets").mkdir(exist_ok=True)
    return Updater(
        str(home),
        "repo:///metadata/",
        str(home / "targets"),
        "repo:///targets/",
        fetcher=FolderFetcher(publisher.folder),
        bootstrap=(publisher.folder / "metadata" / "1.root.json").read_bytes(),
    )


def test_ngclient_verifies_and_downloads_what_we_publish(publisher: Publisher, tmp_path: Path) -> None:
    client = updater(publisher, tmp_path / "client")
    client.refresh()
    target = client.get_targetinfo("line/app.swu")
    assert target is not None
    assert target.custom["releaseCounter"] == 4
    assert Path(client.download_target(target)).read_bytes() == b"the bundle"


def test_ngclient_follows_rotations_and_delegations_that_we_publish(publisher: Publisher, tmp_path: Path) -> None:
    home = tmp_path / "client"
    updater(publisher, home).refresh()
    vendor, timestamp = CryptoSigner.generate_ed25519(), CryptoSigner.generate_ecdsa()
    publisher.repository.rotate({"timestamp": RoleKeys((timestamp.public_key,), 1)})
    publisher.keys["timestamp"] = [timestamp]
    publisher.repository.delegate("vendor", RoleKeys((vendor.public_key,), 1), ["vendor/*"])
    (tmp_path / "drive").write_bytes(b"drive")
    publisher.repository.add(tmp_path / "drive", "vendor/drive.swu", TargetCustom(), role="vendor")
    publisher.repository.sign("vendor", vendor)
    publisher.publish("root", "targets")
    client = updater(publisher, home)
    target = client.get_targetinfo("vendor/drive.swu")
    assert target is not None
    assert Path(client.download_target(target)).read_bytes() == b"drive"


def test_ngclient_refuses_what_our_client_refuses(publisher: Publisher, tmp_path: Path) -> None:
    """The peer bites: a replay of the old timestamp is a rollback for it too."""
    old = (publisher.folder / "metadata" / "timestamp.json").read_bytes()
    home = tmp_path / "client"
    publisher.publish()
    updater(publisher, home).refresh()
    (publisher.folder / "metadata" / "timestamp.json").write_bytes(old)
    with pytest.raises(RepositoryError):
        updater(publisher, home).refresh()


async def test_our_client_reads_a_repository_made_by_python_tuf(tmp_path: Path) -> None:
    builder = RepositoryBuilder(now=datetime.now(UTC).replace(microsecond=0))
    builder.delegate("vendor", ["vendor/*"])
    builder.add_target("line/app.swu", b"content", {"hwIds": ["imx8:1"], "releaseCounter": 2})
    builder.add_target("vendor/drive.swu", b"drive", role="vendor")
    builder.publish()
    builder.rotate("snapshot")
    builder.publish()
    builder.write_to(tmp_path / "repository")
    device = Device(tmp_path / "device", builder, time=datetime.now(UTC))
    repository = device.repository(DirectoryFetcher(tmp_path / "repository"))
    found = await repository.refresh()
    assert found.versions.root == 2
    assert [(info.path, info.custom.release_counter) for info in await repository.targets()] == [
        ("line/app.swu", 2),
        ("vendor/drive.swu", 0),
    ]


async def test_ngclient_reads_our_mirror_byte_for_byte(publisher: Publisher, tmp_path: Path) -> None:
    """What `metadata_files` gives, written in that order, is a repository for the peer."""
    source, mirror = publisher.folder, tmp_path / "mirror"
    builder = RepositoryBuilder()
    builder.files = {"metadata/1.root.json": (source / "metadata" / "1.root.json").read_bytes()}
    device = Device(tmp_path / "device", builder, time=datetime.now(UTC))
    repository = device.repository(DirectoryFetcher(source))
    await repository.refresh()
    files = await repository.metadata_files()
    assert files[-1][0] == "metadata/timestamp.json"
    for name, data in files:
        assert (source / name).read_bytes() == data
        (mirror / name).parent.mkdir(parents=True, exist_ok=True)
        (mirror / name).write_bytes(data)
    shutil.copytree(source / "targets", mirror / "targets")
    publisher.folder = mirror
    client = updater(publisher, tmp_path / "client")
    target = client.get_targetinfo("line/app.swu")
    assert target is not None
    assert Path(client.download_target(target)).read_bytes() == b"the bundle"
