"""RAUC bundles by the real `rauc`: what it accepts we accept, and what it refuses we refuse, to the last byte.

`rauc info` looks at the signature only, so the verdict compared is that of `rauc extract`, which reads the whole payload.
"""

import random
import re
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.builders.keys import NOW
from tests.builders.rauc import BLOCK, SALT, payload, tree_of
from tests.interop.rauc_tool import COMPATIBLE, PKI, RaucTool, identities
from tests.peers import need_tool
from update.bundle.rauc_crypt import Recipient
from update.bundle.rauc_reader import RaucPolicy, RaucPurpose, rauc_policy, verify_rauc_bundle
from update.bundle.rauc_rules import RaucNode, judge_rauc
from update.errors import FieldrelayError, HashMismatchError, ThresholdError, UnsupportedError

pytestmark = pytest.mark.interop


@pytest.fixture
def tool(tmp_path: Path) -> RaucTool:
    return RaucTool(tmp_path)


def trusting(
    *, whole_chain: bool = True, purpose: RaucPurpose = RaucPurpose.SMIMESIGN, threshold: int = 1, opens: str = ""
) -> RaucPolicy:
    intermediates = (PKI.intermediate.certificate,) if whole_chain else ()
    recipient = None
    if opens:
        key = identities()[opens].key
        assert isinstance(key, rsa.RSAPrivateKey)
        recipient = Recipient(identities()[opens].certificate, key)
    return rauc_policy(
        (PKI.root.certificate,),
        NOW,
        intermediates=intermediates,
        purpose=purpose,
        threshold=threshold,
        accept_plain=True,
        recipient=recipient,
    )


def ours(file: Path, policy: RaucPolicy | None = None) -> bool:
    try:
        verify_rauc_bundle(file, policy or trusting())
    except FieldrelayError:
        return False
    return True


@pytest.mark.parametrize("signer", ["email", "mail-rsa"])
@pytest.mark.parametrize("format_", ["plain", "verity", "crypt"])
def test_a_bundle_of_every_format_and_key_is_accepted_by_both(tool: RaucTool, format_: str, signer: str) -> None:
    file = tool.bundle(format_, signer)
    assert tool.accepts(file).good
    found = verify_rauc_bundle(file, trusting())
    assert [each.name for each in found.signers] == [signer]
    assert found.payload_bytes % BLOCK == 0


@pytest.mark.parametrize("format_", ["verity", "crypt"])
def test_we_read_of_a_manifest_what_rauc_reads(tool: RaucTool, format_: str) -> None:
    file = tool.bundle(format_, images=["rootfs.big", "boot"])
    manifest, said = verify_rauc_bundle(file, trusting()).manifest, tool.info(file)
    assert manifest is not None
    assert (manifest.compatible, manifest.version, manifest.build) == (said["compatible"], said["version"], said["build"])
    images = said["images"]
    assert isinstance(images, list)
    theirs = [(name, values["filename"], values["checksum"], values["size"]) for each in images for name, values in each.items()]
    assert [(image.slot_class, image.filename, image.sha256, image.size) for image in manifest.images] == theirs
    node = RaucNode(COMPATIBLE, variant="big", min_bundle_version="2026.10")
    assert [image.variant for image in judge_rauc(manifest, node)] == ["big", ""]


