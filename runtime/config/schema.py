"""Which keys a configuration may have, what their values may be, and what becomes of them.

Plain code instead of a validation library, because it is imported at every start. All problems are reported at once,
each with the file, the key, what was found and what is allowed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, get_args, get_type_hints

from angos.runtime.access.settings import AccessSettings
from angos.runtime.config.file import BadConfiguration, Found, Problem, Table, read_files
from angos.runtime.observability.settings import ObservabilityOptions
from angos.runtime.server.limits import ServerOptions
from angos.runtime.server.tls import TlsOptions
from angos.sansio.config import RegistryConfig

DEFAULT_ROOT = Path("angos-data")


@dataclass(frozen=True, slots=True)
class DirectoryConfig:
    """A store in a directory."""

    root_dir: Path
    sync_to_disk: bool = True
    """Wait for the disk before anything is acknowledged. Without it, a power cut may lose what was."""


@dataclass(frozen=True, slots=True)
class Configuration:
    """Everything that can be configured, valid."""

    server: ServerOptions = field(default_factory=ServerOptions)
    registry: RegistryConfig = field(default_factory=RegistryConfig)
    blob_store: DirectoryConfig = field(default_factory=lambda: DirectoryConfig(DEFAULT_ROOT))
    metadata_store: DirectoryConfig | None = None
    """None: the blob store keeps the metadata too."""
    tls: TlsOptions | None = None
    """None: plain HTTP."""
    access: AccessSettings = field(default_factory=AccessSettings)
    observability: ObservabilityOptions = field(default_factory=ObservabilityOptions)
    warnings: tuple[str, ...] = ()
    """What is allowed but hardly meant; for the operator."""

    def named_files(self) -> tuple[Path, ...]:
        """The files that were read because the configuration names them, and whose changes count only when it is
        loaded again. Files with a token of the registry itself are not among them: they are read for every use."""
        named: list[Path | None] = []
        if self.tls is not None:
            named += [self.tls.server_certificate_bundle, self.tls.server_private_key, self.tls.client_ca_bundle]
        for endpoint in (*self.access.providers, *self.access.webhooks):
            tls = endpoint.tls
            named += [tls.server_ca_bundle, tls.client_certificate_bundle, tls.client_private_key]
        return tuple(dict.fromkeys(path for path in named if path is not None))


def load_configuration(files: Sequence[Path], contents: Sequence[bytes] | None = None) -> Configuration:
    """Read, merge and check configuration files. Raises `BadConfiguration` with every problem there is.

    With `contents`, what the files held when somebody read them counts: so several processes load the same.
    """
    problems: list[Problem] = []
    found = _read(read_files(files, contents), SCHEMA, "", problems)
    if problems:
        raise BadConfiguration(problems)
    server, registry = found.get("server", {}), found.get("global", {})
    blob_store, metadata_store = found.get("blob_store", {}).get("fs"), found.get("metadata_store", {}).get("fs")
    return Configuration(
        ServerOptions(**{_SERVER_FIELDS.get(key, key): value for key, value in server.items()}),
        RegistryConfig(**{_REGISTRY_FIELDS.get(key, key): value for key, value in registry.items()}),
        DirectoryConfig(DEFAULT_ROOT) if blob_store is None else DirectoryConfig(**blob_store),
        None if metadata_store is None else DirectoryConfig(**metadata_store),
    )


# --- values -----------------------------------------------------------------------------------------------------------


class NotAllowed(Exception):
    """A value that a key cannot have; says what is allowed."""


@dataclass(frozen=True, slots=True)
class Value:
    """A key with a value: how it is checked and converted."""

    read: Callable[[object], object]
    """Raises `NotAllowed`."""
    required: bool = False


Schema = Mapping[str, "Value | Mapping[str, Any]"]


def flag(value: object) -> bool:
    """True or false."""
    if isinstance(value, bool):
        return value
    raise NotAllowed("true or false")


def text(value: object) -> str:
    """Any text, the empty one included."""
    if isinstance(value, str):
        return value
    raise NotAllowed("a text")


def folder(value: object) -> Path:
    """The path of a folder. An empty one would mean the working directory, which nobody wants."""
    if isinstance(value, str) and value.strip() and "\0" not in value:
        return Path(value)
    raise NotAllowed("the path of a folder")


def whole(least: int, most: int | None = None) -> Callable[[object], int]:
    """A whole number within bounds."""

    def read(value: object) -> int:
        if (
            isinstance(value, int)
            and not isinstance(value, bool)
            and least <= value
            and (most is None or value <= most)
        ):
            return value
        raise NotAllowed(f"a whole number of at least {least}" if most is None else f"a number from {least} to {most}")

    return read


def seconds(value: object) -> float:
    """A time."""
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value > 0:
        return float(value)
    raise NotAllowed("a number of seconds above 0")


_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?(?:([KkMGT])(i?)B|B)?")


def size(value: object) -> int:
    """A number of bytes, or a text with a unit: ``5MiB`` is 5 times 1024 times 1024, ``5MB`` 5 million."""
    found: float = 0
    if type(value) is int:
        found = value
    elif isinstance(value, str) and (match := _SIZE.fullmatch(value)):
        power = " KMGT".index((match[2] or " ").upper())
        found = float(match[1]) * (1024 if match[3] else 1000) ** power
    if found >= 1:
        return int(found)
    raise NotAllowed('a size of at least one byte, such as "5MiB" or "100GiB"')


def one_of(*choices: str) -> Callable[[object], str]:
    """One of some words."""

    def read(value: object) -> str:
        if isinstance(value, str) and value in choices:
            return value
        raise NotAllowed(" or ".join(f'"{choice}"' for choice in choices))

    return read


# --- the keys ---------------------------------------------------------------------------------------------------------

_SERVER_FIELDS = {"bind_address": "host"}
_REGISTRY_FIELDS = {"max_manifest_size": "manifest_size_max", "max_blob_size": "blob_size_max"}


def _server_schema() -> dict[str, Value]:
    """The options of the server under their own names, except for those that operators know by another one."""
    hints = get_type_hints(ServerOptions)
    special = {"host": text, "port": whole(0, 65535), "workers": whole(1, 1024)}
    keys = {name: key for key, name in _SERVER_FIELDS.items()}
    names = [option.name for option in fields(ServerOptions)]
    return {keys.get(name, name): Value(special.get(name) or _reader(name, hints[name])) for name in names}


def _reader(name: str, hint: Any) -> Callable[[object], object]:
    choices = get_args(hint)
    if hint is bool:
        return flag
    if "_size_" in name or name.endswith("_size"):
        return size
    if hint is float:
        return seconds
    if hint is int or int in choices:
        return whole(1)
    if choices and all(isinstance(choice, str) for choice in choices):
        return one_of(*choices)
    return text


_DIRECTORY = {"root_dir": Value(folder, required=True), "sync_to_disk": Value(flag)}

SCHEMA: Schema = {
    "server": _server_schema(),
    "global": {
        "max_manifest_size": Value(size),
        "max_blob_size": Value(size),
        "allow_missing_manifest_references": Value(flag),
    },
    "blob_store": {"fs": _DIRECTORY},
    "metadata_store": {"fs": _DIRECTORY},
}


# --- reading ----------------------------------------------------------------------------------------------------------


def _read(table: Table, schema: Schema, path: str, problems: list[Problem]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key, found in table.entries.items():
        where = f"{path}{_shown_key(key)}"
        expected = schema.get(key)
        if expected is None:
            problems.append(Problem(found.file, where, f"unknown key; {_suggestion(key, schema, path)}"))
        elif isinstance(expected, Value):
            if isinstance(found, Table):
                problems.append(Problem(found.file, where, "found a table, a value is needed"))
                continue
            try:
                values[key] = expected.read(found.value)
            except NotAllowed as allowed:
                problems.append(Problem(found.file, where, f"found {_shown(found.value)}; allowed is {allowed}"))
        elif isinstance(found, Found):
            problems.append(Problem(found.file, where, f"found {_shown(found.value)}; a table [{where}] is needed"))
        else:
            values[key] = _read(found, expected, f"{where}.", problems)
    for key, expected in schema.items():
        if isinstance(expected, Value) and expected.required and key not in table.entries:
            problems.append(Problem(table.file, f"{path}{key}", "is missing"))
    return values


def _suggestion(key: str, schema: Schema, path: str) -> str:
    from difflib import get_close_matches  # only needed for a person who has to wait anyway

    if near := get_close_matches(key, schema, n=1):
        return f"did you mean {path}{near[0]}?"
    where = f"in [{path[:-1]}]" if path else "at the top"
    return f"known {where}: {', '.join(sorted(schema))}"


def _shown_key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else repr(key)


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    shown = f'"{value}"' if isinstance(value, str) else str(value)
    return shown if len(shown) <= 80 else f"{shown[:77]}..."
