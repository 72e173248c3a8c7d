"""A real hawkBit update server on a free port of 127.0.0.1, its embedded database and artifacts in a folder of its own.

- It comes from `make interop-tools`; release and what that release lacks: `tests.interop.servers.hawkbit_parts`.
- Its tenant is DEFAULT, its operator admin/admin. Both kinds of device token are off until `Management.admit_devices`.
- Behind a proxy (`X-Forwarded-…` of loopback) its links lead to that.
- Polling may be as short as a second and rollouts are looked after five times a second, so that tests need not wait; every
  other setting is hawkBit's own default. Settings of Spring (`hawkbit.server.security.dos...`) may be given at the start.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from tests.interop.servers import hawkbit_parts
from tests.interop.servers.running import running
from tests.peers import need, need_tool

MARKS: Final = [pytest.mark.interop, pytest.mark.xdist_group("hawkbit"), pytest.mark.timeout(400)]
"""For every module that uses the server: one worker runs them all, and starting it counts as time of the first test."""

_JVM = ("-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData")
_SETTINGS = {
    "server.address": "127.0.0.1",
    "server.port": "0",
    "server.forward-headers-strategy": "NATIVE",
    "spring.datasource.url": "jdbc:h2:./database;MODE=MySQL",
    "spring.jmx.enabled": "false",
    "spring.main.allow-bean-definition-overriding": "true",
    "spring.main.banner-mode": "off",
    "org.eclipse.hawkbit.repository.file.path": "./artifacts",
    "logging.level.root": "WARN",
    "logging.level.fieldrelay": "INFO",
    "hawkbit.controller.minPollingTime": "00:00:01",
    "hawkbit.rollout.scheduler.fixedDelay": "200",
    "hawkbit.rollout.creation.scheduler.fixedDelay": "200",
}


@dataclass(frozen=True, slots=True)
class HawkbitServer:
    """`url` is the root of DDI and of the management API, without a slash at its end."""

    url: str
    user: str = "admin"
    password: str = "admin"  # noqa: S105 - hawkBit's own default, on loopback


@contextmanager
def hawkbit_server(folder: Path, settings: Mapping[str, str] | None = None) -> Iterator[HawkbitServer]:
    """A server of this context alone; `settings` are added to the above.

    In a folder that was used before it goes on with what it had; `server.port` then gives it its old address.
    """
    need(present=hawkbit_parts.is_installed(), reason="hawkBit's update server is not there; `make interop-tools` gets it")
    java = need_tool("java")
    port, scratch = folder / "port", folder / "scratch"
    scratch.mkdir(exist_ok=True)
    port.unlink(missing_ok=True)
    opened = [option for name in hawkbit_parts.OPENED for option in ("--add-opens", f"java.base/{name}=ALL-UNNAMED")]
    options = [f"--{key}={value}" for key, value in {**_SETTINGS, **(settings or {})}.items()]
    command = [java, *_JVM, *opened, f"-Djava.io.tmpdir={scratch}", "-cp", hawkbit_parts.class_path()]
    command += [hawkbit_parts.MAIN_CLASS, os.fspath(port), *options]

    def look(said: str) -> HawkbitServer | None:
        """hawkBit delivers its events from a pool of threads: the port may be written after the last line of the start."""
        number = port.read_text() if ": Started HawkbitStart in " in said and port.is_file() else ""
        return HawkbitServer(f"http://127.0.0.1:{number}") if number else None

    with running(command, folder, look) as server:
        yield server
