"""`fieldrelay bundle`: build, inspect, verify, sign and compare bundles."""

from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import click
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, ObjectIdentifier

from gateway.cli.rauc import inspect_rauc, verify_rauc
from gateway.cli.show import as_json, emit, no_progress, progress_bars
from gateway.words import size
from update.bundle.cms import CmsPolicy
from update.bundle.cms_build import add_signature
from update.bundle.description import Choice, Description, parse
from update.bundle.rauc_layout import is_rauc_bundle
from update.bundle.reader import locate_members, read_front, verify_bundle
from update.bundle.writer import replace_signature
from update.chunks.zchunk import HeaderIndex, parse_header
from update.durable import Disk
from update.errors import ConfigurationError, UsageError
from update.publish.bundles import BuiltBundle, build_bundle
from update.publish.difference import Travel, diff_bundles
from update.publish.images import zck_header
from update.publish.spec import load_spec
from update.trust.signers import FileSigner

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_PURPOSES = {
    "codeSigning": ExtendedKeyUsageOID.CODE_SIGNING,
    "emailProtection": ExtendedKeyUsageOID.EMAIL_PROTECTION,
    "none": None,
}
_BAR_CELLS = 40

_signer = click.option(
    "--signer",
    "signers",
    type=(_FILE, _FILE),
    multiple=True,
    required=True,
    metavar="CERTIFICATE KEY",
    help="A signer's certificate and private key (PEM); may be given several times.",
)


@click.group("bundle")
def bundle() -> None:
    """Build, inspect, verify, sign and compare .swu bundles; inspect and verify RAUC's .raucb."""


@bundle.command("build")
@click.argument("spec", type=_FILE)
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), default=Path(), help="Folder for what is built.")
@_signer
@click.option("--dry-run", is_flag=True, help="Check SPEC and keys, build nothing.")
@no_progress
@as_json
def build(
    *, spec: Path, out: Path, signers: Sequence[tuple[Path, Path]], dry_run: bool, no_progress: bool, as_json: bool
) -> None:
    """Build the signed bundle that SPEC (a TOML file) describes, and the .zck files of its deltas."""
    plan, keys = load_spec(spec), _load_signers(signers)
    if dry_run:
        emit("fieldrelay.bundle.check/1", {"file": plan.bundle.file_name}, [f"{spec}: good; would build {plan.bundle.file_name}"],
             as_json=as_json)  # fmt: skip
        return
    with progress_bars(wanted=not (no_progress or as_json)) as report:
        built = build_bundle(plan, out, keys, Disk(), progress=report)
    emit("fieldrelay.bundle.build/1", _built_values(built), _built_lines(built), as_json=as_json)


@bundle.command("inspect")
@click.argument("file", type=_FILE)
@as_json
def inspect(*, file: Path, as_json: bool) -> None:
    """Show what FILE says it is. Nothing is verified: use `verify` for that."""
    if is_rauc_bundle(file.name):
        inspect_rauc(file, as_json=as_json)
        return
    front, members = read_front(file), locate_members(file)
    description = parse(front.description)
    sizes = {name: header.size for name, header in members.items()}
    values = {
        "verified": False,
        "version": description.version,
        "description": description.text,
        "selections": [_selection_values(description, choice) for choice in description.choices],
        "members": [{"name": name, "size": count} for name, count in sizes.items()],
    }
    lines = [f"version      {description.version} (nothing here is verified)", *_selection_lines(description)]
    lines += [f"member       {name}  {size(count)}" for name, count in sizes.items()]
    emit("fieldrelay.bundle.inspect/1", values, lines, as_json=as_json)


