"""Whose requests are signed: configured keys, or those that aioboto3 finds.

Amazon's software looks for keys in environment variables, shared files and profiles, for a role of the pod (web
identity) and for a role of the machine (instance metadata), and fetches new ones before they expire. That is what
botocore is good at, so it is asked, on asyncio, when no keys are configured; nobody else pays for it.
"""

from __future__ import annotations

from typing import Any

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
                self._found = await _find()
            frozen = await self._found.get_frozen_credentials()  # new ones when the old ones are about to expire
        except CredentialsMissing:
            raise
        except Exception as error:  # botocore has dozens of kinds; their texts may quote what was found
            raise CredentialsMissing(f"looking for keys failed with {type(error).__name__}") from None
        token = None if frozen.token is None else Secret(frozen.token)
        return Credentials(frozen.access_key, Secret(frozen.secret_key), token)


async def _find() -> Any:
    try:
        import aioboto3  # type: ignore[import-not-found,import-untyped,unused-ignore]
    except ImportError:
        raise CredentialsMissing(
            "no access_key_id is configured, and aioboto3, which finds keys elsewhere, is not installed "
            "(pip install 'angos[s3]')"
        ) from None
    found = await aioboto3.Session().get_credentials()
    if found is None:
        raise CredentialsMissing(
            "no access_key_id is configured, and there are no keys in the environment, in a profile or in a role"
        )
    return found
