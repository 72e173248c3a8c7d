"""Looking now: what is said meanwhile is one look, and no more looks come than are allowed."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from gateway.north.looking import Looking


@dataclass
class Asked:
    """Mirrors whose look lasts until it is let go."""

    looks: list[str] = field(default_factory=list)
    begun: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(0))
    go_on: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(0))
    hastened: int = 0

    def repositories(self) -> Sequence[str]:
        return ("plant", "vendor")

    async def refresh(self, repository: str) -> object:
        self.looks.append(repository)
        self.begun.release()
        await self.go_on.acquire()
        return None

    def hasten(self) -> None:
        self.hastened += 1
        self.begun.release()


@asynccontextmanager
async def looking(asked: Asked) -> AsyncIterator[Looking]:
    made = Looking(asked, asked.hasten, every_s=0.0)
    task = asyncio.create_task(made.run())
    try:
        async with asyncio.timeout(60):
            yield made
    finally:
        task.cancel()
        await asyncio.wait([task])


async def test_what_is_said_during_a_look_is_one_look_afterwards() -> None:
    asked = Asked()
    async with looking(asked) as made:
        made.want(["plant"], assigners=False)
        await asked.begun.acquire()
        for _ in range(50):
            made.want(["vendor", "plant"], assigners=True)
        asked.go_on.release()
        for _ in range(2):
            await asked.begun.acquire()
            asked.go_on.release()
        await asked.begun.acquire()
        assert (asked.looks, asked.hastened) == (["plant", "plant", "vendor"], 1)


async def test_what_is_not_configured_is_left_out() -> None:
    asked = Asked()
    async with looking(asked) as made:
        made.want(["foreign", "vendor"], assigners=False)
        await asked.begun.acquire()
        assert asked.looks == ["vendor"]
