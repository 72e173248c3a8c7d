"""What `fieldrelay bundle` and `fieldrelay repo` say and ask of RAUC bundles (`.raucb`), which others build and sign."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from cryptography import x509

from gateway.cli.show import emit
from gateway.words import size
from update.bundle.rauc_crypt import Recipient
from update.bundle.rauc_manifest import RaucImage, RaucManifest
from update.bundle.rauc_reader import (
    RaucPurpose,
    check_integrity,
    is_encrypted,
    rauc_policy,
    read_manifest,
    verify_rauc_bundle,
)
from update.bundle.rauc_rules import hardware_ids
from update.errors import UsageError
from update.trust.verified import TargetCustom


def inspect_rauc(file: Path, *, as_json: bool) -> None:
    """Show the manifest as it stands in the file."""
    manifest = read_manifest(file)
    values = {"verified": False, **_values(manifest)}
    lines = [f"version      {manifest.version or '(none)'} (nothing here is verified)", *_lines(manifest)]
    emit("fieldrelay.bundle.inspect-rauc/1", values, lines, as_json=as_json)


def verify_rauc(
    file: Path,
    *,
    roots: tuple[x509.Certificate, ...],
    intermediates: tuple[x509.Certificate, ...],
    purpose: str | None,
    threshold: int,
    at: datetime,
    recipient: tuple[Path, Path] | None,
    accept_plain: bool,
    as_json: bool,
) -> None:
    """Verify signature, manifest, payload and hash tree."""
    policy = rauc_policy(
        roots,
        at,
        intermediates=intermediates,
        purpose=_purpose(purpose),
        threshold=threshold,
        accept_plain=accept_plain,
        recipient=Recipient.from_pem(*(each.read_bytes() for each in recipient)) if recipient else None,
    )
    found = verify_rauc_bundle(file, policy)
    signers = [{"name": signer.name, "key": signer.key_id} for signer in found.signers]
    known = {"format": "plain"} if found.manifest is None else _values(found.manifest)
    lines = [f"{file}: good, version {found.manifest.version or '(none)'}" if found.manifest else f"{file}: good, plain"]
    lines += [f"signed by {signer.name} (key {signer.key_id[:16]}…)" for signer in found.signers]
    if found.manifest and found.manifest.unknown:
        lines.append(f"note: only a RAUC that knows {', '.join(found.manifest.unknown)} takes it")
    if len(signers) > 1:
        lines.append("note: RAUC 1.8 takes bundles with one signer only, later releases take several")
    emit(
        "fieldrelay.bundle.verify-rauc/1",
        {"verified": True, "digest": found.digest, "signers": signers, **known},
        lines,
        as_json=as_json,
    )


def rauc_target(file: Path, given: TargetCustom) -> TargetCustom:
    """With which properties a bundle is published, once payload and hash tree are known to fit its manifest.

    Of an encrypted one nothing can be read: version and hardware must be `given`.
    """
    if is_encrypted(file):
        if not (given.hw_ids and given.version):
            raise UsageError(f"{file} is encrypted, so nobody can read in it what it is: give --hardware and --version")
        return given
    manifest = check_integrity(file)
    return replace(given, version=given.version or manifest.version, hw_ids=given.hw_ids or hardware_ids(manifest))


def _purpose(text: str | None) -> RaucPurpose:
    if text is None:
        return RaucPurpose.SMIMESIGN
    try:
        return RaucPurpose(text)
    except ValueError as error:
        raise UsageError(f"--purpose of a RAUC bundle is {' or '.join(RaucPurpose)}: got {text[:80]!r}") from error


def _values(manifest: RaucManifest) -> dict[str, object]:
    return {
        "compatible": manifest.compatible,
        "version": manifest.version,
        "description": manifest.description,
        "build": manifest.build,
        "format": manifest.format.value,
        "unknown": list(manifest.unknown),
        "images": [_image_values(image) for image in manifest.images],
    }


def _image_values(image: RaucImage) -> dict[str, object]:
    return {
        "class": image.slot_class,
        "variant": image.variant,
        "artifact": image.artifact,
        "filename": image.filename,
        "size": image.size,
        "sha256": image.sha256,
        "hooks": list(image.hooks),
    }


def _lines(manifest: RaucManifest) -> Iterator[str]:
    yield f"compatible   {manifest.compatible}"
    yield f"format       {manifest.format}, hash tree of {size(manifest.verity.tree_bytes)}"
    for image in manifest.images:
        name = ".".join(part for part in (image.slot_class, image.artifact, image.variant) if part)
        length = "" if image.size is None else f"  {size(image.size)}"
        yield f"image        {name}: {image.filename or 'made by its hook'}{length}"
