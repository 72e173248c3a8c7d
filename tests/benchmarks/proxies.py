"""nginx as the peers configure it in front of an origin: a cache of whole objects with lock, or slices of 1 MiB."""

import getpass
import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

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
