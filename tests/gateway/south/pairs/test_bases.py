"""The image that a node runs is found by its header, listed or not, and only if it is complete."""

from tests.builders.pair_site import PairSite
from update.digest import Digest


def test_a_listed_image_is_found_by_the_digest_of_its_header(pair_site: PairSite) -> None:
    found = pair_site.bases.find(pair_site.header("old").sha256)
    assert found == pair_site.stored(pair_site.infos["old"])


def test_an_image_that_is_listed_no_more_is_found_as_long_as_it_is_kept(pair_site: PairSite) -> None:
    kept = pair_site.stored(pair_site.infos["old"])
    del pair_site.listed["old"]
    assert kept is not None
    for _ in range(2):
        assert pair_site.bases.find(pair_site.header("old").sha256) == kept
    kept.unlink()
    assert pair_site.bases.find(pair_site.header("old").sha256) is None


def test_an_image_that_is_listed_and_not_kept_is_not_there(pair_site: PairSite) -> None:
    assert pair_site.bases.find(pair_site.header("other").sha256) is None
    assert pair_site.bases.find(Digest("0" * 64)) is None


def test_a_file_that_is_no_image_is_passed_over(pair_site: PairSite) -> None:
    kept = pair_site.stored(pair_site.infos["new"])
    assert kept is not None
    kept.write_bytes(b"junk")
    del pair_site.listed["old"]
    assert pair_site.bases.find(pair_site.header("old").sha256) is not None
