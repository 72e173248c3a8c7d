"""Bundles that only their own signature proves: their URLs are served while they are wanted, and never in another's place."""

from dataclasses import replace
from pathlib import Path

import pytest

from gateway.south.registry import MAX_URLS_PER_BUNDLE, Registry, known_by_header
from tests.builders.bundles import describe, signed, verified
from tests.builders.delta_bundle import bundle_info, delta_image, verified_delta
from tests.builders.relayed import index_of, info_of, make_zck
from update.bundle.verified import VerifiedBundle
from update.publish.images import zck_header
from update.trust.verified import TargetCustom, TargetInfo

URL = "http://cdn.example/a.zck"


@pytest.fixture(scope="module")
def zck(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_zck(tmp_path_factory.mktemp("zck"), blocks=60)


@pytest.fixture(scope="module")
def newer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_zck(tmp_path_factory.mktemp("newer"), blocks=60, seed=8)


def unlisted(bundle: VerifiedBundle, repository: str = "plant", path: str = "os.swu") -> TargetInfo:
    return replace(bundle_info(bundle.file, repository, path), custom=TargetCustom(), role="")


def adopted(registry: Registry, folder: Path, zck: Path, *urls: str, path: str = "os.swu") -> TargetInfo:
    """A bundle that was adopted and is not wanted yet."""
    folder.mkdir(exist_ok=True)
    bundle = verified_delta(folder, zck, *urls)
    info = unlisted(bundle, path=path)
    registry.adopt(info, bundle)
    return info


def test_its_urls_are_served_while_it_is_wanted(tmp_path: Path, zck: Path) -> None:
    registry = Registry(["plant"])
    info = adopted(registry, tmp_path, zck, URL)
    assert registry.find(URL) is None
    registry.wanted([info])
    assert registry.find(URL) is not None
    registry.shown("plant", [])
    assert registry.find(URL) is not None, "what a repository lists says nothing about it"
    registry.wanted([])
    assert registry.find(URL) is None
    registry.wanted([info])
    assert registry.find(URL) is None, "it must be proved again"


def test_the_body_is_the_target_with_its_header_else_known_by_that(tmp_path: Path, zck: Path) -> None:
    registry = Registry(["plant"])
    registry.wanted([adopted(registry, tmp_path, zck, URL)])
    found, header = registry.find(URL), index_of(zck)
    assert found is not None
    assert known_by_header(found)
    assert (found.sha256, found.length) == (header.sha256, header.header.total_length)
    registry.shown("plant", [info_of(zck)])
    assert registry.find(URL) == info_of(zck)


def test_only_where_the_repository_allows_the_host_it_is_fetched_from_there(tmp_path: Path, zck: Path) -> None:
    registry = Registry(["plant"], fetched={"plant": ["cdn.example"]})
    registry.wanted([adopted(registry, tmp_path, zck, URL, "http://elsewhere.example/a.zck")])
    found = registry.find("http://elsewhere.example/a.zck")
    assert found is not None
    assert registry.places_of(found) == (URL,)


def test_it_never_takes_a_url_from_a_listed_bundle(tmp_path: Path, zck: Path, newer: Path) -> None:
    registry = Registry(["plant", "other"])
    registry.wanted([adopted(registry, tmp_path / "hawkbit", newer, URL)])
    listed = verified_delta(tmp_path, zck, URL)
    info = bundle_info(listed.file, "other")
    registry.learn(info, listed)
    registry.shown("other", [info, info_of(zck, "other")])
    assert registry.find(URL) == info_of(zck, "other")
    registry.shown("other", [])
    found = registry.find(URL)
    assert found is not None
    assert found.sha256 == index_of(newer).sha256


def test_it_takes_neither_another_repositorys_name_nor_the_path_of_a_listed_target(
    tmp_path: Path, zck: Path, newer: Path, caplog: pytest.LogCaptureFixture
) -> None:
    registry = Registry(["plant", "other"])
    target = info_of(zck)
    stable, free = f"http://plant:8080/{target.wire_path}", "http://plant/targets/new.zck"
    registry.shown("plant", [target])
    registry.wanted([adopted(registry, tmp_path, newer, stable, "http://other/targets/x", free)])
    assert registry.find(stable) is None
    assert registry.find("http://other/targets/x") is None
    assert registry.find(free) is not None
    assert "names a listed target" in caplog.text


def test_of_several_the_one_adopted_last_has_the_url(tmp_path: Path, zck: Path, newer: Path) -> None:
    registry = Registry(["plant"])
    bundle = verified_delta(tmp_path, zck, URL)
    older = unlisted(bundle, path="a.swu")
    registry.adopt(older, bundle)
    last = adopted(registry, tmp_path / "b", newer, URL, path="b.swu")
    registry.wanted([older, last])
    found = registry.find(URL)
    assert found is not None
    assert found.sha256 == index_of(newer).sha256
    registry.adopt(older, bundle)
    registry.wanted([older, last])
    found = registry.find(URL)
    assert found is not None
    assert found.sha256 == index_of(zck).sha256


def test_the_limits_are_those_of_the_registry(tmp_path: Path, zck: Path, caplog: pytest.LogCaptureFixture) -> None:
    urls = [f"http://h/{number}" for number in range(MAX_URLS_PER_BUNDLE + 5)]
    images = [delta_image(zck, url, device=f"/dev/{number}") for number, url in enumerate(urls)]
    bundle = verified(signed(tmp_path, describe(images=images), {"image-0.zck": zck_header(zck)}))
    for most, served in ((1000, MAX_URLS_PER_BUNDLE), (40, 40)):
        registry = Registry(["plant"], max_urls=most)
        registry.adopt(unlisted(bundle), bundle)
        registry.wanted([unlisted(bundle)])
        assert len(registry) == served
    assert "that is the limit" in caplog.text
