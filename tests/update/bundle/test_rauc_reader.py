"""RAUC bundles as proofs: what is accepted, every refusal by its name, and nothing but named refusals for damaged ones."""

import ast
import random
from dataclasses import replace
from pathlib import Path

import pytest
from asn1crypto import cms as asn1
from asn1crypto import x509 as names_x509
from cryptography.hazmat.primitives import serialization

from tests.builders.keys import EMAIL_PROTECTION, Identity, issue
from tests.builders.rauc import (
    PKI,
    assemble,
    attached,
    bundle,
    manifest,
    payload,
    policy,
    tree_of,
    written,
)
from tests.builders.signatures import put, rebuilt, signer
from update.bundle import rauc_reader
from update.bundle.cms_build import sign
from update.bundle.rauc_reader import (
    RaucPolicy,
    RaucPurpose,
    check_integrity,
    rauc_policy,
    read_manifest,
    verify_rauc_bundle,
)
from update.bundle.verified import VerifiedRaucBundle
from update.digest import digest_of
from update.errors import (
    CertificateError,
    ContainerError,
    DescriptionError,
    FieldrelayError,
    HashMismatchError,
    LengthOrHashError,
    LimitError,
    ProvenanceError,
    SignatureError,
    StoreError,
    ThresholdError,
    UnsupportedError,
)
from update.trust.verified import Provenance, TargetCustom, TargetInfo

DATA = payload(20)
SECOND = issue("second", PKI.intermediate, purposes=[EMAIL_PROTECTION])


def verified(folder: Path, content: bytes, rules: RaucPolicy | None = None) -> VerifiedRaucBundle:
    return verify_rauc_bundle(written(folder, content), rules or policy())


def info(file: Path, length: int | None = None) -> TargetInfo:
    data = file.read_bytes()
    return TargetInfo("plant", "os/a.raucb", len(data) if length is None else length, digest_of(data), TargetCustom(), "targets")


def test_a_good_bundle_is_a_proof_of_its_manifest(tmp_path: Path) -> None:
    text = manifest(DATA)
    found = verified(tmp_path, bundle(DATA))
    assert found.manifest is not None
    assert (found.manifest.compatible, found.manifest.version, found.payload_bytes) == ("press-controller", "1.2.0", len(DATA))
    assert ([each.name for each in found.signers], found.digest) == (["email"], digest_of(text))
    assert (found.provenance, found.target) == (Provenance.CMS, None)


def test_a_crypt_bundle_is_proved_over_its_ciphertext(tmp_path: Path) -> None:
    cipher = payload(20, magic=b"\x93\x01\xfa\x00")
    content = bundle(cipher, text=manifest(cipher, format_="crypt"))
    found = verified(tmp_path, content)
    assert found.manifest is not None
    assert found.manifest.format == "crypt"
    with pytest.raises(HashMismatchError):
        verified(tmp_path, b"\x00" + content[1:])


def test_a_verity_bundle_that_is_no_squashfs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ContainerError, match="squashfs"):
        verified(tmp_path, bundle(payload(20, magic=b"\x93\x01\xfa\x00")))


def test_with_metadata_the_proof_is_tuf(tmp_path: Path) -> None:
    file = written(tmp_path, bundle(DATA))
    found = verify_rauc_bundle(file, policy(), provenance=Provenance.TUF, target=info(file))
    assert (found.provenance, found.target) == (Provenance.TUF, info(file))
    with pytest.raises(LengthOrHashError, match="the metadata of"):
        verify_rauc_bundle(file, policy(), provenance=Provenance.TUF, target=info(file, length=7))
    with pytest.raises(ProvenanceError):
        verify_rauc_bundle(file, policy(), provenance=Provenance.TUF)
    with pytest.raises(ProvenanceError):
        verify_rauc_bundle(file, policy(), target=info(file))


# --- who signed


def test_two_signers_count_and_both_must_be_good(tmp_path: Path) -> None:
    found = verified(tmp_path, bundle(DATA, PKI.email, SECOND), policy(threshold=2))
    assert {each.name for each in found.signers} == {"email", "second"}
    with pytest.raises(ThresholdError, match="1 of 2"):
        verified(tmp_path, bundle(DATA), policy(threshold=2))


