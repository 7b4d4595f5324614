"""The front door: a parsed request becomes an operation that ends in a response, whatever happens on the way."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, assert_never

from angos.sansio.blobs import delete_blob, get_blob
from angos.sansio.catalog import list_catalog
from angos.sansio.config import RegistryConfig
from angos.sansio.effects import EffectError, ListKeys
from angos.sansio.errors import Invalid, RegistryError
from angos.sansio.history_endpoints import list_history, post_restore
from angos.sansio.http.error_body import error_response, refusal_of
from angos.sansio.http.message import Absent, Header, Inline, Request, Response
from angos.sansio.http.query import Query
from angos.sansio.http.route import (
    Blob,
    Catalog,
    Endpoint,
    Health,
    History,
    ManifestOf,
    Readiness,
    Referrers,
    Restore,
    Tags,
    TokenEndpoint,
    Upload,
    Uploads,
    VersionCheck,
    no_endpoint,
    parse_endpoint,
)
from angos.sansio.layout import CATALOG_PREFIX
from angos.sansio.manifests import delete_manifest, get_manifest, put_manifest
from angos.sansio.oci.digest import Digest
from angos.sansio.oci.reference import Tag, parse_namespace
from angos.sansio.operation import Operation
from angos.sansio.referrers import list_referrers
from angos.sansio.tags import delete_tag, list_tags
from angos.sansio.uploads import append_to_upload, cancel_upload, finish_upload, show_upload, start_upload

if TYPE_CHECKING:
    from angos.sansio.access.authorize import Caller

EVERY_ANSWER: tuple[Header, ...] = (
    ("Docker-Distribution-API-Version", "registry/2.0"),  # old clients take its absence for "no registry"
    ("X-Content-Type-Options", "nosniff"),
)

JSON: tuple[Header, ...] = (("Content-Type", "application/json"),)


def handle(request: Request, config: RegistryConfig) -> Operation[Response]:
    """The operation that answers this request. It never raises for anything that a client or a store can cause."""
    return Operation(_respond(request, config))


async def _respond(request: Request, config: RegistryConfig) -> Response:
    try:
        response = await _dispatch(request, config)
    except RegistryError as error:
        response = error_response(error)
    except EffectError as error:
        response = error_response(refusal_of(error))
    body = response.body
    if request.method == "HEAD" and not isinstance(body, Absent):
        body = Absent(response.content_length or 0)
    return Response(response.status, EVERY_ANSWER + response.headers, body)


async def _dispatch(request: Request, config: RegistryConfig) -> Response:
    path, _, text = request.target.partition("?")
    endpoint = parse_endpoint(path)
    query = Query(text)
    mirrored = None
    if text and "ns=" in text and config.repositories:
        endpoint, mirrored = _mirrored(request.method, endpoint, query, config)
    response = await _answer(request, path, endpoint, query, config)
    return response if mirrored is None else replace(response, headers=(*response.headers, ("OCI-Namespace", mirrored)))


def _mirrored(method: str, endpoint: Endpoint, query: Query, config: RegistryConfig) -> tuple[Endpoint, str | None]:
    """The endpoint that a pull is meant for which names the host whose mirror it wants (distribution-spec, Proxying),
    and that host as it was sent; None when no repository is a mirror of it."""
    host = query.get("ns")
    if method not in ("GET", "HEAD") or not host or not isinstance(endpoint, ManifestOf | Blob | Tags | Referrers):
        return endpoint, None
    repository = config.mirror_of(host)
    if repository is None or not host.isprintable() or not host.isascii():
        return endpoint, None
    if config.repository(endpoint.namespace) is not repository:
        try:
            endpoint = replace(endpoint, namespace=parse_namespace(f"{repository.namespace}/{endpoint.namespace}"))
        except Invalid as error:
            raise RegistryError(400, "NAME_INVALID", str(error)) from None
    return endpoint, host


async def _answer(request: Request, path: str, endpoint: Endpoint, query: Query, config: RegistryConfig) -> Response:
    access = config.access
    caller = None
    if access is not None:
        # An open registry starts without what it does not need.
        from angos.sansio.access.authorize import admit

        caller = await admit(request, endpoint, query, config, access)
    method = "GET" if request.method == "HEAD" else request.method
    if config.has_upstreams and (namespaced := getattr(endpoint, "namespace", None)) is not None:
        repository = config.repository(namespaced)
        if repository is not None and repository.upstreams:
            # A registry without upstreams starts without what it does not need.
            from angos.sansio.upstream.answering import answer_through

            response = await answer_through(method, endpoint, request, query, config, repository)
            if response is not None:
                return response
    match method, endpoint:
        case "GET", ManifestOf(namespace, reference):
            return await get_manifest(namespace, reference, request, config)
        case "GET", Blob(namespace, digest):
            return await get_blob(namespace, digest, request, config)
        case "POST", Uploads(namespace):
            return await start_upload(namespace, request, query, config, caller)
        case "PATCH", Upload(namespace, upload_id):
            return await append_to_upload(namespace, upload_id, request, query, config)
        case "PUT", Upload(namespace, upload_id):
            return await finish_upload(namespace, upload_id, request, query, config)
        case "GET", Upload(namespace, upload_id):
            return await show_upload(namespace, upload_id, query, config)
        case "DELETE", Upload(namespace, upload_id):
            return await cancel_upload(namespace, upload_id)
        case "PUT", ManifestOf(namespace, reference):
            return await put_manifest(namespace, reference, request, query, config, _name_of(caller))
        case "DELETE", ManifestOf(namespace, Digest() as digest):
            return await delete_manifest(namespace, digest, config, _name_of(caller))
        case "DELETE", ManifestOf(namespace, Tag() as tag):
            return await delete_tag(namespace, tag, _name_of(caller))
        case "DELETE", Blob(namespace, digest):
            return await delete_blob(namespace, digest, config)
        case "GET", Tags(namespace):
            return await list_tags(namespace, query, config)
        case "GET", Referrers(namespace, subject):
            return await list_referrers(namespace, subject, query, config)
        case "GET", Catalog():
            return await list_catalog(query, config)
        case "GET", History(namespace):
            return await list_history(namespace, query, config)
        case "POST", Restore(namespace):
            return await post_restore(namespace, query, config, _name_of(caller))
        case "GET" | "POST", TokenEndpoint():
            if access is None or access.token_service is None:
                raise no_endpoint(path)
            from angos.sansio.access.token_service import give_token

            return await give_token(request, query, access, access.token_service)
        case "GET", VersionCheck():
            return Response(200, JSON, Inline(b"{}"))
        case "GET", Health():
            return Response(200, JSON, Inline(b'{"status":"ok"}'))
        case "GET", Readiness():
            await ListKeys(CATALOG_PREFIX, limit=1)
            return Response(200, JSON, Inline(b'{"status":"ready"}'))
        case _:
            raise _method_not_allowed(request.method, endpoint)


def _name_of(caller: Caller | None) -> str | None:
    return None if caller is None else caller.authentication.identity.name


def _method_not_allowed(method: str, endpoint: Endpoint) -> RegistryError:
    allowed = ", ".join(_methods(endpoint))
    message = f"{method[:20]} is not possible here, only {allowed}"
    return RegistryError(405, "UNSUPPORTED", message, headers={"Allow": allowed})


def _methods(endpoint: Endpoint) -> tuple[str, ...]:
    match endpoint:
        case ManifestOf():
            return ("GET", "HEAD", "PUT", "DELETE")
        case Blob():
            return ("GET", "HEAD", "DELETE")
        case Uploads() | Restore():
            return ("POST",)
        case TokenEndpoint():
            return ("GET", "HEAD", "POST")
        case Upload():
            return ("GET", "HEAD", "PATCH", "PUT", "DELETE")
        case Tags() | Referrers() | Catalog() | History() | VersionCheck() | Health() | Readiness():
            return ("GET", "HEAD")
        case _:
            assert_never(endpoint)
