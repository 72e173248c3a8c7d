"""The demo's device maker: keys, bundles, and a repository that two of three must sign.

Everything goes through `update.publish`, as `fieldrelay bundle` and `fieldrelay repo` do. Keys are made anew for every run
and die with its folder; the release CA is a root certificate that issues one signer's certificate, as a real one would.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from securesystemslib.signer import CryptoSigner

from gateway.demo.images import DemoImage
from update.durable import Disk
from update.publish.bundles import BuiltBundle, build_bundle
from update.publish.repository import PublishedRepository
from update.publish.roles import RoleKeys
from update.publish.spec import load_spec
from update.trust.signers import FileSigner
from update.trust.verified import TargetCustom, UpdateClass

REPOSITORY = "plant"
BOARD, REVISION = "demo", "1.0"
HOLDERS = {"root": (3, 2), "targets": (3, 2), "snapshot": (1, 1), "timestamp": (1, 1)}
SLOTS = {"a": "stable,copy1", "b": "stable,copy2"}
_VALID = timedelta(days=30)

Progress = Callable[[str], None]


DEVICES = Path("/dev/fieldrelay")


def device_of(slot: str, devices: Path = DEVICES) -> str:
    """The device of a slot's root file system, as the description names it."""
    return str(devices / f"rootfs-{slot}")


@dataclass(frozen=True, slots=True)
class Maker:
    """The device maker at work: its keys, and the repository that it publishes."""

    repository: PublishedRepository
    keys: Mapping[str, Sequence[CryptoSigner]]  # by role
    signer: FileSigner
    work: Path
    disk: Disk
    devices: Path

    def add(self, image: DemoImage, counter: int) -> BuiltBundle:
        """Build and list the bundle of an image; `publish` makes it known."""
        spec = _write_spec(self.disk, self.work, image, self.devices)
        built = build_bundle(load_spec(spec), self.work / "bundles" / image.version, [self.signer], self.disk)
        _add(self.repository, built, image.version, counter)
        return built

    def publish(self, *roles: str) -> None:
        """Have two of three sign what has changed, and publish it."""
        for role in roles:
            for key in self.keys[role][: HOLDERS[role][1]]:
                self.repository.sign(role, key)
        self.repository.publish({role: self.keys[role] for role in ("snapshot", "timestamp")})


@dataclass(frozen=True, slots=True)
class Release:
    """What the device maker hands out: the repository's folder, the pinned root, the anchors of bundle signatures."""

    folder: Path
    root: Path
    anchors: Path
    built: Mapping[str, BuiltBundle]  # by version
    maker: Maker


def publish_releases(
    images: tuple[DemoImage, ...], work: Path, disk: Disk, progress: Progress, *, devices: Path = DEVICES
) -> Release:
    """Build a bundle of every image, publish all of them below `work`/repository."""
    keys = {role: [CryptoSigner.generate_ecdsa() for _ in range(count)] for role, (count, _) in HOLDERS.items()}
    signer, anchors = _release_signer(disk, work)
    repository = PublishedRepository(work / "repository", disk, lambda: datetime.now(UTC), name=REPOSITORY)
    repository.init(
        {role: RoleKeys(tuple(key.public_key for key in keys[role]), threshold) for role, (_, threshold) in HOLDERS.items()}
    )
    maker, built = Maker(repository, keys, signer, work, disk, devices), {}
    for counter, image in enumerate(images, 1):
        progress(f"building and signing the bundle {image.version}")
        built[image.version] = maker.add(image, counter)
    progress("signing the repository, two of three")
    maker.publish("root", "targets")
    return Release(repository.folder, repository.folder / "metadata" / "1.root.json", anchors, built, maker)


def _add(repository: PublishedRepository, built: BuiltBundle, version: str, counter: int) -> None:
    """List a bundle and the images that its deltas fetch from."""
    custom = TargetCustom(
        hw_ids=(f"{BOARD}:{REVISION}",),
        version=version,
        release_counter=counter,
        security_counter=1,
        update_class=UpdateClass.FUNCTION,
    )
    repository.add(built.file, built.file.name, custom)
    for delta in built.deltas:
        repository.add(delta.file, delta.file.name, replace(custom, zck_header=delta.header))


def _write_spec(disk: Disk, work: Path, image: DemoImage, folder: Path) -> Path:
    """SPEC.toml of one version, as a device maker would write it."""
    slots = "".join(f'[[slots]]\nset = "{key.split(",")[0]}"\nmode = "{key.split(",")[1]}"\n' for key in SLOTS.values())
    other = {"a": "b", "b": "a"}
    devices = ", ".join(f'"{key}" = "{device_of(slot, folder)}"' for slot, key in SLOTS.items())
    sources = ", ".join(f'"{key}" = "{device_of(other[slot], folder)}"' for slot, key in SLOTS.items())
    text = (
        f'[bundle]\nname = "controller"\nversion = "{image.version}"\nrepository = "{REPOSITORY}"\n'
        f'hardware = {{ board = "{BOARD}", revisions = ["{REVISION}"] }}\n{slots}'
        f'[[images]]\nname = "rootfs"\nfile = "{image.path}"\ntype = "delta"\n'
        f"devices = {{ {devices} }}\nsources = {{ {sources} }}\n"
    )
    file = work / f"controller-{image.version}.toml"
    disk.write_file(file, text.encode())
    return file


def _release_signer(disk: Disk, work: Path) -> tuple[FileSigner, Path]:
    """A release CA and one signer's certificate, for code signing; the anchors' PEM file."""
    authority, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    root = _certificate("Demo release CA", authority, "Demo release CA", authority, is_authority=True)
    leaf = _certificate("Demo release signer", key, "Demo release CA", authority, is_authority=False)
    anchors = work / "release-ca.pem"
    disk.write_file(anchors, root.public_bytes(serialization.Encoding.PEM))
    return FileSigner(leaf, key), anchors


def _certificate(
    subject: str, key: ec.EllipticCurvePrivateKey, issuer: str, by: ec.EllipticCurvePrivateKey, *, is_authority: bool
) -> x509.Certificate:
    now = datetime.now(UTC)
    usage = dict.fromkeys(("key_encipherment", "data_encipherment", "key_agreement", "content_commitment"), False)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + _VALID)
        .add_extension(x509.BasicConstraints(ca=is_authority, path_length=0 if is_authority else None), critical=True)
        .add_extension(
            x509.KeyUsage(
                digital_signature=not is_authority,
                key_cert_sign=is_authority,
                crl_sign=is_authority,
                encipher_only=False,
                decipher_only=False,
                **usage,
            ),
            critical=True,
        )
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(by.public_key()), critical=False)
    )
    if not is_authority:
        builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]), critical=False)
    return builder.sign(by, hashes.SHA256())
