"""Whatever stands in ``Authorization``: it is a 401 with a challenge, never a failure and never somebody."""

from __future__ import annotations

import base64
import hmac
import json
import time
from typing import Any
from urllib.parse import urlencode

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from jwt.algorithms import RSAAlgorithm

from tests.conformance.access.guarded_registry import (
    ALICE,
    PASSWORD,
    REGISTRY_SECRET,
    Issuer,
    basic,
    bearer,
    encode,
    is_nobody,
)
from tests.conformance.http_client import Client, refused

FUZZ = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
FIELD_TEXT = st.text(
    st.characters(min_codepoint=0x20, max_codepoint=0xFF, exclude_characters="\x7f") | st.just("\t"), max_size=200
)


def test_the_right_ones_are_let_in(attacker: Client, issuer: Issuer) -> None:
    for credentials in (ALICE, bearer(issuer.token()), basic("ci", issuer.token())):
        assert attacker.get("/v2/", [credentials]).status == 200
        assert not is_nobody(attacker, credentials)


# --- the field --------------------------------------------------------------------------------------------------------


@FUZZ
@given(FIELD_TEXT)
@example("")
@example("Basic")
@example("Bearer")
@example("Basic\t\t")
@example("Bearer \t x y")
@example("Basic =====")
@example("Basic " + "A" * 16_000)
@example("Bearer " + "A" * 16_000)
@example("Bearer " + "." * 16_000)
@example("Bearer é.é.é")
@example("Basic é")
@example("Basic " + base64.b64encode("ålice:x".encode("latin-1")).decode())
@example("Basic " + base64.b64encode(b"alice").decode())
@example("Basic " + base64.b64encode(b":").decode())
@example("Basic " + base64.b64encode(b"alice\0:x").decode())
@example("Basic " + base64.b64encode(f"ALICE:{PASSWORD}".encode()).decode())
@example("Basic " + base64.b64encode(f"alice :{PASSWORD}".encode()).decode())
@example("Basic " + base64.b64encode(f"alice:{PASSWORD}\0".encode()).decode())
@example("Basic " + base64.b64encode(f"alice:{PASSWORD} ".encode()).decode())
@example('Digest username="alice", realm="angos", nonce="x", response="y"')
@example("Negotiate YII=")
def test_a_field_of_any_bytes_is_nobody(attacker: Client, value: str) -> None:
    assert is_nobody(attacker, ("Authorization", value))


@FUZZ
@given(st.text(max_size=60), st.text(max_size=60))
@example("alice", "")
@example("ci", "x.y.z")
@example("away", "x.y.z")
@example("alice", "$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHQ$aGFzaGhhc2hoYXNoaGFzaA")
@example("alice", "x" * 20_000)
def test_a_name_and_a_password_of_any_text_are_nobody(attacker: Client, username: str, password: str) -> None:
    text = base64.b64encode(f"{username}:{password}".encode(errors="surrogatepass")).decode()
    assert is_nobody(attacker, ("Authorization", f"Basic {text}"))


@pytest.mark.parametrize("order", [1, -1])
def test_of_two_fields_neither_counts(attacker: Client, order: int) -> None:
    """A proxy in front may have looked at the other one (RFC 9110 section 5.3: it is not a list)."""
    assert is_nobody(attacker, *[ALICE, basic("alice", "wrong")][::order])
    assert is_nobody(attacker, ALICE, ALICE)


def test_a_head_full_of_credentials_is_nobody(attacker: Client) -> None:
    assert is_nobody(attacker, *[basic("alice", str(number)) for number in range(200)])


# --- tokens of a provider ---------------------------------------------------------------------------------------------

