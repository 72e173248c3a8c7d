"""Whose word a bundle goes by that no metadata lists, and which version it is."""

from pathlib import Path

import pytest

from gateway.config import parse_config
from gateway.north.proofs import Proofs
from gateway.north.room import Room
from gateway.north.vouched import Vouched
from tests.builders.rauc import PKI, assemble, bundle, payload
from tests.builders.repository import START
from tests.builders.signatures import signer
from update.bundle.cms_build import sign
from update.digest import digest_of
from update.durable import Disk
from update.store.store import Store
from update.trust.verified import Provenance

DATA = payload(300)
PLAIN = assemble(DATA, sign(DATA, [signer(PKI.email)]))


@pytest.mark.parametrize(
    ("content", "called", "version"),
    [
        (bundle(DATA), "2026-fall", "1.2.0"),  # a node will say what was signed, whatever the operator calls it
        (bundle(DATA), "", "1.2.0"),
        (PLAIN, "2026-fall", "2026-fall"),
        (PLAIN, "", ""),
    ],
)
async def test_the_version_is_the_signed_one_where_it_can_be_read(
    tmp_path: Path, content: bytes, called: str, version: str
) -> None:
    (tmp_path / "anchors.pem").write_bytes(PKI.anchors_pem)
    text = 'format_version = 1\n[[repository]]\nname = "plant"\nroot = "r"\nupstreams = ["u"]\ncms_roots = ["anchors.pem"]\n'
    proofs = Proofs(parse_config(f"{text}rauc_accept_plain = true\n", tmp_path / "g.toml").repository, lambda: START)
    room = Room(Store(Disk(), tmp_path / "store"), quota_bytes=0, reserve_bytes=0, repositories=["plant"])
    vouched = Vouched(room, repository="plant", listed=tuple, prove=proofs.prove)
    info = vouched.info("press.raucb", digest_of(content), len(content), called)
    with room.store.stage(info) as staged:
        staged.write_at(0, content)
        staged.sync()
        release = (await vouched.keep(info, staged)).release
    assert (release.version, release.provenance, release.sha256) == (version, Provenance.CMS, digest_of(content))
    kept = await Vouched(room, repository="plant", listed=tuple, prove=proofs.prove).kept(info)
    assert kept is not None
    assert kept.release == release
