"""Finding a gateway in the LAN: DNS-SD over multicast DNS (RFC 6762, RFC 6763). The only module that knows zeroconf.

A gateway announces `NAME._fieldrelay._tcp.local.` on the interfaces it was told, never on others. TXT holds `txtvers=1` first
(section 6.7), then `id`, `path` and `fp`, the beginning of its certificate's fingerprint, for people who compare.

Nothing found here is trusted: whoever is in the LAN can announce anything. A `Candidate` is an address worth trying; its TLS
identity decides (`update.wire.tls`), and a spoofed candidate costs one refused connection. Addresses outside the subnets of
the browsed interfaces are dropped; up to 1024 names are kept in mind, and those that resolve come before those that do not.

IPv4 only, as the primary address of an interface; interfaces are given by name or by that address (`127.0.0.1` included,
where multicast works between processes of one machine without any setting).
"""

import asyncio
import fcntl
import ipaddress
import socket
import struct
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Self

from zeroconf import Error as ZeroconfError
from zeroconf import IPVersion, ServiceStateChange, Zeroconf
from zeroconf.asyncio import AsyncServiceBrowser, AsyncServiceInfo, AsyncZeroconf

from update.errors import ConfigurationError, UnreachableError
from update.identity import check_name

SERVICE_TYPE = "_fieldrelay._tcp.local."
MAX_PENDING = 1024
_MAX_LABEL_BYTES = 63
_MAX_PAIR_BYTES = 255
_MAX_TXT_BYTES = 1300  # RFC 6763 section 6.2: fits one Ethernet packet
_MAX_HINT_CHARACTERS = 64
_RESOLVE_MS = 1000
_SIOCGIFADDR, _SIOCGIFNETMASK = 0x8915, 0x891B


@dataclass(frozen=True, slots=True)
class Candidate:
    """Somebody who says to be a gateway. `gateway`, `path` and `fingerprint` are what he says in TXT: hints for messages only."""

    name: str
    addresses: tuple[str, ...]
    port: int
    gateway: str = ""
    path: str = ""
    fingerprint: str = ""

    @property
    def host(self) -> str:
        """The first address."""
        return self.addresses[0]


@asynccontextmanager
async def announce(
    name: str, port: int, *, interfaces: Sequence[str], path: str = "/", fingerprint: str = ""
) -> AsyncIterator[str]:
    """Announce the gateway `name` while the context lasts; gives the instance name (changed if it was taken in the LAN).

    Errors: `ConfigurationError` for an unknown interface or a name or text too long, `UnreachableError` if multicast fails.
    """
    own = resolve_interfaces(interfaces)
    properties = text_record(check_name(name, "a gateway"), path=path, fingerprint=fingerprint)
    info = AsyncServiceInfo(
        SERVICE_TYPE,
        f"{_label(name)}.{SERVICE_TYPE}",
        port=port,
        addresses=[interface.ip.packed for interface in own],
        properties=properties,
        server=f"{_label(name).replace('_', '-')}.local.",
    )
    async with _multicast(own) as zeroconf:
        try:
            announced = await zeroconf.async_register_service(info, allow_name_change=True)
        except ZeroconfError as error:
            raise UnreachableError(f"cannot announce {name!r} by multicast DNS: {error}") from error
        try:
            yield info.name.removesuffix(f".{SERVICE_TYPE}")
        finally:
            await announced
            await (await zeroconf.async_unregister_service(info))


@asynccontextmanager
async def browse(*, interfaces: Sequence[str], wait_s: float) -> AsyncIterator["Candidates"]:
    """Look for gateways, for `wait_s` seconds in all.

    Use: `async with browse(interfaces=["eth0"], wait_s=10) as candidates: async for candidate in candidates: ...`

    Errors: `ConfigurationError` for an unknown interface, `UnreachableError` if multicast fails.
    """
    own = resolve_interfaces(interfaces)
    async with _multicast(own) as zeroconf:
        candidates = Candidates(zeroconf.zeroconf, own, asyncio.get_running_loop().time() + wait_s)
        browser = AsyncServiceBrowser(zeroconf.zeroconf, [SERVICE_TYPE], handlers=[candidates.heard])
        try:
            yield candidates
        finally:
            await browser.async_cancel()