HEADERS: list[dict[str, Any]] = [
    {"alg": "none"},
    {"alg": "None", "kid": "rsa"},
    {"alg": "", "kid": "rsa"},
    {"alg": None, "kid": "rsa"},
    {"alg": ["RS256"], "kid": "rsa"},
    {"alg": {"RS256": 1}, "kid": "rsa"},
    {"alg": "rs256", "kid": "rsa"},
    {"alg": "RS512", "kid": "rsa"},
    {"alg": "PS256", "kid": "rsa"},
    {"alg": "HS256", "kid": "rsa"},
    {"alg": "ES256", "kid": "rsa"},
    {"alg": "ES256", "kid": "ec"},
    {"alg": "RS256", "kid": "ec"},
    {"alg": "RS256"},
    {"alg": "RS256", "kid": None},
    {"alg": "RS256", "kid": 0},
    {"alg": "RS256", "kid": ["rsa"]},
    {"alg": "RS256", "kid": {"rsa": "rsa"}},
    {"alg": "RS256", "kid": "RSA"},
    {"alg": "RS256", "kid": "rsa\0"},
    {"alg": "RS256", "kid": "../../../../dev/null"},
    {"alg": "RS256", "kid": "https://127.0.0.1:1/keys"},
    {"alg": "RS256", "kid": "' OR '1'='1"},
    {"alg": "RS256", "kid": "\ud800"},
    {"alg": "RS256", "kid": "k" * 10_000},
    {"alg": "RS256", "kid": "rsa", "crit": ["exp"]},
    {"alg": "RS256", "kid": "rsa", "crit": []},
    {"alg": "RS256", "kid": "rsa", "crit": None},
    {"alg": "RS256", "kid": "rsa", "b64": False, "crit": ["b64"]},
    {"alg": "HS256", "typ": "angos+jwt"},
    {"alg": "none", "typ": "angos+jwt"},
]


@pytest.mark.parametrize("header", HEADERS, ids=lambda header: json.dumps(header)[:60])
def test_a_header_that_asks_for_another_check_is_nobody(attacker: Client, issuer: Issuer, header: object) -> None:
    claims = issuer.claims()
    signed = f"{encode(header)}.{encode(claims)}"
    by_public_key = hmac.digest(issuer.public_pem, signed.encode(), "sha256")
    for token in (
        issuer.sign(header, claims),
        issuer.sign_with_curve(header, claims),
        f"{signed}.{encode(by_public_key)}",
        f"{signed}.",
        signed,
    ):
        assert is_nobody(attacker, bearer(token))
        assert is_nobody(attacker, basic("ci", token))


def test_a_provider_cannot_sign_a_token_of_the_registry(attacker: Client, issuer: Issuer) -> None:
    header = {"alg": "RS256", "kid": "rsa", "typ": "angos+jwt"}
    token = issuer.sign(header, issuer.claims(id="alice", scope=["repository:private/app:pull"]))
    assert is_nobody(attacker, bearer(token))
    assert attacker.get("/v2/private/app/tags/list", [basic("ci", token)]).status == 403, "a job, as it says"


def test_a_key_that_a_token_brings_along_is_not_used(attacker: Client, issuer: Issuer) -> None:
    """``jwk``, ``jku``, ``x5u`` (RFC 7515 section 4.1): nothing is fetched from there either."""
    good, own = issuer.rsa_key, rsa.generate_private_key(65537, 2048)
    key = RSAAlgorithm.to_jwk(own.public_key(), as_dict=True)
    asked = len(issuer.server.asked)
    try:
        issuer.rsa_key = own
        for name, value in (
            ("jwk", key),
            ("jku", f"{issuer.url}/mine"),
            ("x5u", f"{issuer.url}/mine"),
            ("x5c", [base64.b64encode(b"mine").decode()]),
        ):
            header = {"alg": "RS256", "kid": "rsa", name: value}
            assert is_nobody(attacker, bearer(issuer.sign(header, issuer.claims())))
    finally:
        issuer.rsa_key = good
    assert all(each.target == "/keys" for each in issuer.server.asked[asked:])


