"""What is put into an agent's words for `{{name}}`."""

from __future__ import annotations

from realtime.agents.variables import fill


def test_variables_are_put_where_they_are_named() -> None:
    assert fill("Hello {{name}}, {{ name }}! {{other}} {name}", {"name": "Ada"}) == "Hello Ada, Ada! {{other}} {name}"
    assert fill("Hello {{name}}", {"name": "{{name}} \\1"}) == "Hello {{name}} \\1"
    assert fill("{{people}} at {{call-id}}", {"people": 4, "call-id": "x"}) == "4 at x"


def test_one_value_cannot_fill_the_whole_context() -> None:
    assert len(fill("{{x}}", {"x": "a" * 100_000})) == 4000
