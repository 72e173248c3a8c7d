"""When two URLs are the same: the form under which a signed URL is registered and looked up (RFC 3986, section 6.2.2).

Both sides are brought into one form and then compared exactly:

1. Printable ASCII, at most `MAX_URL_BYTES`; scheme http or https, in lower case; no credentials before the host, since they
   make one host look like another; a fragment stands in no request (RFC 9112, section 3.2).
2. The host in lower case, without the one dot that may end it; a name of letters, digits, `.`, `-` and `_`, or an IPv6
   address in brackets in its shortest form, without a zone. Percent-encoded hosts are refused.
3. The port in decimal, 1 to 65535, without leading zeros; the scheme's own one is left out.
4. In the path an escaped letter, digit or one of `-._~` is written plainly, other escapes in upper case; then dot segments are
   resolved, as libcurl does before it asks. An empty path is `/`. Escaped slashes stay escaped.
5. The query is compared as it was written.

What cannot be brought into this form names nothing. The form is a key and never a path.
"""

import re
from ipaddress import AddressValueError, IPv6Address

MAX_URL_BYTES = 4096
_MAX_HOST = 253
_DEFAULT_PORTS = {"http": 80, "https": 443}
_URL = re.compile(
    r"(?P<scheme>https?)://(?:(?P<name>[a-z0-9._-]+)|\[(?P<address>[0-9a-f:.]{2,45})\])(?::(?P<port>[0-9]{0,5}))?"
    r"(?P<path>/(?:[a-z0-9._~!$&'()*+,;=:@/-]|%[0-9a-f]{2})*)?(?P<query>\?(?:[a-z0-9._~!$&'()*+,;=:@/?-]|%[0-9a-f]{2})*)?",
    re.ASCII | re.IGNORECASE,
)
_ESCAPE = re.compile(r"%([0-9a-f]{2})", re.ASCII | re.IGNORECASE)
_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~")


def url_key(url: str) -> str | None:
    """The form of a URL that it is known by; None if it has none."""
    match = _URL.fullmatch(url) if len(url) <= MAX_URL_BYTES else None
    if match is None:
        return None
    scheme = match["scheme"].lower()
    host, port = _host(match["name"], match["address"]), _port(match["port"], _DEFAULT_PORTS[scheme])
    if host is None or port is None:
        return None
    path = _without_dots(_ESCAPE.sub(_plain, match["path"] or "/"))
    return f"{scheme}://{host}{port}{path}{match['query'] or ''}"


def signed_key(url: str) -> str | None:
    """The same of a URL as it was signed: its fragment would stay with the client."""
    return url_key(url.partition("#")[0])


def authority_of_key(key: str) -> str:
    """The host in a key, with the port if it is not the scheme's own."""
    return key.partition("://")[2].partition("/")[0]


def host_of_key(key: str) -> str:
    """The host in a key, without the port."""
    authority = authority_of_key(key)
    return authority.rpartition("]")[0] + "]" if authority.startswith("[") else authority.partition(":")[0]


def path_of_key(key: str) -> str:
    """The path in a key, without the query."""
    _, _, path = key.partition("://")[2].partition("/")
    return "/" + path.partition("?")[0]


def _host(name: str | None, address: str | None) -> str | None:
    if name is None:
        try:
            return f"[{IPv6Address(address or '').compressed}]"
        except AddressValueError:
            return None
    host = name.lower().removesuffix(".")
    return host if len(host) <= _MAX_HOST and all(host.split(".")) else None


def _port(digits: str | None, default: int) -> str | None:
    """`:8080`, nothing for the default, None for a number that is no port."""
    number = int(digits) if digits else default
    if not 0 < number < 1 << 16:
        return None
    return "" if number == default else f":{number}"


def _plain(escape: "re.Match[str]") -> str:
    character = chr(int(escape[1], 16))
    return character if character in _PLAIN else escape[0].upper()


def _without_dots(path: str) -> str:
    """RFC 3986, section 5.2.4; nothing leads above the root."""
    kept: list[str] = []
    segments = path.split("/")[1:]
    for segment in segments:
        if segment == "..":
            del kept[-1:]
        elif segment != ".":
            kept.append(segment)
    if segments[-1] in {".", ".."}:
        kept.append("")
    return "/" + "/".join(kept)