NO_DATES: list[object] = [True, False, "", "9999999999", [], {}, [9_999_999_999], 10**400, -(10**400)]
PAST: list[object] = [0, -1, 1, -(1 << 63), 1e-300, -1e300]
FUTURE: list[object] = [1 << 63, 1 << 64, 1e300, 253_402_300_800]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("exp", value) for value in [None, *NO_DATES, *PAST]),
        *((name, value) for name in ("nbf", "iat") for value in [*NO_DATES, *FUTURE]),
    ],
    ids=str,
)
def test_a_date_that_is_none_or_does_not_hold_is_nobody(
    attacker: Client, issuer: Issuer, name: str, value: object
) -> None:
    assert is_nobody(attacker, bearer(issuer.token(**{name: value})))


@pytest.mark.parametrize(
    ("name", "value"),
    [*(("exp", value) for value in FUTURE), *((name, value) for name in ("nbf", "iat") for value in [None, *PAST])],
    ids=str,
)
def test_a_date_of_any_size_that_holds_is_right(attacker: Client, issuer: Issuer, name: str, value: object) -> None:
    assert attacker.get("/v2/", [bearer(issuer.token(**{name: value}))]).status == 200


def test_claims_in_odd_json_are_nobody(attacker: Client, issuer: Issuer) -> None:
    text = json.dumps(issuer.claims())
    odd = [
        text[:-1] + ', "sub": "admin"}',
        text[:-1] + ', "exp": 9999999999}',
        text[:-1] + ', "x": NaN}',
        text[:-1] + ', "x": -Infinity}',
        text[:-1] + ', "x": 1e999}',
        text[:-1] + f', "x": {"9" * 5000}}}',
        text[:-1] + ', "x": ' + "[" * 4000 + "]" * 4000 + "}",
        text[:-1] + ', "x": ' + "[" * 40 + "]" * 40 + "}",
        text[:-1] + ', "x": "\xff"}',
        f"[{text}]",
        text + text,
        "\ufeff" + text,
        "null",
        "",
    ]
    for each in odd:
        token = issuer.sign({"alg": "RS256", "kid": "rsa"}, each.encode("latin-1", "replace"))
        assert is_nobody(attacker, bearer(token)), each[:200]
    assert is_nobody(attacker, bearer(issuer.sign({"alg": "RS256", "kid": "rsa"}, text.encode("utf-16"))))


@pytest.mark.parametrize(
    "audience", [None, "", "other", [], ["other"], {"registry": 1}, 1, [["registry"]], "registry "]
)
def test_another_audience_is_nobody(attacker: Client, issuer: Issuer, audience: object) -> None:
    assert is_nobody(attacker, bearer(issuer.token(aud=audience)))


def test_an_audience_among_others_is_right(attacker: Client, issuer: Issuer) -> None:
    token = issuer.token(aud=["other", "registry", 5, None])
    assert attacker.get("/v2/", [bearer(token)]).status == 200


@pytest.mark.parametrize("claimed", [None, "", "https://127.0.0.1:2", ["x"], {}, 1, "{}/", "{}#x"])
def test_another_issuer_is_nobody(attacker: Client, issuer: Issuer, claimed: object) -> None:
    claimed = claimed.format(issuer.url) if isinstance(claimed, str) else claimed
    assert is_nobody(attacker, bearer(issuer.token(iss=claimed)))


def test_a_provider_that_cannot_be_asked_is_not_a_wrong_token(attacker: Client, issuer: Issuer) -> None:
    token = issuer.token(iss="https://127.0.0.1:1")
    for credentials in (bearer(token), basic("away", token)):
        answer = attacker.get("/v2/private/app/tags/list", [credentials])
        assert answer.status == 503
        assert answer.get("retry-after")


@FUZZ
@given(st.data())
def test_a_good_token_with_any_change_is_nobody(attacker: Client, issuer: Issuer, data: st.DataObject) -> None:
    token = issuer.token()
    position = data.draw(st.integers(0, len(token)))
    changed = data.draw(
        st.sampled_from(
            [
                token[:position],
                token[:position] + "A" + token[position:],
                token[:position] + token[position + 1 :],
                token[:position] + "." + token[position:],
                token + "=",
                f"{token}.{token}",
                token[:position].swapcase() + token[position:],
            ]
        )
    )
    if changed != token and changed.strip():
        assert is_nobody(attacker, bearer(changed))


