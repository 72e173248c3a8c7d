"""Bundles are proved by their own signatures before a repository lists them here, whatever kind they are."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import pkcs7

from gateway.config import GatewayConfig, StateFolder, parse_config
from gateway.north.build import make_mirrors
from gateway.north.mirrors import Mirrors
from gateway.north.proofs import Proofs
from gateway.north.room import Room
from tests.builders.bundles import DEMO, archive, describe, image, sign_by
from tests.builders.keys import issue
from tests.builders.rauc import PKI, assemble, attached, bundle, manifest, payload, tree_of
from tests.builders.repository import START, RepositoryBuilder
from tests.builders.signatures import signer
from update.bundle.cms_build import sign
from update.bundle.verified import VerifiedBundle, VerifiedRaucBundle
from update.digest import digest_of
from update.durable import Disk
from update.errors import (
    ConfigurationError,
    FieldrelayError,
    HashMismatchError,
    ProvenanceError,
    ThresholdError,
    UnsupportedError,
)
from update.store.store import Store
from update.trust.floor import Floor
from update.trust.verified import TargetCustom, TargetInfo
from update.wire.line import BoundedLine

NAME = "plant"
DATA = payload(300)
ROOTFS = b"root file system"
DESCRIPTION = describe(images=[image("rootfs.img", ROOTFS)], hardware=[DEMO.revision])
NATIVE = archive([("sw-description", DESCRIPTION), ("sw-description.sig", sign_by(DESCRIPTION)), ("rootfs.img", ROOTFS)])


def flipped(content: bytes, at: int) -> bytes:
    changed = bytearray(content)
    changed[at] ^= 1
    return bytes(changed)


def configured(folder: Path, *lines: str) -> GatewayConfig:
    """A gateway of one repository in `folder/upstream`, whose bundles the test PKI signs."""
    (folder / "anchors.pem").write_bytes(PKI.anchors_pem)
    text = f'format_version = 1\n[gateway]\nstate = "state"\n[[repository]]\nname = "{NAME}"\nroot = "root.json"\n'
    text += 'upstreams = ["upstream"]\ncms_roots = ["anchors.pem"]\n'
    return parse_config("\n".join([text, *lines, ""]), folder / "gateway.toml")


def proved(folder: Path, content: bytes, name: str, *lines: str) -> VerifiedBundle | VerifiedRaucBundle | None:
    (folder / "file").write_bytes(content)
    info = TargetInfo(NAME, name, len(content), digest_of(content), TargetCustom(), "targets")
    return Proofs(configured(folder, *lines).repository, lambda: START).verify(folder / "file", info)


def unlisted(content: bytes, name: str, repository: str = NAME) -> TargetInfo:
    """What is said of a bundle that no metadata lists."""
    return TargetInfo(repository, name, len(content), digest_of(content), TargetCustom(), "")


def refused(folder: Path, content: bytes, refusal: type[FieldrelayError], *lines: str) -> None:
    with pytest.raises(refusal):
        proved(folder, content, "os/a.raucb", *lines)


def test_both_kinds_of_bundles_are_proved_and_nothing_else_is_one(tmp_path: Path) -> None:
    assert isinstance(proved(tmp_path, NATIVE, "os/a.swu"), VerifiedBundle)
    found = proved(tmp_path, bundle(DATA), "os/a.raucb")
    assert isinstance(found, VerifiedRaucBundle)
    assert found.provenance == "tuf"
    assert proved(tmp_path, bundle(DATA), "os/a.img") is None


def test_a_rauc_bundle_satisfies_the_repository_s_threshold_and_purpose(tmp_path: Path) -> None:
    refused(tmp_path, bundle(DATA), ThresholdError, "cms_threshold = 2")
    code = bundle(DATA, PKI.signers[0])
    refused(tmp_path, code, FieldrelayError)
    assert proved(tmp_path, code, "a.raucb", 'rauc_purpose = "codesign"')


def test_plain_rauc_bundles_are_taken_where_it_is_configured(tmp_path: Path) -> None:
    plain = assemble(DATA, sign(DATA, [signer(PKI.email)]))
    refused(tmp_path, plain, UnsupportedError)
    assert proved(tmp_path, plain, "a.raucb", "rauc_accept_plain = true")


def test_an_encrypted_rauc_bundle_is_taken_with_a_recipient_s_key(tmp_path: Path) -> None:
    gateway = issue("gateway", PKI.root, key=rsa.generate_private_key(65537, 2048), digital_signature=False)
    builder = pkcs7.PKCS7EnvelopeBuilder().set_data(attached(manifest(DATA, format_="crypt"))).add_recipient(gateway.certificate)
    envelope = builder.encrypt(serialization.Encoding.DER, [pkcs7.PKCS7Options.Binary])
    content = assemble(DATA + tree_of(DATA)[1], envelope)
    refused(tmp_path, content, UnsupportedError)
    (tmp_path / "gateway.pem").write_bytes(gateway.certificate_pem)
    (tmp_path / "gateway.key").write_bytes(gateway.key_pem)
    assert proved(tmp_path, content, "a.raucb", 'rauc_certificate = "gateway.pem"', 'rauc_key = "gateway.key"')
    with pytest.raises(ConfigurationError, match="belong together"):
        configured(tmp_path, 'rauc_key = "gateway.key"')


def test_without_metadata_only_the_authorities_of_a_repository_prove_a_bundle(tmp_path: Path) -> None:
    proofs = Proofs(configured(tmp_path).repository, lambda: START)
    for content, name in ((bundle(DATA), "a.raucb"), (NATIVE, "a.swu")):
        (tmp_path / name).write_bytes(content)
        assert proofs.prove(tmp_path / name, unlisted(content, name)).provenance == "cms"
        with pytest.raises(ProvenanceError, match="cms_roots"):
            proofs.prove(tmp_path / name, unlisted(content, name, "other"))
    (tmp_path / "a.raucb").write_bytes(flipped(bundle(DATA), 5000))
    with pytest.raises(HashMismatchError):
        proofs.prove(tmp_path / "a.raucb", unlisted(bundle(DATA), "a.raucb"))


# --- in the mirror


@asynccontextmanager
async def mirroring(
    folder: Path, builder: RepositoryBuilder, learn: Callable[[TargetInfo, VerifiedBundle], None]
) -> AsyncIterator[Mirrors]:
    """The mirrors of a gateway as it is configured, over what `builder` published."""
    builder.write_to(folder / "upstream")
    (folder / "root.json").write_bytes(builder.root_bytes)
    config, disk = configured(folder), Disk()
    state = StateFolder(config.gateway.state)
    state.root.mkdir()
    Floor(disk, state.floor).create()
    room = Room(Store(disk, state.store), quota_bytes=0, reserve_bytes=0)
    proofs = Proofs(config.repository, lambda: START)
    async with aiohttp.ClientSession() as session:
        yield make_mirrors(
            config,
            state,
            disk,
            session,
            lambda: START,
            room=room,
            line=BoundedLine(connections=4, shares=None),
            proofs=proofs,
            learn=learn,
            shown=lambda _name, _listed: None,
        )


async def test_a_rauc_bundle_that_was_damaged_before_it_was_published_is_named_and_never_listed(tmp_path: Path) -> None:
    """Its hash in the metadata is that of the damaged file, and `rauc info` accepts it: only payload and tree tell."""
    builder, learned = RepositoryBuilder(), list[str]()
    good = bundle(DATA)
    builder.add_target("good.raucb", good)
    builder.add_target("good.swu", NATIVE)
    for name, at in (("payload.raucb", 700_000), ("tree.raucb", len(DATA) + 5)):
        builder.add_target(name, flipped(good, at))
    builder.publish()
    async with mirroring(tmp_path, builder, lambda info, _bundle: learned.append(info.path)) as mirrors:
        state = await mirrors.refresh(NAME)
        assert [info.path for info in mirrors.targets(NAME)] == ["good.raucb", "good.swu"]
        assert state.code == HashMismatchError.code
        assert "dm-verity" in state.problem or "hash tree" in state.problem
    assert not [path for path in (tmp_path / "state").rglob("*") if path.name.endswith(("payload.raucb", "tree.raucb"))]
    assert learned == ["good.swu"], "a RAUC bundle names no URLs to serve"
