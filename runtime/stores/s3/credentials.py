"""Whose requests are signed: configured keys, or those that botocore finds.

Amazon's software looks for keys in environment variables, shared files and profiles, for a role of the pod (web
identity) and for a role of the machine (instance metadata), and fetches new ones before they expire. That is what
botocore is good at, so it is asked when no keys are configured, in a worker thread, since it waits for files and
servers; nobody else pays for it. It is in aioboto3 and boto3 too, whichever of them somebody has installed.
"""

from __future__ import annotations

import logging
from typing import Any

from anyio.to_thread import run_sync

from angos.runtime.stores.s3.options import Credentials
from angos.sansio.secret import Secret


class CredentialsMissing(Exception):
    """There are no keys to sign with. Says where they were looked for."""


class CredentialSource:
    """The keys of the moment."""

    def __init__(self, configured: Credentials | None) -> None:
        self._configured = configured
        self._found: Any = None

    async def current(self) -> Credentials:
        """Fails with `CredentialsMissing`."""
        if self._configured is not None:
            return self._configured
        try:
            if self._found is None:
                self._found = await run_sync(_find)
            found = self._found
            if hasattr(found, "refresh_needed") and found.refresh_needed():  # soon: one asks, others use the old ones
                frozen = await run_sync(found.get_frozen_credentials)
            else:
                frozen = found.get_frozen_credentials()
        except CredentialsMissing:
            raise
        except Exception as error:  # botocore has dozens of kinds; their texts may quote what was found
            raise CredentialsMissing(f"looking for keys failed with {type(error).__name__}") from None
        token = None if frozen.token is None else Secret(frozen.token)
        return Credentials(frozen.access_key, Secret(frozen.secret_key), token)


def _find() -> Any:
    try:
        from botocore.session import get_session  # type: ignore[import-untyped,unused-ignore]
    except ImportError:
        raise CredentialsMissing(
            "no access_key_id is configured, and botocore, which finds keys elsewhere, is not installed "
            "(pip install 'angos[s3]')"
        ) from None
    log = logging.getLogger("botocore")
    if log.level == logging.NOTSET:
        log.setLevel(logging.CRITICAL)  # it logs what went wrong with a traceback, and we say it too
    found = get_session().get_credentials()
    if found is None:
        raise CredentialsMissing(
            "no access_key_id is configured, and there are no keys in the environment, in a profile or in a role"
        )
    return found
