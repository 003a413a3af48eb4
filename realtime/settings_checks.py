"""What one part of the settings says about another: every name that is used must exist.

Works on the parsed file before it is validated, so that a wrong value in one place does not hide a
wrong name in another. Anything of an unexpected type is passed over here; validation reports it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from realtime.mistakes import Finding, nearest, suggest
from realtime.settings_types import PYTHON, PYTHON_NAME
from realtime.toml_lines import KeyPath
from signaling.telephony.carriers import CARRIERS

BUILT_IN = ("embedded", "instant")
"""Engines that need no vendor."""

_CALL_KINDS = ("stt", "chat", "tts")
"""What a live call is made of."""

_KINDS = {
    "stt": "speech to text",
    "chat": "chat",
    "tts": "text to speech",
    "embed": "embeddings",
    "image": "images",
}

_ROUTE_KINDS = {"embed": "embed", "image": "image", "tts": "tts", "asr": "stt"}
"""What `[routes.NAME]` lists; chat models for every other name."""


def check_references(data: Mapping[str, Any], agents: Collection[str] | None = ()) -> list[Finding]:
    """Vendors, models and engines that are named but not there, or there twice, or of the wrong kind.

    `agents`: names beside those of the file; None when they are not known, and no name is a mistake.
    """
    engines = _Engines(set(_table(data, "vendors")), _custom_vendors(data), _model_kinds(data))
    return [
        *_check_vendors(data),
        *_check_models(data, engines.vendors),
        *_check_engine_references(data, engines),
        *_check_functions(data),
        *_check_tools(data),
        *_check_ice(data),
        *_check_telephony(data, agents),
        *_check_webhooks(data),
    ]


@dataclass(frozen=True, slots=True)
class _Engines:
    vendors: set[str]
    custom: set[str]
    """Vendors that are classes of the user's own: the name alone is an engine."""
    models: Mapping[str, str | None]
    """Kind by id; None where the kind itself is a mistake."""

    def complaint(self, ref: str, kind: str) -> tuple[str, str] | None:
        """Why `ref` cannot serve as `kind`, and what to do about it."""
        if ref in BUILT_IN:
            return None
        if ref in self.models:
            has = self.models[ref]
            if has in (None, kind):
                return None
            return f"`{ref}` is a model for {_KINDS.get(str(has), has)}, not for {_KINDS[kind]}", self._others(kind)
        vendor, slash, model = ref.partition("/")
        if slash and vendor in self.vendors and model:
            return None
        if ref in self.custom:
            return None if kind in _CALL_KINDS else (f"`{ref}` is an engine for calls, not for {_KINDS[kind]}", "")
        if ref in self.vendors:
            return f"`{ref}` is a vendor; name one of its models", f'write "{ref}/MODEL"'
        if slash and model:
            close = nearest(vendor, self.vendors)
            hint = f'did you mean "{close}/{model}"?' if close else f"add [vendors.{vendor}]"
            return f"there is no vendor called `{vendor}`", hint
        return f"there is no engine called `{ref}`", suggest(
            ref, [*BUILT_IN, *self.models], "known"
        ) + ", or VENDOR/MODEL"

    def _others(self, kind: str) -> str:
        return "known: " + ", ".join([*BUILT_IN, *(name for name, has in self.models.items() if has == kind)])


def _check_vendors(data: Mapping[str, Any]) -> Iterator[Finding]:
    for name, vendor in _table(data, "vendors").items():
        if name in BUILT_IN:
            yield Finding(("vendors", name), f"`{name}` is built in and cannot be a vendor", "give it another name")
        if not isinstance(vendor, dict):
            continue
        kind = vendor.get("kind", "openai")
        if isinstance(kind, str) and kind.startswith(PYTHON):
            yield from _check_options(name, vendor.get("options"))
        elif "options" in vendor:
            yield Finding(("vendors", name, "options"), "options are for a class of your own", "remove them")
        elif "base_url" not in vendor and "key" not in vendor:
            variable = {"anthropic": "ANTHROPIC_API_KEY", "gemini": "GEMINI_API_KEY"}.get(str(kind), "OPENAI_API_KEY")
            owner = {"anthropic": "Anthropic", "gemini": "Google"}.get(str(kind), "OpenAI")
            hint = f'add key = "env:{variable}", or base_url = "http://..." for another address'
            yield Finding(("vendors", name), f"without base_url this is {owner} itself, which needs a key", hint)


def _check_options(name: str, options: Any) -> Iterator[Finding]:
    for key, value in _table({"options": options}, "options").items():
        if not key.isidentifier():
            message = f"`{key}` cannot be the name of an argument"
            yield Finding(("vendors", name, "options", key), message, "letters, digits and _ only")
        if not _is_plain(value):
            message = "expected text, a number, true or false, or lists and tables of them"
            yield Finding(("vendors", name, "options", key), message)


