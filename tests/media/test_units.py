"""The systemd units of reader and mounter: what they start, and how much either could do if it were taken over."""

import configparser
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.cli.main import main
from tests.peers import need_tool

UNITS = Path(__file__).parents[2] / "configs" / "systemd"

# PR_SET_MDWE (65) refuses memory that is writable and executable, as MemoryDenyWriteExecute= does; status 77: not here.
UNDER_LIMITS = """
import ctypes, sys
if ctypes.CDLL(None).prctl(65, 1, 0, 0, 0):
    sys.exit(77)
import media.cli
from media.mount import Kernel
from media.udev import Udev
Kernel()
list(Udev().here())
"""


def unit(name: str) -> configparser.ConfigParser:
    parsed = configparser.ConfigParser(strict=False, interpolation=None)
    parsed.optionxform = str  # type: ignore[assignment,method-assign]  # the way to keep the case of keys
    parsed.read(UNITS / name)
    return parsed


@pytest.mark.parametrize(("name", "verb"), [("fieldrelay-media.service", "watch"), ("fieldrelay-mounter.service", "mounter")])
def test_what_a_unit_starts_is_a_command(name: str, verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    program, *arguments = unit(name)["Service"]["ExecStart"].split()
    assert Path(program).name == "fieldrelay"
    assert arguments[:2] == ["media", verb]
    assert main([*arguments, "--help"]) == 0
    assert "--config" in capsys.readouterr().out


@pytest.mark.interop
@pytest.mark.parametrize(("name", "most"), [("fieldrelay-media.service", 12), ("fieldrelay-mounter.service", 21)])
def test_the_exposure_is_what_it_was_measured_to_be(name: str, most: int) -> None:
    """`--threshold` is ten times the exposure."""
    command = [need_tool("systemd-analyze"), "security", "--offline=yes", f"--threshold={most}", "--no-pager", str(UNITS / name)]
    measured = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert measured.returncode == 0, measured.stdout[-500:] + measured.stderr


def test_whoever_reads_has_no_privilege_and_neither_has_a_network() -> None:
    reader, mounter = (unit(f"fieldrelay-{name}.service")["Service"] for name in ("media", "mounter"))
    assert (reader["CapabilityBoundingSet"], reader["RestrictAddressFamilies"]) == ("", "AF_UNIX AF_NETLINK")
    assert (mounter["PrivateNetwork"], mounter["RestrictAddressFamilies"]) == ("yes", "AF_UNIX")


def test_neither_needs_memory_that_is_writable_and_executable() -> None:
    ran = subprocess.run([sys.executable, "-c", UNDER_LIMITS], capture_output=True, text=True, check=False, timeout=60)
    if ran.returncode == 77:
        pytest.skip("this kernel has no PR_SET_MDWE (Linux 6.3)")
    assert ran.returncode == 0, ran.stderr
