"""Verification: a good bundle is proved, a bad one is refused by name, and nothing is written in between."""

import ast
import json
import shutil
from contextlib import suppress
from pathlib import Path

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.builders.bundles import DEMO, archive, cms_policy, describe, entry, finish, image, script, sign_by, signed, verified
from tests.builders.keys import make_pki
from update.bundle.reader import locate_members, open_member, open_payload, read_front, verify_bundle
from update.bundle.verified import VerifiedBundle
from update.digest import Digest, digest_of
from update.errors import (
    CertificateError,
    CompressionError,
    ContainerError,
    DescriptionError,
    FieldrelayError,
    HashMismatchError,
    LengthOrHashError,
    LimitError,
    MissingMemberError,
    ProvenanceError,
    SignatureError,
    StoreError,
    ThresholdError,
)
from update.trust.verified import Provenance, TargetCustom, TargetInfo

ROOTFS = bytes(range(256)) * 500
POST = b"#!/bin/sh\nexit 0\n"
DESCRIPTION = describe(images=[image("rootfs.img", ROOTFS)], scripts=[script("post.sh", POST)], version="1.2")
MEMBERS = {"rootfs.img": ROOTFS, "post.sh": POST}


def raw(folder: Path, members: list[tuple[str, bytes]]) -> Path:
    (folder / "raw.swu").write_bytes(archive(members))
    return folder / "raw.swu"


def content(bundle: VerifiedBundle, name: str) -> bytes:
    with open_member(bundle, name) as stream:
        return b"".join(iter(lambda: stream.read(1000), b""))


def info(file: Path, *, length: int | None = None) -> TargetInfo:
    size = file.stat().st_size
    return TargetInfo("plant", "bundle.swu", size if length is None else length, Digest("0" * 64), TargetCustom(), "targets")


def test_a_good_bundle_is_proved_and_its_members_are_read(tmp_path: Path) -> None:
    bundle = verified(signed(tmp_path, DESCRIPTION, MEMBERS))
    assert bundle.provenance is Provenance.CMS
    assert bundle.description.version == "1.2"
    assert bundle.digest == digest_of(DESCRIPTION)
    assert [signer.name for signer in bundle.signers] == ["signer0"]
    assert {name: content(bundle, name) for name in bundle.members} == MEMBERS


def test_members_are_where_the_proof_says(tmp_path: Path) -> None:
    bundle = verified(signed(tmp_path, DESCRIPTION, MEMBERS))
    whole = bundle.file.read_bytes()
    assert all(whole[each.offset : each.offset + each.size] == MEMBERS[each.name] for each in bundle.members.values())


def test_a_bundle_named_by_metadata_carries_the_stronger_proof(tmp_path: Path) -> None:
    file = signed(tmp_path, DESCRIPTION, MEMBERS)
    bundle = verify_bundle(file, cms_policy(), provenance=Provenance.TUF, target=info(file))
    assert bundle.target == info(file)
    with pytest.raises(LengthOrHashError):
        verify_bundle(file, cms_policy(), provenance=Provenance.TUF, target=info(file, length=7))


def test_a_provenance_without_its_proof_is_refused(tmp_path: Path) -> None:
    file = signed(tmp_path, DESCRIPTION, MEMBERS)
    with pytest.raises(ProvenanceError):
        verify_bundle(file, cms_policy(), provenance=Provenance.TUF)
    with pytest.raises(ProvenanceError):
        verify_bundle(file, cms_policy(), target=info(file))


def test_several_keys_are_counted(tmp_path: Path) -> None:
    file = signed(tmp_path, DESCRIPTION, MEMBERS, *make_pki().signers[:2])
    assert len(verified(file, threshold=2).signers) == 2
    with pytest.raises(ThresholdError):
        verified(file, threshold=3)


def test_a_stranger_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CertificateError):
        verified(signed(tmp_path, DESCRIPTION, MEMBERS, make_pki().stranger))


