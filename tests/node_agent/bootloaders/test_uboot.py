import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from node_agent.bootloaders.command_line import CommandLine
from node_agent.bootloaders.uboot import UbootConfig, UbootEnvironment, create
from tests.contract.boards import ENVIRONMENT_BYTES, FACTORY, uboot_board
from tests.peers import need_tool
from update.durable import Disk
from update.errors import BootloaderError

pytestmark = pytest.mark.interop
_SECTOR_BYTES = 512


@pytest.fixture
def config(tmp_path: Path) -> UbootConfig:
    board = uboot_board(tmp_path)
    board.power_on()
    return UbootConfig(
        tmp_path / "fw_env.config", CommandLine(board.command_line), need_tool("fw_printenv"), need_tool("fw_setenv")
    )


@pytest.mark.parametrize(
    "lines",
    [
        "",
        "# only a comment\n",
        "{media} 0x0 0x4000\n",
        "{media} 0x0 0x4000\n#{media} 0x4000 0x4000\n",
        "{media} 0x0 0x4000\n{media} 0x0 0x4000\n",
        "{media} 0x0 0x4000\n{media} 0x2000 0x4000\n",
        "{media} 0x0 0x4000\n{media} 0x4000 0x2000\n",
        "{media} 0x0 0x4000\n{media} 0x4000 0x4000\n{media} 0x8000 0x4000\n",
        "{media} 0x0 16384\n{media} 0x4000 16384\n",
        "uboot:\n  size: 0x4000\n",
    ],
)
def test_an_environment_that_is_not_redundant_is_refused(config: UbootConfig, tmp_path: Path, lines: str) -> None:
    media = tmp_path / "environment.img"
    before = media.read_bytes()
    config.environment.write_text(lines.format(media=media))
    loader = create(config, Disk())
    with pytest.raises(BootloaderError):
        loader.primary()
    with pytest.raises(BootloaderError):
        loader.try_once("b", {})
    with pytest.raises(BootloaderError):
        UbootEnvironment(config).write({"bootslot": "b"})
    assert media.read_bytes() == before


def test_a_configuration_with_comments_and_flash_columns_is_read(config: UbootConfig, tmp_path: Path) -> None:
    media = tmp_path / "environment.img"
    config.environment.write_text(f"# device offset size\n\n{media} 0 4000 0x1000 4\n{media} 16384 0x4000 0x1000\n")
    assert UbootEnvironment(config).read()["bootslot"] == "a"


def test_an_environment_of_one_format_in_two_places_is_not_valid(config: UbootConfig, tmp_path: Path) -> None:
    media, listing = tmp_path / "environment.img", tmp_path / "factory.txt"
    plain = [need_tool("mkenvimage"), "-s", str(ENVIRONMENT_BYTES), "-o", str(media), str(listing)]
    subprocess.run(plain, check=True, timeout=30)
    media.write_bytes(media.read_bytes() * 2)
    with pytest.raises(BootloaderError, match="no valid copy"):
        UbootEnvironment(config).read()


def test_one_damaged_copy_is_survived(config: UbootConfig, tmp_path: Path) -> None:
    media = tmp_path / "environment.img"
    create(config, Disk()).try_once("b", {})
    content = bytearray(media.read_bytes())
    newest = max((0, ENVIRONMENT_BYTES), key=lambda offset: content[offset + 4])
    content[newest + 100] ^= 1
    media.write_bytes(content)
    assert create(config, Disk()).primary() == "a"


def test_a_write_torn_at_any_sector_leaves_the_old_or_the_new_environment(config: UbootConfig, tmp_path: Path) -> None:
    media = tmp_path / "environment.img"
    loader = create(config, Disk())
    before = media.read_bytes()
    loader.try_once("b", {"release": "1.2"})
    after = media.read_bytes()
    seen = set()
    for cut in range(0, len(after) + 1, _SECTOR_BYTES):
        media.write_bytes(after[:cut] + before[cut:])
        found = UbootEnvironment(config).read()
        seen.add((found["bootslot"], found["upgrade_available"], found.get("release", "")))
    assert seen == {("a", "0", ""), ("b", "1", "1.2")}


def test_a_switch_is_one_write_and_an_unchanged_environment_none(config: UbootConfig, tmp_path: Path) -> None:
    strace = need_tool("strace")
    trace, wrapper = tmp_path / "trace", tmp_path / "fw_setenv"
    wrapper.write_text(f'#!/bin/sh\nexec {strace} -f -A -o {trace} -e trace=write,pwrite64,fsync {config.set_tool} "$@"\n')
    wrapper.chmod(0o755)
    loader = create(replace(config, set_tool=str(wrapper)), Disk())
    loader.try_once("b", {"release": "1.2", "more": "x"})
    calls = re.findall(r"(write|pwrite64|fsync)\(\d+(?:, .*, (\d+))?", trace.read_text())
    assert calls == [("write", str(ENVIRONMENT_BYTES)), ("fsync", "")]
    trace.unlink()
    loader.try_once("b", {"release": "1.2", "more": "x"})
    assert not trace.exists()


def test_more_variables_than_the_environment_holds_are_refused(config: UbootConfig, tmp_path: Path) -> None:
    loader = create(config, Disk())
    with pytest.raises(BootloaderError):
        loader.try_once("b", {f"v{number}": "x" * 1000 for number in range(20)})
    assert loader.primary() == "a"
    assert loader.trial() is None


def test_an_absent_and_an_empty_variable_are_the_same(config: UbootConfig) -> None:
    environment = UbootEnvironment(config)
    environment.write({"release": "1"})
    environment.write({"release": ""})
    assert environment.read().get("release", "") == ""
    assert environment.read() == FACTORY


@pytest.mark.parametrize(
    ("program", "words"),
    [
        ("exec sleep 60", "did not end"),
        ("echo broken >&2; exit 7", "status 7: broken"),
        ("exit 243", "no valid copy"),
        ("head -c 2000000 /dev/zero", "status 0"),
    ],
)
def test_a_tool_that_hangs_fails_or_floods_is_an_error(config: UbootConfig, tmp_path: Path, program: str, words: str) -> None:
    tool = tmp_path / "tool"
    tool.write_text(f"#!/bin/sh\n{program}\n")
    tool.chmod(0o755)
    with pytest.raises(BootloaderError, match=words):
        UbootEnvironment(replace(config, print_tool=str(tool), timeout_s=0.5)).read()


def test_an_absent_tool_is_named(config: UbootConfig, tmp_path: Path) -> None:
    with pytest.raises(BootloaderError, match=r"cannot run .*absent"):
        UbootEnvironment(replace(config, print_tool=str(tmp_path / "absent"))).read()


def test_a_write_that_does_nothing_is_found_out(config: UbootConfig) -> None:
    with pytest.raises(BootloaderError, match="read back"):
        UbootEnvironment(replace(config, set_tool=str(shutil.which("true")))).write({"bootslot": "b"})


def test_absent_configuration_is_named(config: UbootConfig, tmp_path: Path) -> None:
    with pytest.raises(BootloaderError, match="cannot read"):
        UbootEnvironment(replace(config, environment=tmp_path / "absent")).read()
