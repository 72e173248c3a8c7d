"""Everything a gateway needs before its first start, made once: what `fieldrelay gateway init` does, and the demo.

Nothing is ever overwritten. The configuration is written last, so an attempt that was interrupted is simply repeated: what
it left (a key, the site's CA, an empty database) is used. A configuration that exists ends the command before anything is done.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from gateway.config import FORMAT_VERSION, StateFolder, parse_config
from gateway.database.engine import Database, sqlite_url
from gateway.north.intake.report_key import report_key
from gateway.south.identity import fingerprint_of, renew_certificate, site_authority
from update.durable import Disk
from update.errors import StateError
from update.trust.floor import Floor


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the operator said; everything else is at its default and can be changed in the file later."""

    file: Path
    name: str
    state: Path
    socket: Path
    port: int
    hosts: Sequence[str] = ()
    interfaces: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Made:
    """What `init` leaves: the configuration, the certificate that nodes shall trust, and its SHA-256."""

    config: str
    state: str
    site_ca: str
    site_ca_sha256: str


async def set_up(wishes: Wishes, disk: Disk, now: datetime) -> Made:
    """Make state folder, site CA, server certificate, database and configuration.

    Errors: `StateError` if the configuration exists, `ConfigurationError` for wishes that cannot be meant, `StoreError`.
    """
    if wishes.file.exists():
        raise StateError(f"{wishes.file} exists: this gateway is set up; edit it, or name another file with --config")
    text = configuration(wishes)
    config = parse_config(text, wishes.file)
    folder = StateFolder(config.gateway.state)
    disk.make_folder(folder.root, mode=0o750)
    disk.make_folder(folder.keys, mode=0o700)
    authority = site_authority(disk, folder, config.gateway.name, now)
    renew_certificate(disk, folder, authority, config, now)
    report_key(disk, folder)
    floor = Floor(disk, folder.floor)
    if not floor.exists():
        floor.create(now)
    await (await Database.open(config.gateway.database or sqlite_url(folder.database))).close()
    disk.make_folder(wishes.file.absolute().parent)
    disk.write_file(wishes.file.absolute(), text.encode())
    return Made(str(wishes.file), str(folder.root), str(folder.authority[0]), fingerprint_of(authority))


def configuration(wishes: Wishes) -> str:
    """The first configuration: what was said, and where to read about the rest."""
    return f"""\
# Fieldrelay gateway. Only what differs from the defaults; the sample configs/gateway.toml shows every key.
format_version = {FORMAT_VERSION}

[gateway]
name = {_text(wishes.name)}
state = {_text(str(wishes.state.absolute()))}

[south]
port = {wishes.port}
hosts = {_texts(wishes.hosts)}
interfaces = {_texts(wishes.interfaces)}

[control]
socket = {_text(str(wishes.socket.absolute()))}

# One section per repository:
#[[repository]]
#name = "vendor"
#root = "vendor-root.json"
#upstreams = ["https://updates.example/vendor"]
#cms_roots = ["vendor-ca.pem"]
"""


def _text(value: str) -> str:
    """A TOML basic string: JSON's escapes are TOML's."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _texts(values: Sequence[str]) -> str:
    return f"[{', '.join(map(_text, values))}]"