@pytest.mark.parametrize("blocks", [2, 128, 129, 16385])
def test_the_tree_is_that_of_veritysetup(tmp_path: Path, blocks: int) -> None:
    data, file = payload(blocks), tmp_path / "data"
    file.write_bytes(data)
    sizes = [f"--data-blocks={blocks}", f"--hash-offset={len(data)}", f"--data-block-size={BLOCK}", f"--hash-block-size={BLOCK}"]
    command = [need_tool("veritysetup"), "format", "--no-superblock", f"--salt={SALT.hex()}", *sizes, str(file), str(file)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
    said = re.search(r"Root hash:\s+([0-9a-f]{64})", done.stdout)
    assert said is not None
    assert (said[1], file.read_bytes()[len(data) :]) == tree_of(data)


# --- who signed


@pytest.mark.parametrize("format_", ["verity", "crypt"])
def test_two_good_signers_count_twice(tool: RaucTool, format_: str) -> None:
    """RAUC 1.8 verifies both and then takes one only; later releases take several. `RaucNode.several_signers` says which."""
    file = tool.add_signer(tool.bundle(format_), "second")
    verdict = tool.accepts(file)
    assert "Verified inline signature by" in verdict.said
    assert verdict.good or "Unsupported number of signers: 2" in verdict.said
    found = verify_rauc_bundle(file, trusting(threshold=2))
    assert {each.name for each in found.signers} == {"email", "second"}
    with pytest.raises(ThresholdError):
        verify_rauc_bundle(file, trusting(threshold=3))


@pytest.mark.parametrize("bad", ["mail-stranger", "expired", "signer0"])
def test_one_bad_signer_of_two_is_refused_by_both(tool: RaucTool, bad: str) -> None:
    file = tool.add_signer(tool.bundle("verity"), bad)
    assert not tool.accepts(file).good
    assert not ours(file)


def test_another_signature_on_the_same_content_is_accepted_by_both(tool: RaucTool) -> None:
    file = tool.resign(tool.bundle("verity"), "second")
    assert tool.accepts(file).good
    assert [each.name for each in verify_rauc_bundle(file, trusting()).signers] == ["second"]


@pytest.mark.parametrize("signer", ["email", "signer0", "no-purpose", "mail-stranger"])
@pytest.mark.parametrize(("purpose", "theirs"), [(RaucPurpose.SMIMESIGN, ""), (RaucPurpose.CODESIGN, "codesign")])
def test_the_purpose_of_a_certificate_is_judged_as_rauc_judges_it(
    tool: RaucTool, signer: str, purpose: RaucPurpose, theirs: str
) -> None:
    file = tool.bundle("verity", signer)
    assert ours(file, trusting(purpose=purpose)) is tool.accepts(file, purpose=theirs).good


@pytest.mark.parametrize("embedded", ["intermediate", ""])
def test_intermediates_inside_the_signature_are_used_by_both(tool: RaucTool, embedded: str) -> None:
    file = tool.bundle("verity", intermediate=embedded)
    assert ours(file, trusting(whole_chain=False)) is tool.accepts(file, keyring=tool.files.root).good is bool(embedded)


# --- encrypted


def test_an_encrypted_bundle_opens_for_its_recipients_only(tool: RaucTool) -> None:
    file = tool.encrypt(tool.bundle("crypt"), "device", "gateway")
    assert not tool.accepts(file).good
    with pytest.raises(UnsupportedError, match="encrypted for 2 recipients"):
        verify_rauc_bundle(file, trusting())
    for recipient in ("device", "gateway"):
        verdict = tool.accepts(file, recipient=recipient)
        assert verdict.good, verdict.said
        assert ours(file, trusting(opens=recipient))


# --- damage


@pytest.mark.parametrize("format_", ["verity", "crypt"])
def test_one_flipped_byte_of_payload_or_tree_is_refused_by_both(tool: RaucTool, format_: str) -> None:
    file = tool.bundle(format_)
    good = file.read_bytes()
    payload_bytes = verify_rauc_bundle(file, trusting()).payload_bytes
    for at in (5000, payload_bytes - 1, payload_bytes + 10):
        changed = bytearray(good)
        changed[at] ^= 1
        file.write_bytes(changed)
        assert not tool.accepts(file).good
        with pytest.raises(HashMismatchError):
            verify_rauc_bundle(file, trusting())


def damaged(good: bytes, payload_bytes: int, rng: random.Random) -> Iterator[tuple[str, bytes]]:
    """Endlessly: where, and the bundle with that place changed."""
    size = int.from_bytes(good[-8:], "big")
    places = {"payload": (0, payload_bytes), "tree": (payload_bytes, len(good) - 8 - size)}
    places |= {"signature": (len(good) - 8 - size, len(good) - 8), "trailer": (len(good) - 8, len(good))}
    filled = [where for where, (begin, end) in places.items() if begin < end]
    while True:
        where = rng.choice(filled)
        changed = bytearray(good)
        at = rng.randrange(*places[where])
        match rng.randrange(3):
            case 0 if where != "trailer":
                del changed[at : at + rng.choice([1, BLOCK])]
            case 1:
                changed[at] = (changed[at] + rng.randrange(1, 256)) % 256
            case _:
                changed[at] ^= 1 << rng.randrange(8)
        yield where, bytes(changed)


def compare(tool: RaucTool, format_: str, count: int, seed: int) -> Sequence[str]:
    """Where we refused what rauc accepts. What rauc refuses and we accept fails at once, and so does any unnamed error."""
    file = tool.bundle(format_)
    found = damaged(file.read_bytes(), verify_rauc_bundle(file, trusting()).payload_bytes, random.Random(seed))
    stricter = []
    for _ in range(count):
        where, content = next(found)
        file.write_bytes(content)
        mine, theirs = ours(file), tool.accepts(file)
        assert theirs.good or not mine, f"accepted a bundle with a changed {where}: {theirs.said}"
        if theirs.good and not mine:
            stricter.append(where)
    return stricter


@pytest.mark.parametrize("format_", ["plain", "verity", "crypt"])
def test_damaged_bundles_get_the_same_verdict(tool: RaucTool, format_: str) -> None:
    """Stricter we are about encodings inside the signature, which is malleable; never about what was signed."""
    assert set(compare(tool, format_, 30, seed=5)) <= {"signature"}


@pytest.mark.soak
@pytest.mark.parametrize("format_", ["plain", "verity", "crypt"])
def test_a_thousand_damaged_bundles_get_the_same_verdict(tool: RaucTool, format_: str) -> None:
    stricter = compare(tool, format_, 1000, seed=6)
    print(f"rauc {format_}: 1000 changes, seed 6, stricter in {len(stricter)}")
    assert set(stricter) <= {"signature"}
