"""What each one-shot method sends: a path and a body, without what was not given. Pure."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

CHAT = "/v1/ai/chat"
Message: TypeAlias = Mapping[str, Any]
Source: TypeAlias = Mapping[str, Any] | bytes | str
"""`{"url": …}`, `{"base64": …}`, bytes, or an address as text."""

ANSWER_S = 15.0
"""Seconds beyond the server's own deadline, so that its answer wins."""


@dataclass(frozen=True, slots=True)
class Post:
    path: str
    body: dict[str, Any]
    seconds: float = 60.0 + ANSWER_S


def chat(
    prompt: str | Sequence[Message] | None = None,
    *,
    messages: str | Sequence[Message] | None = None,
    model: str | None = None,
    vendor: str | None = None,
    task: str = "general",
    prefer: str = "balanced",
    stream: bool = False,
    temperature: float | None = None,
    max_tokens: int | None = None,
    response_format: Mapping[str, Any] | None = None,
    tools: Sequence[Mapping[str, Any]] | None = None,
    tool_choice: str | Mapping[str, Any] | None = None,
    cache_strategy: str = "vendor",
    batch_mode: bool = False,
    max_cost_multiplier: float = 1.5,
    timeout_seconds: float = 60,
    idempotency_key: str | None = None,
) -> Post:
    if (prompt is None) == (messages is None):
        raise TypeError("chat() takes a prompt, or messages= in its place")
    body = _given(
        messages=prompt if messages is None else messages,
        model=model,
        vendor=vendor,
        task=task,
        prefer=prefer,
        stream=stream,
        temperature=temperature,
        max_tokens=max_tokens,
        response_format=response_format,
        tools=tools,
        tool_choice=tool_choice,
        cache_strategy=cache_strategy,
        batch_mode=batch_mode,
        max_cost_multiplier=max_cost_multiplier,
        timeout_seconds=timeout_seconds,
        idempotency_key=idempotency_key,
    )
    return Post(CHAT, body, timeout_seconds + ANSWER_S)


def embed(
    text: str | Sequence[str] | None = None,
    *,
    input: str | Sequence[str] | None = None,
    model: str | None = None,
    vendor: str | None = None,
    dimensions: int | None = None,
    idempotency_key: str | None = None,
) -> Post:
    if (text is None) == (input is None):
        raise TypeError("embed() takes a text, or input= in its place")
    body = _given(
        input=text if input is None else input,
        model=model,
        vendor=vendor,
        dimensions=dimensions,
        idempotency_key=idempotency_key,
    )
    return Post("/v1/ai/embed", body)


def image(
    prompt: str,
    *,
    size: str | None = None,
    n: int | None = None,
    model: str | None = None,
    vendor: str | None = None,
    prefer: str = "balanced",
    include: Sequence[str] | None = None,
    idempotency_key: str | None = None,
) -> Post:
    body = _given(
        prompt=prompt,
        size=size,
        n=n,
        model=model,
        vendor=vendor,
        prefer=prefer,
        include=include,
        idempotency_key=idempotency_key,
    )
    return Post("/v1/ai/image", body)


def vision(
    prompt: str,
    images: Sequence[Source],
    *,
    model: str | None = None,
    vendor: str | None = None,
    idempotency_key: str | None = None,
) -> Post:
    sources = [source(image) for image in images]
    body = _given(prompt=prompt, images=sources, model=model, vendor=vendor, idempotency_key=idempotency_key)
    return Post("/v1/ai/vision", body)


def tts(
    input: str,
    *,
    voice: str | None = None,
    model: str | None = None,
    vendor: str | None = None,
    format: str | None = None,
    idempotency_key: str | None = None,
) -> Post:
    body = _given(input=input, voice=voice, model=model, vendor=vendor, format=format, idempotency_key=idempotency_key)
    return Post("/v1/ai/tts", body)


def asr(
    audio: Source,
    *,
    language: str | None = None,
    model: str | None = None,
    vendor: str | None = None,
    idempotency_key: str | None = None,
) -> Post:
    body = _given(audio=source(audio), language=language, model=model, vendor=vendor, idempotency_key=idempotency_key)
    return Post("/v1/ai/asr", body)


def token(
    model: str | None = None,
    voice: str | None = None,
    ttl_seconds: int | None = None,
    *,
    agent: str | None = None,
    session: Mapping[str, Any] | None = None,
) -> Post:
    body = _given(model=model, voice=voice, ttl_seconds=ttl_seconds, agent=agent, session=session)
    return Post("/v1/ai/realtime/token", body)


def source(given: Source) -> dict[str, Any]:
    if isinstance(given, bytes):
        return {"base64": base64.b64encode(given).decode()}
    return {"url": given} if isinstance(given, str) else dict(given)


def _given(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}
