"""Caching proxies as people put them in front of an origin, each as it is tuned best for this: nginx, squid, varnish.

nginx: a cache of whole objects with lock, or slices of 1 MiB. squid: whole objects (`range_offset_limit none`), one fetch for
all who ask (`collapsed_forwarding`). varnish: as it comes. squid and varnish give up root for a user of their own, so their
files are in a folder that anybody may write to.
"""

import getpass
import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from tests.benchmarks.measure import tool

_LOCATION = {
    "cache": (
        "proxy_cache c; proxy_cache_valid 200 1h; proxy_cache_lock on; proxy_cache_lock_timeout 300s; proxy_force_ranges on;"
    ),
    "slice": (
        "slice 1m; proxy_cache c; proxy_cache_key $uri$slice_range; proxy_set_header Range $slice_range; "
        "proxy_cache_valid 200 206 1h; proxy_cache_lock on;"
    ),
}
_START_S = 60.0


@contextmanager
def nginx_proxy(work: Path, origin: str, kind: str) -> Iterator[str]:
    """The address of an nginx before `origin`; it inherits a socket that listens already, so nobody waits for it."""
    work.mkdir(parents=True)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        configuration = work / "nginx.conf"
        configuration.write_text(
            f"daemon off; worker_processes 1; user {getpass.getuser()}; pid {work}/pid; error_log {work}/error.log;\n"
            "events {}\n"
            f"http {{ access_log off; client_body_temp_path {work}/a; proxy_temp_path {work}/b; fastcgi_temp_path {work}/c;\n"
            f"uwsgi_temp_path {work}/d; scgi_temp_path {work}/e; tcp_nopush off;\n"
            f"proxy_cache_path {work}/cache keys_zone=c:10m max_size=10g;\n"
            f"server {{ listen {address}; location / {{ proxy_pass {origin}; proxy_http_version 1.1;\n"
            f'proxy_set_header Connection ""; {_LOCATION[kind]} }} }} }}\n'
        )
        listener.set_inheritable(True)
        process = subprocess.Popen(
            [tool("nginx"), "-c", configuration, "-e", f"{work}/error.log"],
            env={**os.environ, "NGINX": f"{listener.fileno()};"},
            pass_fds=[listener.fileno()],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            yield f"http://{address}"
        finally:
            process.terminate()
            process.wait(10)


@contextmanager
def squid_proxy(origin: str) -> Iterator[str]:
    """The address of a squid before `origin`."""
    there = urlsplit(origin)
    with _open_folder() as work:
        port, configuration = _free_port(), work / "squid.conf"
        configuration.write_text(
            f"http_port 127.0.0.1:{port} accel defaultsite=origin no-vhost\n"
            f"cache_peer {there.hostname} parent {there.port} 0 no-query no-digest originserver\n"
            "acl all_of_it src all\nhttp_access allow all_of_it\nnever_direct allow all_of_it\n"
            f"pid_filename {work}/pid\naccess_log none\ncache_log {work}/log\nlogfile_rotate 0\ncoredump_dir {work}\n"
            f"cache_dir ufs {work}/cache 10240 4 4\nmaximum_object_size 10 GB\nminimum_object_size 0\n"
            "refresh_pattern . 1440 100% 1440\nrange_offset_limit none\ncollapsed_forwarding on\nshutdown_lifetime 1 second\n"
        )
        base = [tool("squid"), "-N", "-f", str(configuration)]
        subprocess.run([*base, "-z"], check=True, capture_output=True, timeout=_START_S)
        with _serving(base, port) as address:
            yield address


@contextmanager
def varnish_proxy(origin: str) -> Iterator[str]:
    """The address of a varnish before `origin`."""
    there = urlsplit(origin)
    with _open_folder() as work:
        port, configuration = _free_port(), work / "default.vcl"
        configuration.write_text(f'vcl 4.1; backend default {{ .host = "{there.hostname}"; .port = "{there.port}"; }}\n')
        listening = f"127.0.0.1:{port}"
        command = [tool("varnishd"), "-F", "-f", str(configuration), "-a", listening, "-s", "malloc,1g", "-n", str(work / "n")]
        with _serving(command, port) as address:
            yield address


@contextmanager
def _open_folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="bench-proxy-", ignore_cleanup_errors=True) as name:
        work = Path(name).resolve()
        work.chmod(0o777)
        yield work


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@contextmanager
def _serving(command: Sequence[str], port: int) -> Iterator[str]:
    """A process, once it takes connections."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + _START_S
        while not _answers(port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{command[0]} does not listen on port {port}")
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True
