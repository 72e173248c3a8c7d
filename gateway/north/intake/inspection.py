"""Any medium as this gateway would judge it, without taking anything: for whoever made a stick, or wonders why one was refused.

What the gateway trusts and its floor are copied into a scratch folder, so that the real TUF client judges under the real rules
and leaves no trace. Every file of a listed release that lies on the medium is read to its end and hashed; single bundles are
proved as they would be.
"""

import asyncio
import hashlib
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Final
from urllib.parse import unquote

from gateway.config import GatewayConfig, RepositorySection, StateFolder
from gateway.north.intake.requests import SiteRequests
from gateway.north.proofs import Proofs
from media.medium import Medium, Parts, shown
from media.recogniser import MAX_REQUEST_BYTES, Found, recognise
from media.records import Content, Kind, Verdict
from update.digest import Digest
from update.durable import Disk
from update.errors import (
    EndlessDataError,
    FieldrelayError,
    LengthOrHashError,
    NotFoundError,
    ProvenanceError,
    SignatureError,
    ThresholdError,
)
from update.identity import Hardware
from update.provided import read_provided
from update.store.layout import Layout
from update.trust.client import Repository
from update.trust.floor import Floor
from update.trust.verified import TargetCustom, TargetInfo

_BLOCK_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class MediumFetcher:
    """A repository on a medium as the TUF client wants it."""

    medium: Medium
    folder: Parts

    async def fetch(self, path: str, *, max_bytes: int) -> bytes:
        """As `update.trust.client.Fetcher`. Errors: `NotFoundError`, `ProtocolError`, `EndlessDataError`, `MediumError`."""
        return await asyncio.to_thread(self._read, path, max_bytes)

    def _read(self, path: str, max_bytes: int) -> bytes:
        data = bytearray()
        for block in read_blocks(self.medium, (*self.folder, *map(unquote, path.split("/")))):
            data += block
            if len(data) > max_bytes:
                raise EndlessDataError(f"{path} on the medium has more than {max_bytes} bytes")
        return bytes(data)


