"""Where events may be sent: the one place that reads the address of a webhook and judges what its name stands for.

Whoever registers a webhook makes this system open connections. Without these rules that would be a way into the network
it stands in. An address is read by one strict pattern, so that no two parsers can understand it differently, and the
name is judged by the addresses that it resolves to, never by how it looks.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Literal, Self

from defectoscope.errors.webhooks import WebhookAddressRefused

IpAddress = IPv4Address | IPv6Address
IpNetwork = IPv4Network | IPv6Network
#: From a host name and a port to addresses as text.
Resolver = Callable[[str, int], Sequence[str]]

MAX_URL_LENGTH = 2048
#: Addresses of a name that are tried in turn; more are of no use within one attempt.
_MOST_ADDRESSES = 4
_MAX_PORT = 65535

# No user, no password, no percent in the host, no fragment, no backslash: none of them belongs here, and each of them
# has been understood differently by two parsers of one program before.
_URL = re.compile(
    r"(?P<scheme>https?)://(?P<host>\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::(?P<port>[0-9]{1,5}))?(?P<path>[/?][\x21-\x7e]*)?",
    # Without the second, letters that only look alike would be taken for their ASCII cousins.
    re.IGNORECASE | re.ASCII,
)
_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9])?")
_MAX_NAME_LENGTH = 253
#: A name that ends so is an IPv4 address to the system's resolver, in decimal, octal or hexadecimal.
_NUMERIC_END = re.compile(r"(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*)")


def _networks(*texts: str) -> tuple[IpNetwork, ...]:
    return tuple(ipaddress.ip_network(text) for text in texts)


#: Not sent to whatever the settings say: "this network", link-local with the credentials of cloud machines, multicast,
#: reserved, and IPv4 hidden in IPv6.
_NEVER = _networks(
    *("0.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4", "240.0.0.0/4"),
    *("::/128", "::ffff:0:0/96", "::/96", "fe80::/10", "fec0::/10", "ff00::/8"),
)
#: Sent to when the settings name the host or the network: this machine, private networks, those of providers.
_LOCAL = _networks(
    *("10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"), *("::1/128", "fc00::/7")
)
#: Sent to when the settings name the network: of protocols, of documentation and benchmarks, relays of 6to4.
_SPECIAL = _networks(
    *("192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24"),
    # Teredo and its like; documentation; 6to4, which names an IPv4 address that nobody checked.
    *("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20"),
)
#: All of IPv6 that is given out. What lies outside is special, NAT64 among it, whether it is known here or not.
_GIVEN_OUT_V6 = IPv6Network("2000::/3")


@dataclass(frozen=True, slots=True, kw_only=True)
class AddressRules:
    """Where events may be sent beyond the public internet by https.

    Attributes:
        ports: to which connections are made.
        http_hosts: hosts that may be sent to without TLS.
        private_hosts: hosts that may stand for private and loopback addresses.
        private_networks: networks that may be sent to under any name.
    """

    ports: frozenset[int]
    http_hosts: frozenset[str] = frozenset()
    private_hosts: frozenset[str] = frozenset()
    private_networks: tuple[IpNetwork, ...] = ()

    def objection(self, host: str, address: IpAddress) -> str | None:
        """Return why a host that stands for an address is not sent to, or None."""
        # The loopback address of IPv6 lies within a network that is refused otherwise.
        is_local = _is_in(address, _LOCAL)
        if not is_local and _is_in(address, _NEVER):
            return "is never sent to"
        if _is_in(address, self.private_networks):
            return None
        if is_local:
            return None if host in self.private_hosts else "is not public, and no setting allows it"
        if _is_in(address, _SPECIAL) or (isinstance(address, IPv6Address) and address not in _GIVEN_OUT_V6):
            return "is kept for a special use"
        return None


def _is_in(address: IpAddress, networks: Sequence[IpNetwork]) -> bool:
    # An address of one version is in no network of the other.
    return any(address in network for network in networks)


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """An address as it was read.

    Attributes:
        scheme: http or https.
        host: in lower case; an IPv6 address without brackets.
        port: to connect to.
        path: with the query.
    """

    scheme: Literal["http", "https"]
    host: str
    port: int
    path: str

    @classmethod
    def read(cls, url: str, rules: AddressRules) -> Self:
        """Read an address.

        Raises:
            WebhookAddressRefused: it is not one, or may not be sent to whatever its name stands for.
        """
        found = _URL.fullmatch(url)
        if found is None or len(url) > MAX_URL_LENGTH or "#" in url or "\\" in url:
            raise WebhookAddressRefused(
                "The address must be of the form https://host/path, in ASCII, without user, password and fragment."
            )
        scheme, host = found["scheme"].lower(), _read_host(found["host"].lower())
        path = found["path"] or "/"
        port = int(found["port"] or (443 if scheme == "https" else 80))
        if port not in rules.ports:
            raise WebhookAddressRefused(
                f"Events are not sent to port {port}; DEFECTOSCOPE_WEBHOOKS__PORTS names those that they are sent to.",
                port=port,
            )
        if scheme == "http" and host not in rules.http_hosts:
            raise WebhookAddressRefused(
                f"{host} is not sent to without TLS; use https, or name it in DEFECTOSCOPE_WEBHOOKS__HTTP_HOSTS.",
                host=host,
            )
        return cls(
            scheme="https" if scheme == "https" else "http",
            host=host,
            port=port,
            path=path if path.startswith("/") else f"/{path}",
        )

    @property
    def host_header(self) -> str:
        """What the Host header says."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        usual = 443 if self.scheme == "https" else 80
        return host if self.port == usual else f"{host}:{self.port}"