def _is_plain(value: Any) -> bool:
    if isinstance(value, dict):
        return all(_is_plain(each) for each in value.values())
    if isinstance(value, list):
        return all(_is_plain(each) for each in value)
    return isinstance(value, str | bool | int | float)


def _check_models(data: Mapping[str, Any], vendors: set[str]) -> Iterator[Finding]:
    seen: set[str] = set()
    for index, model in _tables(data, "models"):
        name, vendor = model.get("id"), model.get("vendor")
        if isinstance(name, str):
            if name in seen:
                yield Finding(("models", index, "id"), f"there are two models called `{name}`", "give one another id")
            if name in BUILT_IN:
                yield Finding(
                    ("models", index, "id"), f"`{name}` is built in and cannot be a model", "choose another id"
                )
            seen.add(name)
        own = _table(_table(data, "vendors"), vendor).get("kind") if isinstance(vendor, str) else None
        if vendor in _custom_vendors(data) and model.get("kind") in set(_KINDS) - set(_CALL_KINDS):
            message = "a class of your own serves calls: speech to text, chat or text to speech"
            yield Finding(("models", index, "kind"), message, 'write kind = "stt", "chat" or "tts"')
        if own in ("anthropic", "gemini") and model.get("kind") in set(_KINDS) - {"chat"}:
            message = f"a vendor of kind `{own}` has chat models only"
            yield Finding(("models", index, "kind"), message, 'write kind = "chat", or name another vendor')
        if isinstance(vendor, str) and vendor not in vendors:
            close = nearest(vendor, vendors)
            hint = f"did you mean `{close}`?" if close else f"add [vendors.{vendor}]"
            yield Finding(("models", index, "vendor"), f"there is no vendor called `{vendor}`", hint)


def _check_engine_references(data: Mapping[str, Any], engines: _Engines) -> Iterator[Finding]:
    places: list[tuple[KeyPath, Any, str]] = [
        (("live", kind), _table(data, "live").get(kind), kind) for kind in _CALL_KINDS
    ]
    for name, agent in _table(data, "agents").items():
        if isinstance(agent, dict):
            own = {**agent, "chat": _without_functions(agent.get("chat"))}
            places += [(("agents", name, kind), own.get(kind), kind) for kind in _CALL_KINDS]
    for name, voice in _table(data, "voices").items():
        if isinstance(voice, dict) and isinstance(voice.get("engine"), str):
            places.append((("voices", name, "engine"), voice["engine"], "tts"))
    for name, route in _table(data, "routes").items():
        if isinstance(route, dict):
            places += [
                (("routes", name, prefer), refs, _ROUTE_KINDS.get(name, "chat")) for prefer, refs in route.items()
            ]
    for path, value, kind in places:
        refs = [(path, value)] if isinstance(value, str) else [((*path, i), ref) for i, ref in _indexed(value)]
        for place, ref in refs:
            complaint = engines.complaint(ref, kind) if isinstance(ref, str) else None
            if complaint is not None:
                yield Finding(place, *complaint)


def _check_functions(data: Mapping[str, Any]) -> Iterator[Finding]:
    """What answers an agent's turns in place of a chat model is named `python:module:function`."""
    for name in _table(data, "agents"):
        chat = _table(_table(data, "agents"), name).get("chat")
        path: KeyPath = ("agents", name, "chat")
        refs = [(path, chat)] if isinstance(chat, str) else [((*path, i), ref) for i, ref in _indexed(chat)]
        for place, ref in refs:
            is_own = isinstance(ref, str) and ref.startswith(PYTHON)
            if is_own and not re.fullmatch(PYTHON_NAME, ref.removeprefix(PYTHON)):
                hint = 'for example "python:my_bot:answer", for `async def answer(turn)` in my_bot.py'
                yield Finding(place, "a function of your own is named by its module", hint)


def _without_functions(refs: Any) -> Any:
    """What is left for engines where functions may stand too, in their places."""
    if isinstance(refs, list):
        return [None if isinstance(ref, str) and ref.startswith(PYTHON) else ref for ref in refs]
    return None if isinstance(refs, str) and refs.startswith(PYTHON) else refs


def _check_tools(data: Mapping[str, Any]) -> Iterator[Finding]:
    for name in _table(data, "agents"):
        seen: set[str] = set()
        tools = [
            (key, *found)
            for key in ("call_tools", "tools", "http_tools")
            for found in _indexed(_table(data["agents"], name).get(key))
        ]
        if _table(data["agents"], name).get("transfer_to"):
            seen.add("transfer")
        for key, index, tool in tools:
            tool_name = tool.get("name") if isinstance(tool, dict) else tool
            if isinstance(tool_name, str) and tool_name in seen:
                yield Finding(("agents", name, key, index), f"there are two tools called `{tool_name}`")
            if isinstance(tool_name, str):
                seen.add(tool_name)


