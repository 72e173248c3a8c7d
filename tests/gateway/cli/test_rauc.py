"""The publisher's commands for RAUC bundles that others signed."""

import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import pkcs7

from gateway.cli.main import main
from tests.builders.keys import Identity, issue
from tests.builders.rauc import PKI, assemble, attached, bundle, manifest, payload, tree_of, written
from tests.builders.signatures import signer
from update.bundle.cms_build import sign
from update.errors import (
    CertificateError,
    ConfigurationError,
    HashMismatchError,
    ThresholdError,
    UnsupportedError,
    UsageError,
)

DATA = payload(20)


def verify(work: Path, file: Path, *more: str) -> int:
    return main(["bundle", "verify", str(file), "--root", str(PKI.write(work / "pki").anchors), *more])


def result(capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    found: dict[str, object] = json.loads(capsys.readouterr().out)
    return found


def test_a_bundle_is_shown_and_verified(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = written(tmp_path, bundle(DATA))
    assert main(["bundle", "inspect", str(file)]) == 0
    shown = capsys.readouterr().out
    assert "press-controller" in shown
    assert "nothing here is verified" in shown
    assert main(["bundle", "inspect", str(file), "--json"]) == 0
    assert (found := result(capsys))["verified"] is False
    assert [image["class"] for image in found["images"]] == ["rootfs"]  # type: ignore[attr-defined]  # what the schema says
    assert verify(tmp_path, file) == 0
    assert "good, version 1.2.0" in capsys.readouterr().out
    assert verify(tmp_path, file, "--json") == 0
    found = result(capsys)
    assert (found["schema"], found["verified"], found["compatible"]) == (
        "fieldrelay.bundle.verify-rauc/1",
        True,
        "press-controller",
    )


def test_a_flipped_byte_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = bytearray(bundle(DATA))
    content[5000] ^= 1
    assert verify(tmp_path, written(tmp_path, bytes(content))) == HashMismatchError.exit_status
    assert "bundle.hash" in capsys.readouterr().err


def test_purpose_and_threshold_are_those_of_rauc(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = written(tmp_path, bundle(DATA, PKI.signers[0]))
    assert verify(tmp_path, code) == CertificateError.exit_status
    assert verify(tmp_path, code, "--purpose", "codesign") == 0
    assert verify(tmp_path, code, "--purpose", "codeSigning") == UsageError.exit_status
    assert verify(tmp_path, code, "--purpose", "codesign", "--threshold", "2") == ThresholdError.exit_status
    capsys.readouterr()
    assert verify(tmp_path, written(tmp_path, bundle(DATA, *PKI.signers[:2])), "--purpose", "codesign", "--threshold", "2") == 0
    assert "RAUC 1.8 takes bundles with one signer only" in capsys.readouterr().out


def test_what_only_a_later_rauc_takes_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert verify(tmp_path, written(tmp_path, bundle(DATA, text=manifest(DATA, more="[future]\n")))) == 0
    assert "only a RAUC that knows [future] takes it" in capsys.readouterr().out


def test_a_plain_bundle_is_accepted_only_when_asked_for(tmp_path: Path) -> None:
    file = written(tmp_path, assemble(DATA, sign(DATA, [signer(PKI.email)])))
    assert verify(tmp_path, file) == UnsupportedError.exit_status
    assert verify(tmp_path, file, "--accept-plain") == 0
    assert main(["bundle", "inspect", str(file)]) == UnsupportedError.exit_status


def encrypted(work: Path) -> tuple[Path, Identity]:
    identity = issue("gateway", PKI.root, key=rsa.generate_private_key(65537, 2048), digital_signature=False)
    builder = pkcs7.PKCS7EnvelopeBuilder().set_data(attached(manifest(DATA, format_="crypt"))).add_recipient(identity.certificate)
    envelope = builder.encrypt(serialization.Encoding.DER, [pkcs7.PKCS7Options.Binary])
    (work / "gateway.pem").write_bytes(identity.certificate_pem)
    (work / "gateway.key").write_bytes(identity.key_pem)
    return written(work, assemble(DATA + tree_of(DATA)[1], envelope), "secret.raucb"), identity


def test_an_encrypted_bundle_needs_its_recipient(tmp_path: Path) -> None:
    file, _ = encrypted(tmp_path)
    certificate, key = str(tmp_path / "gateway.pem"), str(tmp_path / "gateway.key")
    assert verify(tmp_path, file) == UnsupportedError.exit_status
    assert verify(tmp_path, file, "--recipient", certificate, key) == 0
    assert verify(tmp_path, file, "--recipient", key, certificate) == ConfigurationError.exit_status


# --- publishing


def make_repository(work: Path) -> Path:
    holders = []
    for role in ("root", "targets", "snapshot", "timestamp"):
        assert main(["repo", "key", str(work / role)]) == 0
        holders += ["--holder", f"{role}={work / role}.pub"]
    assert main(["repo", "init", str(work / "plant"), *holders]) == 0
    return work / "plant"


def listed(folder: Path) -> dict[str, dict[str, object]]:
    found: dict[str, dict[str, object]] = json.loads((folder / "staged" / "targets.signed.json").read_text())["targets"]
    return found


def add(folder: Path, file: Path, *more: str) -> int:
    return main(["repo", "add", str(folder), str(file), "--release-counter", "7", *more])


def test_a_ready_made_bundle_is_published_with_what_its_manifest_says(tmp_path: Path) -> None:
    folder = make_repository(tmp_path)
    assert add(folder, written(tmp_path, bundle(DATA), "press-1.2.0.raucb"), "--below", "os") == 0
    custom = listed(folder)["os/press-1.2.0.raucb"]["custom"]
    assert isinstance(custom, dict)
    assert (custom["hwIds"], custom["version"], custom["releaseCounter"]) == (["press-controller:#RE:"], "1.2.0", 7)


def test_a_damaged_bundle_is_not_published(tmp_path: Path) -> None:
    folder = make_repository(tmp_path)
    content = bytearray(bundle(DATA))
    content[len(DATA) + 7] ^= 1
    assert add(folder, written(tmp_path, bytes(content))) == HashMismatchError.exit_status
    assert listed(folder) == {}


def test_an_encrypted_bundle_is_published_as_its_publisher_says(tmp_path: Path) -> None:
    folder, (file, _) = make_repository(tmp_path), encrypted(tmp_path)
    assert add(folder, file, "--version", "2.0") == UsageError.exit_status
    assert add(folder, file, "--version", "2.0", "--hardware", "press-controller:-") == 0
    custom = listed(folder)["secret.raucb"]["custom"]
    assert isinstance(custom, dict)
    assert (custom["hwIds"], custom["version"]) == (["press-controller:-"], "2.0")
