"""Reads server events, one JSON object a line, and prints those that `openai-agents` would drop."""

from __future__ import annotations

import json
import sys

from agents.realtime.openai_realtime import get_server_event_type_adapter
from pydantic import ValidationError

adapter = get_server_event_type_adapter()
for line in sys.stdin:
    event = json.loads(line)
    if event.get("previous_item_id", ...) is None:
        event["previous_item_id"] = ""  # as the SDK does before it validates
    try:
        adapter.validate_python(event)
    except ValidationError as error:
        print(event["type"], error.errors(include_url=False, include_input=False)[:3], line.strip()[:500])
