"""Call tokens: what is minted is read back, and nothing else is ever taken."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import warnings

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from token_service.errors import Unauthorized
from token_service.keys import SigningKeys
from token_service.tokens import (
    MAX_TOKEN_BYTES,
    MAX_TTL_SECONDS,
    MIN_TTL_SECONDS,
    Tokens,
    call_id,
    new_session_id,
    session_id,
)

NOW = 1_800_000_000


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def decoded(part: str) -> dict:
    return json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))


@pytest.fixture
def forge(keys, tokens):
    """A correctly signed token with some claims or header fields other than ours."""

    def make(claims: dict | None = None, header: dict | None = None, *, key=None, algorithm="EdDSA", without=()) -> str:
        token, _ = tokens.mint(subject="key_1", agent="default", ttl_seconds=300)
        payload = {**decoded(token.split(".")[1]), **(claims or {})}
        for name in without:
            payload.pop(name, None)
        fields = {"typ": "JWT", "kid": keys.signing.kid, **(header or {})}
        signing = keys.signing.private if key is None else key
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return jwt.encode(payload, signing, algorithm=algorithm, headers=fields)

    return make


def refused(tokens: Tokens, token: str, code: str = "invalid_token", **options) -> None:
    with pytest.raises(Unauthorized) as caught:
        tokens.verify(token, **options)
    assert caught.value.code == code


def test_what_is_minted_is_what_is_verified(tokens):
    token, claims = tokens.mint(
        subject="key_1",
        agent="shop",
        ttl_seconds=60,
        model="gpt-4o-mini",
        voice="marin",
        origins=["https://a.example", "https://b.example"],
        reusable=True,
    )
    assert tokens.verify(token) == claims
    assert (claims.subject, claims.agent, claims.model, claims.voice) == ("key_1", "shop", "gpt-4o-mini", "marin")
    assert claims.origins == ("https://a.example", "https://b.example")
    assert claims.reusable
    assert (claims.issued_at, claims.expires_at) == (NOW, NOW + 60)
    plain, claims = tokens.mint(subject="key_1", agent="default", ttl_seconds=60)
    assert tokens.verify(plain) == claims
    assert (claims.model, claims.voice, claims.origins, claims.reusable) == (None, None, (), False)


def test_the_token_is_a_jwt_that_others_can_read(tokens, keys):
    token, claims = tokens.mint(subject="key_1", agent="default", ttl_seconds=300)
    assert jwt.get_unverified_header(token) == {"alg": "EdDSA", "typ": "JWT", "kid": keys.signing.kid}
    payload = jwt.decode(
        token,
        keys.verifying(keys.signing.kid),
        algorithms=["EdDSA"],
        audience="us-live",
        issuer="us",
        options={"verify_nbf": False, "verify_iat": False},
    )
    assert payload == {
        "iss": "us",
        "aud": "us-live",
        "sub": "key_1",
        "iat": NOW,
        "nbf": NOW,
        "exp": NOW + 300,
        "jti": claims.jti,
        "session_id": claims.session_id,
        "agent": "default",
    }


def test_every_token_has_its_own_session_and_jti_unless_a_session_is_given(tokens):
    minted = [tokens.mint(subject="k", agent="default", ttl_seconds=60)[1] for _ in range(50)]
    assert len({claims.jti for claims in minted}) == len({claims.session_id for claims in minted}) == 50
    again = tokens.mint(subject="k", agent="default", ttl_seconds=60, session_id=minted[0].session_id)[1]
    assert again.session_id == minted[0].session_id
    assert again.jti != minted[0].jti


def test_a_leading_ek_is_taken_once(tokens):
    token, claims = tokens.mint(subject="k", agent="default", ttl_seconds=60)
    assert tokens.verify("ek_" + token) == claims
    refused(tokens, "ek_ek_" + token)


@pytest.mark.parametrize("ttl", [MIN_TTL_SECONDS - 1, MAX_TTL_SECONDS + 1, 0, -5])
def test_a_lifetime_out_of_bounds_is_not_minted(tokens, ttl):
    with pytest.raises(ValueError, match="ttl_seconds"):
        tokens.mint(subject="k", agent="default", ttl_seconds=ttl)


@pytest.mark.parametrize(
    "claims",
    [
        {"subject": ""},
        {"agent": ""},
        {"session_id": "sess_1"},
        {"model": "m" * 5000},
        {"origins": ["https://" + "a" * 250] * 12},
    ],
)
def test_claims_that_would_not_be_taken_back_are_not_minted(tokens, claims):
    with pytest.raises(ValueError):
        tokens.mint(**{"subject": "k", "agent": "default", "ttl_seconds": 60, **claims})


def test_it_ends_on_the_second_and_a_hang_up_may_still_use_it(tokens, clock):
    token, claims = tokens.mint(subject="k", agent="default", ttl_seconds=60)
    clock.now += 59.9
    assert tokens.verify(token) == claims
    clock.now += 0.1
    refused(tokens, token, "token_expired")
    clock.now += 1e6
    assert tokens.verify(token, allow_expired=True) == claims


def test_a_token_from_ahead_is_taken_within_the_leeway_only(tokens, clock, forge):
    token, _ = tokens.mint(subject="k", agent="default", ttl_seconds=300)
    clock.now -= 5
    tokens.verify(token)
    clock.now -= 1
    refused(tokens, token)
    refused(tokens, token, allow_expired=True)
    clock.now += 6
    refused(tokens, forge({"nbf": NOW + 6}))
    tokens.verify(forge({"nbf": NOW + 5}))


@pytest.mark.parametrize("name", ["iss", "aud", "sub", "iat", "nbf", "exp", "jti", "session_id", "agent"])
def test_every_claim_is_required(tokens, forge, name):
    refused(tokens, forge(without=[name]))
    if name != "iss":  # PyJWT does not sign a null issuer.
        refused(tokens, forge({name: None}))


@pytest.mark.parametrize(
    "claims",
    [
        {"iss": "them"},
        {"aud": "them"},
        {"aud": ["us-live"]},
        {"aud": ["us-live", "them"]},
        {"sub": 5},
        {"sub": ""},
        {"jti": ["x"]},
        {"jti": ""},
        {"jti": "j" * 1025},
        {"session_id": "sess_short"},
        {"session_id": "rtc_" + "a" * 22},
        {"session_id": "sess_" + "a" * 22 + "\n"},
        {"agent": {}},
        {"exp": str(NOW + 60)},
        {"exp": NOW + 60.5},
        {"exp": True},
        {"exp": float("inf")},
        {"exp": NOW},
        {"exp": [1]},
        {"iat": str(NOW)},
        {"nbf": False},
        {"nbf": 10**400},
        {"origins": "https://a.example"},
        {"origins": [1]},
        {"reusable": 1},
        {"model": 1},
        {"voice": ""},
    ],
    ids=str,
)
def test_a_claim_of_the_wrong_kind_is_refused_though_we_signed_it(tokens, forge, claims):
    refused(tokens, forge(claims))


def test_the_algorithm_is_pinned(tokens, keys, forge):
    public = keys.signing.private.public_key()
    raw = public.public_bytes_raw()
    pem = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    head = {"typ": "JWT", "kid": keys.signing.kid}
    body = forge().split(".")[1]
    for algorithm in ("none", "None", "NONE"):
        unsigned = b64(json.dumps({"alg": algorithm, **head}).encode()) + "." + body
        for signature in ("", "AA", "A" * 86):
            refused(tokens, f"{unsigned}.{signature}")
    refused(tokens, forge(key=raw, algorithm="HS256"))
    # PyJWT will not sign with a PEM as an HMAC key; an attacker would.
    signed = b64(json.dumps({"alg": "HS256", **head}).encode()) + "." + body
    refused(tokens, signed + "." + b64(hmac.new(pem, signed.encode(), hashlib.sha256).digest()))
    lying = b64(json.dumps({"alg": "EdDSA", **head}).encode()) + "." + body
    refused(tokens, lying + "." + b64(hmac.new(raw, lying.encode(), hashlib.sha256).digest()))


@pytest.mark.parametrize(
    "header",
    [
        {"kid": "nobody"},
        {"kid": "../../etc/passwd"},
        {"kid": ""},
        {"typ": "at+jwt"},
        {"crit": ["exp"]},
        {"b64": False, "crit": ["b64"]},
    ],
    ids=str,
)
def test_a_header_that_is_not_ours_is_refused(tokens, forge, header):
    refused(tokens, forge(header=header))


def test_a_kid_that_is_no_text_is_refused(tokens, keys, forge):
    body = forge().split(".")[1]
    for kid in (None, 1, ["a"], {}, True):
        head = b64(json.dumps({"alg": "EdDSA", "typ": "JWT", "kid": kid}).encode())
        signature = b64(keys.signing.private.sign(f"{head}.{body}".encode()))
        refused(tokens, f"{head}.{body}.{signature}")


def test_another_servers_key_is_refused_under_our_kid(tokens, forge):
    refused(tokens, forge(key=Ed25519PrivateKey.generate()))


def test_a_jwk_in_the_header_is_not_a_key(tokens, forge):
    theirs = Ed25519PrivateKey.generate()
    jwk = {"kty": "OKP", "crv": "Ed25519", "x": b64(theirs.public_key().public_bytes_raw())}
    refused(tokens, forge(header={"jwk": jwk, "jku": "https://them.example/keys"}, key=theirs))


def test_tokens_of_an_older_key_are_taken_until_it_is_dropped(tokens, keys):
    token, claims = tokens.mint(subject="k", agent="default", ttl_seconds=60)
    keys.rotate()
    assert tokens.verify(token) == claims
    newer, _ = tokens.mint(subject="k", agent="default", ttl_seconds=60)
    assert jwt.get_unverified_header(newer)["kid"] != jwt.get_unverified_header(token)["kid"]
    for _ in range(8):
        keys.rotate()
    refused(tokens, token)


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "..",
        "a.b",
        "a.b.c.d",
        "ek_",
        "Bearer x",
        "\ud800.\ud800.\ud800",
        "a.b.c\n",
        "é.é.é",
        "e30.e30.",
        "e30.e30.e30",
        b64(b"[" * 2000) + ".e30.e30",
        b64(b'{"a":' * 500) + ".e30.e30",
        b64(b"9" * 2900) + ".e30.e30",
        "a" * MAX_TOKEN_BYTES + ".b.c",
        "a.b.c" * 10_000_00,
    ],
    ids=lambda text: repr(text)[:20],
)
def test_what_is_no_token_is_refused(tokens, text):
    refused(tokens, text)


@pytest.fixture(scope="module")
def steady(tmp_path_factory):
    """Tokens that hypothesis may use over and over."""
    keys = SigningKeys.load_or_create(tmp_path_factory.mktemp("data"))
    return keys, Tokens(keys, "us", "us-live", clock=lambda: float(NOW))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
)
claim_names = st.sampled_from(
    ["iss", "aud", "sub", "iat", "nbf", "exp", "jti", "session_id", "agent", "model", "voice", "origins", "reusable"]
)


@settings(max_examples=300, deadline=None)
@given(text=st.text() | st.text(alphabet="abc.-_=eyJ", max_size=200))
def test_any_text_is_claims_or_unauthorized(steady, text):
    with pytest.raises(Unauthorized):
        steady[1].verify(text)


@settings(max_examples=300, deadline=None)
@given(index=st.integers(0, 10_000), character=st.sampled_from("Aa9-_.= \n\x00é"))
def test_a_token_with_one_other_character_is_refused(steady, index, character):
    token, claims = steady[1].mint(subject="k", agent="default", ttl_seconds=60)
    index %= len(token)
    changed = token[:index] + character + token[index + 1 :]
    if changed == token:
        assert steady[1].verify(changed) == claims
    else:
        with pytest.raises(Unauthorized):
            steady[1].verify(changed)


@settings(max_examples=300, deadline=None)
@given(
    claims=st.dictionaries(claim_names, json_values, min_size=1, max_size=3),
    header=st.dictionaries(st.sampled_from(["typ", "kid", "crit", "b64", "cty"]), json_values, max_size=2),
)
def test_signed_nonsense_is_claims_or_unauthorized(steady, claims, header):
    keys, tokens = steady
    _, minted = tokens.mint(subject="k", agent="default", ttl_seconds=60)
    payload = {
        "iss": "us",
        "aud": "us-live",
        "sub": "k",
        "iat": NOW,
        "nbf": NOW,
        "exp": NOW + 60,
        "jti": minted.jti,
        "session_id": minted.session_id,
        "agent": "default",
        **claims,
    }
    head = {"alg": "EdDSA", "typ": "JWT", "kid": keys.signing.kid, **header}
    signed = b64(json.dumps(head).encode()) + "." + b64(json.dumps(payload).encode())
    token = signed + "." + b64(keys.signing.private.sign(signed.encode()))
    try:
        taken = tokens.verify(token)
    except Unauthorized:
        return
    assert taken.expires_at == payload["exp"]


def test_session_and_call_share_their_random_part():
    session = new_session_id()
    assert session.startswith("sess_")
    assert len(session) == len("sess_") + 22
    call = call_id(session)
    assert call == "rtc_" + session.removeprefix("sess_")
    assert session_id(call) == session_id(session) == session
    assert call_id(call) == call


@pytest.mark.parametrize(
    "text", ["", "sess_", "sess_short", "rtc_" + "a" * 23, "xx_" + "a" * 22, "rtc_" + "a" * 21 + "\n"]
)
def test_text_that_is_no_id_comes_back_as_it_is(text):
    assert session_id(text) == call_id(text) == text
