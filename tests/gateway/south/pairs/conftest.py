from pathlib import Path

import pytest

from tests.builders.pair_site import PairSite, make_images


@pytest.fixture(scope="session")
def pair_images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pairs") / "images"
    make_images(folder)
    return folder


@pytest.fixture
def pair_site(tmp_path: Path, pair_images: Path) -> PairSite:
    return PairSite(tmp_path, pair_images)
