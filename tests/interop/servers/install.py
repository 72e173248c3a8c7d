"""`make interop-tools`: the real servers and clients that the interop tests run against. Nothing of them is ever committed.

All are had through the ordinary clients of their registries (Maven; Go's module proxy; pip), pinned by digests, and kept under
`build/interop` (90 MB). What is there already is not fetched again; what was broken off goes on where it was. Some 170 MB
travel (240 MB where Go is too old); it takes 90 s of processor time.
"""

import sys
import time
from concurrent.futures import ThreadPoolExecutor
from threading import Lock

from tests.interop.servers import hawkbit_parts, rauc_hawkbit_parts, tuspy_parts, wfx_parts
from tests.interop.servers.steps import CannotInstallError

_LINES = Lock()
_MODULES = (hawkbit_parts, wfx_parts, rauc_hawkbit_parts, tuspy_parts)


def main() -> int:
    """Install them two at once: the one waits for the network, the other for the compiler."""
    started = time.monotonic()

    def say(line: str) -> None:
        with _LINES:
            print(f"[{time.monotonic() - started:4.0f} s] {line}", flush=True)

    failures = 0
    with ThreadPoolExecutor(max_workers=2) as pool:
        for task in [pool.submit(module.install, say) for module in _MODULES]:
            try:
                task.result()
            except CannotInstallError as error:
                say(str(error))
                failures += 1
    say("the real peers are there" if failures == 0 else f"{failures} of {len(_MODULES)} could not be had")
    return min(failures, 1)


if __name__ == "__main__":
    sys.exit(main())
