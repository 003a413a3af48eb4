"""Reads a request's body within bounds and checks it: every mistake is a 422 that names the field.

The order is the caller's business; nothing here looks at a body before credentials were checked. A field
that is not known is refused by name, with the nearest known one, because a typo such as `max_token` must
not pass silently.
"""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, TypeVar

import orjson
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from starlette.requests import Request

from realtime.gateway.errors import GatewayError
from realtime.mistakes import nearest

BODY_SECONDS = 60.0
"""Of silence and data together: a body of 64 MB on a line of 10 Mbit/s."""

MAX_NAME = 64
"""Characters of a field's name that are repeated in an error."""

BodyT = TypeVar("BodyT", bound="Body")


class Body(BaseModel):
    """What every request may say."""

    model_config = ConfigDict(extra="forbid", strict=True)

    model: Name | None = Field(None, description="Explicit model id; skips task/prefer routing.")
    vendor: Name | None = Field(None, description="Pin a specific vendor of the settings.")
    timeout_seconds: Timeout = Field(60.0, description="Total deadline over all attempts.")
    max_cost_multiplier: Multiplier = Field(
        1.5, description="A model stands in for another only up to this multiple of its estimated cost; 0: never."
    )
    idempotency_key: Key | None = Field(
        None, description="Identical retries return the same result for 24 hours; also as Idempotency-Key header."
    )


def _number(value: object) -> object:
    """JSON has one kind of number: 300.0 is 300 and 1 is 1.0."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _real(value: object) -> object:
    return float(value) if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1 << 53 else value


Whole = Annotated[int, BeforeValidator(_number)]
Real = Annotated[float, Field(allow_inf_nan=False), BeforeValidator(_real)]
Name = Annotated[str, Field(min_length=1, max_length=256)]
Key = Annotated[str, Field(min_length=1, max_length=255, pattern=r"^[\x21-\x7e]+$")]
Timeout = Annotated[Real, Field(gt=0, le=600)]
Multiplier = Annotated[Real, Field(ge=0, le=1000)]
Body.model_rebuild()


async def read(request: Request, limit: int) -> bytes:
    """The body; 413 once it is known to have more than `limit` bytes."""
    too_large = GatewayError(413, "request_too_large", f"The body has more than {limit} bytes.")
    declared = request.headers.get("content-length", "0")
    if declared.isdecimal() and int(declared[:15]) > limit:
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in request.stream():
                body += chunk
                if len(body) > limit:
                    raise too_large
    except TimeoutError:
        raise GatewayError(408, "request_timeout", "The body did not arrive in time.") from None
    return bytes(body)


def parse(data: bytes) -> dict[str, Any]:
    """The JSON object in a body."""
    try:
        document = orjson.loads(data)
    except orjson.JSONDecodeError:
        raise GatewayError(400, "invalid_json", "The body is not JSON.") from None
    if not isinstance(document, dict):
        raise GatewayError(400, "invalid_json", "The body is not a JSON object.")
    return document


def check(model: type[BodyT], document: dict[str, Any]) -> BodyT:
    """`document` as a `model`."""
    known = list(model.model_fields)
    unknown = [name for name in document if name not in model.model_fields]
    if unknown:
        name = unknown[0][:MAX_NAME]
        near = nearest(name, known)
        hint = f"did you mean '{near}'?" if near else f"known: {', '.join(known)}."
        listed = ", ".join(f"'{other[:MAX_NAME]}'" for other in unknown[:8])
        raise GatewayError(422, "unknown_field", f"Unknown: {listed}; {hint}", param=name)
    try:
        return model.model_validate(document)
    except ValidationError as error:
        raise invalid(error) from None


def invalid(error: ValidationError) -> GatewayError:
    """The first mistake, by its place and without the value."""
    errors = error.errors(include_url=False, include_input=False, include_context=False)
    # Of the branches of a union, the one that fitted furthest is the one that was meant.
    field = errors[0]["loc"][:1]
    first = max((one for one in errors if one["loc"][:1] == field), key=lambda one: len(one["loc"]))
    # Names of union branches are no part of the document's path.
    path = [str(part)[:MAX_NAME] for part in first["loc"] if isinstance(part, int) or not _is_branch(part)]
    param = ".".join(path) or None
    code = {"missing": "missing_field", "extra_forbidden": "unknown_field"}.get(first["type"], "invalid_value")
    message = first["msg"].removeprefix("Value error, ")
    return GatewayError(422, code, f"{param or 'body'}: {message}.".replace("..", "."), param=param)


def _is_branch(part: str) -> bool:
    return "[" in part or part in ("str", "NamedChoice") or part.startswith("constrained-")


def wrong(param: str, message: str, code: str = "invalid_value") -> GatewayError:
    """A 422 about one field."""
    return GatewayError(422, code, f"{param}: {message}", param=param)
