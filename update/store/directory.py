"""A folder as a repository: the store of a gateway, or what came by hand, read so that nothing in it can lead outside.

How files are opened, `update.store.beneath` says. Content is verified by whoever asked; here only the number of bytes is bounded.
"""

import asyncio
import os
from pathlib import Path
from urllib.parse import unquote

from update.errors import EndlessDataError, NotFoundError, ProtocolError, UnreachableError
from update.store.beneath import open_file_beneath


class DirectoryFetcher:
    """A `Fetcher` over the repository in `folder` (`metadata/`, `targets/`); `folder` itself may be a link.

    Errors: `NotFoundError`, `EndlessDataError`, `ProtocolError` for what is no regular file or no proper path,
    `UnreachableError` when the medium fails.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def fetch(self, path: str, *, max_bytes: int) -> bytes:
        """The whole file at the percent-encoded `path`, at most `max_bytes`."""
        return await asyncio.to_thread(self._read, path, max_bytes)

    def open(self, path: str) -> int:
        """A descriptor of the regular file at the percent-encoded `path`, for targets read in blocks; the caller closes it."""
        names = _components(path)
        try:
            folder = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                return open_file_beneath(folder, names)
            finally:
                os.close(folder)
        except FileNotFoundError as error:
            raise NotFoundError(f"{path} is not in {self._folder}") from error
        except OSError as error:
            raise ProtocolError(f"cannot open {path} in {self._folder} (links are not followed): {error.strerror}") from error

    def _read(self, path: str, max_bytes: int) -> bytes:
        with os.fdopen(self.open(path), "rb") as file:
            length = os.fstat(file.fileno()).st_size
            if length > max_bytes:
                raise EndlessDataError(f"{path} in {self._folder} has {length} bytes, at most {max_bytes} are read")
            try:
                data = file.read(max_bytes + 1)
            except OSError as error:
                raise UnreachableError(f"cannot read {path} in {self._folder}: {error.strerror}") from error
        if len(data) > max_bytes:
            raise EndlessDataError(f"{path} in {self._folder} grew beyond {max_bytes} bytes while it was read")
        return data


def _components(path: str) -> list[str]:
    """The decoded components; `ProtocolError` for one that is empty, `.`, `..`, or holds a slash or NUL after decoding."""
    if not path.isascii():
        raise ProtocolError(f"{path[:120]!r} is not percent-encoded")
    try:
        names = [unquote(part, errors="strict") for part in path.split("/")]
    except UnicodeDecodeError as error:
        raise ProtocolError(f"{path[:120]!r} does not decode to UTF-8") from error
    if any(name in {"", ".", ".."} or "/" in name or "\0" in name for name in names):
        raise ProtocolError(f"{path[:120]!r} is no path inside a repository")
    return names
