"""Artifacts of a real hawkBit as places of chunks: found by their bytes, read in many ranges at once, missed when deleted."""

import random
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import aiohttp
import pytest

from gateway.north.hawkbit.bodies import CHECK_S, HawkbitBodies
from gateway.north.hawkbit.client import HawkbitClient
from gateway.north.hawkbit.credentials import GatewayToken
from gateway.north.hawkbit.meaning import artifacts_of
from gateway.north.spacing import Spacing
from tests.builders.relayed import index_of, make_zck
from tests.interop.hawkbit_management import GATEWAY_TOKEN, Management
from tests.interop.hawkbit_peer import MARKS, HawkbitServer
from update.bundle.deltas import Body
from update.chunks.ranges import Range
from update.trust.verified import TargetCustom, TargetInfo, ZckHeader

pytestmark = MARKS


@pytest.fixture
async def client(tmp_path: Path, hawkbit: HawkbitServer) -> AsyncIterator[HawkbitClient]:
    (tmp_path / "token").write_text(GATEWAY_TOKEN)
    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False) as session:
        token = GatewayToken(tmp_path / "token")
        yield HawkbitClient(session, hawkbit.url, "DEFAULT", token, Spacing(1000, now=lambda: 0.0))


async def test_chunks_come_from_an_artifact_in_one_request_and_its_deletion_is_noticed(
    tmp_path: Path, client: HawkbitClient, operator: Management
) -> None:
    zck, name, now_s = make_zck(tmp_path), uuid4().hex, [1000.0]
    content, index = zck.read_bytes(), index_of(zck)
    module = await operator.create_module(name, "1")
    await operator.upload(module, "os.swu", b"a bundle")
    await operator.upload(module, "zeros.zck", bytes(len(content)))
    artifact = await operator.upload(module, "image.bin", content)
    await operator.create_target(name)
    action = await operator.assign(name, await operator.create_set(name, "1", [module]))
    bodies = HawkbitBodies(patience_s=60, clock=lambda: now_s[0])
    body = Body(ZckHeader(index.sha256, len(index.header.raw)), len(content))
    info = TargetInfo("plant", "x.zck", len(content), index.sha256, TargetCustom(zck_header=body.header), "")
    bodies.note(client, name, str(action), [body], artifacts_of(await client.deployment(name, str(action))))
    await bodies.look(info)
    (source,) = bodies.sources_of(info)
    assert source.name.endswith("/image.bin")

    before = await asked(operator, name, action)
    dice = random.Random(2)
    starts = range(body.header.length, len(content) - 1000, len(content) // 120)
    ranges = [Range(start, dice.randrange(1, 500)) for start in starts]
    read = bytearray(len(content))
    async for offset, piece in source.read_ranges(ranges):
        read[offset : offset + len(piece)] = piece
    assert all(read[each.start : each.end] == content[each.start : each.end] for each in ranges)
    assert await asked(operator, name, action) == before + 1
    assert source.ranged

    now_s[0] += CHECK_S
    await bodies.look(info)
    assert await asked(operator, name, action) == before + 1, "a look at the deployment is no request for an artifact"
    assert bodies.reachable(info)
    await operator.delete_artifact(module, artifact)
    now_s[0] += CHECK_S
    await bodies.look(info)
    assert bodies.reachable(info) == ()


async def asked(operator: Management, target: str, action: int) -> int:
    """How many requests for artifacts hawkBit has counted."""
    return sum(entry.type == "download" for entry in await operator.history(target, action))
