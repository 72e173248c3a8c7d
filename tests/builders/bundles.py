"""Bundles for tests: good ones by the product's own writer, bad ones byte by byte.

archive([("sw-description", text), ...])            # a cpio archive of anything, in the given order
entry("name", b"data", mode=0o120777, size=-1)      # one entry; any header field may be overridden
describe(images=[...], scripts=[...], bootenv=[...])  # the bytes of a JSON sw-description for DEMO
image("rootfs.img", data, device="/dev/x")           # one image entry, with its hash
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.builders.keys import NOW, Identity, make_pki
from update.bundle.cms import CmsPolicy
from update.bundle.cms_build import sign
from update.bundle.cpio import Form
from update.bundle.reader import verify_bundle
from update.bundle.verified import VerifiedBundle
from update.bundle.writer import Piece, write_bundle
from update.durable import Disk
from update.identity import Hardware
from update.trust.signers import FileSigner

DEMO = Hardware("demo", "1.0")
TRAILER = "TRAILER!!!"

Group = Mapping[str, object]


def entry(
    name: str | bytes,
    data: bytes = b"",
    *,
    magic: bytes = b"070701",
    mode: int = 0o100644,
    size: int | None = None,
    name_size: int | None = None,
    check: int | None = None,
    padding: bytes | None = None,
) -> bytes:
    """One archive entry; the sizes may lie."""
    raw = name.encode() if isinstance(name, str) else name
    checked = sum(data) & 0xFFFFFFFF if magic == b"070702" else 0
    fields = [1, mode, 0, 0, 1, 0, len(data) if size is None else size, 0, 0, 0, 0]
    fields += [len(raw) + 1 if name_size is None else name_size, checked if check is None else check]
    head = magic + b"".join(b"%08x" % (field & 0xFFFFFFFF) for field in fields) + raw + b"\x00"
    head += bytes(-len(head) % 4)
    return head + data + (bytes(-len(data) % 4) if padding is None else padding)


def archive(members: Sequence[tuple[str, bytes]], *, magic: bytes = b"070701") -> bytes:
    """A whole archive, well-formed as long as the names are."""
    return finish(b"".join(entry(name, data, magic=magic) for name, data in members), magic=magic)


def finish(entries: bytes, *, magic: bytes = b"070701") -> bytes:
    """`entries` with a trailer and the last block filled."""
    whole = entries + entry(TRAILER, magic=magic, mode=0)
    return whole + bytes(-len(whole) % 512)


def image(name: str, data: bytes, /, *, device: str = "/dev/slot", **attributes: object) -> dict[str, object]:
    """An image entry for the stored bytes `data`; attributes with '-' are written with '_'."""
    more = {key.replace("_", "-"): value for key, value in attributes.items()}
    return {"filename": name, "device": device, "sha256": hashlib.sha256(data).hexdigest(), **more}


def script(name: str, data: bytes, /, **attributes: object) -> dict[str, object]:
    """A shell script entry."""
    return {"filename": name, "type": "shellscript", "sha256": hashlib.sha256(data).hexdigest(), **attributes}


def describe(
    *,
    images: Sequence[Group] = (),
    scripts: Sequence[Group] = (),
    bootenv: Sequence[Group] = (),
    hardware: Sequence[str] = ("1.0",),
    version: str = "1.0",
    **more: object,
) -> bytes:
    """A JSON description without sets; `more` goes into `software`."""
    sections = {"images": list(images), "scripts": list(scripts), "bootenv": list(bootenv)}
    software = {"version": version, "hardware-compatibility": list(hardware)}
    software.update({name: entries for name, entries in sections.items() if entries})  # type: ignore[misc]  # mixed values
    return json.dumps({"software": {**software, **more}}).encode()


def sign_by(description: bytes, *identities: Identity) -> bytes:
    """The CMS of `description` by `identities`, or by the first signer of the test PKI."""
    return sign(description, [FileSigner(each.certificate, each.key) for each in identities or make_pki().signers[:1]])


def signed(
    folder: Path,
    description: bytes,
    members: Mapping[str, bytes],
    *identities: Identity,
    name: str = "bundle.swu",
    form: Form = Form.NEWC,
) -> Path:
    """Write a signed bundle into `folder` and return its path."""
    source = folder / f"{name}.members"
    source.mkdir(exist_ok=True)
    for member, data in members.items():
        (source / member).write_bytes(data)
    pieces = {member: Piece(source / member) for member in members}
    write_bundle(folder / name, description, sign_by(description, *identities), pieces, Disk(), form=form)
    return folder / name


def cms_policy(*, threshold: int = 1) -> CmsPolicy:
    """Trust in the test PKI's release CA, at its fixed time."""
    pki = make_pki()
    return CmsPolicy(roots=(pki.root.certificate,), intermediates=(pki.intermediate.certificate,), at=NOW, threshold=threshold)


def verified(file: Path, *, threshold: int = 1) -> VerifiedBundle:
    """The bundle, verified by the test PKI."""
    return verify_bundle(file, cms_policy(threshold=threshold))