@pytest.mark.parametrize("bad", [PKI.stranger, PKI.expired, PKI.future, PKI.signers[0]], ids=lambda identity: identity.name)
def test_one_bad_signer_beside_a_good_one_is_refused_as_rauc_refuses_it(tmp_path: Path, bad: Identity) -> None:
    """A `.swu` with the same two is accepted, as SWUpdate does; even a policy that says so for RAUC's does not help."""
    lenient = replace(policy(), cms=replace(policy().cms, require_all=False))
    for rules in (policy(), lenient):
        with pytest.raises(CertificateError):
            verified(tmp_path, bundle(DATA, PKI.email, bad), rules)


def test_a_signer_without_a_purpose_is_fit_for_smimesign_only(tmp_path: Path) -> None:
    plain_leaf = issue("leaf", PKI.intermediate)
    assert verified(tmp_path, bundle(DATA, plain_leaf)).signers[0].name == "leaf"
    with pytest.raises(CertificateError):
        verified(tmp_path, bundle(DATA, plain_leaf), codesign())


def test_a_code_signer_is_fit_for_codesign_only(tmp_path: Path) -> None:
    content = bundle(DATA, PKI.signers[0])
    assert verified(tmp_path, content, codesign()).signers[0].name == "signer0"
    with pytest.raises(CertificateError, match="purpose"):
        verified(tmp_path, content)
    with pytest.raises(CertificateError, match="purpose"):
        verified(tmp_path, bundle(DATA), codesign())


def codesign() -> RaucPolicy:
    roots, intermediates = (PKI.root.certificate,), (PKI.intermediate.certificate,)
    return rauc_policy(roots, policy().cms.at, intermediates=intermediates, purpose=RaucPurpose.CODESIGN)


def test_an_embedded_intermediate_is_used_and_an_embedded_root_is_not(tmp_path: Path) -> None:
    def embed(*more: Identity) -> bytes:
        def change(data: asn1.SignedData) -> None:
            ders = [each.certificate.public_bytes(serialization.Encoding.DER) for each in (PKI.email, *more)]
            put(
                data, "certificates", [asn1.CertificateChoices({"certificate": names_x509.Certificate.load(der)}) for der in ders]
            )

        return assemble(DATA + tree_of(DATA)[1], rebuilt(attached(manifest(DATA)), change))

    only_root = rauc_policy((PKI.root.certificate,), policy().cms.at)
    assert verified(tmp_path, embed(PKI.intermediate), only_root).signers[0].name == "email"
    with pytest.raises(CertificateError):
        verified(tmp_path, embed(), only_root)
    with pytest.raises(CertificateError):
        verified(tmp_path, embed(PKI.intermediate, PKI.root), rauc_policy((PKI.stranger_root.certificate,), policy().cms.at))


def test_a_manifest_that_was_changed_after_it_was_signed_is_refused(tmp_path: Path) -> None:
    signed = attached(manifest(DATA, version="1.0"))
    assert signed.count(b"version=1.0") == 1
    with pytest.raises(SignatureError, match="other content"):
        verified(tmp_path, assemble(DATA + tree_of(DATA)[1], signed.replace(b"version=1.0", b"version=9.0")))


# --- the payload


def test_one_changed_byte_of_payload_or_tree_refuses_the_whole(tmp_path: Path) -> None:
    content = bundle(DATA)
    for at in (4, 5000, len(DATA) - 1, len(DATA), len(DATA) + 4095):
        changed = bytearray(content)
        changed[at] ^= 1
        with pytest.raises(HashMismatchError, match="fetch it again"):
            verified(tmp_path, bytes(changed))
        with pytest.raises(HashMismatchError):
            check_integrity(written(tmp_path, bytes(changed)))


def test_a_tree_inside_the_payload_is_refused_as_too_large(tmp_path: Path) -> None:
    """RAUC 1.8 left the old tree inside at every `resign`, and signed the sum."""
    nested = DATA + tree_of(DATA)[1]
    assert verified(tmp_path, bundle(nested)).payload_bytes == len(nested)
    with pytest.raises(ContainerError, match="kept the old tree"):
        verified(tmp_path, assemble(nested + tree_of(nested)[1], attached(manifest(DATA, tree_bytes=8192))))


# --- plain


def plain(data: bytes) -> bytes:
    return assemble(data, sign(data, [signer(PKI.email)]))


