"""JSON schemas that others write: compiled once, and what is wrong with a value told in words.

`jsonschema-rs` does it, because its patterns run in linear time and it checks long values in microseconds. Every
reference to another document is refused: nothing is ever fetched for a schema.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import Any, NamedTuple

import jsonschema_rs

MAX_COMPLAINT = 500
"""Characters of one complaint; it quotes the value."""

MAX_COMPLAINTS = 10


class BadSchema(ValueError):
    """No JSON schema; the message says why."""


def _no_reference(uri: str) -> Any:
    raise ValueError("references to other documents are not followed")


class Complaint(NamedTuple):
    """`where`: `people`, `guests.0.name`; "" for the whole."""

    where: str
    what: str


class Checker:
    """Raises `BadSchema`. `formats`: values of `format` (`date`, `email` …) are held to."""

    def __init__(self, schema: Mapping[str, Any], *, formats: bool = False) -> None:
        try:
            self._validator = jsonschema_rs.validator_for(
                dict(schema),
                retriever=_no_reference,
                validate_formats=formats,
                pattern_options=jsonschema_rs.RegexOptions(size_limit=1 << 20),
            )
        except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError, ValueError) as error:
            raise BadSchema(str(error).partition("\n")[0][:MAX_COMPLAINT]) from None

    def complaint(self, value: Any) -> Complaint | None:
        """The first thing that is wrong with a value of any size, in microseconds."""
        try:
            self._validator.validate(value)
        except jsonschema_rs.ValidationError as error:
            return _complaint(error)
        return None

    def complaints(self, value: Any) -> list[Complaint]:
        """The first ten. Finds all that there are, in 3 µs each: for small values."""
        return [_complaint(error) for error in islice(self._validator.iter_errors(value), MAX_COMPLAINTS)]


def _complaint(error: jsonschema_rs.ValidationError) -> Complaint:
    return Complaint(".".join(map(str, error.instance_path)), str(error.message)[:MAX_COMPLAINT])
