"""The folder of patches: found by their names, believed after a look, and never half."""

from tests.builders.pair_site import PairSite
from update.chunks.pair import PatchForm
from update.digest import digest_of

PATCH = b"a patch" * 100


def put(site: PairSite) -> None:
    site.shelf.part(site.pair()).write_bytes(PATCH)
    site.shelf.keep(site.pair(), digest_of(PATCH))


def test_a_patch_is_found_by_its_pair_alone_also_by_the_next_process(pair_site: PairSite) -> None:
    put(pair_site)
    again = PairSite(pair_site.store.layout.root.parent, pair_site.images, kept=()).shelf
    for shelf in (pair_site.shelf, again):
        made = shelf.find(pair_site.pair())
        assert made is not None
        assert (made.path.read_bytes(), made.sha256, made.size) == (PATCH, digest_of(PATCH), len(PATCH))
        assert shelf.find(pair_site.pair(form=PatchForm.LIBRSYNC)) is None
        assert shelf.find(pair_site.pair("new", "old")) is None


def test_a_patch_that_rotted_is_removed_at_its_first_use(pair_site: PairSite) -> None:
    put(pair_site)
    (path,) = pair_site.store.layout.pairs.iterdir()
    path.write_bytes(b"b" + PATCH[1:])
    again = PairSite(pair_site.store.layout.root.parent, pair_site.images, kept=()).shelf
    assert again.find(pair_site.pair()) is None
    assert pair_site.on_shelf == []


def test_a_patch_that_was_evicted_is_not_found(pair_site: PairSite) -> None:
    put(pair_site)
    (path,) = pair_site.store.layout.pairs.iterdir()
    path.unlink()
    assert pair_site.shelf.find(pair_site.pair()) is None


def test_what_was_left_half_done_is_swept_and_all_is_cleared(pair_site: PairSite) -> None:
    put(pair_site)
    pair_site.shelf.part(pair_site.pair()).write_bytes(b"half")
    assert len(pair_site.on_shelf) == 2
    pair_site.shelf.sweep()
    assert [name.endswith(digest_of(PATCH)) for name in pair_site.on_shelf] == [True]
    pair_site.shelf.clear()
    assert pair_site.on_shelf == []
