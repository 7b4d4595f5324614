"""What is said about mistakes in a configuration, and what never is: a secret."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from angos.runtime.__main__ import main
from angos.runtime.config.access_kinds import VARIABLES
from angos.runtime.config.file import BadConfiguration
from angos.runtime.config.known import OTHER_NAMES, SCHEMA, UNSUPPORTED, paths
from angos.runtime.config.reference import example
from angos.runtime.config.schema import DirectoryConfig, load_configuration
from angos.sansio.access.identity import Identity, OidcIdentity
from tests.conformance.certificates import Authority
from tests.conformance.runtime.example_configuration import (
    example_document,
    file_with,
    keys,
    load,
    uncommented,
    with_value,
    write_files,
    written,
)

HASH = "$argon2id$v=19$m=19456,t=2,p=1$bm9ib2R5a25vd3NpdA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
WEBHOOK = "[auth.webhook.gate]\nurl = 'https://example.org'\ntimeout_ms = 1\n"
BUCKET = "bucket = 'images'\nregion = 'us-east-1'\n"
ISSUER = "[auth.oidc.ci]\nissuer = 'https://example.org'\n"


def problems(folder: Path, text: str) -> list[str]:
    with pytest.raises(BadConfiguration) as raised:
        load_configuration([file_with(folder, text)])
    return [str(problem).replace(f"{folder}/", "").removeprefix("angos.toml: ") for problem in raised.value.problems]


def warnings(folder: Path, text: str) -> tuple[str, ...]:
    return load_configuration([file_with(folder, text)]).warnings


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("problems")
    write_files(folder)
    return folder


# --- single values ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[server]\nbind_address = 'a\\nb'", None),
        (
            '[server]\nbind_address = "a\\nb"',
            'server.bind_address: found "a\\nb"; allowed is a text without line breaks',
        ),
        ("[server]\nidle_timeout = 1e9", "allowed is a number of seconds above 0, up to 31622400"),
        (
            "[server]\nport = 0x1_0000_0000_0000_0000_0000",
            "found a number of more than 64 bits; allowed is a number from",
        ),
        ("[global]\nmax_blob_size = '999999999999999999TB'", "allowed is a size"),
        ("[global]\ntrusted_proxies = '10.0.0.0/8'", 'found "10.0.0.0/8"; allowed is a list in square brackets'),
        ("[global]\ntrusted_proxies = ['10.0.0.0/8', '10.0.0.0/33']", "trusted_proxies[1]: found"),
        ("[global]\nimmutable_tags_exclusions = ['ok', '(']", 'exclusions[1]: found "("; it is no regular expression'),
        ("[global]\nimmutable_tags_exclusions = ['']", "allowed is a regular expression"),
        (f"[global]\nimmutable_tags_exclusions = ['{'a' * 1001}']", "it has 1001 characters, 1000 are allowed"),
        ("[global.access_policy]\nrules = ['']", "rules[0]: line 1, column 1: the rule is empty"),
        ("[global.access_policy]\nrules = ['identity.usernam == 1']", "did you mean identity.username?"),
        (
            "[global.access_policy]\nrules = ['identity.oidc.claims.x == 1', 'tru']",
            "rules[1]: line 1, column 1: there is",
        ),
        ("[global.access_policy]\nrules = [true]", "rules[0]: found true; allowed is a rule such as"),
        (
            "[auth.identity.a]\nusername = 'a:b'\npassword = 'x'",
            'auth.identity.a.username: found "a:b"; allowed is a name',
        ),
        ("[auth.identity.' a']", 'auth.identity." a": cannot be called that; allowed is a name'),
        ("[auth.oidc.ci]\nissuer = 'ftp://example.org'", "an address begins with http:// or https://"),
        ("[auth.oidc.ci]\nissuer = 'https://example.org/#x'", "has no #fragment"),
        ("[auth.oidc.ci]\nissuer = 'https://example.org/?x=1'", "an issuer has no query"),
        (
            f"{ISSUER}allowed_algorithms = ['RS256', 'none']",
            'allowed_algorithms[1]: found "none"; allowed is "RS256" or',
        ),
        (f"{ISSUER}allowed_algorithms = ['HS256']", 'found "HS256"; allowed is "RS256" or'),
        (f"{ISSUER}allowed_algorithms = []", "found []; at least 1 must be in the list"),
        (f"{ISSUER}bearer_token_file = 'none'", "auth.oidc.ci.bearer_token_file: none cannot be read: No such file"),
        ("[auth.token_service]\nrealm = 'https://example.org/auth'", "the path of the address must end with it"),
        ("[auth.token_service]\nttl_secs = 86401", "found 86401; allowed is a number from 1 to 86400"),
        ("[auth.token_service]\nsecret_key = 'c2hvcnQ='", "found a text of 8 characters; it has 5 bytes when decoded"),
        (f"{WEBHOOK}bearer_token = 'a b'", "bearer_token: found a text of 3 characters; allowed is a token of letters"),
        (f"{WEBHOOK}forward_headers = ['Host']", 'found "Host"; it is about one connection and cannot be passed on'),
        (f"{WEBHOOK}forward_headers = ['X-Registry-Username']", "the registry fills it itself"),
        (f"{WEBHOOK}forward_headers = ['X-Forwarded-For']", "the registry fills it itself"),
        ("[repository.'Team']", "repository.Team: repository name 'Team' is invalid"),
        ("[observability.metrics]\nlisten = '9090'", 'found "9090"; allowed is an address and a port'),
        (
            "[observability.log.modules]\nangos.access = 'debug'",
            'a name with a dot in it stands in quotes: "angos.access"',
        ),
        ("[server.tls]\nserver_certificate_bundle = '/dev/null'", "is not a regular file"),
        ("[server.tls]\nserver_certificate_bundle = ''", "allowed is the path of a file"),
        ("[cache.redis]", "cache.redis.url: is missing"),
        ("[leases.redis]\nkey_prefix = 'a'", "leases.redis.url: is missing"),
        ("[cache.redis]\nurl = 1", "found a number; allowed is an address such as"),
        ("[cache.redis]\nurl = 'http://example.org'", "found a text of 18 characters; an address is redis://"),
        ("[cache.redis]\nurl = 'redis://example.org?ssl=1'", "there are no options behind a ?"),
        ("[cache.redis]\nurl = 'redis://a:b@c@example.org'", "is percent-encoded"),
        ("[cache.redis]\nurl = 'redis://password@example.org'", ":password for a server without users"),
        ("[cache.redis]\nurl = 'redis://example.org:0'", "a port is a number from 1 to 65535"),
        ("[cache.redis]\nurl = 'redis://a b'", "an address has only visible ASCII characters"),
        ("[cache.redis]\nurl = 'redis://'", "an address is redis://"),
        ("[cache.redis]\nurl = 'REDISS://u:p%40ss@[::1]:1/15'", None),
    ],
    ids=lambda value: str(value)[-40:],
)
def test_what_a_key_cannot_have_is_told_with_what_it_can(tmp_path: Path, text: str, problem: str | None) -> None:
    if problem is None:
        load_configuration([file_with(tmp_path, text)])
    else:
        assert problem in "\n".join(problems(tmp_path, text))


@pytest.mark.parametrize("name", sorted(UNSUPPORTED))
def test_what_this_version_does_not_do_is_no_unknown_key(tmp_path: Path, name: str) -> None:
    message = "not supported by this version yet; leave it out"
    path = name.replace("*", "x")
    assert f"{path}: {message}" in problems(tmp_path, f"{path} = {{ y = 1 }}")
    assert f"{path}: {message}" in problems(tmp_path, f"{path} = 1")


@pytest.mark.parametrize("name", sorted(OTHER_NAMES))
def test_a_name_of_elsewhere_is_answered_with_the_one_of_here(tmp_path: Path, name: str) -> None:
    path = name.replace("*", "x")
    assert f"{path}: unknown key; {OTHER_NAMES[name]}" in problems(tmp_path, f"{path} = true")


def test_no_key_is_called_unsupported_or_unknown_that_there_is() -> None:
    known = {".".join(path) for path in paths(SCHEMA)}
    assert known & (UNSUPPORTED | set(OTHER_NAMES)) == set()


def test_a_key_in_the_wrong_table_is_found_in_the_right_one(tmp_path: Path) -> None:
    assert problems(tmp_path, "[repository.'a/b']\nrules = []") == [
        'repository."a/b".rules: unknown key; did you mean repository."a/b".access_policy.rules?'
    ]
    assert problems(
        tmp_path, "workers = 2\n[server]\nserver = 1\nmax_concurrent_requests = 5\n[global]\nissuer = 'x'"
    ) == [
        "workers: unknown key; did you mean server.workers?",
        "server.server: unknown key; did you mean server?",
        "server.max_concurrent_requests: unknown key; did you mean global.max_concurrent_requests?",
        "global.issuer: unknown key; did you mean auth.oidc.*.issuer?",
    ]


def test_nothing_that_a_terminal_obeys_is_repeated(tmp_path: Path) -> None:
    (problem,) = problems(tmp_path, '[server]\n"a\\u001b[2J\\u202e" = 1')
    assert problem.startswith('server."a\\u001B[2J\\u202E": unknown key')


def test_tables_that_are_nested_without_end_are_refused(tmp_path: Path) -> None:
    assert problems(tmp_path, f"{'.'.join('a' * 2000)} = 1") == ["is not TOML: its tables are nested too deeply"]
    assert problems(tmp_path, f"a = {'[' * 5000}") == ["is not TOML: its values are nested too deeply"]


def test_numbers_and_dates_beyond_all_bounds_are_refused(tmp_path: Path) -> None:
    told = ["is not TOML: it has a number or a date that is out of range"]
    assert problems(tmp_path, f"a = {'9' * 5000}") == told


def test_rules_can_name_what_the_core_tells_them_and_the_page_about_policies_says() -> None:
    def names(shape: Any) -> Any:
        return {name: names(inner) for name, inner in shape.items()} if isinstance(shape, dict) else None

    core = Identity(oidc=OidcIdentity("ci", {})).variables()
    core["oidc"]["claims"] = None
    assert names(VARIABLES["identity"]) == names(core)
    page = (Path(__file__).parents[3] / "docs/reference/policies.md").read_text()
    assert set(VARIABLES["request"]) == set(re.findall(r"`request\.(\w+)`", page))


# --- between keys -----------------------------------------------------------------------------------------------------


def test_a_user_name_belongs_to_one_user_and_to_no_provider(tmp_path: Path) -> None:
    users = "".join(
        f"[auth.identity.{id}]\nusername = '{name}'\npassword = '{HASH}'\n"
        for id, name in (("a", "alice"), ("b", "alice"), ("c", "ci"))
    )
    assert problems(tmp_path, users + ISSUER) == [
        'auth.identity.b.username: "alice" is the user of [auth.identity.a]',
        'auth.identity.c.username: "ci" is the name of [auth.oidc.ci]; rename one of them',
    ]


def test_repositories_do_not_lie_inside_one_another(tmp_path: Path) -> None:
    assert problems(tmp_path, "[repository.'team/app/x']\n[repository.team]\n[repository.'team2/app']") == [
        'repository."team/app/x": lies inside [repository.team]; a namespace belongs to one of them only'
    ]


def test_a_webhook_that_is_named_must_exist(tmp_path: Path) -> None:
    text = "[global]\nauthorization_webhook = 'gat'\n[repository.a]\nauthorization_webhook = ''\n"
    assert problems(tmp_path, text) == [
        'global.authorization_webhook: there is no webhook "gat"; there is no [auth.webhook]'
    ]
    assert problems(tmp_path, text + WEBHOOK) == [
        'global.authorization_webhook: there is no webhook "gat"; known: "gate"'
    ]


def test_a_webhook_is_asked_with_one_kind_of_credentials(tmp_path: Path) -> None:
    basic = "basic_auth = { username = 'a', password = 'b' }\n"
    assert problems(tmp_path, f"{WEBHOOK}bearer_token = 'a'\n{basic}") == [
        "auth.webhook.gate.basic_auth: there is bearer_token too; keep one of them"
    ]
    assert problems(tmp_path, f"{WEBHOOK}forward_headers = ['Authorization']\n{basic}") == [
        "auth.webhook.gate.forward_headers: authorization is filled by basic_auth already; keep one of them"
    ]
    load_configuration([file_with(tmp_path, f"{WEBHOOK}forward_headers = ['Authorization']")])


@pytest.mark.parametrize("service", [ISSUER, WEBHOOK])
def test_half_of_a_client_certificate_is_refused(folder: Path, service: str) -> None:
    (problem,) = problems(folder, f"{service}client_certificate_bundle = 'tls/registry.pem'")
    assert problem.endswith("client_certificate_bundle: needs client_private_key beside it")
    (problem,) = problems(folder, f"{service}client_private_key = 'tls/registry.key'")
    assert problem.endswith("client_private_key: needs client_certificate_bundle beside it")


def test_keys_that_do_not_fit_are_found_at_load(folder: Path) -> None:
    told = problems(
        folder,
        "[server.tls]\nserver_certificate_bundle = 'tls/server.pem'\nserver_private_key = 'tls/registry.key'\n"
        f"{ISSUER}client_certificate_bundle = 'tls/registry.pem'\nclient_private_key = 'tls/server.key'\n"
        f"{WEBHOOK}server_ca_bundle = 'tokens/issuer'",
    )
    assert [problem.partition(": ")[0] for problem in told] == ["server.tls", "auth.oidc.ci", "auth.webhook.gate"]
    assert "server_private_key tls/registry.key does not belong to" in told[0]
    assert "client_private_key tls/server.key is not the key of client_certificate_bundle tls/registry.pem" in told[1]
    assert "server_ca_bundle tokens/issuer has no certificate in PEM form" in told[2]


def test_an_encrypted_key_is_refused_without_a_question(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    issued = authority.issue("localhost")
    key = authority.encrypted(issued, b"secret")
    (problem,) = problems(
        tmp_path,
        f"[server.tls]\nserver_certificate_bundle = '{issued.certificate}'\nserver_private_key = '{key}'",
    )
    assert "is encrypted" in problem


def test_required_client_certificates_need_an_authority(folder: Path) -> None:
    text = "[server.tls]\nserver_certificate_bundle = 'tls/server.pem'\nserver_private_key = 'tls/server.key'\n"
    (problem,) = problems(folder, f"{text}client_auth = 'required'")
    assert problem.startswith('server.tls.client_auth: "required" needs client_ca_bundle')
    found = load_configuration(
        [file_with(folder, f"{text}client_auth = 'required'\nclient_ca_bundle = 'tls/clients.pem'")]
    )
    assert found.tls is not None
    assert found.tls.client_auth == "required"


def test_a_tls_table_with_mistakes_is_never_plain_http(tmp_path: Path) -> None:
    assert problems(tmp_path, "[server.tls]\nserver_certificate = 'x'") == [
        "server.tls.server_certificate: unknown key; did you mean server.tls.server_certificate_bundle?",
        "server.tls.server_certificate_bundle: is missing",
        "server.tls.server_private_key: is missing",
    ]
    assert problems(tmp_path, "[server.tls]") == [
        "server.tls.server_certificate_bundle: is missing",
        "server.tls.server_private_key: is missing",
    ]


def test_metrics_do_not_listen_where_the_registry_does(tmp_path: Path) -> None:
    (problem,) = problems(tmp_path, "[observability.metrics]\nlisten = '127.0.0.1:8000'")
    assert "is the address of the registry" in problem


def test_problems_of_values_and_between_keys_are_told_together(tmp_path: Path) -> None:
    told = problems(tmp_path, f"[server]\nport = -1\n[global]\nauthorization_webhook = 'x'\n{ISSUER}jwks_uri = 1")
    assert [problem.partition(": ")[0] for problem in told] == [
        "server.port",
        "auth.oidc.ci.jwks_uri",
        "global.authorization_webhook",
    ]


def test_files_are_looked_for_beside_the_file_that_names_them(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write_files(tmp_path / name)
    first = file_with(tmp_path / "one", "[blob_store.fs]\nroot_dir = 'data'\n[server.tls]\nserver_private_key = 'no'")
    second = file_with(
        tmp_path / "two",
        "[server.tls]\nserver_certificate_bundle = 'tls/server.pem'\nserver_private_key = 'tls/server.key'",
    )
    found = load_configuration([first, second])
    assert found.blob_store == DirectoryConfig(tmp_path / "one" / "data")
    assert found.named_files() == (tmp_path / "two/tls/server.pem", tmp_path / "two/tls/server.key")


def test_every_file_that_counts_at_load_is_named(folder: Path) -> None:
    names = {path.relative_to(folder).name for path in load(folder, example_document()).named_files()}
    assert names == {"server.pem", "server.key", "clients.pem", "internal-ca.pem", "registry.pem", "registry.key"}


# --- who may do what when nothing says so -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        ISSUER,
        WEBHOOK,
        "[auth]\ninvalid_credentials = 'reject'",
        f"[auth.identity.a]\nusername = 'a'\npassword = '{HASH}'",
        "[auth.token_service]",
        "[repository.a.access_policy]\ndefault = 'allow'",
    ],
)
def test_without_a_policy_nobody_may_do_anything_once_access_is_a_matter(tmp_path: Path, text: str) -> None:
    found = load_configuration([file_with(tmp_path, text)])
    assert found.registry.access is not None
    assert found.registry.access.policy.default == "deny"
    assert found.warnings[0].startswith("global.access_policy: is missing, so nobody may do anything; add rules")


def test_without_anything_about_access_everybody_may_do_everything(tmp_path: Path) -> None:
    found = load_configuration([file_with(tmp_path, "[server]\nport = 1\n[repository.a]\nimmutable_tags = true")])
    assert found.registry.access is None
    found = load_configuration([file_with(tmp_path, "[global]\ntrusted_proxies = ['10.0.0.0/8']")])
    assert found.registry.access is not None
    assert found.registry.access.policy.default == "allow"
    assert found.warnings == ()


def test_a_policy_that_lets_nobody_in_is_warned_about(tmp_path: Path) -> None:
    (warning,) = warnings(tmp_path, "[global.access_policy]")
    assert "nobody may do anything" in warning
    assert warnings(tmp_path, "[global.access_policy]\nrules = ['true']") == ()
    assert warnings(tmp_path, "[global.access_policy]\ndefault = 'allow'") == ()


def test_a_policy_of_a_repository_counts_by_its_presence(tmp_path: Path) -> None:
    found = load_configuration([file_with(tmp_path, "[repository.a.access_policy]\n[repository.b]")])
    first, second = found.registry.repositories
    assert first.policy is not None
    assert (first.policy.default, second.policy) == ("deny", None)


def test_there_is_a_token_service_for_users_and_providers_unless_it_is_switched_off(tmp_path: Path) -> None:
    def has_service(text: str) -> bool:
        access = load_configuration([file_with(tmp_path, text)]).registry.access
        return access is not None and access.token_service is not None

    assert has_service(ISSUER)
    assert has_service("[auth.token_service]")
    assert not has_service(WEBHOOK)
    assert not has_service(f"{ISSUER}[auth.token_service]\nenabled = false")


def test_what_is_hardly_meant_is_warned_about(tmp_path: Path) -> None:
    allowed = "[global.access_policy]\nrules = ['true']\n"
    user = f"[auth.identity.a]\nusername = 'a'\npassword = '{HASH}'\n"
    for text, warning in (
        ("[server]\nworkers = 2\nmax_connections_per_client = 3", "each of the 2 workers counts for itself"),
        ("[global]\ntrusted_proxies = ['0.0.0.0/0']", "everybody is a trusted proxy"),
        (f"[server]\nbind_address = ''\n{allowed}{user}", "passwords can be read on their way"),
        (f"{allowed}{ISSUER}jwks_uri = 'http://example.org/keys'", "auth.oidc.ci.jwks_uri: with http://"),
        (f"{allowed}[auth.webhook.g]\nurl = 'http://10.0.0.1'\ntimeout_ms = 1", "auth.webhook.g.url: with http://"),
        (f"[blob_store.s3]\nendpoint = 'http://s3.example.org'\n{BUCKET}", "blob_store.s3.endpoint: with http://"),
        (
            f"[blob_store.s3]\nendpoint = 'https://10.0.0.1'\n{BUCKET}",
            "clients are sent to https://10.0.0.1 for content",
        ),
        (
            f"[global]\nenable_blob_redirect = false\n[blob_store.s3]\nendpoint = 'https://store'\n{BUCKET}",
            "global.enable_manifest_redirect: clients are sent to https://store for content",
        ),
    ):
        (found,) = warnings(tmp_path, text)
        assert warning in found
    assert warnings(tmp_path, f"{allowed}{user}") == ()
    decided = "[global]\nenable_blob_redirect = true\nenable_manifest_redirect = false\n"
    assert warnings(tmp_path, f"{decided}[blob_store.s3]\nendpoint = 'https://store'\n{BUCKET}") == ()
    assert warnings(tmp_path, f"{allowed}[auth.webhook.g]\nurl = 'http://localhost:1'\ntimeout_ms = 1") == ()


# --- secrets ----------------------------------------------------------------------------------------------------------

CANARY = "canary"
SECRETS: dict[str, str] = {
    "auth.identity.*.password": HASH.replace("AAAAAA", CANARY, 1),
    "auth.token_service.secret_key": CANARY * 8,
    "auth.webhook.*.bearer_token": CANARY,
    "auth.webhook.*.basic_auth.password": CANARY,
    "blob_store.s3.secret_key": CANARY,
    "metadata_store.s3.secret_key": CANARY,
    "repository.*.upstream.password": CANARY,
    "cache.redis.url": f"redis://:{CANARY}@127.0.0.1",
    "leases.redis.url": f"redis://:{CANARY}@127.0.0.1",
}


def test_there_is_a_canary_for_each_secret() -> None:
    assert set(SECRETS) == {".".join(pattern) for pattern, key in keys() if key.kind.secret}


@pytest.mark.parametrize("pattern", sorted(SECRETS))
@pytest.mark.parametrize(
    "shape",
    [
        lambda secret: secret,
        lambda secret: f"{secret} ",
        lambda secret: f"{secret}\n",
        lambda secret: [secret],
        lambda secret: [[secret]],
        lambda secret: {"value": secret},
        lambda secret: [{"value": secret}],
    ],
    ids=["right", "blank", "line", "list", "lists", "table", "tables"],
)
def test_a_secret_is_never_shown(pattern: str, shape: Any, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document = example_document("s3" if ".s3." in pattern else "fs")
    document = with_value(document, tuple(pattern.split(".")), shape(SECRETS[pattern]))
    for broken in (False, True):
        if broken:
            document["server"]["port"] = -1
        file = file_with(folder, written(document))
        code = main(["check", "-c", str(file)])
        shown = capsys.readouterr()
        assert CANARY not in shown.out + shown.err
        if code == 0:
            assert CANARY not in repr(load_configuration([file]))
        else:
            with pytest.raises(BadConfiguration) as raised:
                load_configuration([file])
            assert CANARY not in f"{raised.value!r} {raised.value} {raised.value.problems}"


@pytest.mark.parametrize(
    "table", [("auth",), ("auth", "identity"), ("auth", "identity", "*"), ("auth", "webhook", "*", "basic_auth")]
)
@pytest.mark.parametrize("value", [CANARY, [CANARY]])
def test_a_secret_in_place_of_its_table_is_not_shown(
    table: tuple[str, ...], value: object, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = file_with(folder, written(with_value(example_document(), table, value)))
    assert main(["check", "-c", str(file)]) == 1
    assert CANARY not in capsys.readouterr().err


@pytest.mark.parametrize(
    "url",
    [
        "https://me:canary@example.org/",
        "https:/me:canary@example.org",
        "https://example.org/?key=canary#x",
        "https://example.org\\?canary",
        "me:canary@example.org",
        "https://example.org/?key=canary",
    ],
)
def test_passwords_and_queries_of_addresses_are_not_shown(
    url: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for pattern in (
        ("auth", "webhook", "*", "url"),
        ("auth", "oidc", "*", "issuer"),
        ("auth", "token_service", "realm"),
        ("repository", "*", "upstream", "url"),
    ):
        main(["check", "-c", str(file_with(folder, written(with_value(example_document(), pattern, url))))])
        shown = capsys.readouterr()
        assert CANARY not in shown.out + shown.err


# --- angos check ------------------------------------------------------------------------------------------------------


def test_check_prints_what_loads_to_the_same(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document = copy.deepcopy(example_document())
    del document["auth"]["identity"]
    del document["auth"]["token_service"]
    del document["cache"]
    del document["leases"]
    (upstream,) = document["repository"]["hub"]["upstream"]
    for key in ("username", "password", "token_realms"):
        del upstream[key]
    for webhook in document["auth"]["webhook"].values():
        webhook.pop("bearer_token", None)
        webhook.pop("basic_auth", None)
    file = file_with(folder, written(document))
    assert main(["check", "-c", str(file)]) == 0
    printed = file_with(folder, capsys.readouterr().out, "printed.toml")
    assert load_configuration([printed]) == load_configuration([file])
    everything = file_with(folder, uncommented(printed.read_text()), "everything.toml")
    assert load_configuration([everything]).server == load_configuration([file]).server


def test_check_without_files_prints_the_defaults(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check"]) == 0
    printed = capsys.readouterr().out
    assert "\n#port = 8000\n" in printed
    assert "\n# without [server.tls]: plain HTTP\n" in printed
    load_configuration([file_with(tmp_path, printed)])


def test_check_says_which_of_several_files_counts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = file_with(tmp_path, "[server]\nport = 1\nworkers = 2", "first.toml")
    second = file_with(tmp_path, "[server]\nport = 3", "second.toml")
    assert main(["check", "-c", str(first), "-c", str(second)]) == 0
    printed = capsys.readouterr().out
    assert f"port = 3  # {second}\n" in printed
    assert f"workers = 2  # {first}\n" in printed


def test_check_masks_secrets_and_tells_warnings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = file_with(tmp_path, f"{WEBHOOK}bearer_token = 'canary'\n[repository.a.access_policy]")
    assert main(["check", "-c", str(file)]) == 0
    shown = capsys.readouterr()
    assert 'bearer_token = "***"' in shown.out
    assert "[repository.a.access_policy]" in shown.out
    assert shown.err.startswith("angos: warning: global.access_policy: is missing")


def test_check_prints_a_schema_for_editors(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--json-schema"]) == 0
    assert '"$schema"' in capsys.readouterr().out


# --- anything ---------------------------------------------------------------------------------------------------------

TEXTS = st.text(max_size=20) | st.sampled_from(
    ["", "true", "/", "http://", "10.0.0.0/8", "a:b", "5MiB", "$argon2id$", "("]
)
SCALARS = st.booleans() | st.integers(-(1 << 63), (1 << 63) - 1) | st.floats() | TEXTS | st.dates() | st.times()
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3), max_leaves=6
)
TABLES = st.sampled_from(sorted(paths(SCHEMA)) + [tuple(name.split(".")) for name in sorted(UNSUPPORTED)])


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_whatever_stands_in_a_file_is_a_configuration_or_a_list_of_problems(folder: Path, data: st.DataObject) -> None:
    document: dict[str, Any] = data.draw(st.sampled_from([{}, example_document()]))
    for pattern in data.draw(st.lists(TABLES, min_size=1, max_size=4)):
        names = [data.draw(TEXTS) if part == "*" else part for part in pattern]
        table = document = copy.deepcopy(document)
        for name in names[:-1]:
            if not isinstance(table.get(name), dict):
                table[name] = {}
            table = table[name]
        table[names[-1]] = data.draw(VALUES)
    try:
        load(folder, document)
    except BadConfiguration as error:
        assert error.problems
        assert all("is not TOML" not in str(problem) for problem in error.problems)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_whatever_bytes_a_file_has_are_a_configuration_or_a_list_of_problems(folder: Path, data: st.DataObject) -> None:
    content = bytearray(uncommented(example()).encode())
    start = data.draw(st.integers(0, len(content)))
    content[start : start + data.draw(st.integers(0, 40))] = data.draw(st.binary(max_size=12) | TEXTS.map(str.encode))
    try:
        load_configuration([folder / "angos.toml"], [bytes(content)])
    except BadConfiguration as error:
        assert error.problems
