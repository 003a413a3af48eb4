"""Structured output: checks a model's text against what the caller asked for, and asks once to mend it.

Schemas come from callers, so they are compiled by `jsonschema-rs`, whose patterns run in linear time, and
with every reference to another document refused: nothing is ever fetched for a schema.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jsonschema_rs
import orjson

from realtime.adapters.base import ChatRequest, Message, ResponseFormat
from realtime.gateway.bodies import wrong
from realtime.gateway.errors import GatewayError

MAX_COMPLAINT = 500
"""Characters of a complaint that the model is told."""


def _no_reference(uri: str) -> Any:
    raise ValueError("references to other documents are not followed")


class Checker:
    """For one `ResponseFormat`. 422 when its schema is no JSON schema."""

    def __init__(self, form: ResponseFormat) -> None:
        self._validate: Callable[[Any], None] | None = None
        if form.schema is not None:
            try:
                validator = jsonschema_rs.validator_for(
                    dict(form.schema),
                    retriever=_no_reference,
                    pattern_options=jsonschema_rs.RegexOptions(size_limit=1 << 20),
                )
            except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError, ValueError) as error:
                message = str(error).partition("\n")[0][:MAX_COMPLAINT]
                raise wrong("response_format", f"not a JSON schema: {message}", "invalid_schema") from None
            self._validate = validator.validate

    def complaint(self, text: str) -> str | None:
        """What is wrong with an answer; None when nothing is."""
        try:
            value = orjson.loads(text)
        except orjson.JSONDecodeError as error:
            return f"not JSON: {error}"[:MAX_COMPLAINT]
        if self._validate is None:
            return None if isinstance(value, dict) else "not a JSON object"
        try:
            self._validate(value)
        except jsonschema_rs.ValidationError as error:
            return str(error.message)[:MAX_COMPLAINT]
        return None


def instructed(request: ChatRequest, native: frozenset[str]) -> ChatRequest:
    """For a model without the wanted format: the same said in words."""
    form = request.response_format
    if form is None or form.type in native:
        return request
    words = "Answer with one JSON object and nothing else."
    if form.schema is not None:
        words = f"Answer with JSON only, fitting this JSON schema: {orjson.dumps(dict(form.schema)).decode()}"
    lesser = ResponseFormat("json_object") if "json_object" in native else None
    return replace(request, messages=[Message("system", words), *request.messages], response_format=lesser)


def repair(request: ChatRequest, text: str, complaint: str) -> ChatRequest:
    """The same request, with the failed answer and what is wrong with it."""
    words = f"Your answer is not valid: {complaint}. Answer again, with the corrected JSON only."
    return replace(request, messages=[*request.messages, Message("assistant", text), Message("user", words)])


def failed(complaint: str) -> GatewayError:
    message = f"The model's answer does not fit the response format: {complaint}."
    return GatewayError(502, "invalid_structured_output", message, param="response_format", retryable=True)


def unfenced(text: str) -> str:
    """Without the code fence that some models put around JSON."""
    bare = text.strip()
    if bare.startswith("```") and bare.endswith("```"):
        return bare.strip("`").removeprefix("json").strip()
    return text
