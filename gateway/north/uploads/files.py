"""The files of one push by the paths of a repository: whoever asked verifies them, as what any upstream delivers."""

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from gateway.north.uploads.headers import components
from gateway.north.uploads.shelf import Push, Shelf
from update.errors import EndlessDataError, NotFoundError, ProtocolError, UnreachableError

_FLAGS: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC


class PushedFiles:
    """`Files` of a push. Errors of all methods: `NotFoundError`, `UnreachableError`, `EndlessDataError`."""

    def __init__(self, shelf: Shelf, push: Push) -> None:
        self._parts: Mapping[tuple[str, ...], Path] = {
            upload.names: shelf.part(push, upload) for upload in push.files.values() if upload.length
        }

    async def fetch(self, path: str, *, max_bytes: int) -> bytes:
        """A whole small file."""
        return await asyncio.to_thread(self._read, path, max_bytes)

    def open(self, path: str) -> int:
        """A descriptor, which the caller closes."""
        try:
            part = self._parts[components(path)]
        except (KeyError, ProtocolError) as error:
            raise NotFoundError(f"{path[:200]} was not pushed") from error
        try:
            return os.open(part, _FLAGS)
        except OSError as error:
            raise UnreachableError(f"what was pushed as {path[:200]} cannot be read: {error.strerror}") from error

    def _read(self, path: str, max_bytes: int) -> bytes:
        with os.fdopen(self.open(path), "rb") as file:
            data = file.read(max_bytes + 1)
        if len(data) > max_bytes:
            raise EndlessDataError(f"{path[:200]} has more than {max_bytes} bytes")
        return data
