"""A registry without storage, concurrency or failures: what a single client must be answered, call by call.

The linearizability of registers says that the answers of many clients fit together; this says that they are the right
ones, statuses and lists included.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from urllib.parse import parse_qs, unquote

from angos.sansio.oci.digest import Digest
from angos.simulator.oracle.history import Answer
from angos.simulator.world.client import Call


class Unexpected(AssertionError):
    """The registry answered something else than the model."""


@dataclass(slots=True)
class _Upload:
    namespace: str
    content: bytes = b""


@dataclass(slots=True)
class _Repository:
    blobs: set[str] = field(default_factory=set)
    manifests: dict[str, bytes] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    had: dict[str, bytes] = field(default_factory=dict)
    """Every manifest that was ever pushed."""
    named: set[tuple[str, str]] = field(default_factory=set)
    """Every tag with what it ever named."""
    pulled: set[str] = field(default_factory=set)
    """Tags and digests that somebody has asked for and got."""


class Model:
    """The reference registry. `check` is given every call with its answer, in order."""

    def __init__(self) -> None:
        self._repositories: dict[str, _Repository] = {}
        self._uploads: dict[str, _Upload] = {}
        self._content: dict[str, bytes] = {}

    def check(self, call: Call, answer: Answer) -> None:
        """Raises `Unexpected` when the answer is not that of the model; changes the model as the call does."""
        path, _, query = call.target.removeprefix("/v2/").partition("?")
        parameters = {name: values[0] for name, values in parse_qs(query, keep_blank_values=True).items()}
        if path == "_catalog":
            self._expect(call, answer, 200)
        elif path.startswith("_ext/") and path.endswith("/_restore"):
            self._restore(call, answer, path.removeprefix("_ext/").removesuffix("/_restore"), parameters)
        elif "/blobs/uploads/" in path:
            namespace, _, upload_id = path.partition("/blobs/uploads/")
            self._upload(call, answer, namespace, upload_id, parameters)
        else:
            namespace, kind, name = self._split(path)
            repository = self._repositories.setdefault(namespace, _Repository())
            getattr(self, f"_{kind}")(call, answer, repository, unquote(name), parameters)

    def tags(self, namespace: str) -> list[str]:
        """The tags that a namespace has now, sorted."""
        return sorted(self._repositories.get(namespace, _Repository()).tags)

    def namespaces(self) -> list[str]:
        """The namespaces with a manifest, sorted."""
        return sorted(name for name, repository in self._repositories.items() if repository.manifests)

    def pulled(self, namespace: str) -> set[str]:
        """The tags and digests of manifests that were ever pulled from a namespace."""
        return self._repositories.get(namespace, _Repository()).pulled

    # --- endpoints ----------------------------------------------------------------------------------------------------

    def _upload(self, call: Call, answer: Answer, namespace: str, upload_id: str, parameters: dict[str, str]) -> None:
        repository = self._repositories.setdefault(namespace, _Repository())
        sent = call.body.content if call.body.cut_at is None else call.body.content[: call.body.cut_at]
        whole = call.body.cut_at is None
        if call.method == "POST":
            self._start(call, answer, namespace, repository, sent, whole, parameters)
            return
        upload = self._uploads.get(upload_id)
        if upload is None or upload.namespace != namespace:
            done = call.method == "PUT" and parameters["digest"] in repository.blobs
            self._expect(call, answer, 201 if done else 404)
            return
        if call.method == "DELETE":
            self._expect(call, answer, 204)
            del self._uploads[upload_id]
        elif call.method == "GET":
            self._expect(call, answer, 204)
            self._expect_range(call, answer, upload)
        elif self._is_out_of_order(call, upload):
            self._expect(call, answer, 416)
        elif not whole:
            self._expect(call, answer, 400)
            upload.content += sent
        elif call.method == "PATCH":
            self._expect(call, answer, 202)
            upload.content += sent
            self._expect_range(call, answer, upload)
        else:
            self._finish(call, answer, repository, upload_id, upload.content, sent, parameters["digest"])

    def _start(
        self,
        call: Call,
        answer: Answer,
        namespace: str,
        repository: _Repository,
        sent: bytes,
        whole: bool,
        parameters: dict[str, str],
    ) -> None:
        if (digest := parameters.get("mount")) is not None:
            source = self._repositories.get(parameters["from"], _Repository())
            if digest in source.blobs | repository.blobs:
                self._expect(call, answer, 201)
                repository.blobs.add(digest)
                return
        elif (digest := parameters.get("digest")) is not None:
            right = whole and _hashes_to(sent, digest)
            self._expect(call, answer, 201 if right else 400)
            if right:
                repository.blobs.add(digest)
                self._content[digest] = sent
            return
        self._expect(call, answer, 202)
        self._uploads[answer.headers["location"].rpartition("/")[2]] = _Upload(namespace)

    def _finish(
        self,
        call: Call,
        answer: Answer,
        repository: _Repository,
        upload_id: str,
        before: bytes,
        sent: bytes,
        digest: str,
    ) -> None:
        alone = bool(before) and not call.headers and _hashes_to(sent, digest)
        right = _hashes_to(before + sent, digest) or alone
        self._expect(call, answer, 201 if right else 400)
        if right:
            del self._uploads[upload_id]
            repository.blobs.add(digest)
            self._content[digest] = sent if alone else before + sent

    def _blobs(
        self, call: Call, answer: Answer, repository: _Repository, name: str, parameters: dict[str, str]
    ) -> None:
        if call.method == "DELETE":
            needed = any(name in body.decode() for body in repository.manifests.values())
            there = name in repository.blobs
            self._expect(call, answer, 404 if not there else 405 if needed else 202)
            if there and not needed:
                repository.blobs.remove(name)
            return
        self._expect(call, answer, 200 if name in repository.blobs else 404)
        if name in repository.blobs and call.method == "GET" and answer.body != self._content[name]:
            raise Unexpected(f"{call.method} {call.target}: the bytes are not those that were pushed")

    def _manifests(
        self, call: Call, answer: Answer, repository: _Repository, name: str, parameters: dict[str, str]
    ) -> None:
        digest = name if ":" in name else repository.tags.get(name)
        if call.method == "PUT":
            self._expect(call, answer, 201)
            pushed = str(Digest.of(call.body.content))
            repository.manifests[pushed] = repository.had[pushed] = call.body.content
            if ":" not in name:
                repository.tags[name] = pushed
                repository.named.add((name, pushed))
        elif digest is None or digest not in repository.manifests:
            self._expect(call, answer, 404)
        elif call.method == "DELETE":
            self._expect(call, answer, 202)
            if ":" not in name:
                del repository.tags[name]
            else:
                del repository.manifests[digest]
                repository.tags = {tag: named for tag, named in repository.tags.items() if named != digest}
        else:
            self._expect(call, answer, 200)
            repository.pulled |= {name, digest}
            if call.method == "GET" and answer.body != repository.manifests[digest]:
                raise Unexpected(f"{call.target}: the manifest is not the one that was pushed")

    def _restore(self, call: Call, answer: Answer, namespace: str, parameters: dict[str, str]) -> None:
        """All that was ever deleted can still be restored: no time passes in this registry."""
        repository = self._repositories.setdefault(namespace, _Repository())
        tag, digest = parameters["tag"], parameters["to"]
        if (tag, digest) not in repository.named:
            self._expect(call, answer, 404)
            return
        there = digest in repository.manifests or self._bring_back(repository, digest)
        self._expect(call, answer, 201 if there else 400)
        if there:
            repository.tags[tag] = digest

    def _bring_back(self, repository: _Repository, digest: str) -> bool:
        """A manifest that was deleted, with those that it names, if all of it is there. In the order of the registry:
        what comes back before something is found missing stays."""
        document = json.loads(repository.had[digest])
        children = [child["digest"] for child in document.get("manifests", ())]
        for child in children:
            if (
                child not in repository.manifests
                and child in repository.had
                and not self._bring_back(repository, child)
            ):
                return False
        blobs = [layer["digest"] for layer in (*document.get("layers", ()), *filter(None, [document.get("config")]))]
        if not (repository.blobs.issuperset(blobs) and set(children) <= repository.manifests.keys()):
            return False
        repository.manifests[digest] = repository.had[digest]
        return True

    def _tags(self, call: Call, answer: Answer, repository: _Repository, name: str, parameters: dict[str, str]) -> None:
        if not repository.manifests and answer.status == 404:
            return  # a namespace that holds nothing may be unknown
        self._expect(call, answer, 200)
        after = parameters.get("last", "")
        size = int(parameters.get("n", "1000"))
        wanted = [tag for tag in sorted(repository.tags) if tag > after][:size]
        if json.loads(answer.body)["tags"] != wanted:
            raise Unexpected(f"{call.target}: expected {wanted}, got {answer.body!r}")

    def _referrers(
        self, call: Call, answer: Answer, repository: _Repository, name: str, parameters: dict[str, str]
    ) -> None:
        self._expect(call, answer, 200)
        wanted = sorted(
            digest
            for digest, body in repository.manifests.items()
            if json.loads(body).get("subject", {}).get("digest") == name
        )
        found = [descriptor["digest"] for descriptor in json.loads(answer.body)["manifests"]]
        if found != wanted:
            raise Unexpected(f"{call.target}: expected {wanted}, got {found}")

    # --- small things -------------------------------------------------------------------------------------------------

    @staticmethod
    def _split(path: str) -> tuple[str, str, str]:
        for kind in ("blobs", "manifests", "referrers", "tags"):
            namespace, found, name = path.rpartition(f"/{kind}/")
            if found:
                return namespace, kind, name
        raise Unexpected(f"the model does not know {path}")

    @staticmethod
    def _is_out_of_order(call: Call, upload: _Upload) -> bool:
        text = dict(call.headers).get("content-range")
        return text is not None and int(text.partition("-")[0]) != len(upload.content)

    @staticmethod
    def _expect(call: Call, answer: Answer, status: int) -> None:
        if answer.status != status:
            raise Unexpected(
                f"{call.method} {call.target}: expected {status}, got {answer.status} {answer.body[:200]!r}"
            )

    @staticmethod
    def _expect_range(call: Call, answer: Answer, upload: _Upload) -> None:
        wanted = f"0-{max(len(upload.content) - 1, 0)}"
        if answer.headers.get("range") != wanted:
            raise Unexpected(f"{call.method} {call.target}: expected {wanted}, got {answer.headers.get('range')}")


def _hashes_to(content: bytes, digest: str) -> bool:
    return str(Digest.of(content, digest.partition(":")[0])) == digest
