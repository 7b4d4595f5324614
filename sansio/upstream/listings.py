"""Listing through the cache: tags (end-8) and referrers (end-12).

Tags are those of the first upstream that answers, page by page in its own order: people list a mirror to learn what can
be pulled, not what happens to be stored. When nobody can be asked the tags that are stored are listed, with a
``Warning``. Nothing of it is remembered.

Referrers are merged: those that are stored here, and those of the first upstream that answers, whether by the API or,
where that is missing, under the fallback tag. A failure upstream must not hide what is here, but is told.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode

from angos.sansio.compact_json import compact_json, parse_json
from angos.sansio.config import RegistryConfig, RepositoryConfig
from angos.sansio.errors import Invalid, RegistryError
from angos.sansio.http.message import Inline, Response
from angos.sansio.http.query import Query, asked_artifact_types, page_size
from angos.sansio.http.warning import warnings
from angos.sansio.oci.digest import Digest, is_digest
from angos.sansio.oci.media_type import OCI_INDEX
from angos.sansio.oci.reference import Namespace, Tag, referrers_tag
from angos.sansio.referrers import list_referrers
from angos.sansio.tags import list_tags
from angos.sansio.upstream.asking import ask, ask_in_order
from angos.sansio.upstream.config import Upstream
from angos.sansio.upstream.failure import NotThere, UpstreamFailure

LISTING_SIZE_MAX = 4 << 20
FORWARDED_LENGTH_MAX = 1000
DESCRIPTOR_FIELDS = ("mediaType", "digest", "size", "artifactType", "annotations", "platform", "urls")


async def list_tags_through(
    namespace: Namespace, query: Query, config: RegistryConfig, repository: RepositoryConfig
) -> Response:
    """end-8 in a repository with upstreams."""
    size = page_size(query, default=config.page_size_default, largest=config.page_size_max)
    pairs = [(name, value) for name, value in parse_qsl(query.text[:FORWARDED_LENGTH_MAX]) if name not in ("ns", "n")]
    wanted = urlencode([("n", str(size)), *pairs])

    async def question(upstream: Upstream, name: str) -> tuple[list[str], str | None]:
        answer = await ask(
            upstream, name, "GET", f"tags/list?{wanted}", accept="application/json", size_max=LISTING_SIZE_MAX
        )
        tags = _object(answer.body).get("tags")
        if tags is not None and not isinstance(tags, list):
            raise UpstreamFailure("unusable", "its list of tags is none")
        return [tag for tag in tags or [] if _is_tag(tag)], _next_query(answer.get("link"))

    if size == 0:
        return await list_tags(namespace, query, config)
    refusal: RegistryError | None = None
    found = None
    try:
        found = await ask_in_order(repository, namespace, "tags", f"the list of tags of {namespace}", question)
    except RegistryError as error:
        refusal = error
    if refusal is not None:
        return await _stored_tags(namespace, query, config, refusal)
    if found is None:
        return await list_tags(namespace, query, config)
    tags, following = found[1]
    headers = [("Content-Type", "application/json")]
    if following is not None:
        headers.append(("Link", f'</v2/{namespace}/tags/list?{following}>; rel="next"'))
    return Response(200, tuple(headers), Inline(compact_json({"name": namespace, "tags": tags})))


async def _stored_tags(namespace: Namespace, query: Query, config: RegistryConfig, refusal: RegistryError) -> Response:
    try:
        response = await list_tags(namespace, query, config)
    except RegistryError as error:
        if error.status != 404:
            raise
        raise refusal from None  # nobody knows whether there is such a repository
    return _with_warning(response, f"these are the tags that are stored here: {refusal.message}")


async def list_referrers_through(
    namespace: Namespace, subject: Digest, query: Query, config: RegistryConfig, repository: RepositoryConfig
) -> Response:
    """end-12 in a repository with upstreams. Theirs come with the first page."""
    response = await list_referrers(namespace, subject, query, config)
    if query.get("last") or page_size(query, default=1, largest=1) == 0:
        return response

    async def question(upstream: Upstream, name: str) -> list[dict[str, Any]]:
        return await _referrers_at(upstream, name, subject)

    refusal: RegistryError | None = None
    found = None
    try:
        found = await ask_in_order(repository, namespace, "referrers", f"referrers of {namespace}@{subject}", question)
    except RegistryError as error:
        refusal = error
    if refusal is not None:
        return _with_warning(response, f"these are the referrers that are stored here: {refusal.message}")
    if found is None or not isinstance(response.body, Inline):
        return response
    here = parse_json(response.body.value)
    known = {descriptor["digest"] for descriptor in here["manifests"]}
    wanted = asked_artifact_types(query)
    added = [
        descriptor
        for descriptor in found[1]
        if descriptor["digest"] not in known and (not wanted or descriptor.get("artifactType") in wanted)
    ]
    here["manifests"] = sorted((*here["manifests"], *added), key=lambda descriptor: str(descriptor["digest"]))
    return replace(response, body=Inline(compact_json(here)))


async def _referrers_at(upstream: Upstream, name: str, subject: Digest) -> list[dict[str, Any]]:
    for path in (f"referrers/{subject}", f"manifests/{referrers_tag(subject)}"):
        try:
            answer = await ask(upstream, name, "GET", path, accept=OCI_INDEX, size_max=LISTING_SIZE_MAX)
        except NotThere:
            continue
        except UpstreamFailure as failure:
            if failure.outcome != "unusable" or not path.startswith("referrers/"):
                raise
            continue  # an endpoint that it does not know
        manifests = _object(answer.body).get("manifests")
        if isinstance(manifests, list):
            return [_descriptor(one) for one in manifests if _is_descriptor(one)]
        raise UpstreamFailure("unusable", "its list of referrers is none")
    return []


def _object(body: bytes) -> dict[str, Any]:
    try:
        value = parse_json(body)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise UpstreamFailure("unusable", "it sent a list that is no JSON object")
    return value


def _is_tag(value: object) -> bool:
    try:
        return isinstance(value, str) and bool(Tag.parse(value))
    except Invalid:
        return False


def _is_descriptor(value: object) -> bool:
    return (
        isinstance(value, dict)
        and isinstance(value.get("digest"), str)
        and is_digest(value["digest"])
        and isinstance(value.get("mediaType"), str)
        and isinstance(value.get("size"), int)
    )


def _descriptor(value: dict[str, Any]) -> dict[str, Any]:
    return {name: value[name] for name in DESCRIPTOR_FIELDS if name in value}


def _next_query(link: str | None) -> str | None:
    """The query of the following page: the upstream's own words, since some registries page by other than ``last``."""
    if link is None or 'rel="next"' not in link.replace("rel=next", 'rel="next"') or ">" not in link:
        return None
    target = link.partition("<")[2].partition(">")[0]
    pairs = parse_qsl(target.partition("?")[2][:FORWARDED_LENGTH_MAX])
    return urlencode(pairs, quote_via=quote) or None


def _with_warning(response: Response, text: str) -> Response:
    plain = "".join(character if " " <= character <= "~" else "?" for character in text)[:1000]
    return replace(response, headers=(*response.headers, *warnings([plain])))