def test_a_plain_bundle_is_refused_unless_the_policy_accepts_it(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="plain"):
        verified(tmp_path, plain(DATA))
    found = verified(tmp_path, plain(DATA), policy(accept_plain=True))
    assert (found.manifest, found.digest, found.payload_bytes) == (None, digest_of(DATA), len(DATA))
    with pytest.raises(SignatureError, match="other content"):
        verified(tmp_path, b"hsqsX" + plain(DATA)[5:], policy(accept_plain=True))


def test_a_plain_bundle_above_two_gibibytes_is_always_refused(tmp_path: Path) -> None:
    """The file is sparse: what counts is what it says before anything is read."""
    signature = sign(DATA, [signer(PKI.email)])
    file = tmp_path / "large.raucb"
    with file.open("wb") as opened:
        opened.truncate(2**31)
        opened.seek(2**31)
        opened.write(assemble(b"", signature))
    with pytest.raises(LimitError, match="CVE-2026-34155"):
        verify_rauc_bundle(file, policy(accept_plain=True))


def test_the_manifest_of_a_plain_bundle_cannot_be_shown(tmp_path: Path) -> None:
    for look in (read_manifest, check_integrity):
        with pytest.raises(UnsupportedError, match="plain"):
            look(written(tmp_path, plain(DATA)))


def test_what_is_shown_unverified_is_what_stands_there(tmp_path: Path) -> None:
    file = written(tmp_path, bundle(DATA, PKI.stranger))
    assert read_manifest(file).version == check_integrity(file).version == "1.2.0"


# --- damage


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"none\.raucb"):
        verify_rauc_bundle(tmp_path / "none.raucb", policy())


def test_a_bundle_without_a_manifest_that_pins_a_tree_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DescriptionError):
        verified(tmp_path, bundle(DATA, text=b"[update]\ncompatible=x\n"))


def mutations(folder: Path, count: int, seed: int) -> dict[str, int]:
    """The names of the refusals of mutated bundles; anything but a named refusal escapes."""
    rng, found = random.Random(seed), dict[str, int]()
    good = [bundle(DATA), bundle(DATA, PKI.email, PKI.rsa), plain(DATA)]
    for _ in range(count):
        content = bytearray(rng.choice(good))
        begin = rng.choice([0, len(DATA), len(content) - 2200, len(content) - 8])  # payload, tree, signature, trailer
        for _ in range(rng.choice([1, 1, 1, 4])):
            at = rng.randrange(min(max(0, begin), len(content) - 1), len(content))
            match rng.randrange(4):
                case 0:
                    content[at] ^= 1 << rng.randrange(8)
                case 1:
                    content[at : at + rng.randrange(1, 9)] = rng.randbytes(rng.randrange(9))
                case 2:
                    del content[at:]
                case _:
                    content[at:at] = rng.randbytes(rng.randrange(1, 5000))
            if not content:
                break
        try:
            verify_rauc_bundle(written(folder, bytes(content)), policy(accept_plain=True))
            code = "accepted"
        except FieldrelayError as refusal:
            code = refusal.code
        found[code] = found.get(code, 0) + 1
    return found


def test_mutated_bundles_raise_only_named_errors(tmp_path: Path) -> None:
    found = mutations(tmp_path, 300, seed=11)
    assert sum(found.values()) - found.get("accepted", 0) > 250


@pytest.mark.soak
def test_twenty_thousand_mutated_bundles_raise_only_named_errors(tmp_path: Path) -> None:
    found = mutations(tmp_path, 20_000, seed=12)
    print(f"rauc: 20000 mutations, seed 12: {found}")
    assert found.get("accepted", 0) < 200, "only encodings of unsigned parts are still valid"


def test_only_the_reader_makes_the_proof() -> None:
    """Whoever holds a `VerifiedRaucBundle` may offer it, so no other code may make one."""
    makers = set()
    for package in ("update", "node_agent", "media", "gateway"):
        for file in (Path(__file__).parents[3] / package).rglob("*.py"):
            calls = [node.func for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Call)]
            if any(ast.unparse(call).rpartition(".")[2] == "VerifiedRaucBundle" for call in calls):
                makers.add(file)
    assert makers == {Path(rauc_reader.__file__)}
