"""A device in a folder, and the program that knows it, as the driver `command` runs it: nothing but the standard library.

`address` is the folder. `flash.bin` is what runs, `flash.torn` is there while it is written; with two slots `beside.bin` is the
other, and `trial` is there until it is confirmed. `fault` says what to do at which word:
`WORD garbage|long|hang|status|fail|torn`.
"""

import hashlib
import json
import sys
import time
from pathlib import Path
from typing import Any

Question = dict[str, Any]  # JSON, as the driver writes it
Answer = dict[str, str]


def version_of(path: Path) -> str:
    return path.read_bytes().partition(b"\n")[0].decode().removeprefix("version ")


def probe(folder: Path, question: Question) -> Answer:
    if (folder / "flash.torn").exists():
        return {"result": "ok", "state": "silent", "reason": "it has no whole image"}
    flash = folder / "flash.bin"
    about = {"version": version_of(flash)}
    if question["settings"].get("tells") == "sha256":
        about = {"sha256": hashlib.sha256(flash.read_bytes()).hexdigest()}
    return {"result": "ok", "state": "failed" if about.get("version", "").endswith("-bad") else "running", **about}


def stage(folder: Path, question: Question) -> Answer:
    if not Path(question["image"]["path"]).read_bytes().startswith(b"version "):
        return {"result": "unsuitable", "reason": "it is for another device"}
    if question["settings"]["slots"] == "2":
        (folder / "beside.bin").write_bytes(Path(question["image"]["path"]).read_bytes())
    return {"result": "ok"}


def activate(folder: Path, question: Question) -> Answer:
    data = Path(question["image"]["path"]).read_bytes()
    if hashlib.sha256(data).hexdigest() != question["image"]["sha256"]:
        return {"result": "failed", "reason": "the file is not what it should be"}
    if question["settings"]["slots"] == "2":
        if (folder / "flash.bin").read_bytes() != data:
            swap(folder)
            (folder / "trial").touch()
        return {"result": "ok"}
    (folder / "flash.torn").touch()
    (folder / "flash.bin").write_bytes(data[: len(data) // 2])
    if fault(folder, "activate") == "torn":
        (folder / "fault").unlink()
        sys.exit(7)
    (folder / "flash.bin").write_bytes(data)
    (folder / "flash.torn").unlink()
    return {"result": "ok"}


def confirm(folder: Path, _question: Question) -> Answer:
    (folder / "trial").unlink(missing_ok=True)
    return {"result": "ok"}


def revert(folder: Path, _question: Question) -> Answer:
    swap(folder)
    (folder / "trial").unlink(missing_ok=True)
    return {"result": "ok"}


def read(folder: Path, question: Question) -> Answer:
    Path(question["target"]).write_bytes((folder / "flash.bin").read_bytes())
    return {"result": "ok"}


def swap(folder: Path) -> None:
    ours, beside = (folder / "flash.bin").read_bytes(), (folder / "beside.bin").read_bytes()
    (folder / "flash.bin").write_bytes(beside)
    (folder / "beside.bin").write_bytes(ours)


def fault(folder: Path, word: str) -> str:
    try:
        at, _, what = (folder / "fault").read_text().partition(" ")
    except FileNotFoundError:
        return ""
    return what if at == word else ""


def main() -> None:
    question = json.loads(sys.stdin.readline())
    folder, word = Path(question["address"]), question["word"]
    with (folder / "words").open("a") as log:
        log.write(f"{word}\n")
    match fault(folder, word):
        case "garbage":
            print("all is well")
            return
        case "long":
            print("x" * (1 << 20))
        case "hang":
            time.sleep(600)
        case "status":
            print("the cable is loose", file=sys.stderr)
            sys.exit(3)
        case "fail":
            print(json.dumps({"result": "failed", "reason": "the device said no"}))
            return
    known = {"probe": probe, "stage": stage, "activate": activate, "confirm": confirm, "revert": revert, "read": read}
    print(json.dumps(known[word](folder, question)))


main()
