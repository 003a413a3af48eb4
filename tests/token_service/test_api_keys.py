"""API keys: shown once, hashed at rest, restricted, listed, revoked."""

from __future__ import annotations

import re

import pytest

from token_service.api_keys import MAX_KEYS, SCOPES, ApiKeys, normalise_origin
from token_service.errors import InvalidRequest


async def test_a_new_key_opens_what_it_was_made_for(api_keys, clock):
    plaintext, key = await api_keys.create("server", ["mint", "calls"])
    assert re.fullmatch(r"ifr_pk_proj_[A-Za-z0-9_-]{32,}", plaintext)
    assert await api_keys.check(plaintext) == key
    assert (key.name, key.scopes, key.created_at, key.revoked_at) == ("server", {"mint", "calls"}, clock.now, None)
    assert [key.allows(scope) for scope in ("mint", "calls", "chat", "media", "admin")] == [True, True] + [False] * 3
    assert not key.in_page


async def test_admin_implies_every_scope(api_keys):
    _, key = await api_keys.create("root", ["admin"])
    assert all(key.allows(scope) for scope in SCOPES)


async def test_nothing_at_rest_gives_the_key_away(api_keys, store):
    plaintext, key = await api_keys.create("server", ["mint"])
    for name, value in await store.scan(""):
        assert plaintext not in name
        assert plaintext.encode() not in value
        assert plaintext.removeprefix("ifr_pk_proj_").encode() not in value
    assert plaintext not in repr(key)


async def test_no_two_keys_are_alike_and_all_are_listed_in_order(api_keys, clock):
    made = []
    for n in range(20):
        clock.now += 1
        made.append(await api_keys.create(f"key {n}", ["chat"]))
    assert len({plaintext for plaintext, _ in made}) == len({key.id for _, key in made}) == 20
    assert await api_keys.list() == [key for _, key in made]


async def test_a_revoked_key_opens_nothing_and_is_still_listed(api_keys, store, clock):
    plaintext, key = await api_keys.create("server", ["mint"])
    other, _ = await api_keys.create("other", ["mint"])
    clock.now += 5
    assert await ApiKeys(store, clock=clock).revoke(key.id)
    assert await api_keys.check(plaintext) is None
    assert await api_keys.check(other) is not None
    assert not await api_keys.revoke(key.id)
    listed = {entry.id: entry.revoked_at for entry in await api_keys.list()}
    assert listed[key.id] == clock.now
    clock.now += 400 * 24 * 3600
    assert [entry.name for entry in await api_keys.list()] == ["other"]
    assert await api_keys.check(plaintext) is None


@pytest.mark.parametrize("id_", ["", "key_", "key_" + "0" * 16, "a b", "é", "key_../x", "x" * 10_000])
async def test_what_is_no_key_cannot_be_revoked(api_keys, id_):
    assert not await api_keys.revoke(id_)


async def test_only_the_very_key_opens(api_keys):
    plaintext, key = await api_keys.create("server", ["mint"])
    for wrong in (
        "",
        plaintext[:-1],
        plaintext + "A",
        plaintext.upper(),
        key.id,
        "ifr_pk_proj_",
        "é" * 9,
        "\ud800",
        "x" * 10**6,
    ):
        assert await api_keys.check(wrong) is None


async def test_a_record_under_the_right_id_with_another_hash_does_not_open(api_keys, store):
    one, key = await api_keys.create("one", ["admin"])
    _, other = await api_keys.create("two", ["admin"])
    await store.put("api_key:" + key.id, await store.get("api_key:" + other.id))
    assert await api_keys.check(one) is None


async def test_a_page_key_may_only_mint_and_has_one_agent(api_keys):
    plaintext, key = await api_keys.create("page", ["mint"], origins=["https://App.example/", "http://localhost:5173"])
    assert key.origins == ("https://app.example", "http://localhost:5173")
    assert key.agent == "default"
    assert key.in_page
    assert await api_keys.check(plaintext) == key
    _, shop = await api_keys.create("page", ["mint"], origins=["https://a.example"], agent="shop")
    assert shop.agent == "shop"
    for scopes in (["mint", "calls"], ["admin"], ["chat"]):
        with pytest.raises(InvalidRequest) as caught:
            await api_keys.create("page", scopes, origins=["https://a.example"])
        assert caught.value.param == "scopes"


@pytest.mark.parametrize(
    ("param", "arguments"),
    [
        ("scopes", {"scopes": []}),
        ("scopes", {"scopes": ["mint", "everything"]}),
        ("scopes", {"scopes": "mint"}),
        ("origins", {"origins": ["*"]}),
        ("origins", {"origins": ["https://*.example"]}),
        ("origins", {"origins": ["https://a.example/path"]}),
        ("origins", {"origins": ["null"]}),
        ("origins", {"origins": [f"https://{n}.example" for n in range(17)]}),
        ("origins", {"origins": [f"https://{n}{'a' * 200}.example" for n in range(8)]}),
        ("agent", {"agent": ""}),
        ("agent", {"agent": "a b"}),
        ("name", {"name": "two\nlines"}),
        ("name", {"name": "x" * 201}),
    ],
    ids=str,
)
async def test_what_cannot_be_is_refused_by_name(api_keys, param, arguments):
    with pytest.raises(InvalidRequest) as caught:
        await api_keys.create(**{"name": "x", "scopes": ["mint"], **arguments})
    assert caught.value.param == param
    assert await api_keys.list() == []


async def test_keys_are_bounded(api_keys, store):
    _, key = await api_keys.create("first", ["mint"])
    record = await store.get("api_key:" + key.id)
    for n in range(MAX_KEYS - 1):
        await store.put(f"api_key:key_{n:016x}", record)
    with pytest.raises(InvalidRequest, match="keys already"):
        await api_keys.create("one more", ["mint"])


async def test_a_fixed_key_has_every_scope_and_is_never_stored(api_keys, store):
    key = api_keys.add_fixed("development.key.1")
    assert await api_keys.check("development.key.1") == key
    assert key.scopes == SCOPES
    assert await api_keys.check("development.key.2") is None
    assert await store.scan("") == []
    narrow = api_keys.add_fixed("ifr_pk_proj_fixed", ["chat"])
    assert await api_keys.check("ifr_pk_proj_fixed") == narrow
    assert not narrow.allows("mint")


@pytest.mark.parametrize("plaintext", ["", "a b", "é", "a\n", "x" * 513])
def test_a_fixed_key_that_no_header_can_carry_is_refused(api_keys, plaintext):
    with pytest.raises(ValueError, match="API key"):
        api_keys.add_fixed(plaintext)


@pytest.mark.parametrize(
    ("origin", "expected"),
    [
        ("https://app.example", "https://app.example"),
        ("HTTPS://App.Example:443", "https://app.example"),
        ("http://app.example:80/", "http://app.example"),
        ("http://app.example:443", "http://app.example:443"),
        ("http://[::1]:8080", "http://[::1]:8080"),
        ("capacitor://localhost", "capacitor://localhost"),
        ("https://app.example:99999", None),
        ("https://user@app.example", None),
        ("https://app.example?x", None),
        ("https://", None),
        ("app.example", None),
        ("null", None),
        ("", None),
        ("https://" + "a" * 10_000, None),
    ],
)
def test_an_origin_is_written_one_way(origin, expected):
    assert normalise_origin(origin) == expected
