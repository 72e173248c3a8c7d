"""A node installs the base dependencies only, and the agent is small: shown in a fresh interpreter."""

import os
import subprocess
import sys

import pytest

EXTRAS = (
    *("aiosqlite", "alembic", "asyncpg", "click", "dbus_fast", "greenlet", "jinja2", "numpy", "pkcs11", "pyudev", "rich"),
    *("serial", "smpclient", "sqlalchemy", "uvloop", "gateway", "media"),
)
LIMIT_KIB = 72 * 1024
PROBE = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in EXTRAS:
            raise ModuleNotFoundError(f"{name} is blocked", name=name)

sys.meta_path.insert(0, Blocked())
import node_agent.cli, node_agent.drivers.linux, node_agent.bootloaders.uboot
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmRSS")))
print(",".join(sorted(name for name in sys.modules if name.partition(".")[0] in EXTRAS)))
"""


@pytest.fixture(scope="module")
def probed() -> list[str]:
    command = [sys.executable, "-c", PROBE.replace("EXTRAS", repr(EXTRAS))]
    unmeasured = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}  # it takes memory, too
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60, env=unmeasured)
    return done.stdout.splitlines()


def test_the_agent_imports_nothing_of_the_gateway_and_none_of_the_extras(probed: list[str]) -> None:
    assert probed[1:] == [""]


def test_the_agent_and_all_it_needs_take_at_most_72_mib(probed: list[str]) -> None:
    used_kib = int(probed[0])
    print(f"import RSS {used_kib / 1024:.1f} MiB")
    assert used_kib <= LIMIT_KIB


def test_the_probe_would_notice_an_extra() -> None:
    command = [sys.executable, "-c", PROBE.replace("EXTRAS", repr(("pydantic",)))]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert "pydantic is blocked" in done.stderr