class Inspection:
    """Judges with the repositories of `config`. `scratch` is an empty folder that the caller removes."""

    def __init__(self, config: GatewayConfig, disk: Disk, scratch: Path, now: Callable[[], datetime]) -> None:
        self._config = config
        self._disk = disk
        self._scratch = scratch
        self._now = now
        self._proofs = Proofs(config.repository, now)

    async def judge(self, medium: Medium, *, writable: bool = True) -> list[tuple[Content, FieldrelayError | None]]:
        """Everything that is recognised, and why it would be refused. Errors: `MediumError` for the medium as a whole."""
        judged: list[tuple[Content, FieldrelayError | None]] = []
        for found in await asyncio.to_thread(recognise, medium):
            match found.kind:
                case Kind.REPOSITORY:
                    judged += await self._repository(medium, found)
                case Kind.BUNDLE:
                    judged.append(await self._single(medium, found))
                case Kind.REQUEST:
                    judged.append(await self._request(medium, found, writable=writable))
        return judged

    async def _repository(self, medium: Medium, found: Found) -> list[tuple[Content, FieldrelayError | None]]:
        content = Content(kind=Kind.REPOSITORY, name=shown(found.parts), verdict=Verdict.ACCEPTED)
        trouble: FieldrelayError = SignatureError("no repository that is configured here trusts it")
        for section in self._config.repository:
            try:
                targets = await self._targets(section, medium, found)
            except (SignatureError, ThresholdError):
                continue
            except FieldrelayError as error:
                trouble, content = error, replace(content, repository=section.name)
                continue
            plain = replace(content, repository=section.name)
            return [(plain, None), *[await self._target(section, medium, found, info) for info in targets]]
        return [(_refused(content, trouble), trouble)]

    async def _targets(self, section: RepositorySection, medium: Medium, found: Found) -> list[TargetInfo]:
        state = StateFolder(self._config.gateway.state)
        place = self._scratch / section.name / str(len(list(self._scratch.rglob("floor-1"))))
        trusted, copies = place / "trusted", (place / "floor-1" / "floor.json", place / "floor-2" / "floor.json")
        await asyncio.to_thread(_copy_trust, Layout(state.store).trusted(section.name), trusted)
        for source, copy in zip(state.floor, copies, strict=True):
            await asyncio.to_thread(_copy_file, source, copy)
        repository = Repository(
            section.name,
            trusted=trusted,
            root=read_provided(section.root),
            fetcher=MediumFetcher(medium, found.parts),
            disk=self._disk,
            floor=Floor(self._disk, copies),
            now=self._now,
        )
        await repository.refresh()
        hardware = [Hardware.parse(text) for text in section.hardware]
        wanted = [info for info in await repository.targets() if _is_for(info, hardware)]
        for _, error in repository.problems:
            raise error
        return wanted

    async def _target(
        self, section: RepositorySection, medium: Medium, found: Found, info: TargetInfo
    ) -> tuple[Content, FieldrelayError | None]:
        content = Content(
            kind=Kind.BUNDLE,
            name=shown((info.path,)),
            verdict=Verdict.ACCEPTED,
            repository=section.name,
            version=info.custom.version[:300],
            size_bytes=info.length,
            sha256=info.sha256,
        )
        path = (*found.parts, *map(unquote, info.wire_path.split("/")))
        try:
            sha256, length = await asyncio.to_thread(_digest, medium, path, None)
            if (sha256, length) != (info.sha256, info.length):
                raise LengthOrHashError(f"{content.name} on the medium is not what was signed; copy it again")
        except NotFoundError:
            return replace(content, verdict=Verdict.KNOWN, message="listed, and not on this medium"), None
        except FieldrelayError as error:
            return _refused(content, error), error
        return content, None

    async def _single(self, medium: Medium, found: Found) -> tuple[Content, FieldrelayError | None]:
        content = Content(kind=Kind.BUNDLE, name=shown(found.parts), verdict=Verdict.ACCEPTED, size_bytes=found.size_bytes)
        trouble: FieldrelayError = ProvenanceError("single bundles are not taken here; name repositories in media.singles")
        copy = self._scratch / "single"
        try:
            sha256, length = await asyncio.to_thread(_digest, medium, found.parts, copy)
            for repository in self._config.media.singles:
                name = "single.raucb" if copy.read_bytes()[:4] == b"hsqs" else "single.swu"
                try:
                    info = TargetInfo(repository, name, length, sha256, TargetCustom(), "")
                    await asyncio.to_thread(self._proofs.prove, copy, info)
                except FieldrelayError as error:
                    trouble = error
                else:
                    return replace(content, repository=repository, sha256=sha256), None
        except FieldrelayError as error:
            trouble = error
        return _refused(content, trouble), trouble

    async def _request(self, medium: Medium, found: Found, *, writable: bool) -> tuple[Content, FieldrelayError | None]:
        data = await MediumFetcher(medium, found.parts[:-1]).fetch(found.parts[-1], max_bytes=MAX_REQUEST_BYTES)
        content = await SiteRequests(allowed=self._config.media.requests).take(data, shown(found.parts), writable=writable)
        return content, None


def read_blocks(medium: Medium, parts: Parts) -> Iterator[bytes]:
    """A file of a medium. Errors: those of `Medium`, also while it is read."""
    try:
        with medium.open(parts) as file:
            while block := file.read(_BLOCK_BYTES):
                yield block
    except OSError as error:
        raise medium.trouble(error, parts) from error


def _digest(medium: Medium, parts: Parts, copy: Path | None) -> tuple[Digest, int]:
    """SHA-256 and length of a file, copied into scratch on the way where asked for."""
    hasher, length = hashlib.sha256(), 0
    with (copy or Path("/dev/null")).open("wb") as out:
        for block in read_blocks(medium, parts):
            hasher.update(block)
            length += out.write(block)
    return Digest(hasher.hexdigest()), length


def _copy_trust(source: Path, copy: Path) -> None:
    copy.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, copy)


def _copy_file(source: Path, copy: Path) -> None:
    copy.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, copy)


def _is_for(info: TargetInfo, hardware: list[Hardware]) -> bool:
    ids = info.custom.hw_ids
    return not hardware or not ids or any(each.accepts(ids) for each in hardware)


def _refused(content: Content, error: FieldrelayError) -> Content:
    return replace(content, verdict=Verdict.REFUSED, code=error.code, message=str(error)[:1000])
