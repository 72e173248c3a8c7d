"""Signed URLs are known while the bundle that names them is listed, and stand for what pins the same header."""

import logging
import random
import tracemalloc
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.south.registry import MAX_URLS_PER_BUNDLE, Registry, SignedUrl
from gateway.south.signed_urls import url_key
from tests.builders.bundles import describe, image, signed, verified
from tests.builders.delta_bundle import bundle_info, delta_image, verified_delta
from tests.builders.relayed import info_of, make_zck
from update.digest import Digest
from update.publish.images import zck_header
from update.trust.verified import TargetCustom, TargetInfo, ZckHeader

URL = "http://cdn.vendor.example/any/where.zck?token=1"


@pytest.fixture(scope="module")
def zck(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_zck(tmp_path_factory.mktemp("zck"), blocks=60)


@pytest.fixture(scope="module")
def newer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_zck(tmp_path_factory.mktemp("newer"), blocks=60, seed=8)


def test_a_verified_bundle_makes_its_urls_stand_for_the_target_with_its_header(tmp_path: Path, zck: Path) -> None:
    registry = Registry(["plant"])
    bundle, body = verified_delta(tmp_path, zck, URL, "http://Other.Example:80/x#y"), info_of(zck, path="elsewhere/named.bin")
    info = bundle_info(bundle.file)
    registry.learn(info, bundle)
    assert registry.find(URL) is None, "it is not listed yet"
    registry.shown("plant", [info, body])
    assert registry.find(URL) == body
    assert registry.find("http://other.example/x") == body
    assert registry.find(f"{URL}&more") is None
    assert len(registry) == 2


def test_what_leaves_the_catalogue_is_forgotten(tmp_path: Path, zck: Path) -> None:
    registry = Registry(["plant"])
    bundle, body = verified_delta(tmp_path, zck, URL), info_of(zck)
    info = bundle_info(bundle.file)
    registry.learn(info, bundle)
    registry.shown("plant", [info, body])
    registry.shown("plant", [body])
    assert registry.find(URL) is None
    registry.shown("plant", [info, body])
    assert registry.find(URL) is None, "it must be verified again"


@pytest.mark.parametrize("wrong", [{"sha256": Digest("0" * 64)}, {"length": 9}])
def test_names_and_urls_join_nothing(tmp_path: Path, zck: Path, wrong: dict[str, Digest | int]) -> None:
    registry = Registry(["plant", "other"])
    bundle, body = verified_delta(tmp_path, zck, f"http://plant/{info_of(zck).wire_path}"), info_of(zck)
    info = bundle_info(bundle.file)
    pinned = body.custom.zck_header
    assert pinned is not None
    mistaken = replace(pinned, **wrong)  # type: ignore[arg-type]  # the names are checked by the dataclass
    unlike = replace(body, custom=replace(body.custom, zck_header=mistaken))
    registry.learn(info, bundle)
    registry.shown("plant", [info, unlike])
    registry.shown("other", [replace(body, repository="other")])
    assert len(registry) == 0


def test_the_name_of_a_repository_belongs_to_it(tmp_path: Path, zck: Path, caplog: pytest.LogCaptureFixture) -> None:
    registry = Registry(["plant", "intruder"])
    bundle = verified_delta(tmp_path, zck, "http://PLANT.:8080/targets/x", "http://plant.example/x")
    info, body = bundle_info(bundle.file, "intruder"), info_of(zck, "intruder")
    registry.learn(info, bundle)
    registry.shown("intruder", [info, body])
    assert registry.find("http://plant:8080/targets/x") is None
    assert registry.find("http://plant.example/x") == body
    assert "a URL of another repository" in caplog.text


def test_of_two_claims_the_first_repository_and_the_newest_release_win(tmp_path: Path, zck: Path, newer: Path) -> None:
    for folder in ("old", "new"):
        (tmp_path / folder).mkdir()
    old, new = verified_delta(tmp_path / "old", zck, URL), verified_delta(tmp_path / "new", newer, URL)
    for repositories in (["first", "second"], ["second", "first"]):
        registry = Registry(repositories)
        for repository, bundle, body in (("first", old, zck), ("second", new, newer)):
            info = bundle_info(bundle.file, repository)
            registry.learn(info, bundle)
            registry.shown(repository, [info, info_of(body, repository)])
        found = registry.find(URL)
        assert found is not None
        assert found.repository == repositories[0]
    registry = Registry(["plant"])
    older, newest = bundle_info(old.file, path="a.swu", counter=3), bundle_info(new.file, path="b.swu", counter=4)
    registry.learn(older, old)
    registry.learn(newest, new)
    registry.shown("plant", [older, newest, info_of(zck, path="a.zck"), info_of(newer, path="b.zck")])
    assert registry.find(URL) == info_of(newer, path="b.zck")


def test_a_bundle_whose_header_is_none_registers_nothing_and_is_no_defect(
    tmp_path: Path, zck: Path, caplog: pytest.LogCaptureFixture
) -> None:
    registry = Registry(["plant"])
    entry = delta_image(zck, URL) | image("image-0.zck", b"no header", device="/dev/a")
    bundle = verified(signed(tmp_path, describe(images=[entry | {"type": "delta"}]), {"image-0.zck": b"no header"}))
    info = bundle_info(bundle.file)
    registry.learn(info, bundle)
    registry.shown("plant", [info, info_of(zck)])
    assert len(registry) == 0
    assert "bundle.chunk" in caplog.text


def test_a_url_that_no_request_can_mean_is_told_and_left_out(tmp_path: Path, zck: Path, caplog: pytest.LogCaptureFixture) -> None:
    registry = Registry(["plant"])
    bundle = verified_delta(tmp_path, zck, "http://h.:0/x", 'http://h/"x"', URL)
    info = bundle_info(bundle.file)
    registry.learn(info, bundle)
    registry.shown("plant", [info, info_of(zck)])
    assert (len(registry), caplog.text.count("no request can mean")) == (1, 2)


def test_one_bundle_cannot_fill_the_registry(tmp_path: Path, zck: Path, caplog: pytest.LogCaptureFixture) -> None:
    registry = Registry(["plant"])
    urls = [f"http://h/{number}" for number in range(MAX_URLS_PER_BUNDLE + 5)]
    images = [delta_image(zck, url, device=f"/dev/{number}") for number, url in enumerate(urls)]
    bundle = verified(signed(tmp_path, describe(images=images), {"image-0.zck": zck_header(zck)}))
    info = bundle_info(bundle.file)
    registry.learn(info, bundle)
    registry.shown("plant", [info, info_of(zck)])
    assert len(registry) == MAX_URLS_PER_BUNDLE
    assert "the first" in caplog.text


def filled(registry: Registry, count: int, *, per_bundle: int = 50) -> None:
    """`count` URLs of many bundles, each with a body of its own."""
    listed = []
    for first in range(0, count, per_bundle):
        header = ZckHeader(Digest(f"{first:064x}"), 500)
        info = TargetInfo("plant", f"b{first:05}.swu", 1, Digest(f"{first:064x}"), TargetCustom(), "targets")
        listed += [info, replace(info, path=f"b{first:05}.zck", custom=TargetCustom(zck_header=header))]
        keys = [url_key(f"http://cdn.example/{number:06}/{'x' * 60}.zck") for number in range(first, first + per_bundle)]
        registry._learned[info] = tuple(SignedUrl(key, header, 900) for key in keys if key)
    registry.shown("plant", listed)


def test_ten_thousand_urls_are_found_each_and_fit_into_memory() -> None:
    registry = Registry(["plant"])
    tracemalloc.start()
    filled(registry, 10_000)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(registry) == 10_000
    assert held < 10 << 20
    for number in random.Random(1).sample(range(10_000), 200):
        found = registry.find(f"http://cdn.example/{number:06}/{'x' * 60}.zck")
        assert found is not None
        assert found.path == f"b{number // 50 * 50:05}.zck"


def test_more_urls_than_the_limit_are_told_and_left_out(caplog: pytest.LogCaptureFixture) -> None:
    registry = Registry(["plant"], max_urls=70)
    with caplog.at_level(logging.WARNING):
        filled(registry, 100)
    assert len(registry) == 70
    assert caplog.text.count("that is the limit") == 1
