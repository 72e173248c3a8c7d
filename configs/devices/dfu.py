#!/usr/bin/python3
"""The program of a device with USB DFU for the driver `command`, over dfu-util (Debian package of that name).

`address` is what dfu-util -d takes, such as `0483:df11`. Settings: `alt` (its alternate setting, default 0), `serial`, and
`dfu_util` (the program, if it is not on the PATH). The version of a device is its bcdDevice: `ver=0210` is `2.1`, `ver=0213` is
`2.1.3`; so the version of a release must be what its firmware has there. One slot: what runs is overwritten.

Images must end in a DFU suffix (`dfu-suffix -a`), which names the device that they are for (USB DFU 1.1, appendix B).
"""

import json
import re
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

FOUND = re.compile(r"Found (Runtime|DFU): \[([0-9a-f]{4}:[0-9a-f]{4})\] ver=([0-9a-f]{4}),.*?serial=\"([^\"]*)\"")
SUFFIX = struct.Struct("<HHHH3sB")
Question = dict[str, Any]
Answer = dict[str, str]


def util(question: Question, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run dfu-util for this device; the driver's time limit ends it."""
    settings = question["settings"]
    chosen = ["-S", settings["serial"]] if "serial" in settings else []
    command = [settings.get("dfu_util", "dfu-util"), "-d", question["address"], *chosen, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)


def version_of(bcd: str) -> str:
    """`0213` as 2.1.3; a last digit of 0 is left out."""
    return f"{int(bcd[:2])}.{bcd[2]}" + (f".{bcd[3]}" if bcd[3] != "0" else "")


def probe(question: Question) -> Answer:
    """Which mode it is in, and its version."""
    serial = question["settings"].get("serial")
    for mode, address, bcd, found_serial in FOUND.findall(util(question, "-l").stdout):
        if address == question["address"].lower() and serial in {None, found_serial}:
            if mode == "Runtime":
                return {"result": "ok", "state": "running", "version": version_of(bcd)}
            return {"result": "ok", "state": "stopped", "reason": "it waits for firmware, in DFU mode"}
    return {"result": "ok", "state": "silent", "reason": "dfu-util lists no such device"}


def stage(question: Question) -> Answer:
    """Is the image whole, and for this device?"""
    data = Path(question["image"]["path"]).read_bytes()
    if len(data) <= 16:
        return {"result": "unsuitable", "reason": f"it has {len(data)} bytes, and no DFU suffix"}
    _, product, vendor, _, signature, length = SUFFIX.unpack_from(data, len(data) - 16)
    if signature != b"UFD" or length != 16:
        return {"result": "unsuitable", "reason": "it has no DFU suffix; add one with dfu-suffix -a"}
    if zlib.crc32(data[:-4]) ^ 0xFFFFFFFF != int.from_bytes(data[-4:], "little"):
        return {"result": "unsuitable", "reason": "the checksum of its DFU suffix does not fit: it is damaged"}
    found, wanted = f"{vendor:04x}:{product:04x}", question["address"].lower()
    if found != wanted:
        return {"result": "unsuitable", "reason": f"it is for {found}, the device is {wanted}"}
    return {"result": "ok"}


def activate(question: Question) -> Answer:
    """Write it, and have the device start it. A device that runs is put into DFU mode by dfu-util."""
    done = util(question, "-a", question["settings"].get("alt", "0"), "-D", question["image"]["path"], "-R")
    if done.returncode != 0:
        return {"result": "failed", "reason": f"dfu-util ended with {done.returncode}: {(done.stderr or done.stdout)[-500:]}"}
    return {"result": "ok"}


def confirm(_question: Question) -> Answer:
    """There is nothing to confirm."""
    return {"result": "ok"}


def read(question: Question) -> Answer:
    """What runs, for devices that give it; it has no DFU suffix."""
    done = util(question, "-a", question["settings"].get("alt", "0"), "-U", question["target"])
    if done.returncode != 0:
        return {"result": "failed", "reason": f"dfu-util ended with {done.returncode}: {(done.stderr or done.stdout)[-500:]}"}
    return {"result": "ok"}


def main() -> None:
    """One question, one answer."""
    question = json.load(sys.stdin)
    words = {"probe": probe, "stage": stage, "activate": activate, "confirm": confirm, "read": read}
    if question["contract"] != 1 or question["word"] not in words:
        sys.exit(f"contract {question['contract']}, word {question['word']}: not known here")
    sys.stdout.write(json.dumps(words[question["word"]](question)))


if __name__ == "__main__":
    main()
