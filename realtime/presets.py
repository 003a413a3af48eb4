"""What `realtime init` writes: short settings files to start from, one for each way to get engines.

Every preset loads without mistakes as it stands, given the environment variables it names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

DOCUMENTATION = "docs/configuration.md lists every setting; `realtime doctor` checks this file."

PresetName = Literal["embedded", "openai", "ollama", "groq", "vllm", "speaches"]


@dataclass(frozen=True, slots=True)
class Preset:
    """`about`: one line for the command line's help. `variables`: what must be in the environment.
    `voice`: the default agent's, where the engine's own default would not do."""

    about: str
    body: str
    variables: tuple[str, ...] = ()
    voice: str | None = None

    def text(self) -> str:
        voice = f'voice = "{self.voice}"\n' if self.voice else ""
        return f"# {self.about}\n# {DOCUMENTATION}\n\n{self.body.strip()}\n\n{_AGENT}{voice}{_OPTIONAL}"

    def lines(self) -> list[str]:
        """The settings themselves, without comments and blank lines."""
        return [line.split("  #")[0].rstrip() for line in self.body.splitlines() if line and not line.startswith("#")]


_AGENT = """\
[agents.default]
instructions = "You are on a voice call. Answer in one or two short sentences of plain text."
"""

_OPTIONAL = """\
# greeting = "Hello, how can I help?"     # said as soon as the caller can hear

# [network]                               # when callers come from outside this machine:
# public_address = "203.0.113.7"
# udp_ports = "50000-50199"
"""

PRESETS: Mapping[PresetName, Preset] = {
    "embedded": Preset(
        "Embedded engines: offline, no key. A demo: the recogniser gets about one word in three wrong.",
        """
[live]
stt = "embedded"
chat = "embedded"
tts = "embedded"
""",
    ),
    "openai": Preset(
        "OpenAI for hearing, answering and speaking.",
        """
[vendors.openai]
key = "env:OPENAI_API_KEY"

[live]
stt = "openai/gpt-transcribe"
chat = "openai/gpt-5.4-mini"
tts = "openai/gpt-4o-mini-tts"
""",
        ("OPENAI_API_KEY",),
    ),
    "ollama": Preset(
        "A chat model from Ollama on this machine; hearing and speaking embedded.",
        """
[vendors.ollama]
base_url = "http://127.0.0.1:11434/v1"

[live]
stt = "embedded"
chat = "ollama/llama3.2"                  # any model you have pulled: ollama pull llama3.2
tts = "embedded"
""",
    ),
    "groq": Preset(
        "Groq for hearing and answering; speaking embedded.",
        """
[vendors.groq]
base_url = "https://api.groq.com/openai/v1"
key = "env:GROQ_API_KEY"
speech_format = "wav"

[live]
stt = "groq/whisper-large-v3-turbo"
chat = "groq/llama-3.3-70b-versatile"
tts = "embedded"
""",
        ("GROQ_API_KEY",),
    ),
    "vllm": Preset(
        "A chat model from vLLM on this machine; hearing and speaking embedded.",
        """
[vendors.vllm]
base_url = "http://127.0.0.1:8000/v1"
# key = "env:VLLM_API_KEY"                # when vLLM was started with --api-key

[live]
stt = "embedded"
chat = "vllm/Qwen/Qwen3-8B"               # the model that `vllm serve` was started with
tts = "embedded"
""",
    ),
    "speaches": Preset(
        "Whisper and Kokoro from speaches on this machine; answering embedded.",
        """
[vendors.speaches]
base_url = "http://127.0.0.1:8000/v1"

[live]
stt = "speaches/Systran/faster-distil-whisper-small.en"
chat = "embedded"                         # add a vendor with a chat model and name it here
tts = "speaches/speaches-ai/Kokoro-82M-v1.0-ONNX"

[voices.heart]
engine = "speaches/speaches-ai/Kokoro-82M-v1.0-ONNX"
voice = "af_heart"
""",
        voice="heart",
    ),
}
