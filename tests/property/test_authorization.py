"""Who may do what: policies, scopes of tokens and webhooks together, against a model of forty lines."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from angos.sansio.access.action import Action
from angos.sansio.access.events import AccessDenied, CredentialTried, RuleFailed, WebhookAsked
from angos.sansio.access.expression import EvaluationError
from angos.sansio.access.expression_nodes import Binary, Constant, Expression, Has, Index, Select, Variable
from angos.sansio.access.identity import Identity, OidcIdentity
from angos.sansio.access.policy import HAS_REPOSITORY_POLICY, REMEMBERED_MAX, Policy, Rule, decide, decide_about
from angos.sansio.config import RepositoryConfig
from angos.sansio.http.message import Certificate, Peer
from angos.sansio.oci.reference import parse_namespace
from angos.simulator.registry import Answer, SimulatedRegistry

from .access_values import ALICE, HOOK, TOKENS, access, basic, policy, pulling, registry, somebody

Outcome = Literal["true", "false", "error", "text", "number"]

PATH = "/v2/team/app/tags/list"


def says(outcome: Outcome) -> Any:
    def test(_: Mapping[str, Any]) -> Any:
        if outcome == "error":
            raise EvaluationError("there is no such key")
        return {"true": True, "false": False, "text": "true", "number": 1}[outcome]

    return test


outcomes = st.sampled_from(["true", "false", "error", "text", "number"])
policies = st.tuples(st.sampled_from(["deny", "allow"]), st.lists(outcomes, max_size=4))


# --- the model --------------------------------------------------------------------------------------------------------


def model_policy(default: str, rules: list[Outcome]) -> bool:
    if default == "deny":
        return "true" in rules
    return all(outcome == "false" for outcome in rules)


def model(
    known: bool,
    global_policy: tuple[str, list[Outcome]],
    repository_policy: tuple[str, list[Outcome]] | None,
    global_webhook: int | None,
    repository_webhook: int | Literal["off", "unset"] | None,
) -> int:
    """The status: 200 stands for whatever the registry answers to those who may."""
    allowed = model_policy(*global_policy)
    if allowed and repository_policy is not None:
        allowed = model_policy(*repository_policy)
    if allowed and repository_webhook != "off":
        status = global_webhook if repository_webhook == "unset" else repository_webhook
        allowed = status is not None and 200 <= status < 300
    return 200 if allowed else 403 if known else 401


# --- the table --------------------------------------------------------------------------------------------------------


@given(
    known=st.booleans(),
    global_policy=policies,
    repository_policy=st.none() | policies,
    global_webhook=st.sampled_from([200, 204, 299, 301, 401, 403, 404, 500, None]),
    repository_webhook=st.sampled_from([200, 403, None, "off", "unset"]),
)
def test_the_verdict_is_that_of_the_model(
    known: bool,
    global_policy: Any,
    repository_policy: Any,
    global_webhook: int | None,
    repository_webhook: Any,
) -> None:
    names = {"off": "", "unset": None}
    repository = RepositoryConfig(
        "team",
        None if repository_policy is None else policy(repository_policy[0], *map(says, repository_policy[1])),
        webhook=names.get(repository_webhook, "own") if isinstance(repository_webhook, str) else "own",
    )
    config = access(
        policy(global_policy[0], *map(says, global_policy[1])),
        webhooks=(HOOK, type(HOOK)("own")),
        webhook="acl",
    )
    world = registry(config, repository)
    world.services.webhooks = {"acl": lambda _: global_webhook, "own": lambda _: repository_webhook}
    expected = model(known, global_policy, repository_policy, global_webhook, repository_webhook)
    answer = world.send("GET", PATH, ALICE if known else {})
    assert answer.status == (404 if expected == 200 else expected)  # 404: the namespace is empty
    assert ("www-authenticate" in {name.lower() for name, _ in answer.headers}) == (expected == 401)
    denied = [event for event in world.services.told if isinstance(event, AccessDenied)]
    assert len(denied) == (expected != 200)


@given(policies, st.integers(0, 3))
def test_a_rule_that_fails_never_lets_a_request_in(found: Any, place: int) -> None:
    """Bug classes 14 and 15: with one failing rule more, nothing is allowed that was not allowed before."""
    default, rules = found
    more = [*rules[:place], "error", *rules[place:]]
    before = decide(policy(default, *map(says, rules)), {}).allowed
    after = decide(policy(default, *map(says, more)), {}).allowed
    assert before or not after


def test_an_empty_policy_is_its_default() -> None:
    """Bug class 17, for repositories too: `default = "deny"` without rules denies."""
    assert decide(Policy("allow"), {}).allowed
    assert not decide(Policy("deny"), {}).allowed
    world = registry(access(Policy("allow")), RepositoryConfig("team", Policy("deny")))
    assert world.send("GET", PATH, ALICE).status == 403
    assert world.send("GET", "/v2/other/tags/list", ALICE).status == 404


def test_failed_rules_are_told_with_their_place() -> None:
    world = registry(access(policy("deny", says("error"), says("text"), somebody)))
    assert world.send("GET", PATH, ALICE).status == 404
    told = [event for event in world.services.told if isinstance(event, RuleFailed)]
    assert [event.where for event in told] == ["global.access_policy.rules[0]", "global.access_policy.rules[1]"]


def test_rules_after_the_deciding_one_are_not_looked_at() -> None:
    def never(_: Mapping[str, Any]) -> bool:
        raise AssertionError

    assert decide(policy("deny", says("true"), never), {}).allowed


@pytest.mark.parametrize(("namespace", "covered"), [("team", True), ("team/app", True), ("teams", False), ("a", False)])
def test_a_repository_covers_its_namespace_and_those_below(namespace: str, covered: bool) -> None:
    world = registry(access(Policy("allow")), RepositoryConfig("team", Policy("deny")))
    assert world.send("GET", f"/v2/{namespace}/tags/list", ALICE).status == (403 if covered else 404)


def test_rules_can_ask_whether_the_repository_has_a_policy() -> None:
    seen = []

    def remember(variables: Mapping[str, Any]) -> bool:
        from angos.sansio.access.policy import FUNCTIONS

        seen.append(FUNCTIONS["has_repository_policy"](variables))
        return True

    world = registry(access(policy("deny", remember)), RepositoryConfig("team", policy("deny", somebody)))
    world.send("GET", PATH, ALICE)
    world.send("GET", "/v2/other/tags/list", ALICE)
    assert seen == [True, False]


# --- what needs no permission, and what the version check tells -------------------------------------------------------


def test_health_needs_no_permission_and_unknown_paths_tell_nothing() -> None:
    world = registry(access(Policy("deny")))
    assert world.send("GET", "/healthz").status == 200
    assert world.send("GET", "/readyz").status == 200
    assert world.send("GET", "/v2/nowhere").status == 404
    assert world.send("PUT", "/v2/a/tags/list").status == 405


@pytest.mark.parametrize("default", ["deny", "allow"])
def test_the_version_check_tells_whether_a_login_is_good(default: Literal["deny", "allow"]) -> None:
    """`docker login` asks nothing else, so it must not succeed with a wrong password, nor fail with a right one."""
    world = registry(access(Policy(default)))
    assert world.send("GET", "/v2/", ALICE).status == 200
    assert world.send("GET", "/v2/", basic("alice", "wrong")).status == 401
    assert world.send("GET", "/v2/", {"Authorization": "Digest x"}).status == 401
    assert world.send("GET", "/v2/").status == (200 if default == "allow" else 401)


def test_an_invalid_credential_counts_as_none_unless_configured_otherwise() -> None:
    """ARCHITECTURE 3.1; bug class 7 with ``auth.invalid_credentials = "reject"``."""
    open_, strict = access(policy("deny", pulling)), access(policy("deny", pulling), invalid_credentials="reject")
    assert registry(open_).send("GET", PATH, basic("alice", "wrong")).status == 404
    refused = registry(strict).send("GET", PATH, basic("alice", "wrong"))
    assert refused.status == 401
    assert refused.header("www-authenticate")


def test_a_denied_certificate_holder_is_told_403() -> None:
    peer = Peer("192.0.2.1", "https", Certificate((), ("bob",)))
    assert registry(access(Policy("deny"))).send("GET", PATH, peer=peer).status == 403
    assert registry(access(policy("deny", pulling))).send("GET", PATH, peer=peer).status == 404


def test_answers_to_the_denied_say_nothing_of_rules_or_places() -> None:
    world = registry(access(policy("deny", says("error"))))
    answer = world.send("GET", PATH, ALICE)
    assert b"rule" not in answer.body
    assert b"policy" not in answer.body


def test_what_is_told_about_a_denial_has_no_claims() -> None:
    from .access_values import bearer, job_token

    world = registry(access(Policy("deny")))
    world.send("GET", PATH, bearer(job_token(email="canary@example.com")))
    assert "canary" not in repr(world.services.told)
    assert any(isinstance(event, CredentialTried) and event.accepted for event in world.services.told)


# --- mounting ---------------------------------------------------------------------------------------------------------


def push_blob(world: SimulatedRegistry, namespace: str, content: bytes) -> str:
    from angos.sansio.oci.digest import Digest

    digest = str(Digest.of(content))
    answer = world.send("POST", f"/v2/{namespace}/blobs/uploads/?digest={digest}", ALICE, content)
    assert answer.status == 201
    return digest


def mount(world: SimulatedRegistry, digest: str, source: str | None) -> Answer:
    more = "" if source is None else f"&from={source}"
    return world.send("POST", f"/v2/mine/blobs/uploads/?mount={digest}{more}", ALICE)


@pytest.mark.parametrize("source", ["private", None])
@pytest.mark.parametrize("gate", ["policy", "webhook"])
def test_mounting_takes_the_right_to_read_the_source(source: str | None, gate: str) -> None:
    """Bug class 23: a digest is no key to what one may not read; the client is asked for the bytes instead."""
    world = registry(access(Policy("allow")), RepositoryConfig("private"))
    digest = push_blob(world, "private", b"secret layer")
    if gate == "policy":
        closed = access(Policy("allow"))
        world.config = registry(closed, RepositoryConfig("private", Policy("deny"))).config
    else:
        closed = access(Policy("allow"), webhooks=(HOOK,), webhook="acl")
        world.config = registry(closed).config
        world.services.webhooks["acl"] = lambda headers: 403 if ("X-Registry-Namespace", "private") in headers else 200
    assert mount(world, digest, source).status == 202
    assert world.send("GET", f"/v2/mine/blobs/{digest}", ALICE).status == 404
    world.config = registry(access(Policy("allow"))).config
    assert mount(world, digest, source).status == 201


def test_a_mount_that_fails_opens_an_upload_only_for_those_who_may() -> None:
    def only_mounting(variables: Mapping[str, Any]) -> bool:
        return bool(variables["request"]["action"] == "mount-blob")

    world = registry(access(policy("deny", only_mounting)))
    assert mount(world, "sha256:" + "0" * 64, "b").status == 403


# --- webhooks ---------------------------------------------------------------------------------------------------------


def hooked(**more: Any) -> SimulatedRegistry:
    world = registry(access(Policy("allow"), webhooks=(type(HOOK)("acl", **more),), webhook="acl"))
    world.services.webhooks["acl"] = lambda _: 200
    return world


@pytest.mark.parametrize(("status", "asked"), [(200, 1), (204, 1), (401, 1), (403, 1), (404, 3), (500, 3), (302, 3)])
def test_only_clear_answers_are_remembered(status: int, asked: int) -> None:
    """Bug class 20."""
    world = hooked()
    world.services.webhooks["acl"] = lambda _: status
    for _ in range(3):
        world.send("GET", PATH, ALICE)
    assert len(world.services.asked) == asked


def test_a_remembered_answer_is_forgotten_in_time() -> None:
    world = hooked(cache_seconds=10)
    world.send("GET", PATH, ALICE)
    world.services.now_ms += 10_001
    world.services.webhooks["acl"] = lambda _: 403
    assert world.send("GET", PATH, ALICE).status == 403
    world = hooked(cache_seconds=0)
    for _ in range(3):
        world.send("GET", PATH, ALICE)
    assert len(world.services.asked) == 3


requests = st.fixed_dictionaries(
    {
        "path": st.sampled_from([PATH, "/v2/b/tags/list", f"{PATH}?n=1"]),
        "host": st.sampled_from(["a.example", "b.example"]),
        "trace": st.sampled_from([None, "1", "2"]),
        "other": st.sampled_from([None, "1", "2"]),
        "alice": st.booleans(),
        "address": st.sampled_from(["192.0.2.1", "192.0.2.2"]),
        "names": st.sampled_from([None, ("bob",), ("b", "ob"), ("bob", "")]),
    }
)


@given(requests, requests)
def test_two_requests_share_an_answer_only_if_the_webhook_is_told_the_same(one: Any, two: Any) -> None:
    """Bug class 19: exactly the bytes that are sent tell answers apart, repeated fields and boundaries included."""
    world = hooked(forward_headers=("x-trace",))
    for request in (one, two):
        headers = {"Host": request["host"]} | (ALICE if request["alice"] else {})
        headers |= {"X-Trace": request["trace"]} if request["trace"] else {}
        headers |= {"X-Other": request["other"]} if request["other"] else {}
        certificate = None if request["names"] is None else Certificate((), request["names"])
        world.send("GET", request["path"], headers, peer=Peer(request["address"], "https", certificate))
    told = [{name: value for name, value in request.items() if name != "other"} for request in (one, two)]
    assert len(world.services.asked) == (1 if told[0] == told[1] else 2)


def test_every_request_meets_one_webhook_whether_or_not_its_repository_is_declared() -> None:
    """Bug class 21."""
    world = hooked()
    for path in (PATH, "/v2/undeclared/tags/list", "/v2/_catalog"):
        world.send("GET", path, ALICE)
    assert len(world.services.asked) == 3


def test_the_webhook_is_told_everything() -> None:
    """The complete golden request (angos.md 5.5; bug class 22: the scheme is the client's)."""
    world = hooked(forward_headers=("x-trace",))
    peer = Peer("192.0.2.1", "https", Certificate(("Builders", "Ops"), ("bob",)))
    target = "/v2/team/app/manifests/v1?ns=x"
    world.send("GET", target, {**ALICE, "Host": "r.example", "X-Trace": "t", "X-Secret": "s"}, peer=peer)
    assert list(world.services.asked[0].headers) == [
        ("X-Forwarded-Method", "GET"),
        ("X-Forwarded-Proto", "https"),
        ("X-Forwarded-Host", "r.example"),
        ("X-Forwarded-Uri", target),
        ("X-Forwarded-For", "192.0.2.1"),
        ("X-Registry-Action", "get-manifest"),
        ("X-Registry-Namespace", "team/app"),
        ("X-Registry-Reference", "v1"),
        ("X-Registry-Username", "alice"),
        ("X-Registry-Identity-ID", "alice-id"),
        ("X-Registry-Certificate-CN", "bob"),
        ("X-Registry-Certificate-O", "Builders"),
        ("X-Registry-Certificate-O", "Ops"),
        ("x-trace", "t"),
    ]
    assert [event.outcome for event in world.services.told if isinstance(event, WebhookAsked)] == ["allow"]


@pytest.mark.parametrize("query", ["", "?digest=x", "?a=1&digest=x"])
def test_the_webhook_is_not_told_the_state_of_an_upload(query: str) -> None:
    """Another one for each chunk: an answer about one upload would never be remembered."""
    world = hooked()
    target = f"/v2/team/app/blobs/uploads/00000000-0000-4000-8000-000000000001{query}"
    for state in ("1.any.0", "1.any.a", ""):
        world.send("PATCH", target + ("&" if query else "?") + f"_state={state}", ALICE)
        if query:
            world.send("PATCH", target.replace("?", f"?_state={state}&"), ALICE)
    assert [dict(asked.headers)["X-Forwarded-Uri"] for asked in world.services.asked] == [target]


def test_a_value_that_no_field_can_carry_is_a_denial() -> None:
    world = hooked()
    peer = Peer("192.0.2.1", "https", Certificate((), ("bob\r\nX-Registry-Username: root",)))
    assert world.send("GET", PATH, peer=peer).status == 403
    assert world.services.asked == []
    peer = Peer("192.0.2.1", "https", Certificate((), ("Jürgen Ω",)))
    assert world.send("GET", PATH, peer=peer).status == 404
    assert ("X-Registry-Certificate-CN", "Jürgen Ω".encode().decode("latin-1")) in world.services.asked[0].headers


@pytest.mark.parametrize(("one", "other"), [("Ω", "Î©"), ("Jürgen", "JÃ¼rgen")])
def test_two_names_are_never_the_same_bytes_for_a_webhook(one: str, other: str) -> None:
    world = hooked()
    for name in (one, other):
        world.send("GET", PATH, peer=Peer("192.0.2.1", "https", Certificate((), (name,))))
    told = [dict(asked.headers)["X-Registry-Certificate-CN"] for asked in world.services.asked]
    assert told == [name.encode().decode("latin-1") for name in (one, other)]


# --- where a request comes from ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("peer", "forwarded", "real", "expected"),
    [
        ("192.0.2.9", "10.9.9.9", None, "192.0.2.9"),  # not a proxy of ours: anybody can write this
        ("10.0.0.1", "198.51.100.7", None, "198.51.100.7"),
        ("10.0.0.1", "6.6.6.6, 198.51.100.7, 10.0.0.2", None, "198.51.100.7"),
        ("10.0.0.1", "6.6.6.6, unknown", None, "10.0.0.1"),
        ("10.0.0.1", "[2001:db8::1]:443", None, "2001:db8::1"),
        ("10.0.0.1", "198.51.100.7:80", None, "198.51.100.7"),
        ("10.0.0.1", None, "198.51.100.8", "198.51.100.8"),
        ("10.0.0.1", "10.0.0.3", "198.51.100.8", "198.51.100.8"),
        ("10.0.0.1", "10.0.0.3", None, "10.0.0.1"),
        ("::ffff:10.0.0.1", "198.51.100.7", None, "198.51.100.7"),
        ("10.0.0.1", "", "", "10.0.0.1"),
        ("10.0.0.1", "::ffff:198.51.100.7", None, "198.51.100.7"),
        ("10.0.0.1", "::ffff:10.0.0.3", "::ffff:198.51.100.8", "198.51.100.8"),
        ("10.0.0.1", "fe80::1%eth0 admin", None, "fe80::1"),
    ],
)
def test_the_address_of_the_client(peer: str, forwarded: str | None, real: str | None, expected: str) -> None:
    """Bug class 10: the right-most entry that is no trusted proxy, and only from a trusted proxy."""
    seen: list[Any] = []

    def remember(variables: Mapping[str, Any]) -> bool:
        seen.append(variables["identity"]["client_ip"])
        return True

    world = registry(access(policy("deny", remember), trusted_proxies=("10.0.0.0/8",)))
    headers = {"X-Forwarded-For": forwarded, "X-Real-IP": real}
    world.send("GET", PATH, {name: value for name, value in headers.items() if value is not None}, peer=Peer(peer))
    assert seen == [expected]


