"""Settings: what loads, and what is said about what does not."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest
from pydantic import BaseModel

from realtime.presets import PRESETS
from realtime.settings import ENVIRONMENT, Mistake, Settings, SettingsError, data_folder, load

VENDOR = '[vendors.local]\nbase_url = "http://127.0.0.1:8000/v1"\n'


def loaded(tmp_path: Path, text: str, **environ: str) -> Settings:
    path = tmp_path / "realtime.toml"
    path.write_text(text, encoding="utf-8")
    return load(path, environ)


def mistakes(tmp_path: Path, text: str, **environ: str) -> list[Mistake]:
    with pytest.raises(SettingsError) as caught:
        loaded(tmp_path, text, **environ)
    return caught.value.mistakes


def test_without_a_file_the_embedded_engines_run() -> None:
    settings = load(None, {})
    assert settings.live.stt == settings.live.chat == settings.live.tts == ["embedded"]
    assert (settings.server.host, settings.server.port) == ("127.0.0.1", 8080)
    assert settings.agent("default") is not None
    assert settings.agent("other") is None


def test_a_whole_file_loads(tmp_path: Path) -> None:
    (tmp_path / "turn").write_text("turn secret\n")
    text = """
[server]
port = 9000
data = "state"
[vendors.local]
base_url = "http://127.0.0.1:8000/v1/"
[vendors.openai]
key = "env:OPENAI_API_KEY"
[[models]]
id = "fast"
vendor = "local"
kind = "chat"
model = "org/name"
[voices.anna]
engine = "local/kokoro"
voice = "af_heart"
[live]
chat = "fast"
stt = ["local/whisper", "embedded"]
[agents.sales]
greeting = "Hello."
chat = ["openai/gpt", "fast"]
locked = ["instructions", "tools"]
tools = [{ name = "look_up", parameters = { type = "object" } }]
[agents.sales.turn_detection]
silence_duration_ms = 200
[ice]
servers = [{ urls = "stun:stun.example.org" }]
turn_urls = ["turn:turn.example.org:3478?transport=udp"]
turn_secret = "file:turn"
[network]
udp_ports = "50000-50199"
"""
    settings = loaded(tmp_path, text, OPENAI_API_KEY="sk-secret")
    assert settings.server.data == tmp_path / "state"
    assert settings.vendors["local"].base_url == "http://127.0.0.1:8000/v1"
    key = settings.vendors["openai"].key
    assert key is not None
    assert key.get_secret_value() == "sk-secret"
    assert "sk-secret" not in repr(settings)
    assert settings.live.chat == ["fast"]
    assert settings.agents["sales"].tools[0]["type"] == "function"
    assert settings.ice.config().turn_secret == "turn secret"
    assert settings.ice.servers[0].urls == ["stun:stun.example.org"]


@pytest.mark.parametrize(
    ("text", "line", "where", "message", "proposal"),
    [
        ("[server]\nport = eighty", 2, "syntax", "Invalid value", 'port = "eighty"'),
        ("[server]\nport = 1\nport = 2", 3, "syntax", "Cannot overwrite", None),
        ('a = """', 1, "syntax", "", None),
        ("\n[server]\nprot = 1", 3, "server.prot", "not known", "`port`"),
        ('[agents.a]\nchat = "python:my_bot"', 2, "agents.a.chat", "named by its module", "python:my_bot:answer"),
        ("[servr]", 1, "servr", "not known", "`server`"),
        ("[zzz]", 1, "zzz", "not known", "known here: agents, files, ice, limits"),
        (
            '[[models]]\nid = "a"\nvendor = "v"\nkind = "tts"\nmodl = "b"\n[vendors.v]\nbase_url = "http://h"',
            5,
            "models[0].modl",
            "not known",
            "`model`",
        ),
        ('[server]\nport = "8080"', 2, "server.port", "expected a whole number, found a string", None),
        ("[server]\nport = 70000", 2, "server.port", "at most 65535", None),
        ("[limits]\ncalls = 0", 2, "limits.calls", "at least 1", None),
        ("[agents]\nx = 3", 2, "agents.x", "expected a table, found a whole number", None),
        ('[agents."a b"]', 1, 'agents."a b"', "a name has letters", None),
        ("[agents.x.turn_detection]\nthreshold = 2", 2, "agents.x.turn_detection.threshold", "at most 1", None),
        ('[agents.x]\nlocked = [\n "instruction"]', 3, "agents.x.locked[0]", "expected", "`instructions`"),
        ('[agents.x]\ntools = [{ name = "a b" }]', 2, "agents.x.tools[0]", "needs a name", "look_up"),
        ('[agents.x]\ntools = [{ name = "a", params = {} }]', 2, "agents.x.tools[0]", "no `params`", "`parameters`"),
        ('[agents.x]\ntools = [{ name = "a" },\n{ name = "a" }]', 3, "agents.x.tools[1]", "two tools", None),
        ("[live]\nchat = []", 2, "live.chat", "at least 1", None),
        ('[live]\nchat = "embeded"', 2, "live.chat", "no engine called `embeded`", "`embedded`"),
        ('[live]\nstt = [\n"embedded",\n"locl/w"]\n' + VENDOR, 4, "live.stt[1]", "no vendor", '"local/w"'),
        ('[live]\nstt = "local"\n' + VENDOR, 2, "live.stt", "is a vendor", '"local/MODEL"'),
        (
            VENDOR + '[[models]]\nid = "m"\nvendor = "local"\nkind = "chat"\n[live]\ntts = "m"',
            8,
            "live.tts",
            "a model for chat, not for text to speech",
            "embedded, instant",
        ),
        ('[agents.x]\ntts = "who"', 2, "agents.x.tts", "no engine called `who`", None),
        ('[voices.anna]\nvoice = "a"\nengine = "b/c"', 3, "voices.anna.engine", "no vendor called `b`", "[vendors.b]"),
        ('[[models]]\nid = "a"\nvendor = "b"\nkind = "tts"', 3, "models[0].vendor", "no vendor", "[vendors.b]"),
        ('[[models]]\nvendor = "local"\nkind = "tts"\n' + VENDOR, 1, "models[0]", "`id` is missing", "id ="),
        (VENDOR + '[[models]]\nid = "a"\nvendor = "local"\nkind = "tss"', 6, "models[0].kind", "expected", "`tts`"),
        ('[vendors.embedded]\nbase_url = "http://h"', 1, "vendors.embedded", "built in", None),
        ("[vendors.openai]", 1, "vendors.openai", "needs a key", "env:OPENAI_API_KEY"),
        ('[vendors.a]\nkind = "python:engines"', 2, "vendors.a.kind", "named by its module", "my_engines:MyVoice"),
        ('[vendors.a]\nkind = "opnai"\nkey = "env:T"', 2, "vendors.a.kind", "'python:module:Class'", "`openai`"),
        ('[vendors.a]\nkey = "env:T"\noptions = { x = 1 }', 3, "vendors.a.options", "class of your own", None),
        ('[vendors.a]\nkind = "python:m:C"\noptions = { x-y = 1 }', 3, "vendors.a.options.x-y", "an argument", None),
        (
            '[vendors.a]\nkind = "python:m:C"\n[[models]]\nid = "e"\nvendor = "a"\nkind = "embed"',
            6,
            "models[0].kind",
            "serves calls",
            "stt",
        ),
        ('[vendors.a]\nbase_url = "localhost:80"', 2, "vendors.a.base_url", "http://", "for example"),
        ('[vendors.a]\nbase_url = "http://u:pw@h/v1"', 2, "vendors.a.base_url", "secret does not belong", "env:NAME"),
        ('[vendors.a]\nkey = "sk-12345"', 2, "vendors.a.key", "secret does not belong", "`env:NAME`"),
        ('[vendors.a]\nkey = "env:MISSING"', 2, "vendors.a.key", "MISSING is not set", "set MISSING"),
        ('[vendors.a]\nkey = "file:none"', 2, "vendors.a.key", "cannot be read", "permissions"),
        ('[network]\nudp_ports = "50199-50000"', 2, "network.udp_ports", "range of ports", "50000-50199"),
        ('[network]\nudp_ports = "0-70000"', 2, "network.udp_ports", "range of ports", None),
        ('[network]\npublic_address = "example.org"', 2, "network.public_address", "IP address", "203.0.113.7"),
        (
            '[ice]\nservers = [{ urls = ["stun:h:3478?transport=udp"] }]',
            2,
            "ice.servers[0].urls[0]",
            "takes no ?transport=",
            '"stun:h:3478"',
        ),
        ('[[ice.servers]]\nurls = "http://h"', 2, "ice.servers[0].urls[0]", "not an ICE address", "stun:"),
        ('[[ice.servers]]\nurls = "turn:h"', 1, "ice.servers[0]", "username and credential", "turn_secret"),
        ('[ice]\nturn_urls = ["turn:h"]', 2, "ice.turn_urls", "need turn_secret", "coturn"),
        ('[ice]\nturn_urls = ["stun:h"]\nturn_secret = "env:T"', 2, "ice.turn_urls[0]", "expected a TURN", None),
        ('[ice]\nturn_secret = "env:T"', 2, "ice.turn_secret", "no TURN server", "turn_urls"),
    ],
)
def test_a_mistake_has_its_line_and_a_proposal(
    tmp_path: Path, text: str, line: int, where: str, message: str, proposal: str | None
) -> None:
    found = mistakes(tmp_path, text, T="secret")
    assert len(found) == 1, found
    assert (found[0].line, found[0].where) == (line, where)
    assert message in found[0].message
    if proposal is not None:
        assert proposal in (found[0].proposal or "")


