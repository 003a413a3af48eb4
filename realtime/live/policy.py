"""What a call may be: the effective agent, model, voice and session of a request, or why not.

Implements `token_service.minting.SessionPolicy`. Policy belongs to the key and the agent, not to the
caller: a request can only choose among what exists, and fields that the agent locks keep their values.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from realtime.adapters.catalogue import Catalogue
from realtime.live.config import MAX_NAMED, SessionConfig
from realtime.live.wire import WireError
from realtime.settings import AgentSettings, Settings
from token_service.errors import InvalidRequest
from token_service.minting import EffectiveSession


class Policy:
    def __init__(self, settings: Settings, catalogue: Catalogue) -> None:
        self._settings = settings
        self._catalogue = catalogue

    def agent(self, name: str | None) -> tuple[str, AgentSettings]:
        """The agent called `name`, `default` if None. Raises `InvalidRequest`."""
        chosen = name or "default"
        agent = self._settings.agent(chosen)
        if agent is None:
            raise InvalidRequest("agent", _unknown("agent", chosen, ["default", *self._settings.agents]))
        return chosen, agent

    def effective(
        self, *, agent: str | None, model: str | None, voice: str | None, session: Mapping[str, Any] | None
    ) -> EffectiveSession:
        name, _ = self.agent(agent)
        config = self.config("sess_", name, model=model, voice=voice, session=session)
        return EffectiveSession(name, str(config.data["model"]), config.voice, dict(session or {}))

    def known_model(self, name: object) -> str | None:
        """`name` when it is one of the chat models. Clients of OpenAI name theirs: those mean our default."""
        return name if isinstance(name, str) and name in self._catalogue.known_models() else None

    def named_agent(self, name: object) -> str | None:
        """The agent that an OpenAI client means by `model=NAME`."""
        return name if isinstance(name, str) and name in self._settings.agents else None

    def config(
        self,
        session_id: str,
        agent: str | None,
        *,
        model: str | None = None,
        voice: str | None = None,
        session: Mapping[str, Any] | None = None,
    ) -> SessionConfig:
        """The configuration a call starts with. Raises `InvalidRequest` naming the field."""
        name, chosen = self.agent(agent)
        if model is not None and model not in self._catalogue.known_models():
            raise InvalidRequest("model", _unknown("model", model, self._catalogue.known_models()))
        voices = self._catalogue.known_voices()
        if voice is not None and voices and not self._catalogue.knows_voice(voice):
            raise InvalidRequest("voice", _unknown("voice", voice, voices))
        effective_model = model or self._catalogue.engines(chosen).chat.info.model
        config = SessionConfig.of_agent(
            session_id, name, chosen, model=effective_model, voice=voice or chosen.voice or "alloy"
        )
        config.voices = frozenset(voices)
        config.sees = self._catalogue.sees(chosen, model=model)
        if session:
            if session.get("type") == "transcription":
                config.data["type"] = "transcription"
            try:
                config.update(session)
            except WireError as error:
                raise InvalidRequest(error.param or "session", error.message) from error
        return config


def _unknown(what: str, given: str, known: list[str] | tuple[str, ...]) -> str:
    names = ", ".join(sorted(dict.fromkeys(known))[:MAX_NAMED])
    return f"There is no {what} '{given[:64]}'. Known: {names}."
