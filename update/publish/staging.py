"""Metadata that waits for signatures: `staged/` in a repository's folder.

A role being prepared is one file with the text of its signed part, `<role>.signed.json`, and one small file for each
signature, `<role>.<key id>.sig`. Holders of keys who never meet need only these: take the first by stick, bring back the
second; nothing is ever merged. Rules:

1. Until the first signature the text may be replaced; from then on it is frozen, byte for byte, until it is published or
   its signatures are discarded on purpose.
2. Publishing embeds that text as it is: what was signed is never serialised a second time.
3. A signature that is there already is kept as it is.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from securesystemslib.signer import Signature
from tuf.api.metadata import Root, Targets

from update.durable import Disk
from update.errors import CorruptError, StateError
from update.trust.metadata import parse, signed_bytes
from update.trust.rules import MAX_TARGETS_BYTES

_MAX_SIGNATURE_BYTES = 16_384


@dataclass(frozen=True, slots=True)
class Staged:
    """One role on its way: the frozen text of the signed part, what it says, and the signatures so far by key id."""

    role: str
    text: bytes
    signed: Root | Targets
    signatures: Mapping[str, Signature]

    def file_bytes(self) -> bytes:
        """The metadata file: the signatures in the order of their key ids, then the frozen text."""
        return _file_bytes(self.text, self.signatures)

    def payload(self) -> bytes:
        """The canonical bytes that every holder signs."""
        data = self.file_bytes()
        return signed_bytes(parse(data, Root)) if self.role == "root" else signed_bytes(parse(data, Targets))


class Staging:
    """The folder `staged`. Errors: `StateError` for what the rules forbid, `CorruptError` for a damaged file, `StoreError`."""

    def __init__(self, disk: Disk, folder: Path) -> None:
        self._disk = disk
        self._folder = folder

    def roles(self) -> list[str]:
        """The roles that are staged, root and targets first."""
        names = [file.name.removesuffix(".signed.json") for file in self._folder.glob("*.signed.json")]
        return sorted(names, key=lambda name: (name != "root", name != "targets", name))

    def read(self, role: str) -> Staged | None:
        """A staged role, None if there is none."""
        text = _read(self._text_file(role), MAX_TARGETS_BYTES)
        if text is None:
            return None
        signatures = {signature.keyid: signature for signature in self._signatures(role)}
        data = _file_bytes(text, signatures)
        return Staged(role, text, (parse(data, Root) if role == "root" else parse(data, Targets)).signed, signatures)

    def stage(self, role: str, signed: Root | Targets) -> Staged:
        """Replace the text of a role (rule 1)."""
        signatures = list(self._signatures(role))
        if signatures:
            raise StateError(
                f"{role} version {signed.version} already carries {len(signatures)} signature(s) and is frozen; "
                "publish it, or discard the signatures first"
            )
        text = json.dumps(signed.to_dict(), indent=1, sort_keys=True, separators=(",", ": ")).encode("utf-8")
        self._disk.make_folder(self._folder)
        self._disk.write_file(self._text_file(role), text)
        return Staged(role, text, signed, {})

    def add_signature(self, role: str, signature: Signature) -> None:
        """Keep one signature (rule 3)."""
        file = self._signature_file(role, signature.keyid)
        if not file.exists():
            self._disk.write_file(file, json.dumps(signature.to_dict(), indent=1, sort_keys=True).encode("ascii") + b"\n")

    def discard_signatures(self, role: str) -> int:
        """Forget the signatures of a role, so that its text may change again; how many there were."""
        files = self._signature_files(role)
        for file in files:
            self._disk.remove(file)
        return len(files)

    def discard(self, role: str) -> None:
        """Forget a role completely: the text last, so that a power cut leaves it unsigned rather than signatures without text."""
        self.discard_signatures(role)
        self._disk.remove(self._text_file(role))

    def _signatures(self, role: str) -> Iterator[Signature]:
        for file in self._signature_files(role):
            try:
                fields = json.loads(_read(file, _MAX_SIGNATURE_BYTES) or b"")
                signature = Signature.from_dict(fields)
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise CorruptError(f"{file} is no signature file; remove it and sign again") from error
            if file != self._signature_file(role, str(signature.keyid)):
                raise CorruptError(f"{file} holds a signature by another key than its name says; remove it and sign again")
            yield signature

    def _signature_files(self, role: str) -> list[Path]:
        form = re.compile(re.escape(role) + r"\.[0-9a-f]{1,128}\.sig", re.ASCII)
        return sorted(file for file in self._folder.glob("*.sig") if form.fullmatch(file.name))

    def _text_file(self, role: str) -> Path:
        return self._folder / f"{role}.signed.json"

    def _signature_file(self, role: str, keyid: str) -> Path:
        return self._folder / f"{role}.{keyid}.sig"


def _file_bytes(text: bytes, signatures: Mapping[str, Signature]) -> bytes:
    listed = json.dumps([signatures[keyid].to_dict() for keyid in sorted(signatures)], indent=1, sort_keys=True)
    return b'{\n"signatures": ' + listed.encode("ascii") + b',\n"signed": ' + text + b"\n}\n"


def _read(file: Path, max_bytes: int) -> bytes | None:
    try:
        with file.open("rb") as opened:
            data = opened.read(max_bytes + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CorruptError(f"cannot read {file}: {error.strerror}") from error
    if len(data) > max_bytes:
        raise CorruptError(f"{file} is larger than {max_bytes} bytes")
    return data
