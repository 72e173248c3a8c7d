"""Which artifacts of a deployment are bundles, and which may be what a delta fetches from."""

import pytest

from gateway.north.hawkbit.meaning import artifacts_of, wanted_of
from update.digest import digest_of
from update.errors import ProtocolError, UnsupportedError
from update.wire import ddi


def deployment(*names: str, same: bool = False, links: bool = True) -> ddi.DeploymentBody:
    """Two modules with half of the files each."""
    artifacts = [
        {
            "filename": name,
            "hashes": {"sha1": "0" * 40, "md5": "0" * 32, "sha256": digest_of(b"" if same else name.encode())},
            "size": 7,
            "_links": {"download": {"href": f"http://hawkbit/{name}"}} if links else {},
        }
        for name in names
    ]
    half = len(artifacts) // 2
    chunks = [{"part": "os", "version": "1", "name": "os", "artifacts": each} for each in (artifacts[:half], artifacts[half:])]
    return ddi.DeploymentBody.model_validate({"download": "forced", "update": "forced", "chunks": chunks})


@pytest.mark.parametrize(
    ("names", "bundles", "others"),
    [
        (("os.swu",), ["os.swu"], []),
        (("os.raucb", "notes.txt"), ["os.raucb"], ["notes.txt"]),
        (("a.swu", "b.swu", "image.zck"), ["a.swu", "b.swu"], ["image.zck"]),
    ],
)
def test_bundles_and_what_is_beside_them(names: tuple[str, ...], bundles: list[str], others: list[str]) -> None:
    body = deployment(*names)
    assert [each.name for each in wanted_of(body)] == bundles
    assert [each.name for each in artifacts_of(body)] == others


@pytest.mark.parametrize("names", [(), ("image.zck",), ("a.swu", "b.raucb"), ("a.raucb", "b.raucb"), ("a.swu", "b.swu", "c.swu")])
def test_none_or_several_bundles_are_refused(names: tuple[str, ...]) -> None:
    with pytest.raises(UnsupportedError):
        wanted_of(deployment(*names))


def test_the_same_bundle_twice_is_refused() -> None:
    with pytest.raises(UnsupportedError):
        wanted_of(deployment("a.swu", "b.swu", same=True))


def test_what_cannot_be_fetched_is_no_artifact_and_no_bundle() -> None:
    assert artifacts_of(deployment("image.zck", links=False)) == ()
    with pytest.raises(ProtocolError):
        wanted_of(deployment("os.swu", links=False))
