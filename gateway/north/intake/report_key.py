"""The key that this gateway signs its reports with: made once, kept in the state folder, told to upstream by its public half.

It vouches for reports and for nothing else: no node and no repository trusts it.
"""

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gateway.config import StateFolder
from update.durable import Disk
from update.errors import ConfigurationError, StateError
from update.provided import read_provided
from update.trust.signers import MAX_KEY_FILE_BYTES, KeyKind, create_key, load_private_key, public_pem

_PUBLIC = "report-key.pub"


def report_key(disk: Disk, folder: StateFolder) -> Ed25519PrivateKey:
    """The key, made where there is none. Errors: `ConfigurationError`, `StoreError`."""
    file, public = folder.keys / "report.key", folder.root / _PUBLIC
    if not file.exists():
        disk.make_folder(file.parent, mode=0o700)
        create_key(disk, file, KeyKind.ED25519)
    key = load_private_key(file)
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigurationError(f"{file} is no Ed25519 key; reports are signed with one: move it away, another one is made")
    if not public.exists():
        disk.write_file(public, public_pem(key))
    return key


def public_half(folder: StateFolder) -> bytes:
    """What upstream needs to verify reports, as PEM. Errors: `StateError`."""
    public = folder.root / _PUBLIC
    if not public.exists():
        raise StateError(f"{public} is missing; the gateway makes it at its next start")
    return read_provided(public, max_bytes=MAX_KEY_FILE_BYTES)
