"""Where events may be sent: what an address may look like, and what its name may stand for."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from defectoscope.errors.webhooks import WebhookAddressRefused
from defectoscope.webhooks.addresses import AddressRules, Target, resolve

RULES = AddressRules(ports=frozenset({443, 8443, 80}))
FACTORY = AddressRules(
    ports=frozenset({80, 443}),
    http_hosts=frozenset({"mes.factory", "fd00::1"}),
    private_hosts=frozenset({"mes.factory"}),
    private_networks=(ip_network("10.20.0.0/16"), ip_network("64:ff9b::/96"), ip_network("169.254.0.0/16")),
)


def standing_for(*addresses):
    return lambda _host, _port: addresses


@pytest.mark.parametrize(
    ("url", "host", "port", "path"),
    [
        pytest.param("https://example.com", "example.com", 443, "/", id="nothing but a host"),
        pytest.param("https://example.com:8443/a?b=c%20d&e", "example.com", 8443, "/a?b=c%20d&e", id="port and query"),
        pytest.param("HTTPS://EXAMPLE.com/A", "example.com", 443, "/A", id="case of the host only"),
        pytest.param("https://example.com?a=b", "example.com", 443, "/?a=b", id="query without path"),
        pytest.param("https://xn--bcher-kva.example/", "xn--bcher-kva.example", 443, "/", id="punycode"),
        pytest.param("https://[2606:4700::1111]/", "2606:4700::1111", 443, "/", id="IPv6"),
        pytest.param("https://93.184.216.34/", "93.184.216.34", 443, "/", id="IPv4"),
    ],
)
def test_an_address_is_read(url, host, port, path):
    target = Target.read(url, RULES)

    assert (target.scheme, target.host, target.port, target.path) == ("https", host, port, path)


@pytest.mark.parametrize(
    "url",
    [
        "ftp://example.com/",
        "//example.com/",
        "example.com",
        "https://",
        "https:///path",
        "https://example.com:/",
        "https://example.com:22/",
        "https://example.com:99999/",
        "https://user@example.com/",
        "https://user:password@example.com/",
        "https://example.com@127.0.0.1/",
        "https://example.com\\@127.0.0.1/",
        "https://example.com\\.evil/",
        "https://example.com/#part",
        "https://example.com/a b",
        "https://example.com/\r\nX: y",
        "https://example.com/\n",
        "https://exa\tmple.com/",
        "https://ex%61mple.com/",
        "https://bücher.example/",
        "https://\uff11\uff12\uff17.0.0.1/",
        "https://\u212aelvin.example/",
        "http\u017f://example.com/",
        "https://example..com/",
        "https://example.com./",
        "https://-example.com/",
        "https://[::1%25eth0]/",
        "https://[fe80::1%eth0]/",
        "https://[127.0.0.1]/",
        "https://::1/",
        "http://example.com/",
        "https://" + "a" * 64 + ".com/",
        "https://" + "a." * 127 + "com/",
        "https://example.com/" + "a" * 2048,
    ],
)
def test_what_is_no_plain_https_address_is_refused(url):
    with pytest.raises(WebhookAddressRefused):
        Target.read(url, RULES)


@pytest.mark.parametrize(
    "host",
    [
        "2130706433",
        "0x7f000001",
        "0x7f.0.0.1",
        "017700000001",
        "0177.0.0.1",
        "127.1",
        "127.0.1",
        "127.0.0.01",
        "0",
        "0x",
        "1.2.3.4.5",
        "256.1.1.1",
        "example.1",
        "example.0x1",
        "[::ffff:7f00:1",
        "[0:0:0:0:0:ffff:127.0.0.1",
    ],
)
def test_other_spellings_of_an_address_are_refused(host):
    with pytest.raises(WebhookAddressRefused):
        resolve(
            Target.read(f"https://{host}{']' if '[' in host else ''}/", RULES), RULES, standing_for("93.184.216.34")
        )


FORBIDDEN = {
    "loopback": ["127.0.0.1", "127.255.255.254", "::1"],
    "private": ["10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "fc00::1", "fdff::1"],
    "credentials of the cloud": ["169.254.169.254", "fd00:ec2::254"],
    "link-local": ["169.254.0.1", "fe80::1", "febf::1", "fec0::1"],
    "carrier-grade NAT": ["100.64.0.1", "100.127.255.255"],
    "this network": ["0.0.0.0", "0.1.2.3", "::"],  # noqa: S104 -- refused
    "multicast and broadcast": ["224.0.0.1", "239.1.1.1", "255.255.255.255", "ff02::1"],
    "reserved": ["240.0.0.1", "192.0.0.1", "192.0.2.1", "198.18.0.1", "198.51.100.1", "203.0.113.1", "192.88.99.1"],
    "IPv4 within IPv6": ["::ffff:127.0.0.1", "::ffff:8.8.8.8", "::127.0.0.1", "2002:7f00:1::", "64:ff9b::7f00:1"],
    "IPv6 of special use": ["2001::1", "2001:db8::1", "3fff::1", "100::1", "64:ff9b:1::1", "5f00::1", "4000::1"],
}
ADDRESSES = [pytest.param(address, id=f"{kind} {address}") for kind, these in FORBIDDEN.items() for address in these]


@pytest.mark.parametrize("address", ADDRESSES)
def test_a_name_that_stands_for_no_public_address_is_refused(address):
    target = Target.read("https://example.com/", RULES)

    with pytest.raises(WebhookAddressRefused, match=r"example\.com stands for"):
        resolve(target, RULES, standing_for(address))


@pytest.mark.parametrize("address", ADDRESSES)
def test_an_address_that_is_not_public_is_refused_as_it_is(address):
    host = f"[{address}]" if ":" in address else address

    with pytest.raises(WebhookAddressRefused):
        resolve(Target.read(f"https://{host}/", RULES), RULES, standing_for("93.184.216.34"))


@pytest.mark.parametrize("address", ["93.184.216.34", "1.1.1.1", "100.63.255.255", "172.32.0.1", "2606:4700::1111"])
def test_a_name_that_stands_for_a_public_address_is_taken(address):
    found = resolve(Target.read("https://example.com/", RULES), RULES, standing_for(address, address))

    assert found == (ip_address(address),)


def test_one_address_that_is_refused_refuses_the_name():
    target = Target.read("https://example.com/", RULES)

    with pytest.raises(WebhookAddressRefused):
        resolve(target, RULES, standing_for("93.184.216.34", "10.0.0.1"))


@pytest.mark.parametrize("answer", [(), ("no address",)], ids=["none", "garbage"])
def test_a_name_that_does_not_resolve_is_refused(answer):
    with pytest.raises(WebhookAddressRefused, match="does not resolve"):
        resolve(Target.read("https://example.com/", RULES), RULES, standing_for(*answer))


def test_a_resolver_that_is_away_refuses_the_name():
    def away(host, port):
        raise OSError("no answer")

    with pytest.raises(WebhookAddressRefused, match="does not resolve"):
        resolve(Target.read("https://example.com/", RULES), RULES, away)


@pytest.mark.parametrize(
    ("url", "address", "allowed"),
    [
        pytest.param("http://mes.factory/", "192.168.1.7", True, id="a host that is named, without TLS"),
        pytest.param("https://mes.factory/", "127.0.0.1", True, id="a host that is named, on this machine"),
        pytest.param("https://mes.factory/", "fd12::7", True, id="a host that is named, in IPv6"),
        pytest.param("https://mes.factory/", "169.254.169.254", False, id="a host that is named, link-local"),
        pytest.param("https://mes.factory/", "::ffff:10.0.0.1", False, id="a host that is named, mapped"),
        pytest.param("https://mes.factory/", "224.0.0.1", False, id="a host that is named, multicast"),
        pytest.param("https://other.factory/", "192.168.1.7", False, id="a host that is not named"),
        pytest.param("https://other.factory/", "10.20.3.4", True, id="a network that is named"),
        pytest.param("https://10.20.3.4/", "10.20.3.4", True, id="an address of a network that is named"),
        pytest.param("https://other.factory/", "10.21.3.4", False, id="a network that is not named"),
        pytest.param("https://example.com/", "64:ff9b::5db8:d822", True, id="NAT64 that is named"),
        pytest.param("https://example.com/", "169.254.169.254", False, id="link-local although it is named"),
    ],
)
def test_the_settings_open_what_they_name_and_no_more(url, address, allowed):
    target = Target.read(url, FACTORY)

    try:
        found = resolve(target, FACTORY, standing_for(address))
    except WebhookAddressRefused:
        found = None

    assert found == ((ip_address(address),) if allowed else None)


@given(st.ip_addresses(v=4))
def test_an_IPv4_address_is_never_let_through_by_its_IPv6_forms(address):  # noqa: N802 -- its name
    number = int(address)
    forms = [number, 0xFFFF << 32 | number, (0x2002 << 112) | (number << 80), (0x64FF9B << 96) | number]
    target = Target.read("https://example.com/", RULES)

    for form in forms:
        with pytest.raises(WebhookAddressRefused):
            resolve(target, RULES, standing_for(str(ip_address(form.to_bytes(16, "big")))))


@given(st.text(alphabet="htps:/[]@\\.#?%0123456789abcdefx -_", max_size=60))
def test_no_text_breaks_the_reading_of_an_address(text):
    try:
        target = Target.read(f"https://{text}", RULES)
    except WebhookAddressRefused:
        return

    assert set(target.host) <= set("0123456789abcdefghijklmnopqrstuvwxyz._-:")
    assert target.path.startswith("/")
