"""RAUC bundles for tests, without rauc: the forms that the tool makes, and ones that it would never make.

bundle(payload(20), ...)             # the bytes of a verity bundle signed by the test PKI's e-mail signer
manifest(payload, tree, more="...")  # the signed text
tree_of(payload, SALT)               # (root, tree), level by level, as the kernel's documentation tells it
assemble(payload + tree, signature)  # the file from its parts
"""

import hashlib
from pathlib import Path

from asn1crypto import cms as asn1

from tests.builders.keys import NOW, Identity, make_pki
from tests.builders.signatures import put, rebuilt, signer
from update.bundle.cms_build import sign
from update.bundle.rauc_reader import RaucPolicy, rauc_policy

PKI = make_pki()
SALT = bytes(range(32))
BLOCK = 4096
COMPATIBLE = "press-controller"


def payload(blocks: int, *, magic: bytes = b"hsqs") -> bytes:
    """As many blocks, all different, that begin as a squashfs does."""
    data = b"".join(hashlib.sha256(number.to_bytes(4, "big")).digest() * 128 for number in range(blocks))
    return magic + data[len(magic) :]


def tree_of(data: bytes, salt: bytes = SALT) -> tuple[str, bytes]:
    """Root and stored tree of whole blocks."""
    levels: list[bytes] = []
    level = [hashlib.sha256(salt + data[at : at + BLOCK]).digest() for at in range(0, len(data), BLOCK)]
    while len(level) > 1:
        joined = b"".join(level)
        stored = joined + bytes(-len(joined) % BLOCK)
        levels.insert(0, stored)
        level = [hashlib.sha256(salt + stored[at : at + BLOCK]).digest() for at in range(0, len(stored), BLOCK)]
    return level[0].hex(), b"".join(levels)


IMAGES = f"""
[image.rootfs]
filename=rootfs.img
sha256={"ab" * 32}
size=8192
"""


def manifest(
    data: bytes,
    *,
    format_: str = "verity",
    compatible: str = COMPATIBLE,
    version: str = "1.2.0",
    tree_bytes: int | None = None,
    crypt_key: str | None = None,
    more: str = IMAGES,
) -> bytes:
    """The text that pins the tree of `data`."""
    root, tree = tree_of(data)
    key = crypt_key if crypt_key is not None else ("cd" * 32 if format_ == "crypt" else "")
    lines = ["[update]", f"compatible={compatible}", f"version={version}" if version else "", "", "[bundle]", f"format={format_}"]
    lines += [
        f"verity-hash={root}",
        f"verity-salt={SALT.hex()}",
        f"verity-size={len(tree) if tree_bytes is None else tree_bytes}",
    ]
    return "\n".join([*lines, *([f"crypt-key={key}"] if key else []), more]).encode()


def attached(content: bytes, *identities: Identity) -> bytes:
    """A CMS that carries its content, by `identities`, or by the one for e-mail protection."""
    detached = sign(content, [signer(each) for each in identities or (PKI.email,)])
    return rebuilt(detached, lambda data: _attach(data, content))


def assemble(content: bytes, signature: bytes, *, size: int | None = None) -> bytes:
    """A file with its trailer, whose size may lie."""
    return content + signature + (len(signature) if size is None else size).to_bytes(8, "big")


def bundle(data: bytes, *identities: Identity, text: bytes | None = None) -> bytes:
    """A whole verity bundle, or what `text` says."""
    return assemble(data + tree_of(data)[1], attached(manifest(data) if text is None else text, *identities))


def written(folder: Path, content: bytes, name: str = "bundle.raucb") -> Path:
    """Write a bundle into `folder`."""
    (folder / name).write_bytes(content)
    return folder / name


def policy(*, threshold: int = 1, accept_plain: bool = False) -> RaucPolicy:
    """Trust in the test PKI, at its fixed time."""
    roots, intermediates = (PKI.root.certificate,), (PKI.intermediate.certificate,)
    return rauc_policy(roots, NOW, intermediates=intermediates, threshold=threshold, accept_plain=accept_plain)


def _attach(data: asn1.SignedData, content: bytes) -> None:
    put(data, "encap_content_info", {"content_type": "data", "content": content})
