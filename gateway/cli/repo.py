"""`fieldrelay repo`: a publisher's TUF repository, signed by one holder at a time.

fieldrelay repo key root-1.pem                       each holder makes his key and hands out root-1.pem.pub
fieldrelay repo init DIR --holder root=… --holder targets=… --threshold root=2 …
fieldrelay repo add DIR controller-1.2.swu           lists the bundle and the .zck files its deltas fetch from
fieldrelay repo add DIR press-1.2.raucb              lists a RAUC bundle, once its payload fits its manifest
fieldrelay repo add-plan DIR line.toml               lists a release of many devices, whose bundles are listed already
fieldrelay repo sign DIR targets --key targets-1.pem (and the next holder, until the threshold is met)
fieldrelay repo publish DIR --key snapshot=… --key timestamp=…
fieldrelay repo push https://gateway:8443 --repo DIR --token-file ci.token --site-ca site-ca.pem
fieldrelay repo status DIR
fieldrelay repo renew DIR root                       before a role that nobody changes expires: then sign and publish
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click

from gateway.cli.bundle import ask_passphrase
from gateway.cli.rauc import rauc_target
from gateway.cli.repo_plan import add_plan
from gateway.cli.repo_push import push
from gateway.cli.repo_reports import ingest_reports
from gateway.cli.show import as_json, emit
from update.bundle.description import Description, parse
from update.bundle.rauc_layout import is_rauc_bundle
from update.bundle.reader import read_front
from update.digest import digest_of, parse_digest
from update.durable import Disk
from update.errors import UsageError
from update.publish.images import zck_header
from update.publish.repository import PublishedRepository
from update.publish.roles import DEFAULT_VALIDITY, RoleKeys
from update.publish.status import PublishedRole, StagedRole
from update.trust.signers import create_key, load_role_key, load_role_signer, public_pem
from update.trust.verified import TargetCustom, TargetInfo, UpdateClass, ZckHeader, check_target_path

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_FOLDER = click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
_CLASSES = click.Choice([each.value for each in UpdateClass])  # of an enumeration click would take the names
_TOP_LEVEL = ("root", "targets", "snapshot", "timestamp")
_ONLINE = ("snapshot", "timestamp")


@click.group("repo")
def repo() -> None:
    """Publish releases as a TUF repository."""


repo.add_command(add_plan)
repo.add_command(push)
repo.add_command(ingest_reports)


@repo.command("key")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--passphrase", is_flag=True, help="Encrypt the key; the passphrase is asked for.")
@as_json
def key(*, file: Path, passphrase: bool, as_json: bool) -> None:
    """Make a private key in FILE (mode 0600) and its public half in FILE.pub."""
    disk = Disk()
    made = create_key(disk, file, passphrase=_new_passphrase() if passphrase else None)
    public = file.with_name(f"{file.name}.pub")
    disk.write_file(public, public_pem(made))
    emit(
        "fieldrelay.repo.key/1",
        {"key": str(file), "public": str(public)},
        [f"private {file}", f"public  {public}"],
        as_json=as_json,
    )


@repo.command("init")
@_FOLDER
@click.option("--holder", "holders", multiple=True, required=True, metavar="ROLE=FILE", help="A holder's public key (PEM).")
@click.option("--threshold", "thresholds", multiple=True, metavar="ROLE=N", help="Signatures a role needs; default 1.")
@as_json
def init(*, folder: Path, holders: Sequence[str], thresholds: Sequence[str], as_json: bool) -> None:
    """Prepare a new repository in FOLDER: root and an empty list of targets, to be signed."""
    plan = _plan(_pairs(holders, "--holder"), dict(_pairs(thresholds, "--threshold")))
    _repository(folder).init(plan)
    values = {role: {"keys": len(keys.keys), "threshold": keys.threshold} for role, keys in plan.items()}
    lines = [f"{role:<10}{keys.threshold} of {len(keys.keys)} must sign" for role, keys in plan.items()]
    emit("fieldrelay.repo.init/1", {"roles": values}, [*lines, "next: repo sign FOLDER root|targets --key …"], as_json=as_json)


@repo.command("add")
@_FOLDER
@click.argument("files", type=_FILE, nargs=-1, required=True)
@click.option("--version", help="Default: the bundle's own.")
@click.option("--hardware", multiple=True, metavar="BOARD:REVISION", help="Default: what the bundle itself names.")
@click.option("--release-counter", type=click.IntRange(0), required=True, help="Orders releases; higher than the last one's.")
@click.option("--security-counter", type=click.IntRange(0), default=0, show_default=True, help="Floor once confirmed.")
@click.option(
    "--class", "update_class", type=click.Choice([*map(str, UpdateClass)]), default=str(UpdateClass.FUNCTION), show_default=True
)
@click.option("--delta-of", default="", metavar="PATH", help="Target that brings the same release whole, for where chunks lack.")
@click.option("--delta-from", default="", metavar="SHA256", help="The bundle that brought what an rdiff leads from.")
@click.option("--below", default="", metavar="PATH", help="Folder of the target's name, such as vendor/press.")
@as_json
def add(
    *,
    folder: Path,
    files: Sequence[Path],
    version: str | None,
    hardware: Sequence[str],
    release_counter: int,
    security_counter: int,
    update_class: str,
    delta_of: str,
    delta_from: str,
    below: str,
    as_json: bool,
) -> None:
    """List FILES as targets; with a bundle come the .zck files beside it that its deltas fetch from."""
    given = TargetCustom(
        hw_ids=tuple(hardware),
        version=version or "",
        release_counter=release_counter,
        security_counter=security_counter,
        update_class=UpdateClass(update_class),
        delta_of=check_target_path(delta_of) if delta_of else "",
        delta_from=parse_digest(delta_from) if delta_from else None,
    )
    if delta_from and not delta_of:
        raise UsageError("--delta-from needs --delta-of: other devices must find the whole release")
    repository = _repository(folder)
    added: list[TargetInfo] = []
    for file, custom in _with_deltas(files, given):
        if not custom.hw_ids:
            raise UsageError(f"{file} does not say for which hardware it is: give --hardware BOARD:REVISION")
        path = f"{below.strip('/')}/{file.name}" if below else file.name
        added.append(repository.add(file, path, custom))
    values = {"targets": [{"path": info.path, "sha256": info.sha256, "length": info.length} for info in added]}
    lines = [f"{info.path}  {info.length} bytes  sha256 {info.sha256}" for info in added]
    emit("fieldrelay.repo.add/1", values, [*lines, "next: repo sign FOLDER targets --key …"], as_json=as_json)


@repo.command("sign")
@_FOLDER
@click.argument("role")
@click.option("--key", "key_file", type=_FILE, required=True, help="The holder's private key (PEM).")
@as_json
def sign(*, folder: Path, role: str, key_file: Path, as_json: bool) -> None:
    """Add one holder's signature to a staged ROLE."""
    signed = _repository(folder).sign(role, load_role_signer(key_file, ask_passphrase))
    missing = ", ".join(f"{count} more by the holders of {group}" for group, count in signed.missing.items() if count)
    values = {"role": role, "version": signed.version, "complete": signed.complete, "missing": dict(signed.missing)}
    emit("fieldrelay.repo.sign/1", values, [f"{role} version {signed.version}: {missing or 'complete'}"], as_json=as_json)