def test_without_access_in_the_configuration_nothing_is_asked() -> None:
    """The path of an open registry stays as short as it is."""
    from angos.sansio.config import RegistryConfig

    world = SimulatedRegistry(RegistryConfig())
    assert world.send("GET", "/v2/", {"Authorization": "Basic !!!"}).status == 200
    assert world.effects == []
    assert world.send("GET", "/token").status == 404
    assert world.send("GET", "/token", basic("a", "b")).status == 404


def test_a_rule_is_compiled_from_its_expression_unless_given() -> None:
    name = Select(Variable("identity"), "username")
    made = Rule("identity.username == 'alice'", "x", Binary("==", name, Constant("string", "alice")))
    assert decide(Policy("deny", (made,)), {"identity": {"username": "alice"}}).allowed
    assert not decide(Policy("deny", (made,)), {"identity": {"username": "bob"}}).allowed
    assert TOKENS.realm is None


# --- decisions that are remembered ------------------------------------------------------------------------------------

IDENTITY, REQUEST = Variable("identity"), Variable("request")


def equals(operand: Expression, value: str) -> Expression:
    return Binary("==", operand, Constant("string", value))


_CLIENT_IP = Constant("string", "client_ip")
RULES: tuple[Expression, ...] = (
    equals(Select(IDENTITY, "username"), "alice"),
    equals(Select(IDENTITY, "id"), "b"),
    equals(Select(IDENTITY, "client_ip"), "192.0.2.1"),
    equals(Index(IDENTITY, _CLIENT_IP), "192.0.2.1"),
    Has(IDENTITY, "client_ip"),
    Binary("==", IDENTITY, Variable("other")),
    Binary("in", Constant("string", "bob"), Select(Select(IDENTITY, "certificate"), "common_names")),
    equals(Select(REQUEST, "namespace"), "team/app"),
    equals(Select(REQUEST, "reference"), "v1"),
    Variable(HAS_REPOSITORY_POLICY),
)

