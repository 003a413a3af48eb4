"""The engines of this process, built from the settings and shared by all calls.

A reference in the settings (`embedded`, `instant`, `VENDOR/MODEL`, the id of one of `[[models]]`)
becomes an engine once, when it is first wanted; a list of them becomes one engine that fails over.
`start` builds and warms up all that any agent uses, so that nothing is imported in the middle of a
call. Callers can only choose among what the settings name. A vendor's SDK is imported here, late, and
only when the settings use that vendor.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias, TypeVar, cast

from realtime.adapters.base import ChatModel, Embedder, EngineInfo, ImageGenerator, SpeechToText, TextToSpeech
from realtime.adapters.breaker import Breaker
from realtime.adapters.custom.engines import Custom, CustomChat, CustomSpeechToText, CustomTextToSpeech
from realtime.adapters.embedded.drawing import Placeholder
from realtime.adapters.embedded.eyes import Eyes
from realtime.adapters.embedded.hashing import HashingEmbedder
from realtime.adapters.embedded.recogniser import recogniser
from realtime.adapters.embedded.responder import Responder
from realtime.adapters.embedded.voice import voice
from realtime.adapters.failover import Breakers, FirstOfChat, FirstOfSpeechToText, FirstOfTextToSpeech
from realtime.adapters.instant import InstantChat, InstantRecogniser, InstantVoice
from realtime.adapters.kept import KeptSpeech
from realtime.adapters.metering import Spent
from realtime.adapters.offers import offers
from realtime.adapters.routing import Amount, Model
from realtime.mistakes import nearest
from realtime.settings import PYTHON, AgentSettings, EngineRef, ModelSettings, Settings

if TYPE_CHECKING:
    from realtime.adapters.openai_vendor import OpenAIVendor

Kind: TypeAlias = Literal["stt", "chat", "tts", "embed", "image"]
Engine: TypeAlias = SpeechToText | ChatModel | TextToSpeech | Embedder | ImageGenerator
Builder: TypeAlias = Callable[[], Engine]
EngineT = TypeVar("EngineT", SpeechToText, ChatModel, TextToSpeech)

KINDS: tuple[Kind, ...] = ("stt", "chat", "tts")
"""Of the engines of a call."""

OPENAI_VOICES = (
    "alloy", "ash", "ballad", "cedar", "coral", "echo", "fable", "marin", "nova", "onyx", "sage", "shimmer", "verse",
)  # fmt: skip
"""OpenAI's names: clients send them to any server, so they mean something at every engine."""

DEFAULT_VOICE = "alloy"

logger = logging.getLogger(__name__)


class UnknownEngine(Exception):
    """No engine has that name, or it does other work. `nearest`: the known one that was probably meant."""

    def __init__(self, ref: str, kind: Kind, known: Iterable[str], reason: str = "") -> None:
        self.ref = ref
        self.kind = kind
        self.known = tuple(known)
        self.nearest = nearest(ref, self.known)
        hint = f"did you mean {self.nearest!r}?" if self.nearest else f"known: {', '.join(self.known)}"
        super().__init__(f"{reason or f'there is no {kind} engine {ref[:80]!r}'}; {hint}")


@dataclass(frozen=True, slots=True)
class Engines:
    """What one call works with."""

    stt: SpeechToText
    chat: ChatModel
    tts: TextToSpeech

    def names(self) -> dict[str, str]:
        """The name of each by its kind, for records and logs."""
        return {"stt": self.stt.info.name, "chat": self.chat.info.name, "tts": self.tts.info.name}