def test_the_signature_is_judged_before_the_description_is_read(tmp_path: Path) -> None:
    bomb = b"[" * 100_000
    with pytest.raises(SignatureError):
        verified(raw(tmp_path, [("sw-description", bomb), ("sw-description.sig", sign_by(DESCRIPTION))]))


SIGNATURE = sign_by(DESCRIPTION)
FRONT = [("sw-description", DESCRIPTION), ("sw-description.sig", SIGNATURE)]
REST = [("rootfs.img", ROOTFS), ("post.sh", POST)]


@pytest.mark.parametrize(
    ("members", "refusal"),
    [
        ([*FRONT, *REST, ("extra", b"")], MissingMemberError),
        ([*FRONT, *REST, ("sw-description2", DESCRIPTION)], MissingMemberError),
        ([*FRONT, *REST, ("sw-description", DESCRIPTION)], ContainerError),
        ([*FRONT, *REST, REST[0]], ContainerError),
        ([*FRONT, REST[0]], MissingMemberError),
        (FRONT, MissingMemberError),
        ([*FRONT, REST[0], ("post.sh", POST + b"rm -rf /\n")], HashMismatchError),
        ([*FRONT, ("rootfs.img", ROOTFS[:-1]), REST[1]], HashMismatchError),
        ([*FRONT, ("rootfs.img", b""), REST[1]], HashMismatchError),
        ([FRONT[1], FRONT[0], *REST], ContainerError),
        ([FRONT[0], REST[0], FRONT[1], REST[1]], ContainerError),
        ([REST[0], *FRONT, REST[1]], ContainerError),
        ([FRONT[0], *REST], ContainerError),
        ([FRONT[0], ("sw-description.sig", b""), *REST], SignatureError),
        ([FRONT[0], ("sw-description.sig", bytes(300_000)), *REST], LimitError),
        ([("sw-description", bytes(300_000)), FRONT[1], *REST], LimitError),
        ([("sw-description", DESCRIPTION + b" "), FRONT[1], *REST], SignatureError),
        ([], ContainerError),
    ],
)
def test_a_bundle_that_is_not_what_was_signed_is_refused(
    tmp_path: Path, members: list[tuple[str, bytes]], refusal: type[FieldrelayError]
) -> None:
    file = raw(tmp_path, members)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(refusal):
        verified(file)
    assert sorted(tmp_path.iterdir()) == before


def test_members_may_come_in_any_order(tmp_path: Path) -> None:
    assert set(verified(raw(tmp_path, [*FRONT, *reversed(REST)])).members) == set(MEMBERS)


def test_a_signed_description_that_is_malformed_is_refused(tmp_path: Path) -> None:
    for text, refusal in [(b"software = {", DescriptionError), (b'{"a":' * 10_000, LimitError)]:
        with pytest.raises(refusal):
            verified(raw(tmp_path, [("sw-description", text), ("sw-description.sig", sign_by(text))]))


def test_a_signed_description_cannot_name_itself(tmp_path: Path) -> None:
    text = json.dumps({"software": {"version": "1", "images": [image("sw-description", b"")]}}).encode()
    with pytest.raises(FieldrelayError):
        verified(raw(tmp_path, [("sw-description", text), ("sw-description.sig", sign_by(text))]))


def test_an_absent_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError):
        verified(tmp_path / "absent.swu")
    with pytest.raises(StoreError):
        verified(tmp_path)


def test_a_member_that_changed_since_is_noticed_before_its_end(tmp_path: Path) -> None:
    bundle = verified(signed(tmp_path, DESCRIPTION, MEMBERS))
    offset = bundle.members["rootfs.img"].offset
    with bundle.file.open("r+b") as file:
        file.seek(offset)
        file.write(b"changed")
    with open_member(bundle, "rootfs.img") as stream:
        assert len(stream.read(len(ROOTFS) - 1)) == len(ROOTFS) - 1
        with pytest.raises(HashMismatchError):
            stream.read(1)


