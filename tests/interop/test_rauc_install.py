"""`rauc install` of bundles that the gateway verified, by the real service over D-Bus, with a bootloader made of files.

Where the kernel offers no device mapper only plain bundles can be installed; what our rules say of a node is then judged on the
verity bundle of the same content.
"""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.builders.keys import NOW
from tests.interop.rauc_device import RaucDevice, need_device_mapper, need_loop_devices
from tests.interop.rauc_tool import COMPATIBLE, PKI, RaucTool
from update.bundle.rauc_reader import RaucPolicy, rauc_policy, verify_rauc_bundle
from update.bundle.rauc_rules import RaucNode, judge_rauc
from update.errors import FieldrelayError, HashMismatchError, SignatureError

pytestmark = [pytest.mark.interop, pytest.mark.xdist_group("loop-devices")]

POLICY: RaucPolicy = rauc_policy((PKI.root.certificate,), NOW, intermediates=(PKI.intermediate.certificate,), accept_plain=True)


@pytest.fixture
def tool(tmp_path: Path) -> RaucTool:
    need_loop_devices()
    return RaucTool(tmp_path)


@pytest.fixture
def device(tool: RaucTool, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., RaucDevice]:
    def make(compatible: str = COMPATIBLE, **more: str) -> RaucDevice:
        return RaucDevice(tmp_path_factory.mktemp("dev"), tool.files.anchors, compatible=compatible, **more)

    return make


def changed(file: Path, at: int) -> Path:
    content = bytearray(file.read_bytes())
    content[at] ^= 1
    file.write_bytes(content)
    return file


@pytest.mark.parametrize("format_", ["plain", "verity", "crypt"])
def test_a_bundle_that_we_verified_is_installed(tool: RaucTool, device: Callable[..., RaucDevice], format_: str) -> None:
    if format_ != "plain":
        need_device_mapper()
    file = tool.bundle(format_)
    verify_rauc_bundle(file, POLICY)
    image = (tool.folder / f"content-{format_}" / "rootfs.img").read_bytes()
    with device().running() as node:
        verdict = node.install(file)
        assert verdict.good, verdict.said
        assert (node.primary, node.slot("B")[: len(image)]) == ("B", image)
        assert node.slot("A") == bytes(len(node.slot("A")))


def test_a_flipped_byte_is_refused_by_both_and_nothing_is_written(tool: RaucTool, device: Callable[..., RaucDevice]) -> None:
    file = changed(tool.bundle("plain"), 100_000)
    with pytest.raises(SignatureError, match="other content"):
        verify_rauc_bundle(file, POLICY)
    with device().running() as node:
        assert not node.install(file).good
        assert (node.primary, node.slot("B")) == ("A", bytes(len(node.slot("B"))))


def test_a_verity_bundle_whose_signature_is_good_and_whose_payload_is_not_breaks_off_on_the_device_and_not_at_the_gateway(
    tool: RaucTool, device: Callable[..., RaucDevice]
) -> None:
    """Why the whole tree is read here: on the device the slot is half written by then."""
    need_device_mapper()
    file = changed(tool.bundle("verity"), 150_000)
    with pytest.raises(HashMismatchError):
        verify_rauc_bundle(file, POLICY)
    with device().running() as node:
        assert not node.install(file).good
        assert node.primary == "A"


@pytest.mark.parametrize(
    ("compatible", "variant", "images"),
    [
        (COMPATIBLE, "", []),
        ("Another Thing", "", []),
        (COMPATIBLE.lower(), "", []),
        (COMPATIBLE, "big", ["rootfs.big"]),
        (COMPATIBLE, "small", ["rootfs.big"]),
        (COMPATIBLE, "big", ["appfs.big"]),
        (COMPATIBLE, "small", ["appfs.big"]),
        (COMPATIBLE, "", ["appfs.big"]),
    ],
)
def test_a_node_takes_what_our_rules_say_it_takes(
    tool: RaucTool, tmp_path_factory: pytest.TempPathFactory, compatible: str, variant: str, images: list[str]
) -> None:
    manifest = verify_rauc_bundle(tool.bundle("verity", images=images), POLICY).manifest
    assert manifest is not None
    try:
        judge_rauc(manifest, RaucNode(compatible, variant))
        expected = True
    except FieldrelayError:
        expected = False
    folder = tmp_path_factory.mktemp("dev")
    made = RaucDevice(folder, tool.files.anchors, compatible=compatible, variant=variant, classes=("rootfs", "appfs"))
    with made.running() as node:
        verdict = node.install(tool.bundle("plain", images=images))
    assert verdict.good is expected, verdict.said
