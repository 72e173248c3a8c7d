"""The Makefile and what decides a landing: every tool that a test demands is installed there, every target exists."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

ROOT = Path(__file__).parents[1]
LANDING = (ROOT / ".ci" / "run").read_text()
MAKEFILE = (ROOT / "Makefile").read_text()
PACKAGES: Final = {
    "busybox": "busybox-static",
    "casync": "casync",
    "chromium": "chromium",
    "cpio": "cpio",
    "cryptsetup": "cryptsetup-bin",
    "dbus-daemon": "dbus",
    "dbus-send": "dbus",
    "depmod": "kmod",
    "dfu-suffix": "dfu-util",
    "dfu-util": "dfu-util",
    "docker-registry": "docker-registry",
    "faketime": "faketime",
    "flashrom": "flashrom",
    "fw_printenv": "libubootenv-tool",
    "fw_setenv": "libubootenv-tool",
    "go": "golang-go",
    "java": "openjdk-17-jdk-headless",
    "mender": "mender-client",
    "ldconfig": "libc-bin",
    "losetup": "mount",
    "mcopy": "mtools",
    "mkenvimage": "u-boot-tools",
    "mkfs.exfat": "exfatprogs",
    "mkfs.ext4": "e2fsprogs",
    "mkfs.vfat": "dosfstools",
    "mkimage": "u-boot-tools",
    "mksquashfs": "squashfs-tools",
    "modprobe": "kmod",
    "mtype": "mtools",
    "nginx": "nginx-light",
    "openssl": "openssl",
    "ostree": "ostree",
    "qemu-system-aarch64": "qemu-system-arm",
    "qemu-system-arm": "qemu-system-arm",
    "qemu-system-x86_64": "qemu-system-x86",
    "rauc": "rauc",
    "rdiff": "rdiff",
    "sfdisk": "fdisk",
    "skopeo": "skopeo",
    "strace": "strace",
    "swupdate": "swupdate",
    "swupdate-client": "swupdate",
    "systemd-analyze": "systemd",
    "umockdev-wrapper": "umockdev",
    "unshare": "util-linux",
    "unzck": "zchunk",
    "veritysetup": "cryptsetup-bin",
    "xdelta3": "xdelta3",
    "zck": "zchunk",
    "zck_read_header": "zchunk",
    "zckdl": "zchunk",
    "zstd": "zstd",
}
"""The Debian package of each real tool."""


def demanded_tools() -> Iterator[tuple[str, str]]:
    """Every tool that a test names in `need_tool`, and the file that does."""
    for file in (ROOT / "tests").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] == "need_tool":
                for argument in node.args:
                    if isinstance(argument, ast.Constant):
                        yield str(argument.value), file.name


def targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE))


def test_every_tool_that_a_test_demands_is_installed_before_a_landing() -> None:
    installed = set(LANDING.partition("tools=(")[2].partition(")")[0].split())
    missing = {(tool, file) for tool, file in demanded_tools() if PACKAGES.get(tool) not in installed}
    assert missing == set(), "add the tool to PACKAGES above, and its package to .ci/run"


def test_a_landing_is_decided_by_the_targets_that_a_person_runs() -> None:
    ran = re.findall(r"^make ([a-z-]+)", LANDING, re.MULTILINE)
    assert ran == ["lint", "interop-tools", "test", "demo", "system"]
    assert set(ran) <= targets()


def test_every_target_is_explained_and_phony() -> None:
    explained = set(re.findall(r"^([a-z-]+):.*## \S", MAKEFILE, re.MULTILINE))
    phony = set(MAKEFILE.partition(".PHONY:")[2].partition("\n")[0].split())
    assert targets() == explained == phony


def test_every_target_that_a_page_names_exists() -> None:
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]
    named = {
        target for page in pages for target in re.findall(r"`make ([a-z-]+)|^make ([a-z-]+)", page.read_text(), re.MULTILINE)
    }
    assert {first or second for first, second in named} <= targets()