def test_a_bundle_that_became_shorter_is_noticed(tmp_path: Path) -> None:
    bundle = verified(signed(tmp_path, DESCRIPTION, MEMBERS))
    with bundle.file.open("r+b") as file:
        file.truncate(bundle.members["rootfs.img"].offset + 5)
    with pytest.raises(ContainerError):
        content(bundle, "rootfs.img")


def test_a_member_that_is_not_there_is_refused(tmp_path: Path) -> None:
    bundle = verified(signed(tmp_path, DESCRIPTION, MEMBERS))
    with pytest.raises(MissingMemberError):
        content(bundle, "other")


def payload_of(tmp_path: Path, *, announced: str = "", max_bytes: int = 1 << 20) -> bytes:
    stored = zstandard.compress(ROOTFS)
    properties = {"decompressed-size": announced} if announced else {}
    text = describe(images=[image("rootfs.zst", stored, compressed="zstd", properties=properties)])
    bundle = verified(signed(tmp_path, text, {"rootfs.zst": stored}))
    with open_payload(bundle, bundle.description.select(DEMO).images[0], max_bytes=max_bytes) as payload:
        return b"".join(iter(lambda: payload.read(1000), b""))


def test_a_compressed_member_is_unpacked(tmp_path: Path) -> None:
    assert payload_of(tmp_path) == ROOTFS
    assert payload_of(tmp_path, announced=str(len(ROOTFS))) == ROOTFS


@pytest.mark.parametrize("announced", [str(len(ROOTFS) - 1), str(len(ROOTFS) + 1), "-1", "1e9", "²", "9" * 30])
def test_an_image_that_is_not_as_long_as_announced_is_refused(tmp_path: Path, announced: str) -> None:
    with pytest.raises(CompressionError):
        payload_of(tmp_path, announced=announced)


def test_an_image_larger_than_its_device_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CompressionError):
        payload_of(tmp_path, max_bytes=len(ROOTFS) - 1)


def test_the_front_is_read_without_a_judgement(tmp_path: Path) -> None:
    file = raw(tmp_path, [("sw-description", b"anything"), ("sw-description.sig", b"x"), ("m", b"y")])
    front = read_front(file)
    assert (front.description, front.signature) == (b"anything", b"x")
    assert list(locate_members(file)) == ["sw-description", "sw-description.sig", "m"]


def test_symbolic_links_cannot_be_smuggled_behind_the_signature(tmp_path: Path) -> None:
    file = tmp_path / "link.swu"
    file.write_bytes(finish(b"".join(entry(*each) for each in FRONT) + entry("rootfs.img", b"/etc/shadow", mode=0o120777)))
    with pytest.raises(ContainerError):
        verified(file)


def test_only_the_reader_makes_the_proof() -> None:
    """Whoever holds a `VerifiedBundle` may install it, so no other code may make one."""
    makers = set()
    for package in ("update", "node_agent", "media", "gateway"):
        for file in (Path(__file__).parents[3] / package).rglob("*.py"):
            if "VerifiedBundle" not in file.read_text():
                continue
            calls = [node.func for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Call)]
            names = [call.attr if isinstance(call, ast.Attribute) else getattr(call, "id", "") for call in calls]
            if "VerifiedBundle" in names:
                makers.add(f"{package}/{file.name}")
    assert makers == {"update/reader.py"}


@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_damaged_bundle_is_refused_by_name(tmp_path: Path, data: st.DataObject) -> None:
    good = signed(tmp_path, DESCRIPTION, MEMBERS).read_bytes()
    damaged = bytearray(good)
    for _ in range(data.draw(st.integers(1, 3))):
        position = data.draw(st.integers(0, len(damaged) - 1))
        damaged[position : position + data.draw(st.integers(0, 4))] = data.draw(st.binary(max_size=4))
    file = tmp_path / "damaged.swu"
    file.write_bytes(damaged)
    with suppress(FieldrelayError):
        # Bytes that nothing depends on, as a time in a header, may change; content may not.
        assert {name: content(verified(file), name) for name in MEMBERS} == MEMBERS
    shutil.rmtree(tmp_path / "bundle.swu.members")
