"""The distance between the requests to one server."""

import asyncio

from gateway.north.spacing import Spacing

NODES = 1000
PER_S = 2000.0
EPSILON_S = 1e-6


async def test_a_thousand_nodes_at_once_stay_under_the_rate() -> None:
    clock = asyncio.get_running_loop().time
    spacing, begun = Spacing(PER_S, now=clock), list[float]()
    first = clock()

    async def ask() -> None:
        await spacing.wait()
        begun.append(clock())

    await asyncio.gather(*[ask() for _ in range(NODES)])
    assert len(begun) == NODES
    assert all(when >= first + turn / PER_S - EPSILON_S for turn, when in enumerate(sorted(begun)))


async def test_who_comes_after_a_pause_does_not_wait_and_pauses_are_not_saved_up() -> None:
    times = [0.0]
    spacing = Spacing(1000.0, now=lambda: times[0])
    await spacing.wait()
    times[0] = 50.0
    await spacing.wait()
    waiting = asyncio.create_task(spacing.wait())
    await asyncio.sleep(0)
    assert not waiting.done()
    await waiting
