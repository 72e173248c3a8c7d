"""RAUC bundles are looked into once, and only where they are at hand and proved."""

from dataclasses import replace
from pathlib import Path

import pytest

from gateway.config import parse_config
from gateway.database.records import Release
from gateway.north.manifests import BundleManifests
from gateway.north.proofs import Proofs
from tests.builders.rauc import COMPATIBLE, PKI, assemble, bundle, payload
from tests.builders.repository import START
from tests.builders.signatures import signer
from update.bundle.cms_build import sign
from update.digest import digest_of
from update.errors import FieldrelayError
from update.trust.verified import Provenance, TargetInfo

DATA = payload(300)
GOOD = bundle(DATA)


class Place:
    """A folder of one file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.looked = 0

    def put(self, content: bytes, provenance: Provenance = Provenance.TUF) -> Release:
        (self.folder / "file").write_bytes(content)
        return Release("plant", "os/a.raucb", digest_of(content), len(content), "1.2.0", provenance)

    def find(self, info: TargetInfo) -> Path | None:
        self.looked += 1
        file = self.folder / "file"
        return file if file.exists() and digest_of(file.read_bytes()) == info.sha256 else None


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.fixture
def manifests(place: Place) -> BundleManifests:
    (place.folder / "anchors.pem").write_bytes(PKI.anchors_pem)
    text = 'format_version = 1\n[[repository]]\nname = "plant"\nroot = "r"\nupstreams = ["u"]\ncms_roots = ["anchors.pem"]\n'
    text += "rauc_accept_plain = true\n"
    return BundleManifests(place.find, Proofs(parse_config(text, place.folder / "g.toml").repository, lambda: START))


@pytest.mark.parametrize("provenance", list(Provenance))
async def test_a_bundle_is_proved_once(manifests: BundleManifests, place: Place, provenance: Provenance) -> None:
    release = place.put(GOOD, provenance)
    for _ in range(2):
        content = await manifests.of(release)
        assert content is not None
        assert (content.manifest.compatible, content.signers) == (COMPATIBLE, 1)
    assert place.looked == 1


async def test_what_is_not_at_hand_is_asked_for_again(manifests: BundleManifests, place: Place) -> None:
    release = place.put(GOOD)
    (place.folder / "file").unlink()
    assert await manifests.of(release) is None
    place.put(GOOD)
    assert await manifests.of(release) is not None


async def test_a_plain_bundle_says_nothing(manifests: BundleManifests, place: Place) -> None:
    assert await manifests.of(place.put(assemble(DATA, sign(DATA, [signer(PKI.email)])))) is None


async def test_a_bundle_that_nobody_vouches_for_is_not_looked_into(manifests: BundleManifests, place: Place) -> None:
    assert await manifests.of(replace(place.put(GOOD), repository="another")) is None


async def test_a_flipped_byte_is_refused_by_name(manifests: BundleManifests, place: Place) -> None:
    changed = bytearray(GOOD)
    changed[5000] ^= 1
    with pytest.raises(FieldrelayError):
        await manifests.of(place.put(bytes(changed)))
