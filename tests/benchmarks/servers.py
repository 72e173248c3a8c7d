"""Both sides of `ONLY=serving`: the gateway as a user runs it, and nginx over the very files of its store."""

import asyncio
import getpass
import http.client
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from gateway.config import StateFolder
from gateway.setup import Wishes, set_up
from tests.benchmarks.measure import tool
from tests.builders.repository import RepositoryBuilder
from update.digest import digest_of
from update.durable import Disk
from update.wire.authority import SiteAuthority, make_csr, write_certificate

NAME = "bench"
_PATIENCE_S = 120.0


@dataclass(frozen=True, slots=True)
class Server:
    """One process that serves, and where: `plain_path` with `NAME` as host, `tls_path` to a node with its certificate."""

    pid: int
    port: int
    tls_port: int


@dataclass(frozen=True, slots=True)
class Appliance:
    """A gateway's folder: its configuration, its store, and the identity of one node."""

    folder: Path
    name: str
    content: bytes

    @property
    def state(self) -> StateFolder:
        return StateFolder(self.folder / "state")

    @property
    def plain_path(self) -> str:
        """Where stock clients find the content, with `NAME` as host."""
        return f"/targets/{digest_of(self.content)}.{self.name}"

    @property
    def tls_path(self) -> str:
        """Where agents find it."""
        return f"/repositories/{NAME}{self.plain_path}"

    @property
    def node(self) -> tuple[str, str, str]:
        """The site's CA, a node's certificate and its key."""
        return str(self.state.authority[0]), str(self.folder / "node.pem"), str(self.folder / "node.key")


def make_appliance(folder: Path, content: bytes) -> Appliance:
    """Set a gateway up whose upstream is a folder with `content`."""
    folder.mkdir()
    now, disk, appliance = datetime.now(UTC), Disk(), Appliance(folder, "content.bin", content)
    builder = RepositoryBuilder(now=now)
    builder.add_target(appliance.name, content)
    builder.publish()
    builder.write_to(folder / "upstream")
    (folder / "root.json").write_bytes(builder.root_bytes)
    file = folder / "gateway.toml"
    asyncio.run(set_up(Wishes(file, "gw", folder / "state", folder / "s", 8443), disk, now))
    authority = SiteAuthority.load(*appliance.state.authority)
    certificate = authority.issue_node(make_csr(disk, folder / "node.key", "n1"), node="n1", now=now)
    write_certificate(disk, folder / "node.pem", certificate)
    return appliance


@contextmanager
def gateway(appliance: Appliance, environment: dict[str, str] | None = None) -> Iterator[Server]:
    """`fieldrelay gateway serve`, once it has the content."""
    file, port, tls_port = appliance.folder / "serve.toml", _free_port(), _free_port()
    made = (appliance.folder / "gateway.toml").read_text().replace("port = 8443", f'port = {tls_port}\naddresses = ["127.0.0.1"]')
    file.write_text(
        f'{made}\n[south.content]\nenabled = true\npeers = true\naddresses = ["127.0.0.1"]\nport = {port}\n'
        f'[[repository]]\nname = "{NAME}"\nroot = "root.json"\nupstreams = ["{appliance.folder}/upstream"]\n'
    )
    command = [str(Path(sys.executable).with_name("fieldrelay")), "gateway", "--config", str(file), "serve"]
    with (appliance.folder / "log").open("ab") as log:
        process = subprocess.Popen(command, env={**os.environ, **(environment or {})}, stdout=log, stderr=log)
    try:
        _await_content(process, appliance, port)
        yield Server(process.pid, port, tls_port)
    finally:
        process.terminate()
        process.wait(30)


@contextmanager
def nginx_static(appliance: Appliance, work: Path) -> Iterator[Server]:
    """One process of nginx at its best: sendfile, no log, descriptors kept; its TLS asks for certificates as ours does."""
    work.mkdir()
    port, tls_port, state = _free_port(), _free_port(), appliance.state
    targets = state.store / "repositories" / NAME / "targets"
    (work / "nginx.conf").write_text(
        f"daemon off; master_process off; user {getpass.getuser()}; pid {work}/pid; error_log {work}/error.log;\n"
        "worker_rlimit_nofile 8192; events { worker_connections 4096; }\n"
        f"http {{ access_log off; client_body_temp_path {work}/a; proxy_temp_path {work}/b; fastcgi_temp_path {work}/c;\n"
        f"uwsgi_temp_path {work}/d; scgi_temp_path {work}/e; sendfile on; tcp_nopush off; keepalive_requests 10000000;\n"
        "open_file_cache max=1000;\n"
        f"server {{ listen 127.0.0.1:{port} backlog=1024; listen 127.0.0.1:{tls_port} ssl backlog=1024;\n"
        f"ssl_protocols TLSv1.3; ssl_certificate {state.server[0]}; ssl_certificate_key {state.server[1]};\n"
        f"ssl_client_certificate {state.authority[0]}; ssl_verify_client optional; ssl_verify_depth 2;\n"
        f"location /targets/ {{ alias {targets}/; }} location /repositories/{NAME}/targets/ {{ alias {targets}/; }} }} }}\n"
    )
    process = subprocess.Popen([tool("nginx"), "-c", work / "nginx.conf", "-e", f"{work}/error.log"])
    try:
        _await_content(process, appliance, port)
        yield Server(process.pid, port, tls_port)
    finally:
        process.terminate()
        process.wait(10)


def pin(pid: int, core: int) -> None:
    """Keep a process with all its threads on one core, so that the load generator has the other."""
    for thread in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setaffinity(int(thread.name), {core})


def pss_mib(pid: int) -> float:
    """Memory that a process has for itself, and its share of what it shares, in MiB."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return next(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:")) / 1024


def _await_content(process: "subprocess.Popen[bytes]", appliance: Appliance, port: int) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while time.monotonic() < deadline and process.poll() is None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        try:
            connection.request("HEAD", appliance.plain_path, headers={"Host": NAME})
            if connection.getresponse().status == 200:
                return
        except OSError:  # it does not listen yet
            pass
        finally:
            connection.close()
        time.sleep(0.05)
    sys.exit(f"benchmark: a server does not serve; see {appliance.folder}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
