"""What a request is about to do, as policies and webhooks see it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from angos.sansio.access.scope import Scope
from angos.sansio.http.query import Query, asked_artifact_types, asked_page_size
from angos.sansio.http.route import (
    Blob,
    Catalog,
    Endpoint,
    History,
    ManifestOf,
    Referrers,
    Restore,
    Tags,
    Upload,
    Uploads,
    VersionCheck,
)
from angos.sansio.oci.digest import Digest
from angos.sansio.oci.reference import Namespace

INTEGER_MAX = (1 << 63) - 1  # of the language that rules are written in

_VERB = {
    "get-blob": "pull",
    "get-manifest": "pull",
    "get-referrers": "pull",
    "list-history": "pull",
    "list-tags": "pull",
    "start-upload": "push",
    "mount-blob": "push",
    "get-upload": "push",
    "update-upload": "push",
    "complete-upload": "push",
    "cancel-upload": "push",
    "put-manifest": "push",
    "delete-blob": "delete",
    "delete-manifest": "delete",
}


@dataclass(frozen=True, slots=True)
class Action:
    """A name, and what else the request says, as far as it says it."""

    name: str
    namespace: Namespace | None = None
    details: Mapping[str, Any] = field(default_factory=dict)
    """Plain values: texts, whole numbers, lists of texts."""

    def __hash__(self) -> int:
        return hash((self.name, self.namespace))  # the details are compared, but have no hash

    def variables(self) -> dict[str, Any]:
        """The variable ``request`` of policies: flat, and without what the request does not have."""
        variables: dict[str, Any] = {"action": self.name}
        if self.namespace is not None:
            variables["namespace"] = self.namespace
        variables.update(self.details)
        return variables

    def scopes(self) -> tuple[Scope, ...]:
        """What a token must be good for. Pushing asks for pulling too, as clients look before they push."""
        if self.name == "list-catalog":
            return (Scope("registry", "catalog", ("*",)),)
        verb = _VERB.get(self.name)
        if verb is None or self.namespace is None:
            return ()
        verbs = ("pull", "push") if verb == "push" else (verb,)
        return (Scope("repository", self.namespace, verbs),)

    def is_covered_by(self, scopes: tuple[Scope, ...]) -> bool:
        """True when a token of these scopes may be used for this."""
        verb = _VERB.get(self.name)
        if verb is not None and self.namespace is not None:
            needed = Scope("repository", self.namespace, (verb,))
            return any(scope.covers(needed) for scope in scopes)
        return all(any(scope.covers(needed) for scope in scopes) for needed in self.scopes())


def read_blob(namespace: Namespace, digest: Digest) -> Action:
    """Reading a blob, which mounting it elsewhere amounts to."""
    return Action("get-blob", namespace, {"digest": str(digest)})


def action_of(method: str, endpoint: Endpoint, query: Query) -> Action | None:
    """The action of a request; None for what needs no permission or does not exist. HEAD is GET."""
    method = "GET" if method == "HEAD" else method
    match method, endpoint:
        case "GET", VersionCheck():
            return Action("get-api-version")
        case "GET", Catalog():
            return Action("list-catalog", None, _page(query))
        case "GET", Tags(namespace):
            return Action("list-tags", namespace, _page(query))
        case "GET", History(namespace):
            return Action("list-history", namespace, _page(query, reference=query.get("tag")))
        case "POST", Restore(namespace):
            # A push of what is here already: whoever may not push may not do this, whatever rules know of it.
            tag = query.get("tag")
            return Action("put-manifest", namespace, _present(reference=tag, tags=None if tag is None else [tag]))
        case "GET", Blob(namespace, digest):
            return read_blob(namespace, digest)
        case "DELETE", Blob(namespace, digest):
            return Action("delete-blob", namespace, {"digest": str(digest)})
        case "POST", Uploads(namespace):
            return _start(namespace, query)
        case _, Upload(namespace, upload_id):
            return _upload(method, namespace, upload_id, query)
        case "GET", ManifestOf(namespace, reference):
            return Action("get-manifest", namespace, {"reference": str(reference)})
        case "DELETE", ManifestOf(namespace, reference):
            return Action("delete-manifest", namespace, {"reference": str(reference)})
        case "PUT", ManifestOf(namespace, Digest() as digest):
            details = {"reference": str(digest), "digest": str(digest), "tags": query.all("tag")}
            return Action("put-manifest", namespace, details)
        case "PUT", ManifestOf(namespace, tag):
            return Action("put-manifest", namespace, {"reference": str(tag), "tags": [str(tag)]})
        case "GET", Referrers(namespace, subject):
            # Several ask for more than any one of them says, as none does.
            types = asked_artifact_types(query)
            artifact_type = types[0] if len(types) == 1 else None
            return Action("get-referrers", namespace, _page(query, digest=str(subject), artifact_type=artifact_type))
        case _:
            return None


def _start(namespace: Namespace, query: Query) -> Action:
    mount = query.get("mount")
    if mount is not None:
        return Action("mount-blob", namespace, _present(digest=mount, **{"from": query.get("from")}))
    details = _present(digest=query.get("digest"), digest_algorithm=query.get("digest-algorithm"))
    return Action("start-upload", namespace, details)


def _upload(method: str, namespace: Namespace, upload_id: str, query: Query) -> Action | None:
    names = {"GET": "get-upload", "PATCH": "update-upload", "PUT": "complete-upload", "DELETE": "cancel-upload"}
    name = names.get(method)
    if name is None:
        return None
    digest = query.get("digest") if name == "complete-upload" else None
    return Action(name, namespace, _present(session_id=upload_id, digest=digest))


def _page(query: Query, **more: str | None) -> dict[str, Any]:
    size = asked_page_size(query)
    return _present(n=None if size is None else min(size, INTEGER_MAX), last=query.get("last"), **more)


def _present(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
