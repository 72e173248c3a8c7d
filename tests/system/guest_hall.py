"""What runs in the virtual hall: the real mounter, the real watcher, and a taker that asks as the gateway does.

Each line on the console begins with a word that the test waits for: READY, STATE, TAKEN, WHOLE (the digest of all that came).
The taker keeps what it took over visits, as the gateway's staging does, and asks for the rest.
"""

import asyncio
import ctypes.util
import hashlib
import os
import struct
import time
from pathlib import Path

ctypes.util.find_library = lambda name: "libudev.so.1" if name == "udev" else None  # no cache of libraries here

from media.cli import media  # noqa: E402 - the line above must come first
from media.intake import Intake, media_in  # noqa: E402
from media.records import Answer, Course, Offer, Want, Wants  # noqa: E402
from update.durable import Disk  # noqa: E402

PIECE = 512 << 10
CONFIG = Path("/run/media.toml")
INTAKE = Path("/run/intake")
TEXT = f"""format_version = 1
[media]
intake = "{INTAKE}"
socket = "/run/mounter/socket"
user = "reader"
events = "kernel"
reader = "mount"
settle_s = 0.2
[[allow]]
write_reports = true
key_file = "/run/key"
"""
READER = 1000


class Taker:
    """Takes one bundle of each medium, piece by piece."""

    def __init__(self) -> None:
        self.disk = Disk()
        self.taken: dict[str, bytearray] = {}
        self.served = ""
        self.shown: dict[str, str] = {}
        self.number = 0

    async def run(self) -> None:
        while True:
            for intake in media_in(self.disk, INTAKE):
                self.tell(intake)
                offer = intake.offer()
                if offer is not None and offer.visit != self.served:
                    await self.take(intake, offer)
            await asyncio.sleep(0.02)

    def tell(self, intake: Intake) -> None:
        state = intake.state()
        text = "" if state is None else f"{intake.medium} {state.stage} {state.code} {state.message}"
        if text != self.shown.get(intake.medium, ""):
            self.shown[intake.medium] = text
            say("STATE", text)

    async def take(self, intake: Intake, offer: Offer) -> None:
        bundles = [each for each in offer.found if each.size_bytes]
        size = sum(each.size_bytes for each in bundles[:1])
        taken = self.taken.setdefault(intake.medium, bytearray())
        began = len(taken)
        while len(taken) < size:
            self.number += 1
            length = min(PIECE, size - len(taken))
            want = Want(id=self.number, number=bundles[0].number, ranges=((len(taken), length),))
            intake.write_wants(Wants(visit=offer.visit, wants=(want,)))
            content = intake.content(want.id)
            while not content.exists():
                self.tell(intake)
                state = intake.state()
                if state is not None and state.stage == "gone":
                    self.served = offer.visit
                    return
                await asyncio.sleep(0.01)
            taken += content.read_bytes()
            intake.forget(want.id)
            self.answer(intake, offer, Course.ADOPTING, len(taken) - began, size - began)
            say("TAKEN", f"{len(taken)} of {size}")
        self.served = offer.visit
        self.answer(intake, offer, Course.UPDATING if len(taken) > began else Course.DONE, len(taken) - began, size - began)
        say("WHOLE", hashlib.sha256(taken).hexdigest())

    def answer(self, intake: Intake, offer: Offer, course: Course, taken: int, wanted: int) -> None:
        said = Answer(medium=offer.medium, visit=offer.visit, course=course, since=1, taken_bytes=taken, wanted_bytes=wanted)
        intake.write_answer(said)


def say(word: str, text: str = "") -> None:
    print(f"HALL {time.monotonic():.2f} {word} {text}", flush=True)


def become_reader() -> None:
    """Another user, who may read what he could not (no udevd gives him the devices), and nothing besides (capset(2))."""
    library = ctypes.CDLL(None, use_errno=True)
    library.prctl(8, 1, 0, 0, 0)  # PR_SET_KEEPCAPS
    os.setgroups([])
    os.setgid(READER)
    os.setuid(READER)
    may_read = 1 << 2  # CAP_DAC_READ_SEARCH
    done = library.capset(struct.pack("Ii", 0x20080522, 0), struct.pack("6I", may_read, may_read, 0, 0, 0, 0))
    assert done == 0, ctypes.get_errno()


def start(*arguments: str) -> int:
    child = os.fork()
    if child == 0:
        if arguments[0] == "watch":
            become_reader()
        media.main(list(arguments), "fieldrelay media")
        os._exit(1)
    return child


def main() -> None:
    CONFIG.write_text(TEXT)
    for folder in (INTAKE, INTAKE / "outbox", Path("/run/mounter")):
        folder.mkdir()
        folder.chmod(0o755)
    for folder in (INTAKE, INTAKE / "outbox"):
        os.chown(folder, READER, READER)
    Path("/run/key").write_bytes(b"the key of this hall")
    (INTAKE / "outbox" / "20260101T000000Z-hall.txt").write_text("what happened in the hall")
    children = [start(verb, "--config", str(CONFIG)) for verb in ("mounter", "watch")]
    while not Path("/run/mounter/socket").exists():
        time.sleep(0.05)
    say("READY", f"children {children}")
    asyncio.run(Taker().run())


if __name__ == "__main__":
    main()
