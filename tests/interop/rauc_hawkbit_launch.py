"""Runs the classes of `rauc-hawkbit` in the system's Python, told by a JSON file; its own program knows one attribute only.

It is told whom to trust by SSL_CERT_FILE and where the bus is by DBUS_SYSTEM_BUS_ADDRESS.
"""

import asyncio
import json
import logging
import sys
from pathlib import Path

import aiohttp
import gbulb  # type: ignore[import-not-found]  # of another environment: `servers.rauc_hawkbit_parts`
from rauc_hawkbit.rauc_dbus_ddi_client import RaucDBUSDDIClient  # type: ignore[import-not-found]  # the same


async def main() -> None:
    told = json.loads(Path(sys.argv[1]).read_text())
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    async with aiohttp.ClientSession() as session:
        client = RaucDBUSDDIClient(
            session,
            told["host"],
            True,
            "DEFAULT",
            told["node"],
            told["token"],
            told["attributes"],
            told["place"],
            lambda result: print(f"result {result}", flush=True),
        )
        print("polls", flush=True)
        await client.start_polling(wait_on_error=1)


gbulb.install()
asyncio.get_event_loop().run_until_complete(main())
