"""Downloads and ranges from a real nginx, in the configurations in which it answers several ranges differently."""

import asyncio
import os
import random
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from tests.peers import need_tool
from update.durable import Disk
from update.store.staging import Staged
from update.wire.download import download
from update.wire.ranged import read_ranges

pytestmark = pytest.mark.interop

SIZE = 3_000_000
CONTENT = random.Random(7).randbytes(SIZE)
RANGES = [(10, 100), (500_000, 70_000), (1_000_000, 1), (2_900_000, 100_000)]

CONFIGURATION = """
{user}
error_log stderr; pid {folder}/pid; daemon off; master_process off;
events {{ }}
http {{
  access_log off; client_body_temp_path {folder}/t1; proxy_temp_path {folder}/t2; fastcgi_temp_path {folder}/t3;
  uwsgi_temp_path {folder}/t4; scgi_temp_path {folder}/t5;
  proxy_cache_path {folder}/cache keys_zone=z:1m;
  server {{ listen 127.0.0.1:{port};
    location /static/ {{ alias {folder}/content/; }}
    location /single/ {{ alias {folder}/content/; max_ranges 1; }}
    location /none/ {{ alias {folder}/content/; max_ranges 0; }}
    location /cached/ {{ proxy_pass http://127.0.0.1:{port}/static/; proxy_cache z; proxy_cache_valid 1h; }}
  }}
}}
"""


@asynccontextmanager
async def nginx(folder: Path) -> AsyncIterator[str]:
    tool = need_tool("nginx")
    (folder / "content").mkdir()
    (folder / "content" / "x").write_bytes(CONTENT)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    user = "user root;" if os.geteuid() == 0 else ""
    (folder / "conf").write_text(CONFIGURATION.format(folder=folder, port=port, user=user))
    process = await asyncio.create_subprocess_exec(
        tool, "-p", str(folder), "-c", str(folder / "conf"), stderr=asyncio.subprocess.PIPE
    )
    try:
        async with asyncio.timeout(20):
            await _accepting(port, process)
        yield f"http://127.0.0.1:{port}"
    finally:
        if process.returncode is None:
            process.terminate()
        await process.communicate()


async def _accepting(port: int, process: asyncio.subprocess.Process) -> None:
    while process.returncode is None:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except ConnectionError:
            await asyncio.sleep(0.02)
            continue
        writer.close()
        await writer.wait_closed()
        return
    raise AssertionError("nginx ended at once")


@pytest.mark.parametrize("place", ["static", "single", "none", "cached"])
async def test_ranges_are_exact_however_nginx_answers_several(tmp_path: Path, place: str) -> None:
    async with nginx(tmp_path) as url, aiohttp.ClientSession() as session:
        for _ in range(2):  # the cache answers a miss with the whole file and a hit with parts
            found = bytearray(SIZE)
            received = 0
            async for offset, data in read_ranges(session, f"{url}/{place}/x", RANGES, size=SIZE):
                found[offset : offset + len(data)] = data
                received += len(data)
            assert received == sum(length for _, length in RANGES)
            assert all(found[start : start + length] == CONTENT[start : start + length] for start, length in RANGES)


async def test_a_partial_file_is_completed_with_one_range(tmp_path: Path) -> None:
    with Staged(Disk(), tmp_path / "x.part", tmp_path / "x.json", length=SIZE) as staged:
        staged.write_at(0, CONTENT[:1_234_567])
        staged.sync()
        async with nginx(tmp_path) as url, aiohttp.ClientSession() as session:
            transfer = await download(session, f"{url}/static/x", staged, length=SIZE)
    assert (tmp_path / "x.part").read_bytes() == CONTENT
    assert (transfer.received_bytes, transfer.requests, transfer.resumed_at) == (SIZE - 1_234_567, 1, 1_234_567)