def _read_host(host: str) -> str:
    """Return a host in its one spelling.

    Raises:
        WebhookAddressRefused: it is neither a name nor an address as addresses are usually written.
    """
    if host.startswith("["):
        return str(_read_address(host[1:-1], version=6))
    if _NUMERIC_END.fullmatch(host):
        return str(_read_address(host, version=4))
    if len(host) > _MAX_NAME_LENGTH or not all(_LABEL.fullmatch(label) for label in host.split(".")):
        raise WebhookAddressRefused(f"{host!r} is not the name of a host.", host=host)
    return host


def _read_address(text: str, *, version: Literal[4, 6]) -> IpAddress:
    try:
        # Strict: neither fewer than four numbers nor leading zeros, and neither hexadecimal nor one large number.
        return IPv4Address(text) if version == 4 else IPv6Address(text)  # noqa: PLR2004 -- the version of the protocol
    except ValueError as exc:
        raise WebhookAddressRefused(f"{text!r} is not an address as addresses are usually written.", host=text) from exc


def resolve_by_system(host: str, port: int) -> Sequence[str]:
    """Return what the system's resolver says, in the order of its preference.

    Raises:
        OSError: it knows no such name, or does not answer.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(sockaddr[0]) for *_, sockaddr in found]


def resolve(target: Target, rules: AddressRules, resolver: Resolver) -> tuple[IpAddress, ...]:
    """Ask once what a host stands for; whoever connects uses these very addresses and never the name.

    One address that may not be sent to refuses them all: a name with a public and a private address is no mistake that
    anybody makes by accident twice.

    Raises:
        WebhookAddressRefused: the name does not resolve, or to what may not be sent to.
    """
    try:
        texts = [target.host] if _is_literal(target.host) else resolver(target.host, target.port)
        addresses = tuple(dict.fromkeys(ipaddress.ip_address(text) for text in texts))
    except (OSError, ValueError) as exc:
        raise WebhookAddressRefused(f"{target.host} does not resolve to an address.", host=target.host) from exc
    if not addresses:
        raise WebhookAddressRefused(f"{target.host} does not resolve to an address.", host=target.host)
    for address in addresses:
        objection = rules.objection(target.host, address)
        if objection is not None:
            stands_for = "" if str(address) == target.host else f" stands for {address}, which"
            raise WebhookAddressRefused(f"{target.host}{stands_for} {objection}.", host=target.host)
    return addresses[:_MOST_ADDRESSES]


def _is_literal(host: str) -> bool:
    return ":" in host or _NUMERIC_END.fullmatch(host) is not None
