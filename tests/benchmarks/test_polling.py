import asyncio
import json
from pathlib import Path

import aiohttp
import pytest

from tests.benchmarks.polling import NODES, ORDERED, Plant, _device, _rank
from tests.benchmarks.polling_north import North, serve_north
from tests.benchmarks.run import GROUPS


def north(tmp_path: Path) -> North:
    (tmp_path / "os.swu").write_bytes(b"bundle")
    return North(0, "00:00:10", ["b"], tmp_path / "os.swu")


def test_what_polls_is_measured() -> None:
    assert "polling" in GROUPS


@pytest.mark.parametrize(("times", "peak"), [([], 0), ([0.0, 0.5, 0.9, 1.0], 3), ([0.0, 5.0, 5.1, 9.0], 2)])
def test_the_peak_is_that_of_any_second(tmp_path: Path, times: list[float], peak: int) -> None:
    counted = north(tmp_path)
    counted._times.extend(times)
    assert counted.peak() == peak


def test_what_is_ordered_is_ordered_of_every_kind_of_node(tmp_path: Path) -> None:
    plant = Plant(tmp_path, tuple(_device(tmp_path, number) for number in range(NODES)))
    kinds = {device.name: device.kind for device in plant.devices}
    assert len(plant.ordered) == ORDERED
    assert {kinds[name] for name in plant.ordered} == {"agent", "agent-anew", "libcurl", "libcurl-anew"}


def test_ranks_are_taken_from_the_ordered_figures() -> None:
    figures = [float(each) for each in range(100)]
    assert (_rank(figures, 0.5), _rank(figures, 0.99), _rank([7.0], 0.99)) == (50.0, 99.0, 7.0)


async def test_the_server_counts_what_it_is_asked_and_wants_its_bundle_of_some(tmp_path: Path) -> None:
    counted = north(tmp_path)
    async with serve_north(counted), aiohttp.ClientSession() as session:
        base = f"http://127.0.0.1:{counted.port}/DEFAULT/controller/v1"
        roots = [json.loads(await (await session.get(f"{base}/{name}")).text()) for name in ("a", "b")]
        assert [sorted(root["_links"]) for root in roots] == [[], ["deploymentBase"]]
        deployment = await (await session.get(roots[1]["_links"]["deploymentBase"]["href"])).json()
        (file,) = deployment["deployment"]["chunks"][0]["artifacts"]
        async with session.get(file["_links"]["download-http"]["href"]) as response:
            assert await response.read() == b"bundle"
        await asyncio.gather(*[session.post(f"{base}/b/deploymentBase/1/feedback", data=b"{}") for _ in range(3)])
    assert (counted.requests, sorted(counted.targets), counted.entries["1"]) == (7, ["a", "b"], 3)
