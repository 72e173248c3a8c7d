from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.builders.keys import Identity, make_pki
from update.errors import SignatureError
from update.wire.boot_proof import MAX_CHARACTERS, BootProof, boot_id

PROOF = BootProof("n1", 7, 3, "1.2", "b", "0" * 64, "boot-2")
texts = st.text(max_size=8).filter(lambda text: "\n" not in text)


def der(identity: Identity) -> bytes:
    return identity.certificate.public_bytes(Encoding.DER)


def key_of(identity: Identity) -> EllipticCurvePrivateKey:
    assert isinstance(identity.key, EllipticCurvePrivateKey)
    return identity.key


def test_a_proof_is_good_for_what_was_signed_and_by_the_nodes_key_only() -> None:
    first, second = make_pki().signers[:2]
    signed = PROOF.sign(key_of(first))
    PROOF.verify(signed, der(first))
    with pytest.raises(SignatureError, match="not by its key"):
        PROOF.verify(signed, der(second))


@pytest.mark.parametrize(
    "changed",
    [
        {"node": "n2"},
        {"action": 8},
        {"fence": 4},
        {"version": "1.3"},
        {"slot": "a"},
        {"slot_sha256": "1" * 64},
        {"boot_id": "boot-1"},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_nothing_of_it_can_be_changed(changed: dict[str, object]) -> None:
    node = make_pki().signers[0]
    with pytest.raises(SignatureError):
        replace(PROOF, **changed).verify(PROOF.sign(key_of(node)), der(node))  # type: ignore[arg-type]  # fields by name


@given(st.tuples(texts, texts, texts), st.tuples(texts, texts, texts))
@settings(max_examples=100)
def test_two_proofs_never_say_the_same(first: tuple[str, str, str], second: tuple[str, str, str]) -> None:
    one, other = (replace(PROOF, version=each[0], slot=each[1], boot_id=each[2]) for each in (first, second))
    assert (one.statement() == other.statement()) == (first == second)


def test_a_text_that_would_mean_two_things_is_refused() -> None:
    with pytest.raises(SignatureError, match="line feeds"):
        replace(PROOF, version="1\n2").statement()


@given(st.text(max_size=MAX_CHARACTERS + 10), st.binary(max_size=64))
@settings(max_examples=100)
def test_what_strangers_send_is_refused_by_name(proof: str, certificate: bytes) -> None:
    for shown in (certificate, der(make_pki().signers[0])):
        with pytest.raises(SignatureError):
            PROOF.verify(proof, shown)


def test_a_key_of_another_kind_is_refused() -> None:
    with pytest.raises(SignatureError, match="elliptic"):
        PROOF.verify("AA==", der(make_pki().rsa))


def test_the_boot_has_a_name_that_stays() -> None:
    assert len(boot_id()) == 36
    assert boot_id() == boot_id()
