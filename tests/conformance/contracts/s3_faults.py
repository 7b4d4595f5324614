"""A bucket of a server that answers as a test says."""

from __future__ import annotations

from typing import Any

import anyio

from angos.runtime.client.url import parse_url
from angos.runtime.stores.s3.options import Credentials, S3Options
from angos.runtime.stores.s3.store import S3Store
from angos.sansio.effects import Effect
from angos.sansio.secret import Secret
from tests.conformance.scripted_server import Said, ScriptedServer, said

CANARY = "canary-secret-key"
TOKEN = "canary-session-token"


def options_of(server: ScriptedServer, **changes: Any) -> S3Options:
    """The bucket ``images`` of this server, impatiently asked."""
    keys = Credentials("AKID", Secret(CANARY), Secret(TOKEN))
    options: dict[str, Any] = {"credentials": keys, "attempt_seconds": 5.0, **changes}
    return S3Options(parse_url(server.origin), "images", "eu-central-1", **options)


def ask(server: ScriptedServer, *effects: Effect[Any], backend: str = "asyncio", **changes: Any) -> list[Any]:
    """What a new store replies to the effects, one after the other; a failure is a reply too."""

    async def all_of_them() -> list[Any]:
        store = S3Store(options_of(server, **changes))
        store.tried = True  # scripts are about what the effects ask
        replies = []
        for effect in effects:
            perform = getattr(store, METHODS[type(effect).__name__])
            try:
                replies.append(await perform(effect))
            except Exception as error:
                replies.append(error)
        await store.close()
        return replies

    return anyio.run(all_of_them, backend=backend)


METHODS = {
    "ReadKey": "read_key",
    "StatKey": "stat_key",
    "ListKeys": "list_keys",
    "ListFolders": "list_folders",
    "CreateKeys": "create_keys",
    "DeleteKeys": "delete_keys",
    "HashParts": "hash_parts",
    "SignUrl": "sign_url",
    "DiscardPart": "discard_part",
    "DiscardUpload": "discard_upload",
}


def refused(status: str, code: str) -> Said:
    """An error document."""
    return said(f"<Error><Code>{code}</Code><Message>{CANARY}</Message></Error>".encode(), status)


def listing(*keys: str, truncated: str = "false", token: str = "") -> Said:
    """An answer to ListObjectsV2."""
    contents = "".join(f"<Contents><Key>{key}</Key><Size>0</Size></Contents>" for key in keys)
    token = f"<NextContinuationToken>{token}</NextContinuationToken>" if token else ""
    truth = f"<IsTruncated>{truncated}</IsTruncated>" if truncated else ""
    return said(f"<ListBucketResult>{truth}{token}{contents}</ListBucketResult>".encode())