def _check_ice(data: Mapping[str, Any]) -> Iterator[Finding]:
    ice = _table(data, "ice")
    has_secret, has_turn = "turn_secret" in ice, bool(ice.get("turn_urls"))
    for index, server in _tables(ice, "servers"):
        urls = server.get("urls")
        texts = [urls] if isinstance(urls, str) else [url for _, url in _indexed(urls) if isinstance(url, str)]
        is_turn = any(url.startswith("turn") for url in texts)
        has_turn = has_turn or is_turn
        given = {"username", "credential"} & server.keys()
        if len(given) == 1:
            yield Finding(("ice", "servers", index), "username and credential go together", "add the other, or neither")
        elif is_turn and not given and not has_secret:
            hint = "add both, or set turn_secret under [ice]"
            yield Finding(("ice", "servers", index), "a TURN server needs username and credential", hint)
    if ice.get("turn_urls") and not has_secret:
        hint = 'add turn_secret = "env:TURN_SECRET" (coturn: static-auth-secret), or use [[ice.servers]]'
        yield Finding(("ice", "turn_urls"), "time-limited credentials need turn_secret", hint)
    if has_secret and not has_turn:
        yield Finding(
            ("ice", "turn_secret"), "no TURN server is named", 'add turn_urls = ["turn:HOST:3478?transport=udp"]'
        )


def _check_telephony(data: Mapping[str, Any], others: Collection[str] | None) -> Iterator[Finding]:
    agents = {"default", *_table(data, "agents"), *(others or ())}
    for name, line in _table(data, "telephony").items():
        if not isinstance(line, dict):
            continue
        yield from _check_carrier(name, line)
        if "secret" not in line:
            hint = 'add secret = "env:NAME"; docs/telephony says which secret each carrier has'
            yield Finding(("telephony", name), "without a secret anybody could be this carrier", hint)
        places: list[tuple[KeyPath, Any]] = [(("telephony", name, "agent"), line.get("agent"))]
        places += [(("telephony", name, "numbers", number), agent) for number, agent in _table(line, "numbers").items()]
        for path, agent in places:
            if others is not None and isinstance(agent, str) and agent not in agents:
                yield Finding(path, f"there is no agent called `{agent}`", suggest(agent, sorted(agents), "known"))


def _check_carrier(name: str, line: Mapping[str, Any]) -> Iterator[Finding]:
    wanted, codec = line.get("carrier", name), line.get("codec")
    if not isinstance(wanted, str):
        return
    carrier = CARRIERS.get(wanted)
    if carrier is None and "carrier" in line:
        hint = suggest(wanted, CARRIERS, "known")
        yield Finding(("telephony", name, "carrier"), f"there is no carrier called `{wanted}`", hint)
    elif carrier is None:
        hint = "add carrier = ...; known: " + ", ".join(CARRIERS)
        yield Finding(("telephony", name), f"`{name}` is the name of no carrier", hint)
    elif isinstance(codec, str) and codec not in [known.name for known in carrier.codecs]:
        hint = suggest(codec, [known.name for known in carrier.codecs], "it has") if carrier.codecs else "leave it out"
        why = f"{wanted} has no codec `{codec}`" if carrier.codecs else f"the codec is chosen at the side of {wanted}"
        yield Finding(("telephony", name, "codec"), why, hint)


def _check_webhooks(data: Mapping[str, Any]) -> Iterator[Finding]:
    common = _table(data, "webhooks")
    places: list[tuple[KeyPath, Mapping[str, Any]]] = [(("webhooks",), common)]
    for name, agent in _table(data, "agents").items():
        if isinstance(agent, dict):
            places.append((("agents", name, "webhooks"), _table(agent, "webhooks")))
    for path, own in places:
        merged = {**common, **own}
        if own and "url" in merged and "secret" not in merged:
            yield Finding((*path, "url"), "webhooks are always signed", 'add secret = "env:WEBHOOK_SECRET"')
        elif own and "url" not in merged:
            yield Finding(path, "there is no address to send webhooks to", 'add url = "https://..."')


def _model_kinds(data: Mapping[str, Any]) -> dict[str, str | None]:
    kinds: dict[str, str | None] = {}
    for _, model in _tables(data, "models"):
        if isinstance(model.get("id"), str):
            kinds[model["id"]] = model.get("kind") if model.get("kind") in _KINDS else None
    return kinds


def _custom_vendors(data: Mapping[str, Any]) -> set[str]:
    vendors = _table(data, "vendors")
    return {name for name in vendors if str(_table(vendors, name).get("kind", "")).startswith(PYTHON)}


def _table(data: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = data.get(key)
    return value if isinstance(value, dict) else {}


def _tables(data: Mapping[str, Any], key: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    return ((index, value) for index, value in _indexed(data.get(key)) if isinstance(value, dict))


def _indexed(value: Any) -> Iterator[tuple[int, Any]]:
    return iter(enumerate(value if isinstance(value, list) else ()))
