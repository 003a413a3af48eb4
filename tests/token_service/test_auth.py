"""Authorization headers: which are read, and what each of them may do."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from token_service.auth import Authenticator, bearer
from token_service.errors import AuthError, Forbidden, Unauthorized


@pytest.fixture
def auth(tokens, api_keys, used):
    return Authenticator(tokens, api_keys, used)


async def refusal(awaitable) -> AuthError:
    with pytest.raises(AuthError) as caught:
        await awaitable
    return caught.value


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", "bEaReR"])
def test_the_schemes_name_is_taken_in_any_case(scheme):
    assert bearer(f"{scheme} abc.def-_~+/=") == "abc.def-_~+/="
    assert bearer(f" {scheme}  abc ") == "abc"


@pytest.mark.parametrize("header", [None, "", "   "])
def test_nothing_is_missing_credentials(header):
    with pytest.raises(Unauthorized) as caught:
        bearer(header)
    assert caught.value.code == "missing_credentials"


@pytest.mark.parametrize(
    "header",
    [
        "abc",
        "Bearer",
        "Bearer ",
        "Bearerabc",
        "Bearer a b",
        "Bearer a, Bearer b",
        "Basic YTpi",
        "Bearer\tabc",
        "Bearer é",
        "Bearer a\n",
        "Bearer a\x00",
        "Token abc",
        "Bearer " + "a" * 9000,
    ],
)
def test_anything_else_is_malformed(header):
    with pytest.raises(Unauthorized) as caught:
        bearer(header)
    assert caught.value.code == "malformed_credentials"


async def test_a_key_with_the_scope_is_let_in_and_without_it_is_not(auth, api_keys):
    plaintext, key = await api_keys.create("server", ["mint"])
    assert await auth.api_key(f"Bearer {plaintext}", "mint") == key
    error = await refusal(auth.api_key(f"Bearer {plaintext}", "calls"))
    assert isinstance(error, Forbidden)
    assert "calls" in error.message


async def test_an_unknown_or_revoked_key_is_unauthorized(auth, api_keys):
    plaintext, key = await api_keys.create("server", ["admin"])
    await api_keys.revoke(key.id)
    for header in (f"Bearer {plaintext}", "Bearer ifr_pk_proj_" + "a" * 43, "Bearer hello"):
        for call in (auth.api_key(header, "mint"), auth.caller(header)):
            error = await refusal(call)
            assert isinstance(error, Unauthorized)
            assert error.code == "invalid_api_key"
            assert header.removeprefix("Bearer ") not in f"{error.message} {error.reason}"


async def test_a_callers_token_is_its_claims_and_no_api_key(auth, tokens, clock):
    token, claims = tokens.mint(subject="k", agent="default", ttl_seconds=60)
    for presented in (token, "ek_" + token):
        assert await auth.caller(f"Bearer {presented}") == claims
        assert isinstance(await refusal(auth.api_key(f"Bearer {presented}", "mint")), Forbidden)
    clock.now += 60
    assert (await refusal(auth.caller(f"Bearer {token}"))).code == "token_expired"
    assert (await refusal(auth.api_key(f"Bearer {token}", "mint"))).code == "token_expired"
    assert await auth.caller(f"Bearer {token}", allow_expired=True) == claims


async def test_a_key_is_a_caller_too(auth, api_keys):
    plaintext, key = await api_keys.create("server", ["calls"])
    assert await auth.caller(f"Bearer {plaintext}") == key
    # Keys that the environment gives may look like anything.
    fixed = api_keys.add_fixed("ek_a.b.c")
    assert await auth.caller("Bearer ek_a.b.c") == fixed


async def test_a_revoked_sessions_token_only_hangs_up(auth, tokens, used):
    token, claims = tokens.mint(subject="k", agent="default", ttl_seconds=60)
    await used.revoke(claims.session_id)
    assert (await refusal(auth.caller(f"Bearer {token}"))).code == "token_revoked"
    assert await auth.caller(f"Bearer {token}", allow_expired=True) == claims


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    text=st.text(max_size=100),
    prefix=st.sampled_from(["", "Bearer ", "Bearer ek_", "bearer ifr_pk_proj_", "Bearer a.b."]),
)
async def test_any_header_is_let_in_or_unauthorized(auth, text, prefix):
    assert isinstance(await refusal(auth.caller(prefix + text)), Unauthorized)
    assert isinstance(await refusal(auth.api_key(prefix + text, "mint")), Unauthorized)
