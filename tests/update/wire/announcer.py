"""Announces a gateway on loopback from a process of its own until its standard input ends: `announcer.py NAME PORT`."""

import asyncio
import sys

from update.wire.service import announce


async def main(name: str, port: int) -> None:
    async with announce(name, port, interfaces=["lo"]) as instance:
        print(instance, flush=True)
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
