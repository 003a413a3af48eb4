"""Structured output: checks a model's text against what the caller asked for, and asks once to mend it.

Schemas come from callers: `realtime.json_schemas` compiles them.
"""

from __future__ import annotations

from dataclasses import replace

import orjson

from realtime.adapters.base import ChatRequest, Message, ResponseFormat
from realtime.gateway.bodies import wrong
from realtime.gateway.errors import GatewayError
from realtime.json_schemas import MAX_COMPLAINT, BadSchema
from realtime.json_schemas import Checker as SchemaChecker


class Checker:
    """For one `ResponseFormat`. 422 when its schema is no JSON schema."""

    def __init__(self, form: ResponseFormat) -> None:
        self._schema: SchemaChecker | None = None
        if form.schema is not None:
            try:
                self._schema = SchemaChecker(form.schema)
            except BadSchema as error:
                raise wrong("response_format", f"not a JSON schema: {error}", "invalid_schema") from None

    def complaint(self, text: str) -> str | None:
        """What is wrong with an answer; None when nothing is."""
        try:
            value = orjson.loads(text)
        except orjson.JSONDecodeError as error:
            return f"not JSON: {error}"[:MAX_COMPLAINT]
        if self._schema is None:
            return None if isinstance(value, dict) else "not a JSON object"
        found = self._schema.complaint(value)
        return found.what if found is not None else None


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
