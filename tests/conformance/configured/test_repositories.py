"""``[global]`` and ``[repository]``: what may be done to which repository."""

from __future__ import annotations

import pytest

from tests.conformance.configured.configured_registry import ConfiguredRegistry, Start
from tests.conformance.configured.coverage import changes_with
from tests.conformance.oci.content import OCI_MANIFEST, artifact_of

pytestmark = pytest.mark.xdist_group("configured-repositories")

# --- manifests and tags -----------------------------------------------------------------------------------------------


def tag(registry: ConfiguredRegistry, namespace: str, tag: str, kind: str = "a/b") -> int:
    """Push a manifest of this kind; the status."""
    content = artifact_of(kind)
    with registry.connect() as wire:
        fields = (f"Content-Type: {OCI_MANIFEST}", f"Content-Length: {len(content)}")
        wire.ask(f"/v2/{namespace}/manifests/{tag}", *fields, method="PUT", body=content)
        return wire.answer().status


def retag(registry: ConfiguredRegistry, namespace: str, name: str) -> int:
    """Push a tag that is there already, with another manifest."""
    assert tag(registry, namespace, name) == 201
    return tag(registry, namespace, name, "c/d")


@changes_with("global.allow_missing_manifest_references")
def test_manifests_may_have_to_come_last(start: Start, plain: ConfiguredRegistry) -> None:
    assert tag(plain, "a", "1") == 201
    assert tag(start({"global": {"allow_missing_manifest_references": False}}), "a", "1") == 400


@changes_with("global.immutable_tags", "global.immutable_tags_exclusions")
def test_tags_may_have_to_stay(start: Start, plain: ConfiguredRegistry) -> None:
    registry = start({"global": {"immutable_tags": True, "immutable_tags_exclusions": ["^latest$"]}})
    assert retag(plain, "b", "1") == 201
    assert retag(registry, "b", "1") == 409
    assert retag(registry, "b", "latest") == 201


@changes_with("repository.*.immutable_tags", "repository.*.immutable_tags_exclusions")
def test_tags_of_a_repository_may_have_to_stay(start: Start) -> None:
    kept = {"immutable_tags": True, "immutable_tags_exclusions": ["^latest$"]}
    registry = start({"repository": {"kept": kept}})
    for namespace in ("kept", "kept/below"):
        assert retag(registry, namespace, "1") == 409
        assert retag(registry, namespace, "latest") == 201
    assert retag(registry, "other", "1") == 201


# --- policies ---------------------------------------------------------------------------------------------------------


def verdict(registry: ConfiguredRegistry, namespace: str, *fields: str) -> bool:
    """Whether anybody may list the tags of this repository."""
    status = registry.status(f"/v2/{namespace}/tags/list", *fields)
    assert status in (401, 404)
    return status == 404


@changes_with("global.access_policy.default", "global.access_policy.rules")
def test_a_policy_allows_and_denies(start: Start) -> None:
    rules = ["request.namespace == 'a'"]
    deny, allow = (
        start({"global": {"access_policy": {"default": word, "rules": rules}}}) for word in ("deny", "allow")
    )
    assert [verdict(deny, name) for name in ("a", "b")] == [True, False]
    assert [verdict(allow, name) for name in ("a", "b")] == [False, True]


@changes_with("repository.*.access_policy.default", "repository.*.access_policy.rules")
def test_a_policy_of_a_repository_allows_and_denies_there(start: Start) -> None:
    rules = ["request.namespace.endsWith('/a')"]
    repositories = {word: {"access_policy": {"default": word, "rules": rules}} for word in ("deny", "allow")}
    registry = start({"global": {"access_policy": {"default": "allow"}}, "repository": repositories})
    assert [verdict(registry, name) for name in ("deny/a", "deny/b")] == [True, False]
    assert [verdict(registry, name) for name in ("allow/a", "allow/b")] == [False, True]
    assert verdict(registry, "other/a")


@changes_with("global.trusted_proxies")
def test_the_word_of_a_trusted_proxy_counts(start: Start) -> None:
    policy = {"access_policy": {"rules": ["identity.client_ip == '192.0.2.7'"]}}
    trusting, wary = (start({"global": {**policy, "trusted_proxies": list_}}) for list_ in (["127.0.0.0/8"], []))
    forwarded = "X-Forwarded-For: 192.0.2.7"
    assert verdict(trusting, "a", forwarded)
    assert not verdict(trusting, "a")
    assert not verdict(wary, "a", forwarded)
