"""Writing: the same input gives the same bytes, and a bundle that would be refused is not written at all."""

import io
from pathlib import Path

import pytest

from tests.builders.bundles import describe, image, sign_by, signed, verified
from tests.builders.keys import make_pki
from update.bundle.cms_build import add_signature
from update.bundle.cpio import ArchiveReader, Form
from update.bundle.reader import read_front
from update.bundle.writer import Piece, replace_signature, write_bundle
from update.durable import Disk, Kind, Operation
from update.errors import DescriptionError, HashMismatchError, LimitError, MissingMemberError, StoreError
from update.trust.signers import FileSigner

DATA = bytes(range(251)) * 40
DESCRIPTION = describe(images=[image("rootfs.img", DATA)])


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source.img"
    path.write_bytes(DATA)
    return path


def write(out: Path, members: dict[str, Piece], description: bytes = DESCRIPTION, disk: Disk | None = None) -> None:
    write_bundle(out, description, b"signature", members, disk or Disk())


@pytest.mark.parametrize("form", Form)
def test_both_forms_are_verified_again(tmp_path: Path, form: Form) -> None:
    file = signed(tmp_path, DESCRIPTION, {"rootfs.img": DATA}, form=form)
    assert file.read_bytes().startswith(form.value)
    assert set(verified(file).members) == {"rootfs.img"}


def test_the_same_input_gives_the_same_bytes(tmp_path: Path, source: Path) -> None:
    for name in ("a.swu", "b.swu"):
        write(tmp_path / name, {"rootfs.img": Piece(source)})
    assert (tmp_path / "a.swu").read_bytes() == (tmp_path / "b.swu").read_bytes()


def test_entries_carry_the_values_that_swupdate_is_known_to_accept(tmp_path: Path, source: Path) -> None:
    write(tmp_path / "a.swu", {"rootfs.img": Piece(source)})
    whole = (tmp_path / "a.swu").read_bytes()
    names = [header.name for header in ArchiveReader(io.BytesIO(whole))]
    assert names == ["sw-description", "sw-description.sig", "rootfs.img"]
    assert whole[:54] == b"070701" + b"00000001" + b"000081a4" + b"0" * 16 + b"00000001" + b"0" * 8
    assert len(whole) % 512 == 0


def test_a_part_of_a_file_can_be_a_member(tmp_path: Path) -> None:
    (tmp_path / "image.zck").write_bytes(DATA + b"the body, which travels alone")
    write(tmp_path / "a.swu", {"rootfs.img": Piece(tmp_path / "image.zck", 0, len(DATA))})
    assert DATA in (tmp_path / "a.swu").read_bytes()


@pytest.mark.parametrize("changed", [b"other", DATA + b"x", b""])
def test_a_file_that_is_not_what_the_description_says_is_refused_and_nothing_is_left(
    tmp_path: Path, source: Path, changed: bytes
) -> None:
    source.write_bytes(changed)
    with pytest.raises(HashMismatchError):
        write(tmp_path / "a.swu", {"rootfs.img": Piece(source)})
    assert [path.name for path in tmp_path.iterdir()] == ["source.img"]


def test_a_member_too_much_or_too_little_is_refused(tmp_path: Path, source: Path) -> None:
    with pytest.raises(MissingMemberError):
        write(tmp_path / "a.swu", {"rootfs.img": Piece(source), "more": Piece(source)})
    with pytest.raises(MissingMemberError):
        write(tmp_path / "a.swu", {})


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError):
        write(tmp_path / "a.swu", {"rootfs.img": Piece(tmp_path / "absent")})


def test_a_file_that_shrinks_meanwhile_is_refused(tmp_path: Path, source: Path) -> None:
    with pytest.raises(HashMismatchError):
        write(tmp_path / "a.swu", {"rootfs.img": Piece(source, 0, len(DATA) + 1)})


def test_a_member_beyond_the_format_is_refused_before_it_is_copied(tmp_path: Path, source: Path) -> None:
    with source.open("r+b") as file:
        file.truncate(1 << 32)
    with pytest.raises(LimitError):
        write(tmp_path / "a.swu", {"rootfs.img": Piece(source)})


def test_a_malformed_description_is_not_written(tmp_path: Path, source: Path) -> None:
    with pytest.raises(DescriptionError):
        write(tmp_path / "a.swu", {"rootfs.img": Piece(source)}, description=b"software = {")


def test_the_bundle_appears_complete_and_synced(tmp_path: Path, source: Path) -> None:
    operations: list[Operation] = []
    write(tmp_path / "a.swu", {"rootfs.img": Piece(source)}, disk=Disk(operations.append))
    kinds = [operation.kind for operation in operations]
    assert kinds[-3:] == [Kind.SYNC, Kind.RENAME, Kind.SYNC_FOLDER]
    assert operations[-2].target == tmp_path / "a.swu"


def test_one_more_signature_leaves_everything_else_as_it_was(tmp_path: Path) -> None:
    pki = make_pki()
    first = signed(tmp_path, DESCRIPTION, {"rootfs.img": DATA})
    front = read_front(first)
    second = FileSigner(pki.signers[1].certificate, pki.signers[1].key)
    both = add_signature(front.signature, front.description, second)
    replace_signature(first, tmp_path / "both.swu", both, Disk())
    bundle = verified(tmp_path / "both.swu", threshold=2)
    assert bundle.digest == verified(first).digest
    assert {signer.name for signer in bundle.signers} == {"signer0", "signer1"}


def test_a_signature_over_another_description_does_not_help(tmp_path: Path) -> None:
    first = signed(tmp_path, DESCRIPTION, {"rootfs.img": DATA})
    replace_signature(first, tmp_path / "other.swu", sign_by(b"other"), Disk())
    with pytest.raises(Exception, match="other content"):
        verified(tmp_path / "other.swu")
