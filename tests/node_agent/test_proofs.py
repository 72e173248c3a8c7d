"""What this node takes for proved: both kinds of bundles, each by its own rules and by the authorities of its repository."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from node_agent.proofs import Signers, prove, version_of
from node_agent.record import Release
from tests.builders import rauc
from tests.builders.bundles import cms_policy, describe, signed
from tests.builders.keys import NOW
from update.bundle.verified import VerifiedBundle, VerifiedRaucBundle
from update.digest import digest_file
from update.errors import CertificateError, ContainerError, LengthOrHashError, UnsupportedError
from update.trust.verified import Provenance, TargetCustom, TargetInfo

SIGNERS = Signers(cms_policy(), rauc.policy())


def handed_in(file: Path, name: str = "") -> Release:
    sha256, length = digest_file(file)
    return Release("plant", name or file.name, sha256, length, "", Provenance.CMS)


@pytest.fixture
def raucb(tmp_path: Path) -> Path:
    return rauc.written(tmp_path, rauc.bundle(rauc.payload(4)), "press.raucb")


@pytest.fixture
def swu(tmp_path: Path) -> Path:
    return signed(tmp_path, describe(version="1.7", scripts=[]), {})


def test_each_kind_is_proved_by_its_own_rules(raucb: Path, swu: Path) -> None:
    pressed, other = (prove(file, SIGNERS, handed_in(file), None) for file in (raucb, swu))
    assert isinstance(pressed, VerifiedRaucBundle)
    assert isinstance(other, VerifiedBundle)
    assert (version_of(pressed), version_of(other)) == ("1.2.0", "1.7")
    assert pressed.provenance is Provenance.CMS


def test_what_metadata_lists_is_proved_as_that_target(raucb: Path) -> None:
    release = handed_in(raucb)
    info = TargetInfo(
        "plant", "press.raucb", release.length, release.sha256, TargetCustom(("press:-",), "1.2.0", 1, 1), "targets"
    )
    proved = prove(raucb, SIGNERS, release, info)
    assert (proved.provenance, proved.target) == (Provenance.TUF, info)


def test_a_kind_that_does_not_fit_its_name_is_refused(raucb: Path, swu: Path) -> None:
    for file, name in ((raucb, "press.swu"), (swu, "press.raucb")):
        with pytest.raises(ContainerError):
            prove(file, SIGNERS, handed_in(file, name), None)


def test_a_copy_that_changed_is_refused(raucb: Path) -> None:
    release = handed_in(raucb)
    content = bytearray(raucb.read_bytes())
    content[5000] ^= 1
    raucb.write_bytes(content)
    with pytest.raises(LengthOrHashError, match="changed since it was copied"):
        prove(raucb, SIGNERS, release, None)


def test_without_authorities_for_rauc_its_bundles_are_refused(raucb: Path) -> None:
    with pytest.raises(UnsupportedError, match="nobody is trusted"):
        prove(raucb, replace(SIGNERS, rauc=None), handed_in(raucb), None)


def test_both_kinds_are_judged_at_the_given_time(raucb: Path, swu: Path) -> None:
    later = SIGNERS.judging_at(NOW + timedelta(days=36_500))
    for file in (raucb, swu):
        with pytest.raises(CertificateError):
            prove(file, later, handed_in(file), None)
    assert Signers(cms_policy()).judging_at(NOW).rauc is None
