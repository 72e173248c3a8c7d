"""Enrolment's formats against openssl: its signing requests, our certificate lists."""

import base64
import subprocess
from pathlib import Path

import pytest

from tests.builders.site import Site
from tests.peers import need_tool
from update.trust.chain import common_name
from update.wire.est import encode_certificates

pytestmark = pytest.mark.interop


def test_a_request_and_key_made_by_openssl_become_a_certificate_that_it_accepts(tmp_path: Path) -> None:
    openssl, site = need_tool("openssl"), Site(tmp_path)
    key, csr, made = tmp_path / "o.key", tmp_path / "o.csr", tmp_path / "o.pem"
    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    subprocess.run([openssl, "req", "-new", *curve, "-subj", "/CN=node-9", "-keyout", key, "-out", csr], check=True, timeout=30)
    certificate = site.authority.issue_node(csr.read_bytes(), node="node-9", now=site.now)
    assert common_name(certificate) == "node-9"
    answer = base64.b64decode(encode_certificates([certificate, site.authority.certificate]))
    done = subprocess.run(
        [openssl, "pkcs7", "-inform", "DER", "-print_certs"], input=answer, capture_output=True, check=True, timeout=30
    )
    assert done.stdout.count(b"BEGIN CERTIFICATE") == 2
    made.write_bytes(done.stdout)
    for purpose, accepted in (("sslclient", True), ("sslserver", False)):
        command: list[str | Path] = [openssl, "verify", "-x509_strict", "-CAfile", site.ca, "-purpose", purpose, made]
        assert (subprocess.run(command, capture_output=True, check=False, timeout=30).returncode == 0) is accepted
