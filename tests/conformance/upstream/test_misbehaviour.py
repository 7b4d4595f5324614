"""Upstreams that misbehave: clients are told what is wrong, are served what is old but never what is not it, and
nothing of it is left behind."""

from __future__ import annotations

import pytest

from tests.conformance.http_client import Closed, refused
from tests.conformance.oci.content import digest_of
from tests.conformance.scripted_server import SILENT, Asked, Said, said
from tests.conformance.upstream.scripted_upstream import Case, unlike

pytestmark = pytest.mark.xdist_group("mirror")

HTML = said(b"<html>please log in</html>", "200 OK", "Content-Type: text/html")
BUSY = said(b"", "429 Too Many Requests", "Retry-After: 7")

FAILURES: dict[str, tuple[Said, int]] = {
    "an error": (said(b"", "500 Internal Server Error"), 503),
    "a web page": (HTML, 502),
    "too many requests": (BUSY, 503),
    "forbidden": (said(b"", "403 Forbidden"), 502),
    "a challenge of no kind": (said(b"", "401 Unauthorized"), 502),
    "a challenge for a password": (said(b"", "401 Unauthorized", 'WWW-Authenticate: Basic realm="x"'), 502),
    "a teapot": (said(b"", "418 I'm a teapot"), 502),
    "silence": (SILENT, 504),
    "no HTTP": (Said((b"SSH-2.0-OpenSSH_9.2\r\n",), "close"), 503),
    "nothing": (Said((), "close"), 503),
    "a redirect to nowhere": (said(b"", "307 Temporary Redirect"), 502),
    "a redirect to a file": (said(b"", "307 Temporary Redirect", "Location: file:///etc/passwd"), 502),
    "a loop of redirects": (said(b"", "307 Temporary Redirect", "Location: ?again"), 502),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_no_failure_is_an_absence_and_the_log_says_whose_it_is(case: Case, failure: str) -> None:
    answer, status = FAILURES[failure]
    case.manifest("v1")
    _, blob = case.blob()
    case.script = lambda _: answer
    for path in ("manifests/v1",) if failure == "silence" else ("manifests/v1", blob):
        found = case.get(path)
        refused(found, status, "UNAVAILABLE")
        assert f"({case.name})" in found.json["errors"][0]["message"]
        assert (found.get("retry-after") is not None) is (status in (503, 504))
    assert f"({case.name})" in case.registry.log
    assert case.leaves_nothing()


@pytest.mark.parametrize("failure", [name for name in FAILURES if name != "silence"])
def test_an_old_tag_is_better_than_none_and_says_that_it_is_old(case: Case, failure: str) -> None:
    content, digest = case.manifest("v1")
    assert case.get("manifests/v1").body == content
    case.script = lambda _: FAILURES[failure][0]
    stale = case.get("manifests/v1")
    assert (stale.status, stale.body) == (200, content)
    assert "may be out of date" in stale["warning"]
    assert case.get(f"manifests/{digest}").get("warning") is None


def test_an_upstream_that_wants_to_be_left_alone_is(case: Case) -> None:
    case.manifest("v1")
    case.script = lambda _: BUSY
    assert 5 <= int(case.get("manifests/v1")["retry-after"]) <= 7
    before = len(case.asked)
    for tag in ("v1", "v2"):
        assert 4 <= int(case.get(f"manifests/{tag}")["retry-after"]) <= 7
    assert len(case.asked) == before


def test_a_lying_blob_is_never_whole_and_never_stored(case: Case) -> None:
    content, path = case.blob(100_000)
    honest = case.content[path]
    case.script = lambda _: said(unlike(content))
    with pytest.raises(Closed):
        case.get(path)
    refused(case.get(path), 502, "UNAVAILABLE")
    assert case.leaves_nothing()
    assert case.content[path] == honest


def test_no_range_of_a_lying_blob_is_whole(case: Case) -> None:
    """The lie is in the first byte; the slices come from behind it."""
    content, path = case.blob(100_000)
    case.script = lambda _: said(unlike(content))
    with pytest.raises(Closed):
        case.get(path, [("Range", "bytes=100-199")])


def test_a_small_lying_blob_is_an_error_before_a_byte_of_it_is_sent(case: Case) -> None:
    content, path = case.blob(1)
    case.script = lambda _: said(unlike(content))
    refused(case.get(path), 502, "UNAVAILABLE")
    assert case.leaves_nothing()


def test_a_lying_manifest_is_refused(case: Case) -> None:
    content, digest = case.manifest("v1")
    other = content.replace(b"note", b"mote")
    case.content["manifests/v1"] = case.content[f"manifests/{digest}"] = other, case.content["manifests/v1"][1]
    refused(case.get(f"manifests/{digest}"), 502, "UNAVAILABLE")
    case.script = lambda asked: said(
        other, "200 OK", "Content-Type: application/vnd.oci.image.manifest.v1+json", f"Docker-Content-Digest: {digest}"
    )
    refused(case.get("manifests/v1"), 502, "UNAVAILABLE")


def test_a_body_that_breaks_off_is_continued(case: Case) -> None:
    content, path = case.blob(50_000)

    def breaking(asked: Asked) -> Said | None:
        if asked.values("range"):
            return None
        return said(content[:20_000], "200 OK", length=len(content), then="close")

    case.script = breaking
    assert case.get(path).body == content
    assert [each.values("range") for each in case.asked] == [[], ["bytes=20000-"]]
    assert case.get(path).body == content
    assert len(case.asked) == 2


def test_a_body_that_breaks_off_for_good_is_never_whole(case: Case) -> None:
    content, path = case.blob(50_000)
    case.script = lambda asked: (
        said(content[:20_000], "200 OK", length=len(content), then="close")
        if not asked.values("range")
        else said(b"", "404 Not Found")
    )
    with pytest.raises(Closed):
        case.get(path)
    assert case.leaves_nothing()


def test_a_body_without_a_length_is_served_once_it_is_known_to_be_right(case: Case) -> None:
    content, path = case.blob(30_000)
    chunks = f"{len(content):x}\r\n".encode() + content + b"\r\n0\r\n\r\n"
    case.script = lambda _: Said((b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks,))
    assert case.get(path).body == content
    assert case.get(path).body == content
    assert len(case.asked) == 1


def test_a_body_that_goes_on_and_on_is_refused(case: Case) -> None:
    content, path = case.blob(30_000)
    chunks = f"{len(content) + 1:x}\r\n".encode() + content + b"!\r\n0\r\n\r\n"
    case.script = lambda _: Said((b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks,))
    refused(case.get(path), 502, "UNAVAILABLE")
    assert case.leaves_nothing()


def test_a_manifest_that_is_too_long_is_refused(case: Case) -> None:
    case.script = lambda _: said(b" " * (6 << 20), "200 OK", "Content-Type: application/json")
    refused(case.get("manifests/v1"), 502, "UNAVAILABLE")


def test_an_upstream_that_fails_again_and_again_is_left_alone_and_comes_back(case: Case) -> None:
    content, digest = case.manifest("v1")
    case.script = lambda _: said(b"", "500 Internal Server Error")
    for _ in range(3):
        refused(case.get(f"manifests/{digest}"), 503, "UNAVAILABLE")
    asked = len(case.asked)
    answer = case.get(f"manifests/{digest}")
    refused(answer, 503, "UNAVAILABLE")
    assert "it has failed 3 times" in answer.json["errors"][0]["message"]
    assert len(case.asked) == asked
    assert digest_of(content) == digest


def test_what_one_repository_gets_does_not_take_the_upstream_from_others(case: Case) -> None:
    """Three pulls of something that cannot be used, such as a manifest that is too long, made everybody wait: the
    upstream counted as ill."""
    nowhere = said(b"", "307 Temporary Redirect", "Location: file:///etc/passwd")
    too_long = said(b" " * (6 << 20), "200 OK", "Content-Type: application/json")
    answers = [HTML, nowhere, too_long, HTML, nowhere]
    case.script = lambda _: answers.pop()
    for number in range(5):
        refused(case.get(f"manifests/broken-{number}"), 502, "UNAVAILABLE")
    case.script = lambda _: None
    content, digest = case.manifest("v1")
    assert case.get(f"manifests/{digest}").body == content


def test_nobody_is_told_to_come_back_in_thirty_years(case: Case) -> None:
    case.script = lambda _: said(b"", "429 Too Many Requests", "Retry-After: 999999999")
    assert case.get("manifests/v1")["retry-after"] == str(6 * 3600)


def test_bytes_that_are_here_are_given_also_when_the_upstream_does_not_say_how_many_there_are(case: Case) -> None:
    """A blob that another name of the same repository has already was a 502."""
    content, path = case.blob()
    assert case.get(path).body == content
    assert case.leaves_nothing()
    case.script = lambda _: Said((b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",))
    with case.client() as client:
        other = client.get(f"/v2/{case.name}/other/{path}")
    assert (other.status, other.body) == (200, content)
