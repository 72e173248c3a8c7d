"""The process that makes one pair patch: `python -m gateway.south.pairs.maker JOB`, JOB as JSON; it writes one line of JSON.

It takes hundreds of MiB for a while, and reads files that came from outside. So it is alone in its process: it has the
lowest priority, may take so much memory and processor time and write so large a file and no more, and ends when its
standard input does, which is when the gateway ended, however that came about. Everything it reads is verified chunk by
chunk, and what it writes is synced when it says so; giving it its name is the gateway's.
"""

import hashlib
import json
import os
import resource
import sys
import threading
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from pydantic import TypeAdapter, ValidationError

from update.chunks.pair import PatchForm, write_pair
from update.chunks.patch_build import Image
from update.chunks.unpack import read_header
from update.chunks.unpacked import UnpackedImage
from update.digest import Digest, digest_of
from update.durable import Disk, DurableFile
from update.errors import CorruptError, FieldrelayError, LimitError, StoreError, UsageError

PRIORITY: Final = 19
_MEMORY: Final = "it took more memory than the gateway allows (south.pair_patches.maker_memory_bytes)"


@dataclass(frozen=True, slots=True)
class Job:
    """One patch: both `.zck` files with the digests of their headers, the file to write, and the limits.

    `max_bytes`: a larger patch is of no use. Memory in bytes, processor time in seconds.
    """

    old: Path
    old_header: Digest
    new: Path
    new_header: Digest
    out: Path
    form: PatchForm
    memory_bytes: int
    max_bytes: int
    maker_memory_bytes: int
    maker_time_s: int

    def as_json(self) -> str:
        """For the command line."""
        return json.dumps({name: str(value) if isinstance(value, Path) else value for name, value in asdict(self).items()})


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of it: a patch of `size` bytes, or why there is none."""

    size: int = 0
    sha256: str = ""
    code: str = ""
    message: str = ""


JOB: Final = TypeAdapter(Job)
OUTCOME: Final = TypeAdapter(Outcome)


def main() -> int:
    """Do the job of the command line; the exit status is that of the error."""
    try:
        outcome, status = make(_restricted(JOB.validate_json(sys.argv[1]))), 0
    except MemoryError:
        outcome, status = Outcome(code=LimitError.code, message=_MEMORY), LimitError.exit_status
    except FieldrelayError as error:
        outcome, status = Outcome(code=error.code, message=str(error)), error.exit_status
    except (IndexError, ValidationError) as error:
        outcome, status = Outcome(code=UsageError.code, message=f"not a job: {error}"[:500]), UsageError.exit_status
    sys.stdout.write(json.dumps(asdict(outcome)) + "\n")
    sys.stdout.flush()
    return status


def make(job: Job) -> Outcome:
    """Write `job.out` and sync it. Errors: `BundleError`, `StoreError`, `CorruptError`; it may be there in part then."""
    with ExitStack() as opened:
        old = _image(opened, job.old, job.old_header)
        new = _image(opened, job.new, job.new_header)
        out = _Output(opened.enter_context(Disk().open(job.out, fresh=True)), job.max_bytes)
        write_pair(job.form, old, new, out.write, memory_bytes=job.memory_bytes)
        return out.finish()


def _image(opened: ExitStack, path: Path, header: Digest) -> Image:
    """An image by its `.zck`, whose header must be the one that was asked for."""
    try:
        file = opened.enter_context(path.open("rb"))
    except OSError as error:
        raise StoreError(f"cannot open {path}: {error.strerror or error}") from error
    index = read_header(file)
    if digest_of(index.raw) != header:
        raise CorruptError(f"{path} has another header than {header}")
    return Image(index, UnpackedImage(index, lambda offset, size: os.pread(file.fileno(), size, offset)).read)


class _Output:
    """The patch while it is written: counted, hashed, limited."""

    def __init__(self, file: DurableFile, max_bytes: int) -> None:
        self._file = file
        self._max_bytes = max_bytes
        self._size = 0
        self._state = hashlib.sha256()

    def write(self, data: bytes) -> None:
        """Append; `LimitError` above the limit."""
        if self._size + len(data) > self._max_bytes:
            raise LimitError(f"the patch takes more than the {self._max_bytes} bytes that the chunks would")
        self._file.write_at(self._size, data)
        self._state.update(data)
        self._size += len(data)

    def finish(self) -> Outcome:
        """Make it durable."""
        self._file.sync()
        return Outcome(self._size, self._state.hexdigest())


def _restricted(job: Job) -> Job:
    """Take from this process what the job does not need."""
    threading.Thread(target=_end_with_the_gateway, daemon=True).start()
    os.nice(PRIORITY)
    for limit, value in (
        (resource.RLIMIT_DATA, job.maker_memory_bytes),
        (resource.RLIMIT_CPU, job.maker_time_s),
        (resource.RLIMIT_FSIZE, job.max_bytes),
        (resource.RLIMIT_CORE, 0),
    ):
        most = resource.getrlimit(limit)[1]
        allowed = value if most == resource.RLIM_INFINITY else min(value, most)
        resource.setrlimit(limit, (allowed, allowed))
    return job


def _end_with_the_gateway() -> None:
    """Nobody writes to the standard input: it ends with whoever holds its other end."""
    while os.read(sys.stdin.fileno(), 1):
        continue
    os._exit(UsageError.exit_status)


if __name__ == "__main__":
    sys.exit(main())
