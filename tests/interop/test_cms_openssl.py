"""Our CMS signatures against `openssl cms`, both ways."""

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from tests.builders.keys import EMAIL_PROTECTION, NOW, PkiFiles, make_pki
from tests.peers import need_tool
from update.bundle.cms import CmsPolicy, verify
from update.bundle.cms_build import add_signature, sign
from update.errors import CertificateError, SignatureError, ThresholdError
from update.trust.signers import FileSigner

pytestmark = pytest.mark.interop

PKI = make_pki()
CONTENT = b'software = { version = "1.2.0"; };\r\nbinary \x00\xff safe\n'
POLICY = CmsPolicy(roots=(PKI.root.certificate,), intermediates=(PKI.intermediate.certificate,), at=NOW)


class OpenSsl:
    """`openssl cms` in one folder."""

    def __init__(self, folder: Path, files: PkiFiles) -> None:
        self.tool, self.folder, self.files = need_tool("openssl"), folder, files
        (folder / "content").write_bytes(CONTENT)

    def sign(self, *names: str, options: tuple[str, ...] = (), keyopt: str = "") -> bytes:
        keys = [part for name in names for part in self._signer(name, keyopt)]
        form = ("-binary", "-nosmimecap", "-outform", "DER")
        self._run("-sign", "-in", self.folder / "content", "-out", self.folder / "out", *form, *keys, *options)
        return (self.folder / "out").read_bytes()

    def resign(self, existing: bytes, name: str) -> bytes:
        (self.folder / "existing").write_bytes(existing)
        form = ("-inform", "DER", "-outform", "DER", "-binary", "-content", self.folder / "content", "-nosmimecap")
        self._run("-resign", "-in", self.folder / "existing", "-out", self.folder / "out", *form, *self._signer(name))
        return (self.folder / "out").read_bytes()

    def verify(self, signature: bytes) -> bool:
        (self.folder / "signature").write_bytes(signature)
        trust = ("-CAfile", self.files.anchors, "-purpose", "any")
        form = ("-inform", "DER", "-binary", "-content", self.folder / "content", "-out", "/dev/null")
        done = self._try("-verify", "-in", self.folder / "signature", *form, *trust)
        return done.returncode == 0 and b"successful" in done.stderr

    def _signer(self, name: str, keyopt: str = "") -> list[str | Path]:
        chosen: list[str | Path] = ["-signer", self.files.certificate(name), "-inkey", self.files.key(name)]
        return [*chosen, "-keyopt", keyopt] if keyopt else chosen

    def _try(self, *arguments: str | Path) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run([self.tool, "cms", *arguments], capture_output=True, check=False, timeout=30)

    def _run(self, *arguments: str | Path) -> None:
        done = self._try(*arguments)
        assert done.returncode == 0, done.stderr.decode()


@pytest.fixture
def openssl(tmp_path: Path) -> OpenSsl:
    return OpenSsl(tmp_path, PKI.write(tmp_path / "pki"))


def signer(index: int) -> FileSigner:
    return FileSigner(PKI.signers[index].certificate, PKI.signers[index].key)


RSA = FileSigner(PKI.rsa.certificate, PKI.rsa.key)
PSS = FileSigner(PKI.rsa.certificate, PKI.rsa.key, pss=True)


@pytest.mark.parametrize("signers", [[signer(0)], [RSA], [PSS], [signer(0), RSA, signer(2)]], ids=["ec", "rsa", "pss", "three"])
def test_openssl_verifies_ours(openssl: OpenSsl, signers: list[FileSigner]) -> None:
    assert openssl.verify(sign(CONTENT, signers))


def test_openssl_verifies_a_signature_completed_one_signer_at_a_time(openssl: OpenSsl) -> None:
    signature = add_signature(add_signature(sign(CONTENT, [signer(0)]), CONTENT, PSS), CONTENT, signer(1))
    assert openssl.verify(signature)


def test_openssl_refuses_ours_over_other_content(openssl: OpenSsl) -> None:
    assert not openssl.verify(sign(CONTENT + b" ", [signer(0)]))


@pytest.mark.parametrize(
    ("names", "options", "keyopt"),
    [
        (("signer0",), (), ""),
        (("rsa",), (), ""),
        (("rsa",), (), "rsa_padding_mode:pss"),
        (("signer0",), ("-keyid",), ""),
        (("signer0",), ("-md", "sha384"), ""),
        (("rsa",), ("-md", "sha512"), ""),
        (("signer0", "rsa"), (), ""),
    ],
    ids=["ec", "rsa", "pss", "key identifier", "sha384", "sha512", "two"],
)
def test_we_verify_what_openssl_signs(openssl: OpenSsl, names: tuple[str, ...], options: tuple[str, ...], keyopt: str) -> None:
    found = verify(CONTENT, openssl.sign(*names, options=options, keyopt=keyopt), replace(POLICY, threshold=len(names)))
    assert {each.name for each in found} == set(names)


def test_we_verify_mail_purpose_as_swupdate_does_by_default(openssl: OpenSsl) -> None:
    (found,) = verify(CONTENT, openssl.sign("email"), replace(POLICY, purpose=EMAIL_PROTECTION))
    assert found.name == "email"


def test_signatures_are_completed_across_tools(openssl: OpenSsl) -> None:
    ours_first = openssl.resign(sign(CONTENT, [signer(0)]), "rsa")
    theirs_first = add_signature(openssl.sign("rsa", options=("-keyid",)), CONTENT, signer(0))
    assert openssl.verify(theirs_first)
    for signature in (ours_first, theirs_first):
        assert len(verify(CONTENT, signature, replace(POLICY, threshold=2))) == 2
        with pytest.raises(ThresholdError):
            verify(CONTENT, signature, replace(POLICY, threshold=3))


@pytest.mark.parametrize(
    "options", [("-noattr",), ("-nodetach",), ("-nocerts",), ("-md", "sha1")], ids=["noattr", "attached", "nocerts", "sha1"]
)
def test_we_refuse_what_openssl_can_sign_but_should_not(openssl: OpenSsl, options: tuple[str, ...]) -> None:
    with pytest.raises(SignatureError):
        verify(CONTENT, openssl.sign("signer0", options=options), POLICY)


def test_we_refuse_pss_with_two_different_digests(openssl: OpenSsl) -> None:
    mixed = openssl.sign("rsa", keyopt="rsa_padding_mode:pss", options=("-keyopt", "rsa_mgf1_md:sha1"))
    with pytest.raises(SignatureError, match="must be the same"):
        verify(CONTENT, mixed, POLICY)


@pytest.mark.parametrize("name", ["expired", "future", "stranger", "email"])
def test_we_refuse_openssl_signatures_by_signers_we_do_not_trust(openssl: OpenSsl, name: str) -> None:
    with pytest.raises(CertificateError):
        verify(CONTENT, openssl.sign(name), POLICY)


def test_an_intermediate_that_openssl_embeds_counts_only_if_the_policy_says_so(openssl: OpenSsl) -> None:
    embedded = openssl.sign("signer0", options=("-certfile", str(openssl.files.certificate("intermediate"))))
    policy = replace(POLICY, intermediates=())
    with pytest.raises(CertificateError):
        verify(CONTENT, embedded, policy)
    assert verify(CONTENT, embedded, replace(policy, use_embedded_intermediates=True))[0].name == "signer0"
