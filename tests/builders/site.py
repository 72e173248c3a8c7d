"""A site for tests: its CA, one gateway and any number of enrolled nodes, as files in one folder.

site = Site(tmp_path)                        # CA, gateway certificate
site.server_context()                        # for web.TCPSite(..., ssl_context=...)
site.client_context()                        # a node before enrolment
site.client_context("node-1")                # an enrolled node
async with site.serve(app) as port: ...      # an aiohttp application over TLS on 127.0.0.1
"""

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

from aiohttp import web

from update.durable import Disk
from update.wire.authority import SiteAuthority, ensure_gateway_certificate, make_csr, write_certificate
from update.wire.tls import client_context, server_context


class Site:
    """See the module's docstring; `now` is the real time, because OpenSSL judges by the real clock."""

    def __init__(self, folder: Path, name: str = "plant") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.disk, self.now = folder, Disk(), datetime.now(UTC)
        self.ca = folder / "ca.pem"
        self.authority = SiteAuthority.create(self.disk, self.ca, folder / "ca.key", site=name, now=self.now)
        self.certificate, self.key = folder / "gateway.pem", folder / "gateway.key"
        ensure_gateway_certificate(
            self.disk, self.authority, self.certificate, self.key, gateway="gw-1", hosts=["gw-1.plant.example"], now=self.now
        )

    def enroll(self, node: str, *, now: datetime | None = None) -> tuple[Path, Path]:
        """Certificate and key files of a node, issued as of `now`."""
        certificate, key = self.folder / f"{node}.pem", self.folder / f"{node}.key"
        csr = make_csr(self.disk, key, node)
        write_certificate(self.disk, certificate, self.authority.issue_node(csr, node=node, now=now or self.now))
        return certificate, key

    def server_context(self) -> ssl.SSLContext:
        return server_context(self.certificate, self.key, self.ca)

    def client_context(self, node: str | None = None) -> ssl.SSLContext:
        certificate, key = self.enroll(node) if node else (None, None)
        return client_context(self.ca, certificate=certificate, key=key)

    @asynccontextmanager
    async def serve(self, app: web.Application, context: ssl.SSLContext | None = None) -> AsyncIterator[int]:
        runner = web.AppRunner(app)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context or self.server_context()).start()
            yield int(runner.addresses[0][1])
        finally:
            await runner.cleanup()