@repo.command("publish")
@_FOLDER
@click.option("--key", "keys", multiple=True, required=True, metavar="ROLE=FILE", help="Private keys of snapshot and timestamp.")
@click.option(
    "--days",
    type=click.IntRange(1, 366),
    default=DEFAULT_VALIDITY.timestamp.days,
    show_default=True,
    help="How long snapshot and timestamp are good; more for sites that only sticks reach.",
)
@as_json
def publish(*, folder: Path, keys: Sequence[str], days: int, as_json: bool) -> None:
    """Publish what is signed, with a new timestamp; nothing is written unless all of it is right."""
    signers: dict[str, list[object]] = {role: [] for role in _ONLINE}
    for role, file in _pairs(keys, "--key"):
        if role not in signers:
            raise UsageError(f"--key is for snapshot and timestamp, the online roles: got {role!r}; use `repo sign` for others")
        signers[role].append(load_role_signer(Path(file), ask_passphrase))
    release = _repository(folder, days).publish(signers)  # type: ignore[arg-type]  # every value was made by load_role_signer
    versions = asdict(release.versions)
    values = {"versions": versions, "timestamp_expires": release.timestamp_expires.isoformat()}
    lines = [", ".join(f"{role} {version}" for role, version in versions.items())]
    emit(
        "fieldrelay.repo.publish/1",
        values,
        [*lines, f"fresh until {release.timestamp_expires:%Y-%m-%d %H:%M} UTC"],
        as_json=as_json,
    )


@repo.command("renew")
@_FOLDER
@click.argument("role")
@as_json
def renew(*, folder: Path, role: str, as_json: bool) -> None:
    """Stage the next version of ROLE (root, targets or a delegated one) with a new expiry and nothing else, to be signed."""
    if role in _ONLINE:
        raise UsageError(f"{role} is renewed by every `repo publish`: run that")
    staged = _repository(folder).renew(role).signed
    values = {"role": role, "version": staged.version, "expires": staged.expires.isoformat()}
    line = f"{role} version {staged.version} would be good until {staged.expires:%Y-%m-%d}"
    emit("fieldrelay.repo.renew/1", values, [line, f"next: repo sign FOLDER {role} --key …"], as_json=as_json)


