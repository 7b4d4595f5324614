"""What is different in a repository with upstreams: pulls may lead there, pushes are refused, deletes are local."""

from __future__ import annotations

from angos.sansio.config import RegistryConfig, RepositoryConfig
from angos.sansio.errors import RegistryError
from angos.sansio.http.message import Request, Response
from angos.sansio.http.query import Query
from angos.sansio.http.route import Blob, Endpoint, ManifestOf, Referrers, Restore, Tags, Upload, Uploads
from angos.sansio.upstream.blobs import get_blob_through
from angos.sansio.upstream.listings import list_referrers_through, list_tags_through
from angos.sansio.upstream.manifests import get_manifest_through


async def answer_through(
    method: str,
    endpoint: Endpoint,
    request: Request,
    query: Query,
    config: RegistryConfig,
    repository: RepositoryConfig,
) -> Response | None:
    """The answer, or None when it is the same as in any other repository. HEAD comes as GET."""
    match method, endpoint:
        case "GET", ManifestOf(namespace, reference):
            return await get_manifest_through(namespace, reference, request, config, repository)
        case "GET", Blob(namespace, digest):
            return await get_blob_through(namespace, digest, request, config, repository)
        case "GET", Tags(namespace):
            return await list_tags_through(namespace, query, config, repository)
        case "GET", Referrers(namespace, subject):
            return await list_referrers_through(namespace, subject, query, config, repository)
        case "PUT", ManifestOf():
            raise no_push(repository, "GET, HEAD, DELETE")
        case ("POST", Uploads() | Restore()) | (_, Upload()):
            raise no_push(repository)
        case _:
            return None


def no_push(repository: RepositoryConfig, allowed: str = "") -> RegistryError:
    """The refusal of a push to a repository with upstreams; `allowed` are the methods that are possible there."""
    message = (
        f"{repository.namespace} is a cache of another registry, so nothing can be pushed to it; push to that registry,"
        " or to a repository of another name here"
    )
    return RegistryError(405, "UNSUPPORTED", message, headers={"Allow": allowed})
