"""What the tests of mirrored routes share: real clients run to their end, folders as upstreams, an image for registries."""

import asyncio
import gzip
import hashlib
import io
import json
import re
import tarfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from tests.builders.mirrored_site import FileUpstream

_LIMIT_S = 100.0
_LISTENING = re.compile(rb"listening on 127\.0\.0\.1:(\d+)")


async def run(*command: str | Path, cwd: Path | None = None, env: dict[str, str] | None = None) -> tuple[int, str]:
    """A client until its end: status, and all that it said."""
    process = await asyncio.create_subprocess_exec(
        *map(str, command), cwd=cwd, env=env, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        said, _ = await asyncio.wait_for(process.communicate(), _LIMIT_S)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    return process.returncode, said.decode(errors="replace")


async def succeed(*command: str | Path, cwd: Path | None = None, env: dict[str, str] | None = None) -> str:
    """The same, and it must go well."""
    status, said = await run(*command, cwd=cwd, env=env)
    assert status == 0, said
    return said


def files_of(folder: Path) -> dict[str, bytes]:
    """Every file below `folder`, by its path from there."""
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


def folder_upstream(folder: Path) -> FileUpstream:
    return FileUpstream(files_of(folder))


@asynccontextmanager
async def registry(tool: str, folder: Path) -> AsyncIterator[str]:
    """A real registry that keeps its data in `folder`; its `host:port`."""
    configuration = folder / "registry.yml"
    configuration.write_text(
        "version: 0.1\n"
        "storage:\n"
        f"  filesystem:\n    rootdirectory: {folder / 'registry'}\n"
        "http:\n"
        "  addr: 127.0.0.1:0\n"
        "  secret: test\n"
    )
    process = await asyncio.create_subprocess_exec(
        tool, "serve", str(configuration), stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE
    )
    assert process.stderr is not None
    reading: asyncio.Task[bytes] | None = None
    try:
        port = await asyncio.wait_for(_port(process.stderr), _LIMIT_S)
        reading = asyncio.create_task(process.stderr.read())  # a full pipe would stop it
        yield f"127.0.0.1:{port}"
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        if reading is not None:
            await reading
        await process.wait()


async def _port(log: asyncio.StreamReader) -> int:
    while line := await log.readline():
        if found := _LISTENING.search(line):
            return int(found[1])
    raise AssertionError("the registry ended at once")


def mender_artifact(content: bytes, target: Path) -> bytes:
    """An artifact (format 3, unsigned) that the client's own module `single-file` installs at `target`."""
    version = b'{"format":"mender","version":3}'
    info = {
        "payloads": [{"type": "single-file"}],
        "artifact_provides": {"artifact_name": "app-1"},
        "artifact_depends": {"device_type": ["plant"]},
    }
    kind = json.dumps({"type": "single-file"}).encode()
    header = _tar({"header-info": json.dumps(info).encode(), "headers/0000/type-info": kind}, packed=True)
    files = {
        "dest_dir": f"{target.parent}\n".encode(),
        "filename": f"{target.name}\n".encode(),
        "permissions": b"644\n",
        target.name: content,
    }
    listed = {**{f"data/0000/{name}": data for name, data in files.items()}, "header.tar.gz": header, "version": version}
    manifest = "".join(f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in listed.items()).encode()
    data = _tar(files, packed=True)
    return _tar({"version": version, "manifest": manifest, "header.tar.gz": header, "data/0000.tar.gz": data})


def _tar(files: dict[str, bytes], *, packed: bool = False) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz" if packed else "w", format=tarfile.USTAR_FORMAT) as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def write_image(folder: Path, content: bytes) -> None:
    """An image of one layer with one file, as an OCI layout with the tag `1`."""
    plain = _tar({"opt/app": content})
    blobs = folder / "blobs" / "sha256"
    blobs.mkdir(parents=True)

    def blob(kind: str, data: bytes) -> dict[str, object]:
        digest = hashlib.sha256(data).hexdigest()
        (blobs / digest).write_bytes(data)
        return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": f"sha256:{digest}", "size": len(data)}

    layer = blob("layer.v1.tar+gzip", gzip.compress(plain, mtime=0))
    root = {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(plain).hexdigest()}"]}
    config = blob("config.v1+json", json.dumps({"architecture": "amd64", "os": "linux", "rootfs": root}).encode())
    kind = "application/vnd.oci.image.manifest.v1+json"
    manifest = blob(
        "manifest.v1+json", json.dumps({"schemaVersion": 2, "mediaType": kind, "config": config, "layers": [layer]}).encode()
    )
    tagged = {**manifest, "annotations": {"org.opencontainers.image.ref.name": "1"}}
    (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [tagged]}))
    (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
