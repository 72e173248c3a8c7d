"""MCUboot and Zephyr's SMP server for QEMU's microbit: prebuilt, in the source distribution of smpclient.

Fetched once from the package index and believed by pinned digests; never part of this repository.
"""

import hashlib
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.interop.imgtool import FETCHED, alone, need_imgtool, pip

_RELEASE: Final = "smpclient-7.3.0"
_SOURCE_SHA256: Final = "86aa4bc1c621805d97f449793a4077f049aa88a98a1e916bf59423d072bd2a3b"
_SERVER: Final = f"{_RELEASE}/tests/fixtures/smp-server/zephyr_4.4.0_smp_server_0eae053d_qemu_cortex_m0_serial"
_DIGESTS: Final = {
    "merged.hex": "2e0cda996515b444f324f26d794e55e5f08b3ddff210d6fcec6f994647eb289e",
    "signed.bin": "e96f3b40d10418018caa1c3f9776d3bbdd542f5612e3caad3a223bb0b2a24c54",
}
_HEADER_BYTES: Final = 0x200


@dataclass(frozen=True, slots=True)
class Firmware:
    """`merged`: bootloader and application as QEMU loads them; `signed`: the application alone, version 0.0.0."""

    merged: Path
    signed: Path

    def version(self, version: str, folder: Path) -> bytes:
        """The same application under another version, by imgtool."""
        data = self.signed.read_bytes()
        payload, made = folder / "payload.bin", folder / f"application-{version}.bin"
        payload.write_bytes(data[_HEADER_BYTES : _HEADER_BYTES + int.from_bytes(data[12:16], "little")])
        return need_imgtool().sign(payload, made, version).read_bytes()


def need_firmware() -> Firmware:
    """The firmware; skips where the package index cannot be reached, fails under REQUIRE_TOOLS=1."""
    folder = FETCHED / _RELEASE
    with alone(FETCHED / "firmware.lock"):
        if not all((folder / name).exists() for name in _DIGESTS):
            _fetch(folder)
    return Firmware(folder / "merged.hex", folder / "signed.bin")


def _fetch(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    wanted = folder / "wanted.txt"
    wanted.write_text(f"{_RELEASE.replace('-', '==')} --hash=sha256:{_SOURCE_SHA256}\n")
    pip("download", "--no-deps", "--no-binary", "smpclient", "--require-hashes", "-d", str(folder), "-r", str(wanted))
    with tarfile.open(folder / f"{_RELEASE}.tar.gz") as source:
        for name, digest in _DIGESTS.items():
            member = source.extractfile(f"{_SERVER}.{name}")
            assert member is not None
            data = member.read()
            assert hashlib.sha256(data).hexdigest() == digest, name
            (folder / name).write_bytes(data)
