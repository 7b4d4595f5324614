"""JSON Web Tokens: what is valid is, what is not never is, and nothing in a token can make the server stumble."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import math
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from hypothesis import given, settings
from hypothesis import strategies as st
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from angos.runtime.access import tokens as module
from angos.runtime.access.keys import ALGORITHMS, load_key
from angos.runtime.access.signed_text import DEPTH_MAX, LENGTH_MAX
from angos.runtime.access.tokens import OWN_TYPE, Tokens, check_token_secret
from angos.sansio.effects import SignToken, TokenVerdict, VerifyOwnToken, VerifyToken
from angos.sansio.secret import Secret

NOW = 1_800_000_000
ISSUER = "https://idp.example"
AUDIENCE = "registry"
CLAIMS = {"iss": ISSUER, "aud": AUDIENCE, "exp": NOW + 300, "iat": NOW - 10, "nbf": NOW - 10, "sub": "canary"}

PRIVATE_KEYS: dict[str, Callable[[], Any]] = {
    "RSA": lambda: rsa.generate_private_key(65537, 2048),
    "another RSA": lambda: rsa.generate_private_key(65537, 2048),
    "weak RSA": lambda: rsa.generate_private_key(65537, 1024),
    "ES256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "ES384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "ES512": lambda: ec.generate_private_key(ec.SECP521R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate,
    "Ed448": ed448.Ed448PrivateKey.generate,
}


@cache
def key_of(name: str) -> Any:
    """The private key of this name, the same one in the whole run."""
    return PRIVATE_KEYS[name]()


OWN_SECRET = Secret(base64.b64encode(bytes(range(40))).decode())


def jwk_of(name: str) -> str:
    """The public JSON Web Key."""
    return to_jwk(name, key_of(name).public_key())


def to_jwk(name: str, key: Any) -> str:
    kind: Any = RSAAlgorithm if "RSA" in name else ECAlgorithm if name.startswith("ES") else OKPAlgorithm
    text: str = kind.to_jwk(key)
    return text


def name_for(algorithm: str) -> str:
    """Of a key that fits."""
    return algorithm if algorithm in PRIVATE_KEYS else "RSA"


def token_of(claims: object = CLAIMS, key: str = "RSA", algorithm: str = "RS256", **header: object) -> str:
    payload = claims if isinstance(claims, bytes) else json.dumps(claims).encode()
    return jwt.PyJWS().encode(payload, key_of(key), algorithm, headers=header)


def joined(header: object, claims: object, sign: Callable[[bytes], bytes]) -> str:
    """A token with any header, signed in any way."""
    texts = [part if isinstance(part, bytes) else json.dumps(part).encode() for part in (header, claims)]
    signed = ".".join(map(segment, texts)).encode()
    return f"{signed.decode()}.{segment(sign(signed))}"


def segment(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).decode().rstrip("=")


def signed_with_rsa(message: bytes, name: str = "RSA") -> bytes:
    return RSAAlgorithm(RSAAlgorithm.SHA256).sign(message, key_of(name))


def shared_digest(secret: bytes, algorithm: str, message: bytes) -> bytes:
    return hmac.digest(secret, message, algorithm)


def verdict_on(
    token: str,
    key: str | None = None,
    algorithm: str = "RS256",
    *,
    audience: str | None = AUDIENCE,
    leeway: float = 60.0,
    now: float = NOW,
) -> TokenVerdict:
    effect = VerifyToken(Secret(token), key or jwk_of("RSA"), algorithm, ISSUER, audience, leeway)
    verdict = Tokens(None, now=lambda: now).verify_token(effect)
    assert (verdict.claims is None) == bool(verdict.problem)
    assert "canary" not in verdict.problem
    return verdict


def problem_of(token: str, key: str | None = None, algorithm: str = "RS256", **options: Any) -> str:
    verdict = verdict_on(token, key, algorithm, **options)
    assert verdict.claims is None
    return verdict.problem


class TestValidTokens:
    @pytest.mark.parametrize("algorithm", ALGORITHMS)
    def test_every_algorithm_works_with_a_key_of_its_own(self, algorithm: str) -> None:
        key = name_for(algorithm)
        verdict = verdict_on(token_of(key=key, algorithm=algorithm), jwk_of(key), algorithm)
        assert verdict.claims is not None
        assert json.loads(verdict.claims) == CLAIMS

    def test_ed448_is_edwards_too(self) -> None:
        assert verdict_on(token_of(key="Ed448", algorithm="EdDSA"), jwk_of("Ed448"), "EdDSA").claims is not None

    def test_the_example_of_rfc_7515_appendix_a_2(self) -> None:
        key = {
            "kty": "RSA",
            "n": "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yR"
            "T-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WT"
            "BEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2"
            "PAcDTW9gb54h4FRWyuXpoQ",
            "e": "AQAB",
        }
        token = (
            "eyJhbGciOiJSUzI1NiJ9."
            "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ."
            "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CU"
            "Ar7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO"
            "--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_"
            "IoypGlUPQGe77Rw"
        )
        effect = VerifyToken(Secret(token), json.dumps(key), "RS256", "joe", None, 0)
        assert Tokens(None, now=lambda: 1300819379).verify_token(effect).claims is not None
        assert Tokens(None, now=lambda: 1300819380).verify_token(effect).problem == "it has expired"

    def test_claims_come_back_as_they_are(self) -> None:
        claims = {**CLAIMS, "groups": ["a", "b"], "nested": {"ü": [1, 2.5, None, True]}, "odd": "\ud800"}
        verdict = verdict_on(token_of(claims))
        assert verdict.claims is not None
        assert json.loads(verdict.claims) == claims

    def test_members_of_a_key_that_are_not_about_its_numbers_do_not_matter(self) -> None:
        key = json.dumps({**json.loads(jwk_of("RSA")), "kid": "1", "use": "sig", "x5c": ["MII"], "alg": "RS256"})
        assert verdict_on(token_of(), key).claims is not None


class TestTimes:
    """RFC 7519 sections 4.1.4 to 4.1.6."""

    @pytest.mark.parametrize(
        ("claims", "problem"),
        [
            ({"exp": NOW - 59}, ""),
            ({"exp": NOW - 60}, "it has expired"),
            ({"exp": NOW - 59.5}, ""),
            ({"nbf": NOW + 60}, ""),
            ({"nbf": NOW + 61}, "it is not valid yet"),
            ({"iat": NOW + 60}, ""),
            ({"iat": NOW + 61}, "it was issued in the future"),
            ({"nbf": None, "iat": None}, ""),
            ({"exp": None}, "it lacks exp, so it would be valid for ever"),
            ({"exp": str(NOW + 300)}, "its exp is not a date"),
            ({"exp": True}, "its exp is not a date"),
            ({"exp": [NOW]}, "its exp is not a date"),
            ({"exp": 10**400}, "its exp is not a date"),
            ({"nbf": "0"}, "its nbf is not a date"),
            ({"iat": {}}, "its iat is not a date"),
            ({"exp": -1}, "it has expired"),
        ],
    )
    def test_with_a_minute_of_leeway(self, claims: dict[str, Any], problem: str) -> None:
        assert verdict_on(token_of({**CLAIMS, **claims})).problem == problem

    @pytest.mark.parametrize("number", [b"NaN", b"Infinity", b"-Infinity", b"1e400", b"9" * 5000])
    def test_numbers_that_are_none(self, number: bytes) -> None:
        payload = b'{"iss": "https://idp.example", "aud": "registry", "exp": %s}' % number
        assert verdict_on(token_of(payload)).claims is None

    def test_exp_is_demanded(self) -> None:
        claims = {name: value for name, value in CLAIMS.items() if name != "exp"}
        assert "lacks exp" in problem_of(token_of(claims))


class TestParties:
    @pytest.mark.parametrize("issuer", [None, "", ISSUER + "/", ISSUER.upper(), [ISSUER], "https://other.example"])
    def test_the_issuer_is_compared_exactly(self, issuer: object) -> None:
        assert problem_of(token_of({**CLAIMS, "iss": issuer})) == "it is from another issuer"

    @pytest.mark.parametrize("audience", [AUDIENCE, [AUDIENCE], ["other", AUDIENCE]])
    def test_meant_for_us(self, audience: object) -> None:
        assert verdict_on(token_of({**CLAIMS, "aud": audience})).claims is not None

    @pytest.mark.parametrize(
        "audience", [None, "", "other", "registry2", [], ["other"], {AUDIENCE: 1}, 5, [[AUDIENCE]]]
    )
    def test_meant_for_others(self, audience: object) -> None:
        token = token_of({**CLAIMS, "aud": audience})
        assert problem_of(token) == "it is for another audience"
        assert verdict_on(token, audience=None).claims is not None


class TestForgeries:
    def test_another_key(self) -> None:
        assert problem_of(token_of(key="another RSA")) == "its signature is not that of its key"

    @pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512"])
    def test_a_public_key_is_no_shared_secret(self, algorithm: str) -> None:
        """CVE-2016-5431 and its kin: HMAC with what everybody knows."""
        public = key_of("RSA").public_key()
        formats = (serialization.PublicFormat.SubjectPublicKeyInfo, serialization.PublicFormat.PKCS1)
        known = [public.public_bytes(serialization.Encoding.PEM, form) for form in formats]
        known += [public.public_bytes(serialization.Encoding.DER, form) for form in formats]
        known += [jwk_of("RSA").encode(), b"", json.loads(jwk_of("RSA"))["n"].encode()]
        for secret in known:
            forged = joined({"alg": algorithm}, CLAIMS, partial(shared_digest, secret, f"sha{algorithm[2:]}"))
            assert problem_of(forged) == "it is signed with another algorithm than its key is for"
            assert "is not an algorithm for the keys" in problem_of(forged, algorithm=algorithm)
            shared = json.dumps({"kty": "oct", "k": segment(secret)})
            assert "is not an algorithm for the keys" in problem_of(forged, shared, algorithm)

    @pytest.mark.parametrize("algorithm", ["none", "None", "NONE", "nOnE", ""])
    def test_no_signature(self, algorithm: str) -> None:
        head, claims = segment(json.dumps({"alg": algorithm}).encode()), segment(json.dumps(CLAIMS).encode())
        for signature in ("", "AA"):
            forged = f"{head}.{claims}.{signature}"
            assert verdict_on(forged).claims is None
            assert verdict_on(forged, algorithm=algorithm).claims is None

    def test_the_header_does_not_choose_the_algorithm(self) -> None:
        for algorithm in ("RS384", "RS512", "PS256"):
            token = token_of(algorithm=algorithm)
            assert problem_of(token) == "it is signed with another algorithm than its key is for"
        relabelled = joined(
            {"alg": "RS256"}, CLAIMS, lambda signed: RSAAlgorithm(RSAAlgorithm.SHA512).sign(signed, key_of("RSA"))
        )
        assert problem_of(relabelled) == "its signature is not that of its key"

    def test_a_key_that_the_token_brings_along_is_ignored(self) -> None:
        key = json.loads(jwk_of("another RSA"))
        forged = token_of(
            key="another RSA", jwk=key, jku="https://evil.example", x5u="https://evil.example", x5c=["MII"]
        )
        assert problem_of(forged) == "its signature is not that of its key"

    @pytest.mark.parametrize("kid", ["../../dev/null", "' OR 1=1 --", "\0", {"a": 1}, ["1"], 5, None, "x" * 5000])
    def test_the_name_of_a_key_is_not_looked_at(self, kid: object) -> None:
        signed = joined({"alg": "RS256", "kid": kid}, CLAIMS, signed_with_rsa)
        assert verdict_on(signed).claims is not None
        assert problem_of(joined({"alg": "RS256", "kid": kid}, CLAIMS, lambda signed: b"x")) != ""

    @pytest.mark.parametrize("crit", [["exp"], ["b64"], ["https://example.com/x"], [], None, "exp"])
    def test_critical_extensions(self, crit: object) -> None:
        token = joined({"alg": "RS256", "crit": crit, "exp": 1}, CLAIMS, signed_with_rsa)
        assert problem_of(token) == "it needs an extension that is not supported"

    def test_an_unencoded_payload(self) -> None:
        for value in (False, True):
            token = joined({"alg": "RS256", "b64": value}, CLAIMS, signed_with_rsa)
            assert problem_of(token) == "it needs an extension that is not supported"

    def test_a_name_that_is_there_twice(self) -> None:
        twice = b'{"alg": "RS256", "alg": "RS256"}'
        assert "ambiguous" in problem_of(joined(twice, CLAIMS, signed_with_rsa))
        claims = json.dumps(CLAIMS)[:-1].encode() + b', "iss": "https://idp.example"}'
        assert "ambiguous" in problem_of(joined({"alg": "RS256"}, claims, signed_with_rsa))

    @pytest.mark.parametrize(
        "part", [b"[]", b"null", b'"text"', b"{", b"", b"\xff{}", '{"a": 1}'.encode("utf-16"), b"\xef\xbb\xbf{}"]
    )
    def test_parts_that_are_no_object(self, part: bytes) -> None:
        assert verdict_on(joined(part, CLAIMS, signed_with_rsa)).claims is None
        assert verdict_on(joined({"alg": "RS256"}, part, signed_with_rsa)).claims is None

    def test_nesting(self) -> None:
        for levels, valid in ((DEPTH_MAX - 1, True), (DEPTH_MAX + 1, False), (5000, False)):
            claims = json.dumps(CLAIMS)[:-1].encode() + b', "deep": ' + b"[" * levels + b"]" * levels + b"}"
            assert (verdict_on(joined({"alg": "RS256"}, claims, signed_with_rsa)).claims is not None) == valid

    def test_length(self) -> None:
        assert "longer than" in problem_of(token_of({**CLAIMS, "long": "x" * LENGTH_MAX}))
        assert "longer than" in problem_of("x" * (LENGTH_MAX + 1))

    @pytest.mark.parametrize(
        "change", [" {}", "{} ", "{}\n", "{}=", "{}.", ".{}", "{}.AA", "a.b", "a.b.c", "", "..", "{}+"]
    )
    def test_text_around_it(self, change: str) -> None:
        assert verdict_on(change.format(token_of())).claims is None

    def test_stray_bits_in_the_signature(self) -> None:
        token = token_of()
        alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
        same_bytes = [token[:-1] + letter for letter in alphabet]
        assert [text for text in same_bytes if verdict_on(text).claims is not None] == [token]


class TestKeys:
    @pytest.mark.parametrize(
        ("key", "algorithm", "problem"),
        [
            ("weak RSA", "RS256", "it has 1024 bits; 2048 to 16384 are accepted"),
            ("ES256", "RS256", "it is not an RSA key"),
            ("RSA", "ES256", "it is not an EC key"),
            ("RSA", "EdDSA", "it is not an OKP key"),
            ("ES384", "ES256", "it is not on the curve P-256"),
            ("ES256", "ES512", "it is not on the curve P-521"),
            ('{"kty": "OKP", "crv": "X25519", "x": "AAAA"}', "EdDSA", "it is not on the curve Ed25519 or Ed448"),
            ('{"kty": "OKP", "crv": "Ed25519", "x": "AAAA"}', "EdDSA", "its numbers are not a key"),
            ('{"kty": "EC", "crv": "P-256", "x": "AAAA", "y": "AAAA"}', "ES256", "its numbers are not a key"),
            ('{"kty": "EC", "crv": "P-256", "x": "AAAA"}', "ES256", "it lacks one of crv, x, y"),
            ('{"kty": "RSA", "n": "AAAA", "e": "AQAB"}', "RS256", "its numbers are not a key"),
            ('{"kty": "RSA", "n": "!", "e": "?"}', "RS256", "its numbers are not a key"),
            ('{"kty": "RSA", "n": 5, "e": 3}', "RS256", "it lacks one of n, e"),
            ('{"kty": "oct", "k": "AAAA"}', "RS256", "it is not an RSA key"),
            ("[]", "RS256", "it is not a JSON object"),
            ("{", "RS256", "it is not a JSON object"),
            ("[" * 5000, "RS256", "it is not a JSON object"),
        ],
    )
    def test_what_cannot_be_used_is_named(self, key: str, algorithm: str, problem: str) -> None:
        token = joined({"alg": algorithm}, CLAIMS, lambda signed: b"x" * 64)
        text = jwk_of(key) if key in PRIVATE_KEYS else key
        assert problem_of(token, text, algorithm).startswith(f"its key cannot be used: {problem}")

    def test_a_weak_key_is_refused_even_with_a_right_signature(self) -> None:
        token = joined({"alg": "RS256"}, CLAIMS, lambda signed: signed_with_rsa(signed, "weak RSA"))
        assert "1024 bits" in problem_of(token, jwk_of("weak RSA"))

    @pytest.mark.parametrize(("name", "algorithm"), [("RSA", "RS256"), ("ES256", "ES256"), ("EdDSA", "EdDSA")])
    def test_a_key_whose_private_part_is_known_to_everybody(self, name: str, algorithm: str) -> None:
        published = to_jwk(name, key_of(name))
        problem = problem_of(token_of(key=name, algorithm=algorithm), published, algorithm)
        assert "its private part was published" in problem

    @given(
        st.dictionaries(
            st.sampled_from(["kty", "n", "e", "crv", "x", "y", "d", "k", "kid"]),
            st.sampled_from(["RSA", "EC", "OKP", "P-256", "Ed25519", "AQAB", "AA", "", "!", "\ud800"])
            | st.none()
            | st.integers()
            | st.text(max_size=50),
        ),
        st.sampled_from([*ALGORITHMS, "none", "HS256", "ES256K"]),
    )
    def test_no_key_makes_it_stumble(self, key: dict[str, object], algorithm: str) -> None:
        token = joined({"alg": algorithm}, CLAIMS, lambda signed: b"x" * 64)
        assert verdict_on(token, json.dumps(key), algorithm).claims is None


class TestFuzz:
    @given(st.text(max_size=200) | st.from_regex(r"[A-Za-z0-9_-]{0,40}(\.[A-Za-z0-9_-]{0,40}){1,4}", fullmatch=True))
    def test_any_text(self, text: str) -> None:
        assert verdict_on(text).claims is None
        assert Tokens(OWN_SECRET).verify_own_token(VerifyOwnToken(Secret(text))).claims is None

    @given(st.data())
    def test_a_damaged_token(self, data: st.DataObject) -> None:
        token = token_of()
        position = data.draw(st.integers(0, len(token) - 1))
        replacement = data.draw(st.text(alphabet="ABab01-_.= \n\u00e9", max_size=3))
        damaged = token[:position] + replacement + token[position + 1 :]
        assert (verdict_on(damaged).claims is None) == (damaged != token)

    @settings(max_examples=200)
    @given(
        st.dictionaries(
            st.sampled_from(["alg", "kid", "crit", "typ", "b64", "jwk"]),
            st.none()
            | st.booleans()
            | st.sampled_from(["RS256", "none", "HS256", OWN_TYPE])
            | st.lists(st.text(), max_size=2),
        ),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
            lambda inner: (
                st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*CLAIMS, "x"]), inner, max_size=7)
            ),
            max_leaves=10,
        ),
    )
    def test_any_header_and_claims_with_a_right_signature(self, header: dict[str, object], claims: object) -> None:
        verdict = verdict_on(joined(header, claims, signed_with_rsa))
        if verdict.claims is not None:
            assert header["alg"] == "RS256"
            assert not {"crit", "b64"} & header.keys()
            read = json.loads(verdict.claims)
            assert read["iss"] == ISSUER
            assert NOW - 60 < read["exp"] < math.inf
        own = joined(header, claims, lambda signed: hmac.digest(bytes(range(40)), signed, "sha256"))
        if Tokens(OWN_SECRET, now=lambda: NOW).verify_own_token(VerifyOwnToken(Secret(own))).claims is not None:
            assert (header["alg"], header["typ"]) == ("HS256", OWN_TYPE)


class TestRemembering:
    def effect(self, token: str, **changed: Any) -> VerifyToken:
        values = {"key": jwk_of("RSA"), "algorithm": "RS256", "issuer": ISSUER, "audience": AUDIENCE}
        return VerifyToken(Secret(token), **{**values, "leeway_seconds": 60.0, **changed})

    def test_a_valid_token_is_verified_once_until_it_expires(self, monkeypatch: pytest.MonkeyPatch) -> None:
        now = float(NOW)
        tokens = Tokens(None, now=lambda: now)
        effect = self.effect(token_of())
        loaded = []

        def load(*arguments: str) -> Any:
            loaded.append(arguments)
            return load_key(*arguments)

        monkeypatch.setattr(module, "load_key", load)
        first = tokens.verify_token(effect)
        assert tokens.verify_token(effect) is first
        now = CLAIMS["exp"] + 59.9  # type: ignore[operator]
        assert tokens.verify_token(effect) is first
        assert len(loaded) == 1
        now += 0.1
        assert tokens.verify_token(effect).problem == "it has expired"

    @pytest.mark.parametrize(
        "changed",
        [
            {"issuer": "https://other.example"},
            {"audience": "other"},
            {"key": "another RSA"},
            {"algorithm": "RS512"},
            {"issuer": ISSUER + AUDIENCE, "audience": ""},
        ],
    )
    def test_it_is_remembered_for_the_same_question_only(self, changed: dict[str, str]) -> None:
        tokens = Tokens(None, now=lambda: NOW)
        token = token_of()
        if "key" in changed:
            changed = {"key": jwk_of(changed["key"])}
        assert tokens.verify_token(self.effect(token)).claims is not None
        assert tokens.verify_token(self.effect(token, **changed)).claims is None

    def test_no_audience_and_an_empty_one_are_two_questions(self) -> None:
        tokens = Tokens(None, now=lambda: NOW)
        token = token_of()
        assert tokens.verify_token(self.effect(token, audience=None)).claims is not None
        assert tokens.verify_token(self.effect(token, audience="")).claims is None

    def test_a_smaller_leeway_is_another_question(self) -> None:
        tokens = Tokens(None, now=lambda: NOW)
        token = token_of({**CLAIMS, "exp": NOW - 30})
        assert tokens.verify_token(self.effect(token)).claims is not None
        assert tokens.verify_token(self.effect(token, leeway_seconds=10.0)).claims is None

    def test_an_invalid_one_is_not_remembered(self) -> None:
        tokens = Tokens(None, now=lambda: NOW)
        for _ in range(3):
            assert tokens.verify_token(self.effect(token_of(key="another RSA"))).claims is None
        assert not tokens._remembered

    def test_there_is_a_bound_and_no_token_is_kept(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "REMEMBERED_MAX", 3)
        tokens = Tokens(None, now=lambda: NOW)
        for number in range(5):
            token = token_of({**CLAIMS, "number": number})
            assert tokens.verify_token(self.effect(token)).claims is not None
        assert len(tokens._remembered) == 3
        assert token.encode()[-20:] not in repr(tokens._remembered).encode()


class TestOwnTokens:
    def verify(self, token: str, secret: Secret | None = OWN_SECRET, now: float = NOW) -> TokenVerdict:
        return Tokens(secret, now=lambda: now).verify_own_token(VerifyOwnToken(Secret(token)))

    def sign(self, **claims: object) -> str:
        claims = {"exp": NOW + 60, "id": "ci", "scope": ["repository:a:pull"], **claims}
        return Tokens(OWN_SECRET).sign_token(SignToken(json.dumps(claims))).value

    def test_another_process_with_the_same_secret_accepts_it(self) -> None:
        verdict = self.verify(self.sign())
        assert verdict.claims is not None
        assert json.loads(verdict.claims) == {"exp": NOW + 60, "id": "ci", "scope": ["repository:a:pull"]}

    def test_it_is_a_json_web_token(self) -> None:
        secret = base64.b64decode(OWN_SECRET.value)
        token = self.sign(exp=2**40)
        assert jwt.decode(token, secret, algorithms=["HS256"])["id"] == "ci"
        assert jwt.get_unverified_header(token) == {"alg": "HS256", "typ": "angos+jwt"}

    def test_it_ends_to_the_second(self) -> None:
        token = self.sign()
        assert self.verify(token, now=NOW + 59.9).claims is not None
        assert self.verify(token, now=NOW + 60).problem == "it has expired"
        assert "lacks exp" in self.verify(self.sign(exp=None)).problem

    def test_the_clock_of_the_replica_that_signed_it_may_be_ahead(self) -> None:
        assert self.verify(self.sign(iat=NOW + 5)).claims is not None

    def test_it_is_remembered_until_it_ends(self) -> None:
        now = float(NOW)
        tokens = Tokens(OWN_SECRET, now=lambda: now)
        effect = VerifyOwnToken(Secret(self.sign()))
        first = tokens.verify_own_token(effect)
        assert tokens.verify_own_token(effect) is first
        now += 60
        assert tokens.verify_own_token(effect).problem == "it has expired"

    def test_another_secret(self) -> None:
        other = Secret(base64.b64encode(bytes(40)).decode())
        assert self.verify(self.sign(), other).problem == "its signature is not that of this registry"

    @pytest.mark.parametrize(
        "header",
        [
            {"alg": "HS256"},
            {"alg": "HS256", "typ": "JWT"},
            {"alg": "HS256", "typ": ["angos+jwt"]},
            {"alg": "HS512", "typ": "angos+jwt"},
            {"alg": "none", "typ": "angos+jwt"},
            {"alg": "RS256", "typ": "angos+jwt"},
            {"alg": "HS256", "typ": "angos+jwt", "crit": ["exp"]},
        ],
    )
    def test_another_header(self, header: dict[str, object]) -> None:
        secret = base64.b64decode(OWN_SECRET.value)
        token = joined(header, {"exp": NOW + 60}, lambda signed: hmac.digest(secret, signed, hashlib.sha256))
        assert self.verify(token).claims is None

    def test_it_is_no_token_of_an_identity_provider(self) -> None:
        secret = json.dumps({"kty": "oct", "k": segment(base64.b64decode(OWN_SECRET.value))})
        assert verdict_on(self.sign(iss=ISSUER, aud=AUDIENCE), secret, "HS256").claims is None

    def test_a_token_of_an_identity_provider_is_none_of_ours(self) -> None:
        assert self.verify(token_of(typ=OWN_TYPE)).problem == "it is not a token of this registry"

    def test_without_a_token_service_there_is_none(self) -> None:
        assert self.verify(self.sign(), None).problem == "no token service is configured"

    @pytest.mark.parametrize(
        ("secret", "problem"),
        [
            ("canary!", "it is not base64"),
            ("", "it has 0 bytes"),
            (base64.b64encode(bytes(31)).decode(), "it has 31 bytes when decoded and needs at least 32"),
            (base64.b64encode(bytes(32)).decode()[:-1], "it is not base64"),
            (base64.b64encode(bytes(32)).decode() + "\n", "it is not base64"),
            ("ü" * 50, "it is not base64"),
            (base64.b64encode(bytes(32)).decode(), None),
        ],
    )
    def test_what_can_be_a_secret(self, secret: str, problem: str | None) -> None:
        found = check_token_secret(secret)
        assert found == problem or (found is not None and problem is not None and found.startswith(problem))
