"""Client sessions for the wide area: the options of `[wan]` as arguments, nothing taken from the environment."""

import socket
import ssl
from collections.abc import Callable
from pathlib import Path

import aiohttp
import yarl

from update.errors import ConfigurationError, ProtocolError
from update.wire.http import parse_url

_USER_AGENT = "fieldrelay"
_CONNECTIONS = 20


def wan_session(
    *,
    proxy: str | None = None,
    proxy_user: str | None = None,
    proxy_password: str = "",
    extra_ca: Path | None = None,
    tls: ssl.SSLContext | None = None,
    source_address: str | None = None,
    source_interface: str | None = None,
    connections: int = _CONNECTIONS,
) -> aiohttp.ClientSession:
    """A session for upstream servers; the caller closes it. Needs a running event loop.

    `tls` replaces the context of public CAs; `extra_ca` (PEM) is trusted in addition. `source_interface` binds to one
    network interface by name, so that update traffic leaves by it whatever the routes say. Certificates are always
    verified. Errors: `ConfigurationError` names the option.
    """
    if source_address is not None and source_interface is not None:
        raise ConfigurationError("[wan] source_address and source_interface exclude each other: name one")
    context = wan_context(extra_ca, tls)
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(
            ssl=context,
            limit=connections,
            local_addr=(_source(source_address), 0) if source_address is not None else None,
            socket_factory=_bound_to(source_interface) if source_interface is not None else None,
        ),
        proxy=_proxy(proxy, proxy_user, proxy_password) if proxy is not None else None,
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"User-Agent": _USER_AGENT},
        auto_decompress=False,
        trust_env=False,
    )


def wan_context(extra_ca: Path | None, tls: ssl.SSLContext | None = None) -> ssl.SSLContext:
    """What proves servers of the wide area: public CAs (or what `tls` trusts) and `extra_ca`. Errors: `ConfigurationError`."""
    context = tls if tls is not None else ssl.create_default_context()
    if extra_ca is not None:
        try:
            context.load_verify_locations(cafile=extra_ca)
        except (OSError, ssl.SSLError) as error:
            raise ConfigurationError(f"[wan] extra_ca: cannot read certificates from {extra_ca} ({error})") from error
    return context


def showing(context: ssl.SSLContext, certificate: Path, key: Path) -> ssl.SSLContext:
    """The same, showing a certificate of ours where a server asks for one. Errors: `ConfigurationError`."""
    try:
        context.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(f"cannot use certificate {certificate} with key {key} ({error})") from error
    return context


def _source(address: str) -> str:
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, address)
        except OSError:
            continue
        return address
    raise ConfigurationError(f"[wan] source_address is an IP address of this machine: got {address[:80]!r}")


def _proxy(url: str, user: str | None, password: str) -> yarl.URL:
    try:
        address = parse_url(url)
    except ProtocolError as error:
        raise ConfigurationError("[wan] proxy is written http://host:port") from error
    if address.user is not None or address.password is not None:
        raise ConfigurationError("[wan] proxy: write user and password as proxy_user and proxy_password, not into the URL")
    if user is None:
        return address
    if ":" in user or not f"{user}{password}".isascii():
        raise ConfigurationError("[wan] proxy_user and proxy_password are ASCII, and the user has no ':' (RFC 7617)")
    return address.with_user(user).with_password(password)


def _bound_to(interface: str) -> Callable[[aiohttp.AddrInfoType], socket.socket]:
    """A socket factory; Linux lets every process bind an unbound socket to an interface since 5.7."""
    if interface not in {name for _, name in socket.if_nameindex()}:
        raise ConfigurationError(f"[wan] source_interface: this machine has no interface {interface[:40]!r}")

    def create(info: aiohttp.AddrInfoType) -> socket.socket:
        family, kind, protocol, _, _ = info
        connection = socket.socket(family, kind, protocol)
        try:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode() + b"\0")
        except OSError:
            connection.close()
            raise
        return connection

    return create
