"""Sound that the client brings in an item of its own, while its words are looked for. Sans-I/O."""

from __future__ import annotations

from realtime.live import wire
from realtime.live.caller import UNCLEAR
from realtime.live.effects import DropListening, Effect, Send, Transcribe, TranscriptFailed, TranscriptHeard
from realtime.live.items import History


class BroughtSound:
    def __init__(self, history: History) -> None:
        self._history = history
        self._wordless: set[str] = set()
        """Ids of items whose words have not come yet."""

    @property
    def awaits_words(self) -> bool:
        return bool(self._wordless)

    def of(self, item_id: str) -> bool:
        return item_id in self._wordless

    def take(self, item_id: str, message: wire.MessageItem) -> list[Effect]:
        """The caller's first piece of sound in it without words is transcribed."""
        for part in message.content:
            if isinstance(part, wire.InputAudio) and part.audio and not part.transcript:
                self._wordless.add(item_id)
                return [Transcribe(item_id, part.audio)]
        return []

    def forget(self, item_id: str) -> list[Effect]:
        if item_id not in self._wordless:
            return []
        self._wordless.discard(item_id)
        return [DropListening(item_id)]

    def found(self, event: TranscriptHeard | TranscriptFailed) -> list[Effect]:
        """Its words, or that there are none."""
        item = self._history.get(event.item_id)
        if isinstance(event, TranscriptHeard) and not event.final:
            return []
        self._wordless.discard(event.item_id)
        index = next((i for i, part in enumerate(item.parts) if part.kind == "input_audio"), 0) if item else 0
        if isinstance(event, TranscriptFailed):
            error = {"type": "server_error", "code": event.code, "message": event.message}
            return [Send(wire.TranscriptionFailed(item_id=event.item_id, content_index=index, error=error))]
        text = event.text.strip() if event.spoken else ""
        if item is not None:
            item.parts[index].text = text
            item.parts[index].note = UNCLEAR if event.spoken else event.text
        usage = {"type": "duration", "seconds": 0}
        completed = wire.TranscriptionCompleted(
            item_id=event.item_id, content_index=index, transcript=text, usage=usage
        )
        return [Send(completed)]
