"""Upstream's side of reports that came back by hand: verified, and kept once.

1. Whatever lies in the folder is looked at by its content; what is no report is passed over, what is one and is not signed by the
   key that is known of its gateway is refused by name. The others go on.
2. A report that was read before, from whatever medium, is known by its id. A result is kept once by its own id, which is also the
   one that a webhook sends (`media.report_form`), so that what the gateway sends once its line is up doubles nothing.
"""

import json
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from media.medium import EntryKind, Medium, Parts, shown
from media.records import NodeResult
from media.report_form import MAX_REPORT_BYTES, Report, from_bytes, is_report
from update.durable import Disk
from update.errors import ConfigurationError, CorruptError, FieldrelayError, MediumError, SignatureError, WireError
from update.provided import read_provided

_MAX_KEY_BYTES: Final = 64 << 10
_RESULTS: Final = "results.jsonl"
_BLOCK_BYTES: Final = 1 << 20
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Ingested:
    """One report that was found: itself and whether it is new, or why it was refused. `place` is where it lay."""

    place: str
    report: Report | None = None
    new: bool = False
    results: tuple[tuple[str, NodeResult], ...] = ()
    error: FieldrelayError | None = None


def read_keys(folder: Path) -> Mapping[str, Ed25519PublicKey]:
    """The keys of gateways, from `<gateway>.pub` (PEM) in a folder. Errors: `ConfigurationError`."""
    if not folder.is_dir():
        raise ConfigurationError(f"{folder} is no folder; put what `fieldrelay gateway report-key` shows into GATEWAY.pub there")
    return {file.stem: _key(file) for file in sorted(folder.glob("*.pub"))}


def _key(file: Path) -> Ed25519PublicKey:
    try:
        key = load_pem_public_key(read_provided(file, max_bytes=_MAX_KEY_BYTES))
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ConfigurationError(f"{file} is no public key in PEM form") from error
    if not isinstance(key, Ed25519PublicKey):
        raise ConfigurationError(f"{file} is no Ed25519 key, which gateways sign reports with")
    return key


class Ledger:
    """What was taken in before, below `folder`; without one nothing is kept, and nothing is known."""

    def __init__(self, disk: Disk, folder: Path | None) -> None:
        self._disk = disk
        self._folder = folder
        self._results = _known(folder)

    def take(self, report: Report, data: bytes) -> tuple[bool, tuple[tuple[str, NodeResult], ...]]:
        """Whether the report is new, and the results in it that are. Errors: `StoreError`."""
        ended = [(report.result_id(node), node) for node in report.nodes if node.outcome]
        fresh = {name: node for name, node in ended if name not in self._results}
        if self._folder is None:
            return True, tuple(fresh.items())
        for name, node in fresh.items():
            self._results[name] = {
                "id": name, "gateway": report.gateway, "node": node.node, "wanted": node.wanted, "runs": node.runs,
                "outcome": node.outcome, "code": node.code, "message": node.message, "reported": report.created,
            }  # fmt: skip
        place = self._folder / report.gateway / f"{report.id}.json"
        new = not place.exists()
        self._disk.make_folder(place.parent)
        if new:
            self._disk.write_file(place, data)
        if fresh:
            lines = "".join(f"{json.dumps(each)}\n" for each in self._results.values())
            self._disk.write_file(self._folder / _RESULTS, lines.encode())
        return new, tuple(fresh.items())


def ingest(medium: Medium, keys: Mapping[str, Ed25519PublicKey], ledger: Ledger) -> tuple[Ingested, ...]:
    """Every report on a medium, oldest first where the names say so. Errors: `MediumError` of the walk, `StoreError`."""
    return tuple(found for parts, data in _documents(medium) if (found := _judge(parts, data, keys, ledger)) is not None)


def _judge(parts: Parts, data: bytes, keys: Mapping[str, Ed25519PublicKey], ledger: Ledger) -> Ingested | None:
    if not is_report(data):
        return None
    try:
        report = from_bytes(data, keys.get)
    except (SignatureError, CorruptError) as error:
        return Ingested(shown(parts), error=error)
    new, results = ledger.take(report, data)
    return Ingested(shown(parts), report, new, results)


def _documents(medium: Medium) -> Iterable[tuple[Parts, bytes]]:
    for entry in medium.walk():
        if entry.kind is EntryKind.FILE and 0 < entry.size_bytes <= MAX_REPORT_BYTES:
            try:
                yield entry.parts, _read(medium, entry.parts)
            except (OSError, MediumError, WireError) as error:
                _LOG.warning("cannot read %s: %s", shown(entry.parts), error)


def _read(medium: Medium, parts: Parts) -> bytes:
    """The file, if it begins as a JSON object does."""
    data = b""
    with medium.open(parts) as file:
        while len(data) <= MAX_REPORT_BYTES and (block := file.read(_BLOCK_BYTES)):
            data += block
            if not data.startswith(b"{"):
                return b""
    return data


def _known(folder: Path | None) -> dict[str, Mapping[str, object]]:
    file = None if folder is None else folder / _RESULTS
    if file is None or not file.exists():
        return {}
    try:
        lines = [json.loads(line) for line in file.read_text().splitlines()]
        return {str(line["id"]): line for line in lines}
    except (ValueError, KeyError, TypeError) as error:
        raise CorruptError(f"{file} is damaged; move it away: the reports beside it hold the same") from error