# Claims that a policy, a log or a webhook may stumble over: anything that JSON can say.
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@FUZZ
@given(JSON_VALUES.filter(lambda value: value is not None), JSON_VALUES)
@example("\ud800", "\udfff")
@example("a\r\nX-Registry-Username: alice", "\0")
@example({"sub": "alice"}, 1 << 70)
def test_a_signed_token_with_claims_of_any_kind_is_its_holder_and_nobody_else(
    attacker: Client, issuer: Issuer, subject: object, other: object
) -> None:
    token = bearer(issuer.token(sub=subject, id="alice", username="alice", other=other))
    assert attacker.get("/v2/ci/app/tags/list", [token]).status == 404
    assert attacker.get("/v2/private/app/tags/list", [token]).status == 403
    own = attacker.get("/token?scope=repository:ci/app:pull", [token])
    assert own.status == 200
    own_token = bearer(own.json["token"])
    assert attacker.get("/v2/ci/app/tags/list", [own_token]).status == 404
    assert attacker.get("/v2/ci/other/tags/list", [own_token]).status == 401


# --- tokens of the registry -------------------------------------------------------------------------------------------

OWN_HEADER = {"alg": "HS256", "typ": "angos+jwt"}


def own_token(secret: bytes, claims: object, header: object = OWN_HEADER) -> str:
    signed = f"{encode(header)}.{encode(claims)}"
    return f"{signed}.{encode(hmac.digest(secret, signed.encode(), 'sha256'))}"


def own_claims(**more: object) -> dict[str, object]:
    return {"exp": int(time.time()) + 300, "id": "alice", "scope": ["repository:private/app:pull"], **more}


def test_the_registry_s_own_secret_is_what_makes_a_token(attacker: Client) -> None:
    secret = base64.b64decode(REGISTRY_SECRET)
    assert attacker.get("/v2/", [bearer(own_token(secret, own_claims()))]).status == 200
    for other in (b"", b"secret", REGISTRY_SECRET.encode(), secret[:-1], bytes(48)):
        assert is_nobody(attacker, bearer(own_token(other, own_claims())))


@pytest.mark.parametrize(
    "header",
    [
        {"alg": "none", "typ": "angos+jwt"},
        {"alg": "HS512", "typ": "angos+jwt"},
        {"alg": "HS256", "typ": "JWT"},
        {"alg": "HS256", "typ": "ANGOS+JWT"},
        {"alg": "HS256", "typ": ["angos+jwt"]},
        {"alg": "HS256"},
        {"alg": "HS256", "typ": "angos+jwt", "crit": ["x"]},
        {"alg": "RS256", "typ": "angos+jwt", "kid": "rsa"},
    ],
    ids=json.dumps,
)
def test_another_kind_of_token_under_the_same_secret_is_nobody(attacker: Client, header: object) -> None:
    secret = base64.b64decode(REGISTRY_SECRET)
    assert is_nobody(attacker, bearer(own_token(secret, own_claims(), header)))
    assert is_nobody(attacker, basic("ci", own_token(secret, own_claims(), header)))


@pytest.mark.parametrize("change", [{"exp": 1}, {"exp": None}, {"exp": "never"}, {"id": "bob"}, {"id": "admin"}])
def test_a_token_of_the_registry_that_holds_no_more_is_nobody(attacker: Client, change: dict[str, object]) -> None:
    secret = base64.b64decode(REGISTRY_SECRET)
    assert is_nobody(attacker, bearer(own_token(secret, own_claims(**change))))


