"""Where URLs lead, who is shown what there, and which addresses are of the Internet."""

from __future__ import annotations

from ipaddress import ip_network

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from angos.runtime.client.connection import NotPermitted
from angos.runtime.client.url import UrlInvalid, parse_url
from angos.runtime.upstream.egress import EgressRule
from angos.runtime.upstream.settings import UpstreamEndpoint
from angos.sansio.upstream.origin import (
    is_public,
    keeps_credentials,
    may_show_password,
    origin_of,
    redirect_target,
)

HOSTS = st.sampled_from(
    (
        *("example.org", "EXAMPLE.org", "example.org.", "127.0.0.1", "0x7f.1", "127.1", "[::1]", "[::ffff:127.0.0.1]"),
        *(
            "example.org@evil.example",
            "evil.example#example.org",
            "evil.example\\example.org",
            "a_b",
            "xn--b-kva.example",
        ),
    )
)
PORTS = st.sampled_from(["", ":", ":80", ":443", ":0443", ":8080", ":0", ":65536", ":x"])
URLS = st.builds(
    lambda scheme, host, port, rest: f"{scheme}://{host}{port}{rest}",
    st.sampled_from(["http", "https", "HTTP", "hTTps", "ftp", "http:"]),
    HOSTS | st.text("abc.:@/\\?#[]% \t\r\n0\u017f\u212a", max_size=12),
    PORTS,
    st.sampled_from(["", "/", "/v2/", "?a=b", "#c", "/\\evil.example"]) | st.text(max_size=5),
)


@given(URLS)
@example("http://example.org:080/")
@example("http://example.org\\@evil.example/")
@example("https://example.org:/")
def test_who_decides_and_who_connects_read_a_url_alike(text: str) -> None:
    """Two readers that disagree about the host are how credentials reach somebody else."""
    origin = origin_of(text)
    try:
        url = parse_url(text)
    except UrlInvalid:
        return
    if origin is not None:
        host = f"[{url.host}]" if ":" in url.host else url.host
        assert origin == f"{url.scheme}://{host}:{url.port}"


@given(URLS, URLS)
def test_credentials_stay_at_one_scheme_host_and_port(first: str, second: str) -> None:
    try:
        one, other = parse_url(first), parse_url(second)
    except UrlInvalid:
        return
    if keeps_credentials(first, second):
        assert (one.scheme, one.host, one.port) == (other.scheme, other.host, other.port)


@pytest.mark.parametrize(
    ("url", "upstream", "realms", "may"),
    [
        ("https://hub.example/token", "https://hub.example", (), True),
        ("https://HUB.example:443/token", "https://hub.example", (), True),
        ("https://hub.example:444/token", "https://hub.example", (), False),
        ("http://hub.example/token", "https://hub.example", (), False),
        ("https://hub.example/token", "http://hub.example", (), False),
        ("https://auth.hub.example/token", "https://hub.example", (), False),
        ("https://hub.example.evil.example/token", "https://hub.example", (), False),
        ("https://hub.example@evil.example/token", "https://hub.example", (), False),
        ("https://evil.example\\@hub.example/token", "https://hub.example", (), False),
        ("https://auth.example/token", "https://hub.example", ("https://auth.example",), True),
        ("http://auth.example/token", "https://hub.example", ("http://auth.example",), False),
        ("http://auth.example/token", "http://hub.example", ("http://auth.example",), True),
        ("ftp://hub.example/token", "https://hub.example", (), False),
    ],
)
def test_a_password_is_for_its_upstream_and_the_realms_that_are_allowed(
    url: str, upstream: str, realms: tuple[str, ...], may: bool
) -> None:
    assert may_show_password(url, upstream, realms) is may


@pytest.mark.parametrize(
    ("url", "location", "target"),
    [
        ("https://a.example/v2/x", "/y?z=1#part", "https://a.example/y?z=1"),
        ("https://a.example/v2/x", "//b.example/y", "https://b.example/y"),
        ("http://a.example/v2/x", "https://a.example/v2/x", "https://a.example/v2/x"),
        ("https://a.example/v2/x", "http://a.example/v2/x", None),
        ("https://a.example/v2/x", "file:///etc/passwd", None),
        ("https://a.example/v2/x", "https://user:password@b.example/", None),
        ("https://a.example/v2/x", "https://b.example\r\nX: y", None),
        ("https://a.example/v2/x", "", "https://a.example/v2/x"),
        ("https://a.example/v2/x", None, None),
    ],
)
def test_a_redirect_leads_where_a_plain_address_does(url: str, location: str | None, target: str | None) -> None:
    assert redirect_target(url, location) == target


PRIVATE = (
    *("127.0.0.1", "127.9.9.9", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0"),
    *("224.0.0.1", "255.255.255.255", "192.0.2.1", "::1", "::", "fe80::1", "fe80::1%eth0", "fd00::1", "ff02::1"),
    *("::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "2002:7f00:1::", "2002:a00:1::1"),
    *("", "localhost", "127.1", "0x7f000001"),
)
PUBLIC = ("1.1.1.1", "44.205.64.79", "2606:4700::1111", "::ffff:1.1.1.1", "64:ff9b::101:101")


def test_addresses_of_the_internet_are_told_from_all_others_however_they_are_written() -> None:
    assert [address for address in PRIVATE if is_public(address)] == []
    assert [address for address in PUBLIC if not is_public(address)] == []


@pytest.mark.parametrize(
    ("url", "address", "may"),
    [
        ("https://hub.example/", "44.205.64.79", True),
        ("https://hub.example/", "127.0.0.1", False),
        ("https://hub.example/", "10.1.2.3", True),
        ("https://elsewhere.example/", "10.1.2.3", True),
        ("https://elsewhere.example/", "10.2.0.1", False),
        ("https://elsewhere.example/", "::ffff:10.1.2.3", False),
        ("http://192.168.7.7:5000/", "192.168.7.7", True),
        ("http://192.168.7.7:6379/", "192.168.7.7", False),
        ("http://localhost:5001/", "127.0.0.1", True),
        ("http://localhost:5001/", "::1", True),
        ("http://localhost:5001/", "192.168.7.7", False),
        ("http://localhost:5002/", "127.0.0.1", False),
    ],
)
def test_only_what_is_configured_there_is_reached_inside_the_network(url: str, address: str, may: bool) -> None:
    """An upstream at an address, with a token server at another one, and a network that is listed."""
    endpoint = UpstreamEndpoint(
        "it",
        parse_url("http://192.168.7.7:5000"),
        token_realms=("http://localhost:5001",),
        private_networks=(ip_network("10.1.0.0/16"),),
    )
    rule = EgressRule(endpoint)
    if may:
        rule.check(parse_url(url), address)
    else:
        with pytest.raises(NotPermitted, match="not of the Internet"):
            rule.check(parse_url(url), address)