@bundle.command("verify")
@click.argument("file", type=_FILE)
@click.option(
    "--root", "roots", type=_FILE, multiple=True, required=True, help="Trust anchors (PEM); may be given several times."
)
@click.option("--intermediate", "intermediates", type=_FILE, multiple=True, help="Further CA certificates (PEM).")
@click.option(
    "--purpose",
    help="Of the signers: codeSigning (default), emailProtection, none, or an OID; of a .raucb: smimesign (default) or codesign.",
)
@click.option(
    "--threshold", type=click.IntRange(1, 16), default=1, show_default=True, help="Distinct keys that must have signed."
)
@click.option(
    "--recipient", type=(_FILE, _FILE), metavar="CERTIFICATE KEY", help="Opens an encrypted .raucb (PEM, RSA, key unencrypted)."
)
@click.option("--accept-plain", is_flag=True, help="Accept a .raucb in the old plain format too.")
@click.option("--at", type=click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"]), help="Judge certificates at this time (UTC).")
@as_json
def verify(
    *,
    file: Path,
    roots: Sequence[Path],
    intermediates: Sequence[Path],
    purpose: str | None,
    threshold: int,
    recipient: tuple[Path, Path] | None,
    accept_plain: bool,
    at: datetime | None,
    as_json: bool,
) -> None:
    """Verify every byte of FILE: container, signatures, hashes."""
    anchors, further = _certificates(roots), _certificates(intermediates)
    time = at.replace(tzinfo=UTC) if at else datetime.now(UTC)
    if is_rauc_bundle(file.name):
        verify_rauc(
            file,
            roots=anchors,
            intermediates=further,
            purpose=purpose,
            threshold=threshold,
            at=time,
            recipient=recipient,
            accept_plain=accept_plain,
            as_json=as_json,
        )
        return
    policy = CmsPolicy(
        roots=anchors, intermediates=further, purpose=_purpose(purpose or "codeSigning"), threshold=threshold, at=time
    )
    verified = verify_bundle(file, policy)
    signers = [{"name": signer.name, "key": signer.key_id} for signer in verified.signers]
    values = {"verified": True, "version": verified.description.version, "digest": verified.digest, "signers": signers}
    lines = [f"{file}: good, version {verified.description.version}"]
    lines += [f"signed by {signer.name} (key {signer.key_id[:16]}…)" for signer in verified.signers]
    emit("fieldrelay.bundle.verify/1", values, lines, as_json=as_json)


@bundle.command("sign")
@click.argument("file", type=_FILE)
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Write here instead of replacing FILE.")
@_signer
@as_json
def sign(*, file: Path, out: Path | None, signers: Sequence[tuple[Path, Path]], as_json: bool) -> None:
    """Add signatures to FILE: the description stays as it is, byte for byte."""
    front = read_front(file)
    signature = front.signature
    for signer in _load_signers(signers):
        signature = add_signature(signature, front.description, signer)
    replace_signature(file, out or file, signature, Disk())
    emit("fieldrelay.bundle.sign/1", {"file": str(out or file)}, [f"{out or file}: {len(signers)} more signed"], as_json=as_json)


@bundle.command("diff")
@click.argument("old", type=_FILE)
@click.argument("new", type=_FILE)
@as_json
def diff(*, old: Path, new: Path, as_json: bool) -> None:
    """Show what would travel to a device that runs OLD and gets NEW (bundles with deltas, or .zck files)."""
    headers = _headers(new)
    if not headers:
        raise UsageError(f"{new} holds no delta: all of it travels")
    travels = diff_bundles(_headers(old), headers)
    values = {"images": [{**asdict(travel), "share": travel.share} for travel in travels]}
    emit("fieldrelay.bundle.diff/1", values, [line for travel in travels for line in _travel_lines(travel)], as_json=as_json)


def _headers(file: Path) -> dict[str, HeaderIndex]:
    """Chunk indexes by image name; a .zck stands for an image without a name."""
    with file.open("rb") as opened:
        if opened.read(5) == b"\0ZCK1":
            return {"image": parse_header(zck_header(file))}
    description, members = parse(read_front(file).description), locate_members(file)
    found = {}
    for choice in description.choices:
        for entry in description.content(choice).images:
            if entry.delta is not None and entry.filename in members:
                with file.open("rb") as opened:
                    opened.seek(members[entry.filename].offset)
                    raw = opened.read(members[entry.filename].size)
                found[entry.name or entry.filename] = parse_header(raw)
    return found


def _travel_lines(travel: Travel) -> list[str]:
    """Two lines: figures, and a picture of the share."""
    filled = round(travel.share * _BAR_CELLS)
    figures = f"{travel.chunks} of {travel.total_chunks} chunks in {travel.ranges} ranges, "
    figures += f"{size(travel.fetch_bytes)} of {size(travel.total_bytes)}, header {size(travel.header_bytes)}"
    return [f"{travel.image}: {figures}", f"  [{'#' * filled}{'.' * (_BAR_CELLS - filled)}] {travel.share:.1%} travels"]


def _built_values(built: BuiltBundle) -> dict[str, object]:
    deltas = [
        {
            "image": delta.image,
            "file": str(delta.file),
            "sha256": delta.sha256,
            "length": delta.length,
            "zck_header": asdict(delta.header),
            "encoder": delta.encoder,
        }
        for delta in built.deltas
    ]
    return {"file": str(built.file), "sha256": built.sha256, "length": built.length, "deltas": deltas}


def _built_lines(built: BuiltBundle) -> list[str]:
    lines = [f"bundle  {built.file}  {size(built.length)}  sha256 {built.sha256}"]
    return lines + [f"delta   {delta.file}  {size(delta.length)}: publish it with the bundle" for delta in built.deltas]


def _selection_values(description: Description, choice: Choice) -> dict[str, object]:
    content = description.content(choice)
    return {
        "board": choice.board,
        "set": choice.software_set,
        "mode": choice.mode,
        "hardware": list(description.hardware_of(choice)),
        "images": [
            {"filename": e.filename, "type": e.type, "device": e.device, "url": e.delta.url if e.delta else ""}
            for e in content.images
        ],
        "scripts": [entry.filename for entry in content.scripts],
        "bootenv": {variable.name: variable.value for variable in content.bootenv},
    }


def _selection_lines(description: Description) -> list[str]:
    lines = []
    for choice in description.choices:
        content = description.content(choice)
        lines.append(f"selection    {choice}  for revisions {', '.join(description.hardware_of(choice))}")
        lines += [
            f"  {entry.type:<11}{entry.filename} -> {entry.device or 'run'}" for entry in (*content.images, *content.scripts)
        ]
        lines += [f"  bootenv    {variable.name}={variable.value}" for variable in content.bootenv]
    return lines


def _load_signers(files: Sequence[tuple[Path, Path]]) -> list[FileSigner]:
    return [FileSigner.from_files(certificate, key, passphrase=ask_passphrase) for certificate, key in files]


def ask_passphrase(key: Path) -> bytes:
    """Ask for the passphrase of an encrypted key, on the terminal."""
    answer: str = click.prompt(f"passphrase of {key}", hide_input=True, err=True)
    return answer.encode()


def _certificates(files: Sequence[Path]) -> tuple[x509.Certificate, ...]:
    found: list[x509.Certificate] = []
    for file in files:
        try:
            found += x509.load_pem_x509_certificates(file.read_bytes())
        except ValueError as error:
            raise ConfigurationError(f"{file} holds no certificates in PEM form") from error
    return tuple(found)


def _purpose(text: str) -> ObjectIdentifier | None:
    if text in _PURPOSES:
        return _PURPOSES[text]
    try:
        return ObjectIdentifier(text)
    except ValueError as error:
        raise UsageError(f"--purpose is {', '.join(_PURPOSES)} or an object identifier: got {text[:80]!r}") from error