def test_several_mistakes_come_at_once_in_the_files_order(tmp_path: Path) -> None:
    text = '[server]\nprot = 1\nport = "x"\n[live]\nchat = "nobody"\n[vendors.a]\nkey = "sk-1"\n'
    found = mistakes(tmp_path, text, REALTIME_UDP_PORTS="many")
    assert [(mistake.line, mistake.where) for mistake in found] == [
        (None, "REALTIME_UDP_PORTS"),
        (2, "server.prot"),
        (3, "server.port"),
        (5, "live.chat"),
        (7, "vendors.a.key"),
    ]


def test_the_error_reads_as_file_line_and_advice(tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        loaded(tmp_path, "[server]\nprot = 1\n")
    text = str(caught.value)
    assert f"{tmp_path / 'realtime.toml'}:2: server.prot:" in text
    assert "did you mean `port`?" in text


def test_a_refused_secret_is_not_repeated(tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        loaded(tmp_path, '[vendors.a]\nkey = "sk-do-not-show"\n[ice]\nturn_secret = 12345678\n')
    assert "sk-do-not-show" not in str(caught.value)
    assert "12345678" not in str(caught.value)


def test_a_secret_written_as_a_variables_name_is_understood(tmp_path: Path) -> None:
    found = mistakes(tmp_path, '[vendors.a]\nkey = "MY_KEY"\n', MY_KEY="sk-1")
    assert found[0].proposal == "write `env:MY_KEY` instead"
    found = mistakes(tmp_path, '[vendors.a]\nkey = "env:MY_KEI"\n', MY_KEY="sk-1")
    assert found[0].proposal == "did you mean `env:MY_KEY`?"


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    environ = {
        "REALTIME_HOST": "0.0.0.0",
        "REALTIME_PORT": "0",
        "REALTIME_DATA": str(tmp_path / "data"),
        "REALTIME_PUBLIC_ADDRESS": "203.0.113.7",
        "REALTIME_PUBLIC_URL": "https://voice.example/",
        "REALTIME_UDP_PORTS": "50000-50009",
        "REALTIME_API_KEY": "a key",
    }
    settings = loaded(tmp_path, '[server]\nhost = "127.0.0.1"\nport = 9000\n', **environ)
    server, network = settings.server, settings.network
    assert (server.host, server.port, server.data) == ("0.0.0.0", 0, tmp_path / "data")
    assert server.public_url == "https://voice.example"
    assert server.api_key is not None
    assert server.api_key.get_secret_value() == "a key"
    assert (network.public_address, network.udp_ports) == ("203.0.113.7", "50000-50009")


def test_an_empty_variable_counts_as_unset(tmp_path: Path) -> None:
    assert loaded(tmp_path, "[server]\nport = 9000\n", REALTIME_PORT="", REALTIME_HOST=" ").server.port == 9000


def test_a_wrong_variable_is_blamed_by_its_name(tmp_path: Path) -> None:
    found = mistakes(tmp_path, "[server]\nport = 9000\n", REALTIME_PORT="http")
    assert [(mistake.line, mistake.where) for mistake in found] == [(None, "REALTIME_PORT")]


def test_the_file_can_come_from_the_environment(tmp_path: Path) -> None:
    path = tmp_path / "other.toml"
    path.write_text("[server]\nport = 9001\n")
    assert load(None, {"REALTIME_CONFIG": str(path)}).server.port == 9001


def test_a_file_that_cannot_be_read_is_a_mistake_too(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="realtime init"):
        load(tmp_path / "none.toml", {})
    (tmp_path / "binary.toml").write_bytes(b"[server]\nhost = '\xff'\n")
    with pytest.raises(SettingsError, match=r"binary\.toml:2: syntax: not UTF-8"):
        load(tmp_path / "binary.toml", {})
    (tmp_path / "huge.toml").write_bytes(b"#" * (1 << 21))
    with pytest.raises(SettingsError, match="larger than 1 MiB"):
        load(tmp_path / "huge.toml", {})
    (tmp_path / "deep.toml").write_text("a = " + "[" * 100_000)
    with pytest.raises(SettingsError, match="syntax"):
        load(tmp_path / "deep.toml", {})


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_loads_without_mistakes(tmp_path: Path, name: str) -> None:
    preset = PRESETS[name]
    settings = loaded(tmp_path, preset.text(), **dict.fromkeys(preset.variables, "a-key"))
    assert "default" in settings.agents
    assert loaded(tmp_path, "\n".join(preset.lines()), **dict.fromkeys(preset.variables, "a-key")).live == settings.live


def test_the_data_folder_is_made_for_its_owner_only(tmp_path: Path) -> None:
    folder = data_folder(load(None, {"REALTIME_DATA": str(tmp_path / "a" / "b")}))
    assert folder == tmp_path / "a" / "b"
    assert folder.stat().st_mode & 0o777 == 0o700


def test_a_data_folder_that_cannot_be_made_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError, match="REALTIME_DATA"):
        data_folder(load(None, {"REALTIME_DATA": str(tmp_path / "file" / "b")}))


def sections(model: type[BaseModel]) -> dict[str, type[BaseModel]]:
    """Every section below `model` by its table's name."""
    found: dict[str, type[BaseModel]] = {}
    for name, field in model.model_fields.items():
        for part in (field.annotation, *get_args(field.annotation)):
            if isinstance(part, type) and issubclass(part, BaseModel):
                found |= {name: part, **sections(part)}
    return found


def test_every_setting_is_documented() -> None:
    text = (Path(__file__).parent.parent.parent / "docs" / "configuration.md").read_text(encoding="utf-8")
    assert {"server", "vendors", "agents", "turn_detection", "ice", "limits"} <= sections(Settings).keys()
    missing = [
        f"{section}.{name}"
        for section, model in sections(Settings).items()
        for name in model.model_fields
        if f"`{name}`" not in text
    ]
    assert missing == []
    assert [variable for variable in ENVIRONMENT if f"`{variable}`" not in text] == []


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ('[webhooks]\nurl = "https://a.example"\n', 2, "webhooks are always signed"),
        ('[webhooks]\nsecret = "env:SHORT"\nurl = "https://a.example"\n', 2, "24 to 64 bytes in base64"),
        ('[webhooks]\nevents = ["call.rings"]\nurl = "https://a.example"\nsecret = "env:GOOD"\n', 2, "call.incoming"),
        ('[agents.a.webhooks]\nevents = ["call.ended"]\n', 1, "no address to send webhooks to"),
        ('[agents.a.webhooks]\nurl = "https://a.example"\n', 2, "webhooks are always signed"),
    ],
)
def test_webhooks_that_cannot_work_are_refused(tmp_path: Path, text: str, line: int, message: str) -> None:
    path = tmp_path / "realtime.toml"
    path.write_text(text)
    with pytest.raises(SettingsError) as caught:
        load(path, {"SHORT": "whsec_c2hvcnQ=", "GOOD": "whsec_" + "A" * 32})
    (mistake,) = caught.value.mistakes
    assert mistake.line == line
    assert message in f"{mistake.message} {mistake.proposal}"