class Catalogue:
    """`override`: every reference means this built-in engine. `built_in`: builders by name and kind."""

    def __init__(
        self,
        settings: Settings,
        *,
        override: Literal["instant"] | None = None,
        built_in: Mapping[tuple[str, Kind], Builder] | None = None,
        breakers: Breakers | None = None,
    ) -> None:
        self._settings = settings
        self._override = override
        self._built_in = dict(built_in) if built_in is not None else _BUILT_IN
        self._breakers = breakers or Breakers()
        self._models = {model.id: model for model in settings.models}
        self._kept = KeptSpeech(settings.limits.kept_speech_bytes)
        self._vendors: dict[str, OpenAIVendor] = {}
        self._built: dict[tuple[Kind, EngineRef], Engine] = {}
        self._lists: dict[tuple[Kind, tuple[EngineRef, ...]], Engine] = {}
        self._started: dict[int, asyncio.Task[None]] = {}
        self._running: set[int] = set()
        """Engines of calls that were started, by identity."""
        """By the id of an engine that only one-shot requests use."""
        self.offers: tuple[Model, ...] = offers(settings, override=override)
        """Every model that a one-shot request may have."""
        self._name_of: dict[int, EngineRef] = {}
        """Full reference by the id of the engine it means; the engines live as long as the catalogue."""
        self._offer_of: dict[int, Model] = {}
        self._bills: dict[str, Callable[[Spent], None]] = {}
        """Who wants to know what a session uses."""

    # --- for calls ----------------------------------------------------------------------------

    def engines(self, agent: AgentSettings, *, model: str | None = None) -> Engines:
        """The engines of a call of `agent`; `model`, one of `known_models()`, replaces its chat model.

        Raises `UnknownEngine`.
        """
        chat = self._refs(agent, "chat") if model is None else (self._chosen(model),)
        return Engines(self._stt(self._refs(agent, "stt")), self._chat(chat), self._tts(self._refs(agent, "tts")))

    def sees(self, agent: AgentSettings, *, model: str | None = None) -> bool:
        """Whether the chat model that `engines` gives takes images. Raises `UnknownEngine`."""
        ref = self._refs(agent, "chat")[0] if model is None else self._chosen(model)
        return all("vision" in one.caps for one in self.offers if one.kind == "chat" and one.ref == ref)

    def infos(self) -> list[EngineInfo]:
        """The engines that any agent uses, each once, the default agent's first."""
        return [engine.info for engine in self._used().values()]

    def custom(self) -> list[Custom]:
        """Engines of the user's own that any agent uses, to be tried by themselves."""
        return [engine for engine in self._used().values() if isinstance(engine, Custom)]

    def voice_engines(self, agent: AgentSettings) -> list[TextToSpeech]:
        """Those of a call of `agent`, the one that is tried first first."""
        return [self._voice_engine(ref) for ref in self._refs(agent, "tts")]

    def known_models(self) -> list[str]:
        """Names that a caller may give for the chat model: references, and the models' own names."""
        return list(self._chat_names())

    def known_voices(self) -> list[str]:
        """Names that a caller may give for the voice."""
        names = [*self._settings.voices, *OPENAI_VOICES]
        for agent in self._agents():
            if agent.voice is not None:
                names.append(agent.voice)
            for ref in self._refs(agent, "tts"):
                names += self._voice_engine(ref).voices
        return list(dict.fromkeys(names))

    def knows_voice(self, name: str) -> bool:
        return name in self.known_voices()

    def voice(self, name: str | None, engine: TextToSpeech) -> str:
        """What the voice called `name` is called at `engine`: always something that the engine takes.

        `engines().tts` does this itself, for each engine it tries, and takes the names of `known_voices()`.
        """
        if isinstance(engine, FirstOfTextToSpeech):
            return name or DEFAULT_VOICE
        own = list(engine.voices)
        default = DEFAULT_VOICE if not own or DEFAULT_VOICE in own else own[0]
        if name is None:
            return default
        setting = self._settings.voices.get(name)
        if setting is not None:
            fits = setting.engine is None or self._full(setting.engine) == self._name_of.get(id(engine))
            return setting.voice if fits and (not own or setting.voice in own) else default
        if not own or name in own:
            return name
        if name in OPENAI_VOICES:
            return own[OPENAI_VOICES.index(name) % len(own)]
        return default

    def watch(self, session: str, tell: Callable[[Spent], None]) -> Callable[[], None]:
        """From now on `tell` is told what the requests of a session use; call what is returned to stop."""
        self._bills[session] = tell
        return lambda: self._forget(session)

    def _forget(self, session: str) -> None:
        self._bills.pop(session, None)

    def _spent(self, engine: object, session: str, amount: Amount, estimated: bool) -> None:
        tell, model = self._bills.get(session), self._offer_of.get(id(engine))
        if tell is not None and model is not None:
            tell(Spent(model.kind, f"{model.vendor}/{model.name}", amount, model.prices.cost(amount), estimated))

    # --- for one-shot requests ------------------------------------------------------------------

    async def engine(self, model: Model) -> Engine:
        """The engine of one of `offers`, started; the same that a call would have."""
        engine = self._engine(model.kind, model.ref)
        starting = self._started.get(id(engine))
        if starting is None or (starting.done() and (starting.cancelled() or starting.exception() is not None)):
            # A task of its own: the first to ask may leave while others wait.
            starting = self._started[id(engine)] = asyncio.create_task(engine.start())
        await asyncio.shield(starting)
        return engine

    def breaker(self, model: Model) -> Breaker:
        return self._breakers.of(self._engine(model.kind, model.ref))

    def healthy(self, model: Model) -> bool:
        return self.breaker(model).healthy(self._breakers.clock())

    # --- lifetime -----------------------------------------------------------------------------

    async def start(self) -> None:
        """Builds and starts, all at once, every engine that an agent uses or a caller may choose.

        One that cannot start is logged and left to its breaker as long as another stands beside it in each
        list; else its error is raised.
        """
        used = self._used() | {("chat", ref): self._engine("chat", ref) for ref in self._chat_names().values()}
        self._running.update(id(engine) for engine in used.values())
        results = await asyncio.gather(*(engine.start() for engine in used.values()), return_exceptions=True)
        errors: dict[tuple[Kind, EngineRef], BaseException] = {}
        for key, result in zip(used, results, strict=True):
            if isinstance(result, BaseException):
                errors[key] = result
                logger.error("engine %s for %s does not start: %s", key[1], key[0], result)
        for agent in self._agents():
            for kind in KINDS:
                keys = [(kind, ref) for ref in self._refs(agent, kind)]
                if all(key in errors for key in keys):
                    raise errors[keys[0]]

    async def start_added(self) -> None:
        """Starts what agents use that came after the start. Raises what an engine raises that does not start."""
        for engine in self._used().values():
            if id(engine) not in self._running:
                self._running.add(id(engine))
                await engine.start()

    async def close(self) -> None:
        results = await asyncio.gather(*(engine.close() for engine in self._built.values()), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                logger.error("an engine did not close: %s", result)

    # --- references ---------------------------------------------------------------------------

    def _agents(self) -> list[AgentSettings]:
        default = self._settings.agent("default") or AgentSettings()
        return [default, *(agent for name, agent in self._settings.agents.items() if name != "default")]

    def _refs(self, agent: AgentSettings, kind: Kind) -> tuple[EngineRef, ...]:
        if self._override is not None:
            return (self._override,)
        own: Sequence[EngineRef] | str | None = getattr(agent, kind)
        own = [own] if isinstance(own, str) else [ref for ref in own or () if not ref.startswith(PYTHON)]
        refs: Sequence[EngineRef] = own or getattr(self._settings.live, kind)
        return tuple(dict.fromkeys([refs] if isinstance(refs, str) else refs))

    def _used(self) -> dict[tuple[Kind, EngineRef], Engine]:
        keys = [(kind, ref) for agent in self._agents() for kind in KINDS for ref in self._refs(agent, kind)]
        return {key: self._engine(*key) for key in dict.fromkeys(keys)}

    def _chat_names(self) -> dict[str, EngineRef]:
        """Reference by each name a caller may give; a reference's own name wins over a model's."""
        refs: list[EngineRef] = [ref for agent in self._agents() for ref in self._refs(agent, "chat")]
        if self._override is None:
            refs += [model.id for model in self._settings.models if model.kind == "chat"]
        names = {ref: ref for ref in refs}
        for ref in dict.fromkeys(refs):
            names.setdefault(self._engine("chat", ref).info.model, ref)
        return names

    def _chosen(self, model: str) -> EngineRef:
        if self._override is not None:
            return self._override
        names = self._chat_names()
        if model not in names:
            raise UnknownEngine(model, "chat", names)
        return names[model]

    # --- building -----------------------------------------------------------------------------

    def _stt(self, refs: tuple[EngineRef, ...]) -> SpeechToText:
        engines = [cast(SpeechToText, self._engine("stt", ref)) for ref in refs]

        def make() -> Engine:
            return FirstOfSpeechToText(engines, self._breakers, spent=self._spent)

        return cast(SpeechToText, self._list("stt", refs, make))

    def _chat(self, refs: tuple[EngineRef, ...]) -> ChatModel:
        engines = [cast(ChatModel, self._engine("chat", ref)) for ref in refs]
        return cast(
            ChatModel, self._list("chat", refs, lambda: FirstOfChat(engines, self._breakers, spent=self._spent))
        )

    def _tts(self, refs: tuple[EngineRef, ...]) -> TextToSpeech:
        engines = [self._voice_engine(ref) for ref in refs]

        def make() -> Engine:
            return FirstOfTextToSpeech(engines, self._breakers, voice_of=self.voice, spent=self._spent, kept=self._kept)

        return cast(TextToSpeech, self._list("tts", refs, make))

    def _voice_engine(self, ref: EngineRef) -> TextToSpeech:
        return cast(TextToSpeech, self._engine("tts", ref))

    def _list(self, kind: Kind, refs: tuple[EngineRef, ...], make: Builder) -> Engine:
        if (kind, refs) not in self._lists:
            self._lists[kind, refs] = make()
        return self._lists[kind, refs]

    def _engine(self, kind: Kind, ref: EngineRef) -> Engine:
        engine = self._built.get((kind, ref))
        if engine is None:
            engine = self._built[kind, ref] = self._build(kind, ref)
            self._name_of[id(engine)] = self._full(ref)
            offer = next((model for model in self.offers if model.kind == kind and model.called(ref)), None)
            if offer is not None:
                self._offer_of[id(engine)] = offer
        return engine

    def _full(self, ref: EngineRef) -> EngineRef:
        """`VENDOR/MODEL` for the id of a model; other references as they are."""
        model = self._models.get(ref)
        return f"{model.vendor}/{model.model or model.id}" if model is not None else ref

    def _build(self, kind: Kind, ref: EngineRef) -> Engine:
        builder = self._built_in.get((ref, kind))
        if builder is not None:
            return builder()
        model = self._models.get(ref)
        if model is not None:
            if model.kind != kind:
                raise UnknownEngine(ref, kind, self._known(kind), f"{ref!r} is a {model.kind} model, not {kind}")
            return self._of_vendor(kind, model.vendor, model.model or model.id, model)
        vendor, slash, name = ref.partition("/")
        if slash and name and vendor in self._settings.vendors:
            return self._of_vendor(kind, vendor, name, None)
        if ref in self._settings.vendors and self._settings.vendors[ref].is_custom:
            return self._custom(kind, ref, None)
        raise UnknownEngine(ref, kind, self._known(kind))

    def _known(self, kind: Kind) -> list[str]:
        built_in = [name for name, of_kind in self._built_in if of_kind == kind]
        models = [model.id for model in self._settings.models if model.kind == kind]
        return [*built_in, *models, *(f"{vendor}/MODEL" for vendor in self._settings.vendors)]

    def _of_vendor(self, kind: Kind, vendor_name: str, model: str, settings: ModelSettings | None) -> Engine:
        from realtime.adapters import openai, openai_media, openai_vendor

        if vendor_name not in self._settings.vendors:
            raise UnknownEngine(model, kind, self._known(kind), f"there is no vendor {vendor_name!r}")
        if self._settings.vendors[vendor_name].is_custom:
            return self._custom(kind, vendor_name, model)
        if self._settings.vendors[vendor_name].kind != "openai":
            return self._of_own_sdk(kind, vendor_name, model, settings)
        vendor = self._vendors.get(vendor_name)
        if vendor is None:
            vendor = openai_vendor.OpenAIVendor(vendor_name, self._settings.vendors[vendor_name])
            self._vendors[vendor_name] = vendor
        match kind:
            case "stt":
                return openai.OpenAISpeechToText(vendor, model)
            case "chat":
                return openai.OpenAIChat(vendor, model, temperature=settings.temperature if settings else None)
            case "tts":
                return openai.OpenAITextToSpeech(vendor, model)
            case "embed":
                return openai_media.OpenAIEmbedder(vendor, model)
            case "image":
                return openai_media.OpenAIImages(vendor, model)

    def _custom(self, kind: Kind, vendor_name: str, model: str | None) -> Engine:
        """A class of the user's own; it is imported in its own process, when it is started."""
        vendor = self._settings.vendors[vendor_name]
        match kind:
            case "stt":
                return CustomSpeechToText(vendor_name, vendor, model)
            case "chat":
                return CustomChat(vendor_name, vendor, model)
            case "tts":
                return CustomTextToSpeech(vendor_name, vendor, model)
        raise UnknownEngine(vendor_name, kind, self._known(kind), f"{vendor_name!r} is an engine for calls")

    def _of_own_sdk(self, kind: Kind, vendor_name: str, model: str, settings: ModelSettings | None) -> Engine:
        """A model of a vendor whose own SDK is an extra of ours."""
        vendor = self._settings.vendors[vendor_name]
        if kind != "chat":
            raise UnknownEngine(
                model, kind, self._known(kind), f"a vendor of kind {vendor.kind!r} has chat models only"
            )
        temperature = settings.temperature if settings else None
        try:
            if vendor.kind == "anthropic":
                from realtime.adapters.anthropic import AnthropicChat

                return AnthropicChat(vendor_name, vendor, model, temperature=temperature)
            from realtime.adapters.gemini import GeminiChat

            return GeminiChat(vendor_name, vendor, model, temperature=temperature)
        except ModuleNotFoundError as error:
            hint = f"pip install 'infrai-realtime[{vendor.kind}]'"
            raise UnknownEngine(model, kind, self._known(kind), f"{error.name} is not installed ({hint})") from None


_BUILT_IN: dict[tuple[str, Kind], Builder] = {
    ("embedded", "stt"): recogniser,
    ("embedded", "chat"): Responder,
    ("embedded", "tts"): voice,
    ("embedded", "embed"): HashingEmbedder,
    ("embedded", "image"): Placeholder,
    ("embedded-eyes", "chat"): Eyes,
    ("instant", "stt"): InstantRecogniser,
    ("instant", "chat"): InstantChat,
    ("instant", "tts"): InstantVoice,
}