identities = st.builds(
    Identity,
    st.sampled_from([None, "a", "b"]),
    st.sampled_from([None, "alice", "bob"]),
    st.sampled_from([Certificate(), Certificate((), ("bob",)), Certificate(("bob",), ())]),
    st.sampled_from([None, OidcIdentity("ci", {"repository": "acme/app"}), OidcIdentity("ci", {})]),
    st.sampled_from([None, "192.0.2.1", "192.0.2.2"]),
)
actions = st.builds(
    Action,
    st.just("get-manifest"),
    st.sampled_from(["team/app", "team"]),
    st.fixed_dictionaries({"reference": st.sampled_from(["v1", "v2"])}),
)


@given(
    st.sampled_from(["deny", "allow"]),
    st.lists(st.sampled_from(RULES), max_size=4),
    st.lists(st.tuples(identities, actions, st.booleans()), max_size=8),
)
def test_a_decision_is_shared_only_by_those_whom_no_rule_can_tell_apart(
    default: Literal["deny", "allow"], expressions: list[Expression], asked: list[tuple[Identity, Action, bool]]
) -> None:
    remembering = Policy(default, tuple(Rule("", "", expression) for expression in expressions))
    for identity, action, narrowed in asked:
        variables = {
            "identity": identity.variables(),
            "request": action.variables(),
            HAS_REPOSITORY_POLICY: narrowed,
        }
        found = decide_about(remembering, identity, action, has_repository_policy=narrowed)
        assert found == decide(remembering, variables)


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        (Select(IDENTITY, "username"), False),
        (Select(REQUEST, "client_ip"), False),
        (Constant("bool", True), False),
        (Select(IDENTITY, "client_ip"), True),
        (Has(IDENTITY, "client_ip"), True),
        (Index(IDENTITY, _CLIENT_IP), True),
        (Binary("==", Select(IDENTITY, "username"), IDENTITY), True),
        (Index(Select(IDENTITY, "username"), Select(IDENTITY, "client_ip")), True),
    ],
)
def test_addresses_tell_decisions_apart_only_where_a_rule_may_read_them(expression: Expression, expected: bool) -> None:
    policy_ = Policy("deny", (Rule("", "", equals(Select(REQUEST, "action"), "x")), Rule("", "", expression)))
    assert policy_.reads_client_ip is expected
    for number in range(10):
        identity = Identity("a", "alice", client_ip=f"192.0.2.{number}")
        decide_about(policy_, identity, Action("get-manifest", parse_namespace("a")), has_repository_policy=False)
    assert len(policy_.remembered) == (10 if expected else 1)


def test_what_is_remembered_is_bounded() -> None:
    policy_ = Policy("deny", (Rule("", "", equals(Select(IDENTITY, "username"), "alice")),))
    for number in range(3 * REMEMBERED_MAX):
        action = Action("get-manifest", parse_namespace("a"), {"reference": str(number)})
        assert decide_about(policy_, Identity("a", "alice"), action, has_repository_policy=False).allowed
        assert len(policy_.remembered) <= REMEMBERED_MAX
