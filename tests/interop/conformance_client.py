"""Our TUF client behind the command line that the suite `tuf-conformance` drives (its CLIENT-CLI document).

    --metadata-dir D init ROOT
    --metadata-dir D --metadata-url U refresh
    --metadata-dir D --metadata-url U --target-name P --target-base-url T --target-dir O download

Exit status 0 or 1. The client's own folder and floor live in D/own. After each command D shows, under unversioned names, what
that folder holds: what the next refresh is compared with, newest version first. 403 and 404 count as "not there".
"""

import argparse
import asyncio
import json
import re
import sys
from datetime import UTC, datetime
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.parse import quote
from urllib.request import urlopen

from update.durable import Disk
from update.errors import EndlessDataError, FieldrelayError, NotFoundError, UnreachableError
from update.trust.client import Repository
from update.trust.floor import Floor
from update.trust.verified import TargetInfo, verify_target

KEPT_NAME = re.compile(r"^(\d+\.)?(ahead\.|delegated\.)?|\.json$")
"""What the client's own folder adds to a role's name: see `update.trust.trusted_folder`."""


class UrlFetcher:
    """Metadata over HTTP, as simply as can be."""

    def __init__(self, metadata_url: str) -> None:
        self._url = metadata_url.rstrip("/")

    async def fetch(self, path: str, *, max_bytes: int) -> bytes:
        return await asyncio.to_thread(get, f"{self._url}/{path.removeprefix('metadata/')}", max_bytes)


def get(url: str, max_bytes: int) -> bytes:
    try:
        with urlopen(url, timeout=30) as response:  # noqa: S310 - the suite's own server on loopback
            data: bytes = response.read(max_bytes + 1)
    except HTTPError as error:
        with error:
            kind = NotFoundError if error.code in {403, 404} else UnreachableError
            raise kind(f"{url}: status {error.code}") from error
    except (URLError, OSError) as error:
        raise UnreachableError(f"{url}: {error}") from error
    if len(data) > max_bytes:
        raise EndlessDataError(f"{url}: more than {max_bytes} bytes")
    return data


async def run(options: argparse.Namespace) -> None:
    folder, own = Path(options.metadata_dir), Path(options.metadata_dir) / "own"
    disk = Disk()
    floor = Floor(disk, (own / "one" / "floor", own / "two" / "floor"))
    if options.command == "init":
        floor.create()
        disk.write_file(own / "pinned.json", Path(options.root).read_bytes())
        show(folder)
        return
    repository = Repository(
        "conformance",
        trusted=own / "trusted",
        root=(own / "pinned.json").read_bytes(),
        fetcher=UrlFetcher(options.metadata_url),
        disk=disk,
        floor=floor,
        now=lambda: datetime.now(UTC),
    )
    try:
        await repository.refresh()
        if options.command == "download":
            download(await repository.find(options.target_name), options)
    finally:
        show(folder)


def show(folder: Path) -> None:
    """Bring the unversioned files up to what lies in the client's own folder, and remove those it no longer has."""
    newest: dict[str, tuple[int, bytes]] = {"root": (0, (folder / "own" / "pinned.json").read_bytes())}
    for file in sorted((folder / "own" / "trusted").glob("*.json")):
        role, data = KEPT_NAME.sub("", file.name), file.read_bytes()
        version = int(json.loads(data)["signed"]["version"])
        if version > newest.get(role, (0, b""))[0]:
            newest[role] = (version, data)
    for file in folder.glob("*.json"):
        file.unlink()
    for role, (_, data) in newest.items():
        (folder / f"{role}.json").write_bytes(data)


def download(info: TargetInfo, options: argparse.Namespace) -> None:
    final = Path(options.target_dir) / quote(info.path, safe="")
    if final.exists():
        try:
            verify_target(info, final)
            return
        except FieldrelayError:
            pass  # the repository has a newer one
    staged = final.with_name(f".{final.name}.new")
    url = f"{options.target_base_url.rstrip('/')}/{info.wire_path.removeprefix('targets/')}"
    staged.write_bytes(get(url, info.length))
    try:
        verify_target(info, staged)
        staged.replace(final)
    finally:
        staged.unlink(missing_ok=True)


def main() -> int:
    parser = argparse.ArgumentParser()
    for name in ("--metadata-dir", "--metadata-url", "--target-name", "--target-base-url", "--target-dir"):
        parser.add_argument(name)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("init").add_argument("root")
    commands.add_parser("refresh")
    commands.add_parser("download")
    try:
        asyncio.run(run(parser.parse_args()))
    except FieldrelayError as error:
        print(f"{error.code}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
