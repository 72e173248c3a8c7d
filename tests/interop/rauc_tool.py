"""The real `rauc` in one folder, with the test PKI as its keyring.

tool = RaucTool(tmp_path)
file = tool.bundle("verity", "email")          # signed by that identity of the PKI
tool.accepts(file)                             # `rauc extract`: signature and the whole payload
tool.resign(file, "second"); tool.add_signer(file, "second"); tool.encrypt(file, "gateway")
"""

import functools
import json
import random
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import rsa

from tests.builders.keys import EMAIL_PROTECTION, Identity, PkiFiles, issue, make_pki
from tests.peers import need_tool

PKI = make_pki()
COMPATIBLE = "FooCorp Super BarBazzer"
TIMEOUT_S = 120


@functools.cache
def identities() -> Mapping[str, Identity]:
    """What RAUC needs besides the PKI: other signers for `smimesign`, and recipients."""
    mail = [EMAIL_PROTECTION]
    made = (
        issue("second", PKI.intermediate, purposes=mail),
        issue("mail-rsa", PKI.intermediate, purposes=mail, key=rsa.generate_private_key(65537, 3072)),
        issue("mail-stranger", PKI.stranger_root, purposes=mail),
        issue("no-purpose", PKI.intermediate),
        issue("gateway", PKI.root, key=rsa.generate_private_key(65537, 2048), digital_signature=False),
        issue("device", PKI.root, key=rsa.generate_private_key(65537, 2048), digital_signature=False),
    )
    return {identity.name: identity for identity in made}


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a call of rauc ended, and what it said."""

    good: bool
    said: str


class RaucTool:
    """See the module's docstring."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._rauc, self._openssl = need_tool("rauc"), need_tool("openssl")
        need_tool("mksquashfs")
        self.files: PkiFiles = PKI.write(folder / "pki")
        for identity in identities().values():
            self.files.certificate(identity.name).write_bytes(identity.certificate_pem)
            self.files.key(identity.name).write_bytes(identity.key_pem)

    def bundle(
        self,
        format_: str,
        signer: str = "email",
        *,
        name: str = "",
        intermediate: str = "",
        images: Sequence[str] = (),
        version: str = "2026.11.0",
        seed: int = 1,
    ) -> Path:
        """A bundle with one image of 200,000 bytes of that `seed`, and the given further images (`class` or `class.variant`)."""
        content = self.folder / f"content-{name or format_}"
        content.mkdir(exist_ok=True)
        (content / "rootfs.img").write_bytes(random.Random(seed).randbytes(200_000))
        groups = "".join(f"\n[image.{each}]\nfilename=rootfs.img\n" for each in ("rootfs", *images))
        head = f"[update]\ncompatible={COMPATIBLE}\nversion={version}\nbuild=7\n\n[bundle]\nformat={format_}\n"
        (content / "manifest.raucm").write_text(head + groups)
        out = self.folder / f"{name or format_}.raucb"
        out.unlink(missing_ok=True)
        more = [f"--intermediate={self.files.certificate(intermediate)}"] if intermediate else []
        self._must("bundle", *self._signing(signer), *more, str(content), str(out))
        return out

    def accepts(self, file: Path, *, keyring: Path | None = None, purpose: str = "", recipient: str = "") -> Verdict:
        """Whether rauc finds everything in order: signature, then every byte of the payload."""
        out = self.folder / "extracted"
        done = self._call(*self._trusting(keyring, purpose, recipient), "extract", str(file), str(out))
        for found in sorted(out.rglob("*"), reverse=True) if out.exists() else []:
            found.unlink()
        if out.exists():
            out.rmdir()
        return Verdict(done.returncode == 0, done.stdout + done.stderr)

    def reads(self, file: Path) -> Verdict:
        """Whether rauc accepts signature and manifest, whatever the payload is."""
        done = self._call("--keyring", str(self.files.anchors), "info", str(file))
        return Verdict(done.returncode == 0, done.stdout + done.stderr)

    def info(self, file: Path) -> dict[str, object]:
        """What rauc says of a bundle, as JSON."""
        done = self._must("--keyring", str(self.files.anchors), "info", "--output-format=json", str(file))
        found: dict[str, object] = json.loads(done.stdout)
        return found

    def resign(self, file: Path, signer: str) -> Path:
        """The same bundle signed by another one."""
        out = file.with_suffix(f".{signer}.raucb")
        self._must("resign", *self._signing(signer), "--keyring", str(self.files.anchors), str(file), str(out))
        return out

    def encrypt(self, file: Path, *recipients: str) -> Path:
        """The same bundle for recipients only."""
        out = file.with_suffix(".encrypted.raucb")
        to = [f"--to={self.files.certificate(each)}" for each in recipients]
        self._must("encrypt", "--keyring", str(self.files.anchors), *to, str(file), str(out))
        return out

    def add_signer(self, file: Path, signer: str) -> Path:
        """The same bundle with one more signature by openssl, and its trailer made anew."""
        whole = file.read_bytes()
        size = int.from_bytes(whole[-8:], "big")
        old, new = self.folder / "old.sig", self.folder / "new.sig"
        old.write_bytes(whole[-8 - size : -8])
        keys = ["-signer", str(self.files.certificate(signer)), "-inkey", str(self.files.key(signer))]
        form = ["-inform", "DER", "-outform", "DER", "-nosmimecap", "-binary", "-nodetach"]
        command = [self._openssl, "cms", "-resign", "-in", str(old), "-out", str(new), *form, *keys]
        subprocess.run(command, check=True, capture_output=True, timeout=TIMEOUT_S)
        out = file.with_suffix(f".and-{signer}.raucb")
        signature = new.read_bytes()
        out.write_bytes(whole[: -8 - size] + signature + len(signature).to_bytes(8, "big"))
        return out

    def _signing(self, signer: str) -> list[str]:
        return [f"--cert={self.files.certificate(signer)}", f"--key={self.files.key(signer)}"]

    def _trusting(self, keyring: Path | None, purpose: str, recipient: str) -> list[str]:
        lines = ["[system]", f"compatible={COMPATIBLE}", "bootloader=noop", "[keyring]", f"path={keyring or self.files.anchors}"]
        lines += [f"check-purpose={purpose}"] if purpose else []
        if recipient:
            lines += ["[encryption]", f"key={self.files.key(recipient)}", f"cert={self.files.certificate(recipient)}"]
        conf = self.folder / "verifying.conf"
        conf.write_text("\n".join(lines) + "\n")
        return [f"--conf={conf}"]

    def _call(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([self._rauc, *arguments], capture_output=True, text=True, check=False, timeout=TIMEOUT_S)

    def _must(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        done = self._call(*arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        return done
