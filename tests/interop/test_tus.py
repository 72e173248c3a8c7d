"""The tus project's own client pushes to our server: created, sent in parts with checksums, resumed."""

import asyncio
import os
import sys
from pathlib import Path

import pytest

from tests.builders.upload_site import UploadSite
from tests.interop.servers import tuspy_parts
from tests.peers import need

pytestmark = pytest.mark.interop
CONTENT = bytes(range(256)) * 1500


async def test_the_clients_upload_is_resumed_and_whole(tmp_path: Path) -> None:
    need(present=tuspy_parts.is_installed(), reason="tuspy is not installed; run `make interop-tools`")
    (tmp_path / "a.bin").write_bytes(CONTENT)
    site = UploadSite(tmp_path)
    shelf = site.shelf()
    async with site.serving(shelf) as client:
        push = await shelf.begin(site.pusher(), "")
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            str(Path(__file__).with_name("tus_peer.py")),
            str(client.make_url("/push/v1/files")),
            "token-of-ci",
            push.id,
            "a.swu",
            str(tmp_path / "a.bin"),
            env={**os.environ, **tuspy_parts.environment()},
            stdout=asyncio.subprocess.PIPE,
        )
        said, _ = await process.communicate()
        assert (process.returncode, said.split()) == (0, [b"100000", str(len(CONTENT)).encode()])
        (upload,) = push.files.values()
        assert shelf.part(push, upload).read_bytes() == CONTENT