@repo.command("status")
@_FOLDER
@as_json
def status(*, folder: Path, as_json: bool) -> None:
    """Show what is published and until when, what is staged, who signed and who is missing."""
    found = _repository(folder).status()
    values = {
        "published": [{**asdict(role), "expires": role.expires.isoformat()} for role in found.published],
        "staged": [{**asdict(role), "expires": role.expires.isoformat(), "complete": role.complete} for role in found.staged],
    }
    lines = [_published_line(role) for role in found.published] + [line for role in found.staged for line in _staged_lines(role)]
    emit("fieldrelay.repo.status/1", values, lines or ["nothing here yet: repo init"], as_json=as_json)


def _published_line(role: PublishedRole) -> str:
    expiry = f"{'EXPIRED' if role.expired else 'until'} {role.expires:%Y-%m-%d}"
    return f"published  {role.role:<12}version {role.version:<5}{expiry}  {role.threshold} of {len(role.keyids)} keys"


def _staged_lines(role: StagedRole) -> list[str]:
    lines = [f"staged     {role.role:<12}version {role.version:<5}{'complete' if role.complete else 'not complete'}"]
    for group in role.groups:
        done = f"{len(group.signed)} of {group.threshold} signed by the holders of {group.of}"
        waiting = ", ".join(keyid[:12] for keyid in group.unsigned)
        lines.append(f"           {done}" + (f"; not yet: {waiting}" if group.missing else ""))
    return lines


def _with_deltas(files: Iterable[Path], given: TargetCustom) -> Iterable[tuple[Path, TargetCustom]]:
    """Every file with its properties; after a bundle the .zck files of its deltas, which must lie beside it."""
    for file in files:
        if is_rauc_bundle(file.name):
            yield file, rauc_target(file, given)
            continue
        if file.suffix != ".swu":
            yield (
                file,
                replace(given, zck_header=_pinned_header(file), delta_of="", delta_from=None) if file.suffix == ".zck" else given,
            )
            continue
        description = parse(read_front(file).description)
        custom = replace(
            given, version=given.version or description.version, hw_ids=given.hw_ids or tuple(_hardware_ids(description))
        )
        yield file, custom
        for name in sorted(_delta_files(description)):
            beside = file.with_name(name)
            if not beside.is_file():
                raise UsageError(f"{file.name} fetches from {name}, which is not beside it: build it again, or copy it there")
            yield beside, replace(custom, zck_header=_pinned_header(beside), delta_of="", delta_from=None)


def _hardware_ids(description: Description) -> Iterable[str]:
    found = (
        f"{choice.board}:{revision}"
        for choice in description.choices
        if choice.board
        for revision in description.hardware_of(choice)
    )
    return dict.fromkeys(found)


def _delta_files(description: Description) -> set[str]:
    """Names of the .zck targets: a delta's URL ends with `<sha256>.<name>`."""
    entries = (entry for choice in description.choices for entry in description.content(choice).images)
    return {entry.delta.url.rpartition("/")[2].partition(".")[2] for entry in entries if entry.delta is not None}


def _pinned_header(file: Path) -> ZckHeader:
    raw = zck_header(file)
    return ZckHeader(digest_of(raw), len(raw))


def _plan(holders: Sequence[tuple[str, str]], thresholds: Mapping[str, str]) -> dict[str, RoleKeys]:
    """Keys and threshold of each top-level role."""
    unknown = {role for role, _ in holders} | set(thresholds)
    if unknown := unknown - set(_TOP_LEVEL):
        raise UsageError(f"no role {', '.join(sorted(unknown))}; there are {', '.join(_TOP_LEVEL)}")
    if bad := [role for role, count in thresholds.items() if not count.isdecimal()]:
        raise UsageError(f"--threshold {bad[0]}={thresholds[bad[0]]}: a number is needed")
    keys = {role: tuple(load_role_key(Path(file)) for each, file in holders if each == role) for role in _TOP_LEVEL}
    return {role: RoleKeys(keys[role], int(thresholds.get(role, "1"))) for role in _TOP_LEVEL}


def _pairs(texts: Sequence[str], option: str) -> list[tuple[str, str]]:
    pairs = [text.partition("=") for text in texts]
    if bad := [name for name, equals, value in pairs if not (equals and value)]:
        raise UsageError(f"{option} is written ROLE=VALUE: got {bad[0]!r}")
    return [(name, value) for name, _, value in pairs]


def _new_passphrase() -> bytes:
    answer: str = click.prompt("passphrase of the new key", hide_input=True, confirmation_prompt=True, err=True)
    if not answer:
        raise UsageError("an empty passphrase protects nothing: leave --passphrase out, or give one")
    return answer.encode()


def _repository(folder: Path, days: int = DEFAULT_VALIDITY.timestamp.days) -> PublishedRepository:
    validity = replace(DEFAULT_VALIDITY, snapshot=timedelta(days=days), timestamp=timedelta(days=days))
    return PublishedRepository(folder, Disk(), lambda: datetime.now(UTC), name=folder.absolute().name, validity=validity)