class Candidates:
    """An iterator over candidates as they turn up; one comes again only if it changed, or went and returned.

    A candidate that says goodbye before it is taken is dropped. Ends at the deadline.
    """

    def __init__(self, zeroconf: Zeroconf, interfaces: Sequence[ipaddress.IPv4Interface], deadline: float) -> None:
        self._zeroconf = zeroconf
        self._networks = [interface.network for interface in interfaces]
        self._deadline = deadline
        self._pending: dict[str, None] = {}
        self._given: dict[str, Candidate] = {}
        self._turned_up = asyncio.Event()

    def heard(self, zeroconf: Zeroconf, service_type: str, name: str, state_change: ServiceStateChange) -> None:
        """What zeroconf calls, in the event loop, for every change."""
        del zeroconf, service_type
        if state_change is ServiceStateChange.Removed:
            self._pending.pop(name, None)
            self._given.pop(name, None)
        elif len(self._pending) < MAX_PENDING:
            self._pending[name] = None
            self._turned_up.set()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Candidate:
        loop = asyncio.get_running_loop()
        while (left_s := self._deadline - loop.time()) > 0:
            if self._pending:
                candidate = await self._take(left_s)
                if candidate is not None:
                    return candidate
                continue
            self._turned_up.clear()
            try:
                await asyncio.wait_for(self._turned_up.wait(), left_s)
            except TimeoutError:
                break
        raise StopAsyncIteration

    async def _take(self, left_s: float) -> Candidate | None:
        """Take one name: first those whose records came along already, so that mute ones delay nobody."""
        info = next(filter(self._resolved, map(_service, self._pending)), None)
        if info is None:
            info = _service(next(iter(self._pending)))
            await info.async_request(self._zeroconf, min(_RESOLVE_MS, left_s * 1000))
            if info.name not in self._pending:
                return None  # said goodbye meanwhile
        del self._pending[info.name]
        candidate = self._candidate(info)
        if candidate is None or self._given.get(info.name) == candidate:
            return None
        if len(self._given) >= MAX_PENDING:
            self._given.clear()  # under a flood, rather try somebody twice than remember without bound
        self._given[info.name] = candidate
        return candidate

    def _resolved(self, info: AsyncServiceInfo) -> bool:
        return info.load_from_cache(self._zeroconf)

    def _candidate(self, info: AsyncServiceInfo) -> Candidate | None:
        found = info.ip_addresses_by_version(IPVersion.V4Only)
        addresses = tuple(str(each) for each in found if any(each in network for network in self._networks))
        if not addresses or not info.port:
            return None
        text = info.decoded_properties
        return Candidate(
            name=_hint(info.name.removesuffix(f".{SERVICE_TYPE}")),
            addresses=addresses,
            port=info.port,
            gateway=_hint(text.get("id")),
            path=_hint(text.get("path")),
            fingerprint=_hint(text.get("fp")),
        )


def text_record(gateway: str, *, path: str, fingerprint: str) -> dict[str, str]:
    """The TXT pairs in their order; `ConfigurationError` for a pair above 255 bytes or all above 1300 (RFC 6763 section 6)."""
    pairs = {"txtvers": "1", "id": gateway, "path": path, "fp": fingerprint[:16]}
    _check_text(pairs)
    return pairs


def resolve_interfaces(interfaces: Sequence[str]) -> tuple[ipaddress.IPv4Interface, ...]:
    """Address and subnet of each interface, given by its name or its primary IPv4 address; `ConfigurationError` otherwise."""
    if not interfaces:
        raise ConfigurationError("no interface is named for multicast DNS: name at least one, e.g. 'eth0'")
    known = {name: found for _, name in socket.if_nameindex() if (found := _primary_address(name)) is not None}
    by_address = {str(found.ip): found for found in known.values()}
    resolved = []
    for wanted in interfaces:
        found = known.get(wanted) or by_address.get(wanted)
        if found is None:
            names = ", ".join(f"{name} ({interface.ip})" for name, interface in known.items())
            raise ConfigurationError(f"no interface with an IPv4 address is called {wanted[:80]!r}; there are: {names}")
        resolved.append(found)
    return tuple(resolved)


@asynccontextmanager
async def _multicast(interfaces: Sequence[ipaddress.IPv4Interface]) -> AsyncIterator[AsyncZeroconf]:
    addresses = [str(interface.ip) for interface in interfaces]
    try:
        zeroconf = AsyncZeroconf(interfaces=addresses, ip_version=IPVersion.V4Only)
    except OSError as error:
        raise UnreachableError(f"cannot use multicast DNS on {', '.join(addresses)}: {error.strerror or error}") from error
    try:
        yield zeroconf
    finally:
        await zeroconf.async_close()


def _check_text(pairs: Mapping[str, str]) -> None:
    sizes = {key: len(f"{key}={value}".encode()) for key, value in pairs.items()}
    for key, size in sizes.items():
        if size > _MAX_PAIR_BYTES:
            raise ConfigurationError(f"the announcement's {key!r} takes {size} bytes; at most {_MAX_PAIR_BYTES} fit")
    total = sum(size + 1 for size in sizes.values())
    if total > _MAX_TXT_BYTES:
        raise ConfigurationError(f"the announcement's text takes {total} bytes; at most {_MAX_TXT_BYTES} fit")


def _service(name: str) -> AsyncServiceInfo:
    return AsyncServiceInfo(SERVICE_TYPE, name)


def _label(name: str) -> str:
    """The instance name: one DNS label, so without dots; `id` in TXT says the whole name."""
    if len(name) > _MAX_LABEL_BYTES:
        raise ConfigurationError(f"the gateway's name has {len(name)} characters; at most {_MAX_LABEL_BYTES} fit mDNS")
    return name.replace(".", "-")


def _hint(text: str | None) -> str:
    """Something a stranger said, short and printable, for messages only."""
    return "".join(each for each in text or "" if each.isprintable())[:_MAX_HINT_CHARACTERS]


def _primary_address(interface: str) -> ipaddress.IPv4Interface | None:
    """By ioctl (netdevice(7)); None for an interface without an IPv4 address."""
    request = struct.pack("256s", interface.encode()[:15])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            address, mask = (fcntl.ioctl(probe, code, request)[20:24] for code in (_SIOCGIFADDR, _SIOCGIFNETMASK))
        except OSError:
            return None
    return ipaddress.IPv4Interface(f"{socket.inet_ntoa(address)}/{socket.inet_ntoa(mask)}")
