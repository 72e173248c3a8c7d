"""A real nginx that ends TLS before a hawkBit and passes on who showed a certificate, as hawkBit's header authentication wants.

- hawkBit (`authentication.header.authority`) takes a request for a target from who has that target's name in `X-Ssl-Client-Cn`
  and a known word for the issuer in one of `X-Ssl-Issuer-Hash-1`, `-2`, …; newer releases call them `X-Controller-Id` and
  `X-Authority`. A gateway acts for many targets, and so the proxy says the name that stands in the path for the gateway's
  certificate, and its own name for any other.
- What clients send in these headers is replaced.
- Refused certificates are refused by nginx itself (`ssl_verify_client on`): 400, before hawkBit is asked.
"""

import getpass
import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from tests.builders.keys import Identity, issue
from tests.peers import need_tool

AUTHORITY: Final = "8b1d5a2e47ce"
"""The word for the issuer of device certificates; hawkBit is told the same."""
GATEWAY: Final = "plant-gateway"
_END_PATIENCE_S = 20
_CONFIGURATION = """daemon off; worker_processes 1; user {user}; pid {folder}/pid; error_log {folder}/error.log;
events {{}}
http {{
    log_format asked '$msec $status $request_uri';
    access_log {folder}/access.log asked;
    client_body_temp_path {folder}/a; proxy_temp_path {folder}/b;
    fastcgi_temp_path {folder}/c; uwsgi_temp_path {folder}/d; scgi_temp_path {folder}/e;
    map $uri $wanted {{ default ""; "~^/[^/]+/controller/v1/(?<target>[^/]+)" $target; }}
    map $ssl_client_s_dn $acts_for {{ "CN={gateway}" $wanted; "~^CN=(?<own>[^,]+)$" $own; }}
    server {{
        listen 127.0.0.1:{port} ssl;
        ssl_certificate {folder}/server.pem; ssl_certificate_key {folder}/server.key;
        ssl_client_certificate {folder}/devices.pem; ssl_verify_client on;
        location / {{
            proxy_pass {behind};
            proxy_set_header Host $http_host;
            proxy_set_header X-Forwarded-Proto https;
            proxy_set_header X-Forwarded-Port {port};
            proxy_set_header X-Ssl-Client-Cn $acts_for;
            proxy_set_header X-Ssl-Issuer-Hash-1 {authority};
        }}
    }}
}}
"""


@dataclass(frozen=True, slots=True)
class Asked:
    """One line of its log: when (seconds), how it was answered, and what for."""

    at_s: float
    status: int
    path: str


class TlsFront:
    """Before the hawkBit at `behind`; files in `folder`, which `server_ca` and `devices` (who issues certificates) belong to."""

    def __init__(self, folder: Path, port: int, behind: str) -> None:
        folder.mkdir()
        self._folder, self._port, self._nginx = folder, port, need_tool("nginx")
        self.devices = issue("devices-ca", None, authority=True)
        self._write(issue("server-ca", None, authority=True))
        words = {"user": getpass.getuser(), "folder": folder, "port": port, "behind": behind}
        (folder / "nginx.conf").write_text(_CONFIGURATION.format(**words, gateway=GATEWAY, authority=AUTHORITY))

    @property
    def url(self) -> str:
        """Where clients ask."""
        return f"https://127.0.0.1:{self._port}"

    @property
    def server_ca(self) -> Path:
        """What proves it."""
        return self._folder / "server-ca.pem"

    @property
    def asked(self) -> list[Asked]:
        """Every request so far."""
        file = self._folder / "access.log"
        lines = [line.split(" ", 2) for line in file.read_text().splitlines()] if file.exists() else []
        return [Asked(float(at), int(status), path) for at, status, path in lines]

    @contextmanager
    def running(self, trusted: Identity) -> Iterator[None]:
        """It lets in who has a certificate of `trusted`."""
        (self._folder / "devices.pem").write_bytes(trusted.certificate_pem)
        command = [self._nginx, "-c", f"{self._folder}/nginx.conf", "-e", f"{self._folder}/error.log"]
        with socket.create_server(("127.0.0.1", self._port)) as listener:  # inherited while it listens: nobody waits for nginx
            environment = os.environ | {"NGINX": f"{listener.fileno()};"}
            process = subprocess.Popen(command, env=environment, pass_fds=[listener.fileno()])
            try:
                yield
            finally:
                process.terminate()
                process.wait(_END_PATIENCE_S)

    def _write(self, authority: Identity) -> None:
        name = (x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), False)
        server = issue("server", authority, purposes=[ExtendedKeyUsageOID.SERVER_AUTH], extensions=[name])
        self.server_ca.write_bytes(authority.certificate_pem)
        (self._folder / "server.pem").write_bytes(server.certificate_pem)
        (self._folder / "server.key").write_bytes(server.key_pem)
