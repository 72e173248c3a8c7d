"""A RAUC 1.16 that polls and streams, written from its documentation: no packaged rauc can do either.

It asks as RAUC's manual ("HTTP Streaming", "Polling") says: the first four bytes with its info headers, the ETag that it saw
last, redirects followed; an installation asks the same URL once more with a transaction id, pins where that led, and reads the
bundle in ranges of 128 KiB. It begins a manifest once in each boot.
"""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field

from aiohttp import ClientSession

BLOCK_BYTES = 128 << 10
MAGIC = {"Range": "bytes=0-3"}


@dataclass(slots=True)
class PollingRauc:
    """One device; `headers` carry its token, `url` is its `[polling] url`."""

    session: ClientSession
    url: str
    headers: Mapping[str, str]
    version: str
    variant: str = ""
    boot_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    etag: str = ""
    written: bytes = b""
    begun: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    async def poll(self, *, install: bool = True) -> int:
        """One poll, and the installation that follows; the status that the poll came to (206, 204, 304)."""
        told = {"If-None-Match": self.etag} if self.etag else {}
        async with self.session.get(self.url, headers=self._said() | MAGIC | told) as response:
            self.asked += [str(each.url) for each in response.history]
            if response.status == 204:
                self.etag = ""
            if response.status == 206:
                self._check_magic(await response.read(), response.headers["Content-Range"])
                self.etag = response.headers["ETag"]
            status = response.status
        if status in {206, 304} and install and self.etag not in self.begun:
            self.begun.append(self.etag)
            self.written = await self.install()
        return status

    async def install(self) -> bytes:
        """Stream the whole bundle."""
        said = self._said() | {"RAUC-Transaction-ID": str(uuid.uuid4())}
        async with self.session.get(self.url, headers=said | MAGIC) as response:
            assert response.status == 206, await response.text()
            self._check_magic(await response.read(), response.headers["Content-Range"])
            pinned, size = response.url, int(response.headers["Content-Range"].rpartition("/")[2])
        content = bytearray()
        while len(content) < size:
            span = f"bytes={len(content)}-{min(len(content) + BLOCK_BYTES, size) - 1}"
            async with self.session.get(pinned, headers=said | {"Range": span}) as response:
                assert response.status == 206
                content += await response.read()
        return bytes(content)

    def restart(self, version: str) -> None:
        """Another boot, which runs this."""
        self.version, self.boot_id, self.etag = version, str(uuid.uuid4()), ""
        self.begun.clear()

    def _said(self) -> dict[str, str]:
        known = {"RAUC-Boot-ID": self.boot_id, "RAUC-System-Version": self.version, "RAUC-Serial": "S7"}
        return {**self.headers, **known, "RAUC-Variant": self.variant, "RAUC-Uptime": "12"}

    def _check_magic(self, body: bytes, span: str) -> None:
        assert (body, span.partition("/")[0]) == (b"hsqs", "bytes 0-3"), (body, span)
