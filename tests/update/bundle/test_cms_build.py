"""Making signatures, one signer at a time."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.builders.signatures import CONTENT, PKI, POLICY, names, signed_by, signer
from update.bundle.cms_build import add_signature, sign
from update.errors import (
    SignatureError,
    StateError,
    UsageError,
)


def test_a_signature_added_later_counts_and_keeps_the_earlier_ones() -> None:
    first = signed_by(PKI.signers[0])
    second = add_signature(first, CONTENT, signer(PKI.rsa, pss=True))
    third = add_signature(second, CONTENT, signer(PKI.signers[2]))
    assert names(third, replace(POLICY, threshold=3, require_all=True)) == {"signer0", "rsa", "signer2"}


def test_a_signature_is_not_added_to_other_content() -> None:
    with pytest.raises(SignatureError, match="other content"):
        add_signature(signed_by(PKI.signers[0]), b"another description", signer(PKI.signers[1]))


def test_a_key_does_not_sign_twice() -> None:
    with pytest.raises(StateError):
        add_signature(signed_by(PKI.signers[0]), CONTENT, signer(PKI.signers[0]))
    with pytest.raises(StateError):
        sign(CONTENT, [signer(PKI.signers[0]), signer(PKI.signers[0])])


def test_nobody_signs_nothing() -> None:
    with pytest.raises(UsageError):
        sign(CONTENT, [])


def test_rsa_signatures_are_reproducible() -> None:
    assert signed_by(PKI.rsa) == signed_by(PKI.rsa)


@settings(max_examples=30)
@given(st.binary(max_size=2000), st.sets(st.integers(0, 2), min_size=1))
def test_whatever_was_signed_verifies_for_exactly_its_signers(content: bytes, chosen: set[int]) -> None:
    signature = sign(content, [signer(PKI.signers[each]) for each in chosen])
    assert names(signature, replace(POLICY, threshold=len(chosen)), content) == {f"signer{each}" for each in chosen}