def test_a_token_is_no_password_and_gives_no_other_token(attacker: Client) -> None:
    token = str(attacker.get("/token?scope=repository:private/app:pull", [ALICE]).json["token"])
    assert not is_nobody(attacker, bearer(token))
    assert is_nobody(attacker, basic("alice", token))
    assert is_nobody(attacker, basic("ci", token))
    assert attacker.get("/token?scope=repository:private/app:pull,push", [bearer(token)]).status == 401


def test_a_token_is_good_for_what_it_was_asked_for(attacker: Client) -> None:
    asked = "/token?scope=repository:private/scoped:pull&scope=repository(plugin):private/other:push+registry:catalog:*"
    token = [bearer(attacker.get(asked, [ALICE]).json["token"])]
    found = [
        attacker.request(method, target, headers=token).status
        for method, target in (
            ("GET", "/v2/private/scoped/tags/list"),
            ("GET", "/v2/private%2Fscoped/tags/list"),
            ("POST", "/v2/private/scoped/blobs/uploads/"),
            ("GET", "/v2/private/other/tags/list"),
            ("POST", "/v2/private/other/blobs/uploads/"),
            ("GET", "/v2/_catalog"),
            ("GET", "/v2/private/scoped2/tags/list"),
            ("GET", "/v2/private/tags/list"),
            ("DELETE", "/v2/private/scoped/manifests/x"),
        )
    ]
    assert found == [404, 404, 401, 401, 202, 200, 401, 401, 401]


# --- asking for tokens ------------------------------------------------------------------------------------------------


@FUZZ
@given(
    st.lists(st.tuples(st.sampled_from(["scope", "service", "account", "offline_token", "x"]), st.text()), max_size=5)
)
@example([("scope", "repository:private/app:*")] * 100)
@example([("scope", "repository:" + "a" * 255 + ":pull")])
@example([("scope", "repository:../../etc:pull"), ("scope", "repository:%2e%2e:pull"), ("scope", ":::")])
def test_any_question_gives_an_anonymous_token_that_is_nobody(
    attacker: Client, parameters: list[tuple[str, str]]
) -> None:
    text = urlencode(parameters, errors="surrogatepass")[:14_000]
    for answer in (attacker.get(f"/token?{text}"), attacker.post("/token", text.encode())):
        assert answer.status == 200
        token = bearer(answer.json["token"])
        assert attacker.get("/v2/", [token]).status == 200
        assert attacker.get("/v2/private/app/tags/list", [token]).status == 401


@FUZZ
@given(st.binary(max_size=300))
@example(b"grant_type=password&username=alice")
@example(b"grant_type=password&username=alice&password=")
@example(b"grant_type=password&username=alice&username=alice&password=x")
@example(b"grant_type=refresh_token&refresh_token=x")
@example(b"username=ci&password=x.y.z")
@example(b"username=alice&password=" + b"x" * 60_000)
@example(b"&".join([b"scope=repository:a:pull"] * 200))
@example(b"scope=" + b"+".join(b"repository:%d:pull" % number for number in range(2000)))
@example(b"x" * 70_000)
@example(b"\xff=\xff&%ff=%00")
def test_any_form_is_refused_or_gives_a_token_that_is_nobody(attacker: Client, form: bytes) -> None:
    for headers in ((), [("Content-Type", "application/x-www-form-urlencoded")]):
        answer = attacker.post("/token", form, headers)
        assert answer.status in (200, 400, 401)
        if answer.status == 200:
            assert attacker.get("/v2/private/app/tags/list", [bearer(answer.json["token"])]).status == 401


def test_a_token_that_could_not_be_shown_is_not_given(attacker: Client, issuer: Issuer) -> None:
    scopes = "+".join(f"repository:{'a' * 230}/{number}:pull" for number in range(60))
    refused(attacker.post("/token", f"scope={scopes}".encode()), 400, "UNSUPPORTED")
    few = attacker.post("/token", f"scope={scopes[:9_000]}".encode())
    assert attacker.get("/v2/", [bearer(few.json["token"])]).status == 200
