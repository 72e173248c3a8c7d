"""The site's CA: what it issues, and to whom not."""

import ipaddress
import stat
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hypothesis import given
from hypothesis import strategies as st

from tests.builders.keys import NOW, PrivateKey
from update.durable import Disk, Kind, Operation
from update.errors import CertificateError, ConfigurationError, FieldrelayError, LimitError, StateError
from update.trust.chain import common_name
from update.trust.signers import read_certificate
from update.wire.authority import (
    GATEWAY_IDENTITY,
    GATEWAY_LIFE,
    MAX_CSR_BYTES,
    NODE_LIFE,
    SiteAuthority,
    ensure_gateway_certificate,
    make_csr,
    needs_renewal,
    read_csr,
)


@pytest.fixture
def authority(tmp_path: Path) -> SiteAuthority:
    return SiteAuthority.create(Disk(), tmp_path / "ca.pem", tmp_path / "ca.key", site="plant-7", now=NOW)


def request_for(name: str, key: PrivateKey | None = None) -> bytes:
    """A signing request that asks for the world besides its name."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    builder = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(GATEWAY_IDENTITY)]), critical=False)
    )
    algorithm = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return builder.sign(key, algorithm).public_bytes(serialization.Encoding.PEM)


def purposes(certificate: x509.Certificate) -> list[x509.ObjectIdentifier]:
    return list(certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)


def test_a_made_ca_loads_again_and_its_key_is_private(tmp_path: Path, authority: SiteAuthority) -> None:
    assert stat.S_IMODE((tmp_path / "ca.key").stat().st_mode) == 0o600
    loaded = SiteAuthority.load(tmp_path / "ca.pem", tmp_path / "ca.key")
    assert loaded.certificate == authority.certificate
    constraints = loaded.certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
    assert constraints.ca
    assert constraints.path_length == 0


def test_a_site_gets_one_ca_only(tmp_path: Path, authority: SiteAuthority) -> None:
    before = (tmp_path / "ca.pem").read_bytes()
    with pytest.raises(StateError):
        SiteAuthority.create(Disk(), tmp_path / "ca.pem", tmp_path / "ca.key", site="plant-7", now=NOW)
    assert (tmp_path / "ca.pem").read_bytes() == before


def test_an_interrupted_creation_is_completed_with_the_key_it_left(tmp_path: Path) -> None:
    class PowerCutError(Exception):
        pass

    def cut(operation: Operation) -> None:
        if operation.kind is Kind.CREATE and operation.path.name.startswith(".ca.pem"):
            raise PowerCutError

    with pytest.raises(PowerCutError):
        SiteAuthority.create(Disk(cut), tmp_path / "ca.pem", tmp_path / "ca.key", site="plant", now=NOW)
    left = (tmp_path / "ca.key").read_bytes()
    SiteAuthority.create(Disk(), tmp_path / "ca.pem", tmp_path / "ca.key", site="plant", now=NOW)
    assert (tmp_path / "ca.key").read_bytes() == left


def test_a_ca_needs_its_own_key_of_a_kind_that_devices_know(authority: SiteAuthority) -> None:
    with pytest.raises(ConfigurationError, match="does not belong"):
        SiteAuthority(authority.certificate, ec.generate_private_key(ec.SECP256R1()))


def test_a_gateway_may_serve_only_and_carries_the_common_identity(authority: SiteAuthority) -> None:
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    certificate = authority.issue_gateway(key, gateway="gw-1", hosts=["GW.plant.example", "192.0.2.7", "fd00::7"], now=NOW)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == [GATEWAY_IDENTITY, f"gw-1.{GATEWAY_IDENTITY}", "gw.plant.example"]
    addresses = names.get_values_for_type(x509.IPAddress)
    assert addresses == [ipaddress.ip_address("192.0.2.7"), ipaddress.ip_address("fd00::7")]
    assert purposes(certificate) == [ExtendedKeyUsageOID.SERVER_AUTH]
    certificate.verify_directly_issued_by(authority.certificate)


@pytest.mark.parametrize("host", ["", "a b", "über.example", "*.example", "a..b", "x" * 254, "host\n"])
def test_a_host_name_that_is_none_is_refused(authority: SiteAuthority, host: str) -> None:
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    with pytest.raises(ConfigurationError):
        authority.issue_gateway(key, gateway="gw-1", hosts=[host], now=NOW)


def test_a_node_gets_its_name_and_key_certified_and_nothing_else_it_asked_for(authority: SiteAuthority) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = authority.issue_node(request_for("node-1", key), node="node-1", now=NOW)
    assert common_name(certificate) == "node-1"
    assert certificate.public_key() == key.public_key()
    assert purposes(certificate) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    with pytest.raises(x509.ExtensionNotFound):
        certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert certificate.not_valid_after_utc == NOW + NODE_LIFE


def test_a_certificate_does_not_outlive_its_ca(authority: SiteAuthority) -> None:
    late = authority.certificate.not_valid_after_utc - timedelta(days=10)
    certificate = authority.issue_node(request_for("node-1"), node="node-1", now=late)
    assert certificate.not_valid_after_utc == authority.certificate.not_valid_after_utc


def test_a_request_for_another_name_is_refused(authority: SiteAuthority) -> None:
    with pytest.raises(CertificateError, match="node-2"):
        authority.issue_node(request_for("node-2"), node="node-1", now=NOW)


@pytest.mark.parametrize("name", [GATEWAY_IDENTITY, "gw-1.Gateway.FieldRelay.internal", "fieldrelay.internal"])
def test_no_node_is_named_like_a_gateway(authority: SiteAuthority, name: str) -> None:
    with pytest.raises(ConfigurationError):
        authority.issue_node(request_for(name), node=name, now=NOW)


@pytest.mark.parametrize("name", ["", "a/b", "..", "a..b", "x" * 65])
def test_no_node_has_a_name_that_is_no_name(authority: SiteAuthority, name: str) -> None:
    with pytest.raises(FieldrelayError):
        authority.check_request(request_for("x"), node=name)


def test_the_longest_names_fit(tmp_path: Path) -> None:
    authority = SiteAuthority.create(Disk(), tmp_path / "ca.pem", tmp_path / "ca.key", site="s" * 64, now=NOW)
    assert common_name(authority.issue_node(request_for("n" * 64), node="n" * 64, now=NOW)) == "n" * 64
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    authority.issue_gateway(key, gateway="g" * 63, now=NOW)
    with pytest.raises(ConfigurationError):
        authority.issue_gateway(key, gateway="g" * 64, now=NOW)


@pytest.mark.parametrize(
    "key",
    [
        rsa.generate_private_key(65537, 1024),  # noqa: S505 the weak key is what is refused
        ec.generate_private_key(ec.SECP256K1()),
        ed25519.Ed25519PrivateKey.generate(),
    ],
    ids=["rsa-1024", "secp256k1", "ed25519"],
)
def test_a_key_of_a_kind_not_accepted_is_refused(authority: SiteAuthority, key: PrivateKey) -> None:
    with pytest.raises(CertificateError, match="not accepted"):
        authority.issue_node(request_for("node-1", key), node="node-1", now=NOW)


def test_a_request_not_signed_by_its_own_key_is_refused() -> None:
    der = bytearray(x509.load_pem_x509_csr(request_for("node-1")).public_bytes(serialization.Encoding.DER))
    at = bytes(der).index(b"node-1")
    der[at : at + 6] = b"node-2"
    with pytest.raises(CertificateError, match="not signed by its own key"):
        read_csr(bytes(der))


def test_a_request_above_its_limit_is_refused() -> None:
    with pytest.raises(LimitError):
        read_csr(b"x" * (MAX_CSR_BYTES + 1))


@given(st.binary(max_size=300), st.integers(0, 400))
def test_hostile_requests_raise_only_named_errors(data: bytes, at: int) -> None:
    der = x509.load_pem_x509_csr(request_for("node-1")).public_bytes(serialization.Encoding.DER)
    for hostile in (data, b"-----BEGIN CERTIFICATE REQUEST-----\n" + data, der[:at] + data[:2] + der[at + 2 :]):
        try:
            read_csr(hostile)
        except FieldrelayError:
            continue
        assert hostile == der


def test_a_nodes_request_keeps_its_key_on_disk_and_repeats_with_the_same_one(tmp_path: Path) -> None:
    first, second = (read_csr(make_csr(Disk(), tmp_path / "node.key", "node-1")) for _ in range(2))
    assert first.public_key() == second.public_key()
    assert stat.S_IMODE((tmp_path / "node.key").stat().st_mode) == 0o600


def test_the_gateways_certificate_is_kept_until_it_is_due_or_for_other_names(tmp_path: Path, authority: SiteAuthority) -> None:
    files = tmp_path / "gw.pem", tmp_path / "gw.key"

    def ensure(hosts: list[str], after: timedelta = timedelta(0)) -> bool:
        return ensure_gateway_certificate(Disk(), authority, *files, gateway="gw-1", hosts=hosts, now=NOW + after)

    assert ensure(["a.example"])
    assert not ensure(["a.example"])
    assert ensure(["b.example"])
    assert not ensure(["b.example"], GATEWAY_LIFE / 2)
    assert ensure(["b.example"], GATEWAY_LIFE * 3 / 4)
    assert read_certificate(files[0]).not_valid_after_utc == NOW + GATEWAY_LIFE * 7 / 4


def test_a_certificate_is_due_when_a_third_of_its_life_is_left(authority: SiteAuthority) -> None:
    certificate = authority.issue_node(request_for("n"), node="n", now=NOW)
    assert not needs_renewal(certificate, NOW + NODE_LIFE * 0.66)
    assert needs_renewal(certificate, NOW + NODE_LIFE * 0.67)
