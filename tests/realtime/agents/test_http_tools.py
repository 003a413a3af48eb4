"""Tools of the settings that are requests: what goes out, what the model reads, and what never does."""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import tracemalloc
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import httpx2
import pytest
from pydantic import SecretStr

from realtime.adapters.base import ToolCall
from realtime.agents.call import ToolError
from realtime.agents.http_tools import MAX_BODY, HttpTool
from realtime.agents.usercode import TookTooLong
from realtime.settings_tools import HttpToolSettings
from tests.realtime.agents.calls import call

SECRET = "sk/very secret+key"
SCHEMA = {"type": "object", "properties": {"day": {"type": "string"}, "people": {}}, "required": ["day"]}


class Api:
    """A server of the developer's: keeps the requests, answers what it is told to."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        self.answer = b'{"times": ["19:00"]}'
        self.status = "200 OK"
        self.headers = ""
        self.silent = False
        self.url = ""

    @property
    def path(self) -> str:
        return self.requests[-1][0]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:]) if name}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        self.requests.append((head[0].rpartition(" ")[0], headers, body))
        if self.silent:
            await reader.read()
        else:
            start = f"HTTP/1.1 {self.status}\r\ncontent-length: {len(self.answer)}\r\nconnection: close\r\n"
            writer.write((start + self.headers + "\r\n").encode() + self.answer)
        writer.close()


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    served = Api()
    async with await asyncio.start_server(served.serve, "127.0.0.1", 0) as server:
        served.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        yield served


@asynccontextmanager
async def tool(url: str, **settings: Any) -> AsyncIterator[HttpTool]:
    given = {"name": "free_tables", "parameters": SCHEMA, "headers": {"X-Key": SecretStr(SECRET)}, **settings}
    async with httpx2.AsyncClient(follow_redirects=False, timeout=None) as client:
        yield HttpTool(HttpToolSettings(url=url, **given), client)


async def run(tool: HttpTool, variables: dict[str, str] | None = None, **arguments: Any) -> str:
    asked = ToolCall("call_7", "free_tables", json.dumps(arguments))
    return (await tool.run(asked, call(**(variables or {})))).text


async def test_arguments_go_into_the_body_and_the_secret_into_its_header(api: Api) -> None:
    async with tool(api.url + "/tables") as free_tables:
        assert await run(free_tables, day="friday", people=4) == '{"times": ["19:00"]}'
    path, headers, body = api.requests[0]
    assert path == "POST /tables"
    assert json.loads(body) == {"day": "friday", "people": 4}
    assert headers["x-key"] == SECRET
    assert headers["idempotency-key"] == "call_7"


async def test_arguments_in_the_path_and_the_query_stay_where_they_belong(api: Api) -> None:
    async with tool(api.url + "/tables/{day}/free", method="GET") as free_tables:
        await run(free_tables, day="../admin?x=1#y", people=[1, "a b"])
        parts = urlsplit(api.path.removeprefix("GET "))
        assert parts.path == "/tables/..%2Fadmin%3Fx%3D1%23y/free"
        assert parse_qs(parts.query) == {"people": ['[1, "a b"]']}
        for bad in ("..", ".", "", " "):
            with pytest.raises(ToolError, match="day: a value is needed"):
                await run(free_tables, day=bad)
    assert len(api.requests) == 1


async def test_what_is_fixed_is_neither_seen_nor_set_by_the_model(api: Api) -> None:
    fixed = {"caller": "{{caller_number}}", "shop": "one"}
    async with tool(api.url, fixed=fixed) as free_tables:
        await run(free_tables, {"caller_number": "+1555"}, day="friday")
        assert json.loads(api.requests[0][2]) == {"day": "friday", "caller": "+1555", "shop": "one"}
        with pytest.raises(ToolError, match="'caller' was unexpected"):
            await run(free_tables, day="friday", caller="+1666")
        assert "caller" not in json.dumps(free_tables.spec.tool.parameters)


TYPED = {
    "type": "object",
    "properties": {
        "day": {"type": "string", "format": "date"},
        "people": {"type": "integer", "minimum": 1},
        "room": {"enum": ["garden", "hall"]},
        "guests": {"type": "array", "items": {"type": "string"}},
    },
    "required": ["day", "people"],
}


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"people": 2}, ['"day" is a required property']),
        ({"day": "friday", "people": 2}, ['day: "friday" is not a "date"']),
        (
            {"day": "2030-01-31", "people": "two", "room": "cellar", "guests": ["Ada", 7]},
            ['people: "two" is not of type "integer"', 'room: "cellar" is not one of', "guests.1: 7 is not of type"],
        ),
        ({"day": "2030-01-31", "people": 0}, ["people: 0 is less than the minimum of 1"]),
        ({"day": "2030-01-31", "people": 1, "guests": [7] * 20_000}, ["guests.0: 7 is not of type"]),
    ],
)
async def test_the_model_is_told_which_argument_does_not_fit_and_why(
    api: Api, given: dict[str, Any], told: list[str]
) -> None:
    async with tool(api.url, parameters=TYPED) as free_tables:
        with pytest.raises(ToolError) as error:
            await run(free_tables, **given)
        assert all(words in str(error.value) for words in told), error.value
        assert len(str(error.value)) < 1000
        assert api.requests == []
        await run(free_tables, day="2030-01-31", people=2, room="hall", guests=["Ada"])
    assert len(api.requests) == 1


async def test_a_schema_may_allow_what_it_does_not_name(api: Api) -> None:
    schema = {"type": "object", "properties": {}, "additionalProperties": {"type": "string"}}
    async with tool(api.url, parameters=schema) as free_tables:
        await run(free_tables, anything="goes")
        with pytest.raises(ToolError, match="anything: 7"):
            await run(free_tables, anything=7)


ECHOES = [
    SECRET,
    "sk%2Fvery%20secret%2Bkey",
    "sk%2Fvery+secret%2Bkey",
    "sk%2fvery%20secret%2bkey",
    r"sk\/very secret+key",
    base64.b64encode(SECRET.encode()).decode().rstrip("="),
    SECRET.encode().hex(),
]


@pytest.mark.parametrize("echo", ECHOES)
async def test_a_server_that_echoes_the_secret_does_not_tell_it_to_the_model(
    api: Api, echo: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    api.answer = f"you sent {echo}".encode()
    async with tool(api.url) as free_tables:
        assert await run(free_tables, day="friday") == "you sent [secret]"
        api.status = "403 Forbidden"
        with pytest.raises(ToolError, match=r"HTTP 403: you sent \[secret\]"):
            await run(free_tables, day="friday")
        assert SECRET not in repr(free_tables._settings)
    assert SECRET not in caplog.text


async def test_the_word_behind_bearer_is_as_secret_as_the_header(api: Api) -> None:
    api.answer = b"bad token abcdefgh"
    async with tool(api.url, headers={"Authorization": SecretStr("Bearer abcdefgh")}) as free_tables:
        assert await run(free_tables, day="friday") == "bad token [secret]"


async def test_a_redirect_leads_nowhere_and_nothing_is_tried_again(api: Api) -> None:
    api.status, api.headers = "307 Temporary Redirect", f"location: {api.url}/elsewhere\r\n"
    async with tool(api.url) as free_tables:
        with pytest.raises(ToolError, match="HTTP 307"):
            await run(free_tables, day="friday")
        api.status, api.headers = "503 Service Unavailable", ""
        with pytest.raises(ToolError, match="HTTP 503"):
            await run(free_tables, day="friday")
    assert len(api.requests) == 2


async def test_a_redirect_to_another_host_takes_no_header_there(api: Api) -> None:
    other = Api()
    async with await asyncio.start_server(other.serve, "127.0.0.1", 0) as server:
        location = f"http://localhost:{server.sockets[0].getsockname()[1]}/{quote(SECRET)}"
        for status in ("301 Moved", "302 Found", "303 See Other", "307 Temporary", "308 Permanent"):
            api.status, api.headers = status, f"location: {location}\r\n"
            async with tool(api.url) as free_tables:
                with pytest.raises(ToolError) as error:
                    await run(free_tables, day="friday")
                assert SECRET not in str(error.value)
    assert other.requests == []


async def test_a_name_and_password_are_as_secret_unpacked(api: Api) -> None:
    packed = base64.b64encode(b"shop:open sesame").decode()
    api.answer = f"no user shop:open sesame, password 'open sesame', by {packed}".encode()
    async with tool(api.url, headers={"Authorization": SecretStr(f"Basic {packed}")}) as free_tables:
        assert await run(free_tables, day="friday") == "no user [secret], password '[secret]', by [secret]"


async def test_a_secret_that_is_cut_in_two_is_not_told_in_part(api: Api) -> None:
    umlauts = "\U0001d11e" * (MAX_BODY // 4 - 3)  # so long in bytes, and short enough in characters to be read whole
    api.answer = (umlauts + SECRET).encode()
    async with tool(api.url) as free_tables:
        told = await run(free_tables, day="friday")
    assert len(told) > 10_000
    assert "sk/" not in told


async def test_packed_answers_are_read_and_a_bomb_takes_neither_time_nor_memory(api: Api) -> None:
    api.headers = "content-encoding: gzip\r\n"
    api.answer = gzip.compress(b"at seven")
    async with tool(api.url) as free_tables:
        assert await run(free_tables, day="friday") == "at seven"
        assert api.requests[0][1]["accept-encoding"] == "identity"
        api.answer = gzip.compress(b"a" * (100 << 20), 9)
        tracemalloc.start()
        assert (await run(free_tables, day="friday")).startswith("aaaa")
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
        tracemalloc.stop()
        api.answer = b"no gzip"
        with pytest.raises(ToolError, match="cannot be unpacked"):
            await run(free_tables, day="friday")
        api.headers = "content-encoding: br\r\n"
        with pytest.raises(ToolError, match="not asked for"):
            await run(free_tables, day="friday")


@pytest.mark.parametrize("charset", ["iso-8859-1", "rot13", "idna", "no-such", SECRET])
async def test_an_answer_in_any_charset_is_read(api: Api, charset: str, caplog: pytest.LogCaptureFixture) -> None:
    api.headers, api.answer = f"content-type: text/plain; charset={charset}\r\n", b"at seven"
    async with tool(api.url) as free_tables:
        assert await run(free_tables, day="friday") == "at seven"


async def test_an_address_that_grows_too_long_is_told_in_words(api: Api) -> None:
    async with tool(api.url + "/{day}", method="GET") as free_tables:
        with pytest.raises(ToolError, match="could not be asked"):
            await run(free_tables, day="\u20ac" * 10_000)


async def test_a_long_answer_is_cut_and_a_slow_one_given_up(api: Api) -> None:
    api.answer = b"a" * (3 * MAX_BODY)
    async with tool(api.url, timeout_seconds=0.3) as free_tables:
        assert (await run(free_tables, day="friday")).endswith("a … (cut: the result is longer)")
        api.silent = True
        with pytest.raises(TookTooLong):
            await run(free_tables, day="friday")


async def test_a_server_that_is_not_there_is_told_in_words() -> None:
    async with tool("http://127.0.0.1:9") as free_tables:
        with pytest.raises(ToolError, match="could not be asked"):
            await run(free_tables, day="friday")


def arguments() -> Iterator[str]:
    yield from ("", "[]", "7", '"x"', "{", '{"people": 1}', "[" * 100_000, json.dumps({"day": "x" * 100_000}))


@pytest.mark.parametrize("given", list(arguments()), ids=range(8))
async def test_arguments_that_make_no_sense_are_never_sent(api: Api, given: str) -> None:
    async with tool(api.url) as free_tables:
        with pytest.raises(ToolError, match="The arguments do not fit"):
            await free_tables.run(ToolCall("call_1", "free_tables", given), call())
    assert api.requests == []
