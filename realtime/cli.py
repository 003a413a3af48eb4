"""The command line. Each command reads its settings, calls the module that does the work, and says what came of it.

What a command needs is imported inside it: `realtime --help` must not wait for aiortc and numpy.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import typer

from realtime.cli_shared import (
    ConfigOption,
    KeyOption,
    UrlOption,
    config_path,
    find_key,
    load_settings,
    say,
    server_url,
    stop,
)
from realtime.cli_telephone import audiosocket, bridge_app
from realtime.presets import PRESETS, PresetName

if TYPE_CHECKING:
    from realtime.agents.loading import Bot
    from realtime.settings import Settings
    from realtime.store.base import Store
    from token_service.api_keys import ApiKey, ApiKeys

T = TypeVar("T")

app = typer.Typer(
    name="realtime",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="A voice server that people talk to: WebRTC in, your own speech and chat engines behind it.\n\n"
    "Start with [bold]realtime serve[/bold]: it runs offline with embedded engines and says what to do next.",
)
keys_app = typer.Typer(
    no_args_is_help=True,
    help="API keys, in the data folder's store. Changes hold at once, also for a server that is running.",
)
app.add_typer(keys_app, name="keys")
app.command()(audiosocket)
app.add_typer(bridge_app, name="bridge")


@app.callback(invoke_without_command=True)
def main(show_version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False) -> None:
    """Runs before every command."""
    if show_version:
        from importlib.metadata import version

        typer.echo(version("infrai-realtime"))
        raise typer.Exit


@app.command()
def serve(
    bot: Annotated[
        str | None, typer.Argument(help="Your own agents: a Python file, or module:agent.", show_default=False)
    ] = None,
    host: Annotated[
        str | None, typer.Option(help="Address to listen on. Default 127.0.0.1: this machine only.")
    ] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="Default 8080; 0 for any free one.")] = None,
    config: ConfigOption = None,
    tls_cert: Annotated[
        Path | None, typer.Option("--tls-cert", exists=True, dir_okay=False, help="Certificate chain, PEM.")
    ] = None,
    tls_key: Annotated[
        Path | None, typer.Option("--tls-key", exists=True, dir_okay=False, help="Its private key, PEM.")
    ] = None,
    tls: Annotated[
        Literal["self-signed"] | None,
        typer.Option(
            help="A certificate of the server's own, so that phones on this network may use their microphone."
        ),
    ] = None,
    engines: Annotated[
        Literal["instant"] | None,
        typer.Option(help="For measuring: engines that answer at once with fixed text and a tone."),
    ] = None,
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], typer.Option(help="What goes to stderr.")
    ] = "info",
    reload: Annotated[
        bool, typer.Option("--reload", help="Take up changes of your agents; calls under way keep theirs.")
    ] = False,
) -> None:
    """Start the server, and say where it is and what to do next.

    Without a settings file it runs the embedded engines, offline and without any key of a vendor. With
    bot.py, the agents that it makes answer the calls.
    """
    if (tls_cert is None) != (tls_key is None):
        stop("--tls-cert and --tls-key go together")
    if tls is not None and tls_cert is not None:
        stop("--tls self-signed makes a certificate; it does not go with --tls-cert")
    if reload and bot is None:
        stop("--reload takes up changes of your agents: name their file")
    path = config_path(config)
    own = _load_bot(bot)
    settings = load_settings(path, [agent.name for agent in own.agents] if own else ())
    server = {name: value for name, value in (("host", host), ("port", port)) if value is not None}
    settings = settings.model_copy(update={"server": settings.server.model_copy(update=server)})

    from rich.console import Console

    from media.aiortc_private import UnsupportedAiortc
    from media.network import NetworkError
    from realtime.adapters.base import EngineError
    from realtime.adapters.catalogue import UnknownEngine
    from realtime.agents.loading import BotError
    from realtime.serve import CannotServe, Options, run
    from realtime.settings import SettingsError
    from realtime.store.base import StoreError
    from token_service.keys import KeyFileError

    options = Options(path, tls_cert, tls_key, tls is not None, engines, log_level, own, reload)
    try:
        run(settings, options, os.environ, Console())
    except (
        BotError,
        CannotServe,
        EngineError,
        KeyFileError,
        NetworkError,
        SettingsError,
        StoreError,
        UnknownEngine,
        UnsupportedAiortc,
    ) as error:
        stop(str(error))


@app.command()
def link(
    url: Annotated[
        str | None, typer.Option("--url", help="Where the page is opened. Default: where the server last listened.")
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Print a link that opens the page in one browser, once, within 15 minutes."""
    from realtime.web.access import new_link

    made = _with_store(load_settings(config_path(config)), lambda store: new_link(store, url))
    if made is None:
        stop("the server has not run with this data folder yet; start it, or say --url")
    typer.echo(made)


@app.command()
def init(
    path: Annotated[Path, typer.Argument(help="The file to write.")] = Path("realtime.toml"),
    preset: Annotated[PresetName, typer.Option(help="Where the engines come from.")] = "embedded",
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
) -> None:
    """Write a short commented settings file to start from."""
    chosen = PRESETS[preset]
    try:
        with path.open("w" if force else "x", encoding="utf-8") as file:
            file.write(chosen.text())
    except FileExistsError:
        stop(f"{path} is there already; --force replaces it")
    except OSError as error:
        stop(f"{path} cannot be written: {error.strerror}")
    typer.echo(f"Wrote {path}. {chosen.about}")
    for name in chosen.variables:
        if not os.environ.get(name):
            typer.echo(f"Set {name} in the environment before you start the server.")
    typer.echo("Next: realtime doctor, then realtime serve.")


@app.command()
def doctor(config: ConfigOption = None) -> None:
    """Check settings, keys, engines, vendors, network and TURN, and say what to do. Exit code 1 on a failure."""
    path = config_path(config)
    settings = load_settings(path)

    from rich.console import Console
    from rich.text import Text

    from realtime.check import Check
    from realtime.doctor import examine, worst

    console = Console()
    styles = {"ok": "green", "warn": "yellow", "fail": "bold red"}
    checks = [Check("settings", "ok", str(path) if path else "no file; the defaults hold")]
    checks += asyncio.run(examine(settings, os.environ))
    for check in checks:
        console.print(
            Text.assemble((f"{check.state:<5}", styles[check.state]), f"{check.name}: {check.detail}"), soft_wrap=True
        )
        if check.advice:
            console.print(Text(f"     {check.advice}"), soft_wrap=True)
    raise typer.Exit(1 if worst(checks) == "fail" else 0)


@keys_app.command("create")
def keys_create(
    scopes: Annotated[
        str, typer.Option(help="Comma-separated: mint, calls, chat, media, admin. A page's key has mint alone.")
    ] = "mint,calls,chat,media",
    name: Annotated[str, typer.Option(help="What it is for, as the list shows it.")] = "",
    origin: Annotated[
        list[str] | None, typer.Option(help="A web page's origin; makes a key that may stand in that page. Repeatable.")
    ] = None,
    agent: Annotated[str | None, typer.Option(help="The only agent this key may use.")] = None,
    config: ConfigOption = None,
) -> None:
    """Make an API key and print it. It is shown this once and not kept."""
    from token_service.errors import InvalidRequest

    settings = load_settings(config_path(config))
    if agent is not None and settings.agent(agent) is None:
        stop(f"there is no agent called {agent} in the settings")
    chosen = [scope.strip() for scope in scopes.split(",") if scope.strip()]

    async def create(keys: ApiKeys) -> str:
        try:
            plaintext, key = await keys.create(name, chosen, origins=origin or (), agent=agent)
        except InvalidRequest as error:
            stop(error.message)
        typer.echo(f"{key.id}  {' '.join(sorted(key.scopes))}", err=True)
        return plaintext

    typer.echo(_with_keys(settings, create))


@keys_app.command("list")
def keys_list(config: ConfigOption = None) -> None:
    """List the keys of the store. Their plaintext is known to nobody but their owners."""
    from datetime import UTC, datetime

    async def listed(keys: ApiKeys) -> list[ApiKey]:
        return await keys.list()

    found = _with_keys(load_settings(config_path(config)), listed)
    if not found:
        typer.echo("No keys yet: `realtime keys create` makes one, `realtime serve` one for development.", err=True)
    for key in found:
        made = datetime.fromtimestamp(key.created_at, UTC).strftime("%Y-%m-%d")
        parts = [key.id, made, ",".join(sorted(key.scopes)), key.name or "-"]
        parts += [
            *key.origins,
            *([f"agent={key.agent}"] if key.agent else []),
            *(["revoked"] if key.revoked_at else []),
        ]
        typer.echo("  ".join(parts))


@keys_app.command("revoke")
def keys_revoke(
    id_: Annotated[str, typer.Argument(metavar="ID", help="As `realtime keys list` shows it.")],
    config: ConfigOption = None,
) -> None:
    """End a key at once."""

    async def revoke(keys: ApiKeys) -> bool:
        return await keys.revoke(id_)

    if not _with_keys(load_settings(config_path(config)), revoke):
        stop(f"there is no key {id_} to revoke; `realtime keys list` shows them")
    typer.echo(f"Revoked {id_}.")


@app.command()
def token(
    agent: Annotated[str | None, typer.Option(help="Who answers. Default: the agent called default.")] = None,
    model: Annotated[str | None, typer.Option(help="A chat model instead of the agent's.")] = None,
    voice: Annotated[str | None, typer.Option(help="A voice instead of the agent's.")] = None,
    ttl: Annotated[int | None, typer.Option(min=10, max=3600, help="Seconds in which it can open a call.")] = None,
    offline: Annotated[
        bool, typer.Option("--offline", help="Sign it here with the data folder's keys, without asking a server.")
    ] = False,
    url: UrlOption = None,
    key: KeyOption = None,
    config: ConfigOption = None,
) -> None:
    """Mint a token for one live call and print it as JSON.

    Asks the running server; when none answers, signs the token here with the keys of the data folder.
    """
    from realtime.mint import MintError, Wish, from_folder, mint
    from realtime.settings import SettingsError, data_folder
    from token_service.keys import KeyFileError

    settings = load_settings(config_path(config))
    wish = Wish(agent, model, voice, ttl)
    try:
        folder = data_folder(settings)
        if offline:
            made = from_folder(settings, folder, wish)
        else:
            asked = url or os.environ.get("INFRAI_BASE_URL")
            made = mint(settings, folder, wish, url=asked, key=key or find_key(settings), say=say)
        typer.echo(json.dumps(made, indent=2))
    except (KeyFileError, MintError, SettingsError) as error:
        stop(str(error))


@app.command()
def talk(
    wav: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="Speak this file. Without it: the microphone, where one is."),
    ] = None,
    out: Annotated[Path | None, typer.Option(dir_okay=False, help="Keep the answer's sound in this WAV file.")] = None,
    agent: Annotated[str | None, typer.Option(help="Who answers.")] = None,
    voice: Annotated[str | None, typer.Option(help="A voice instead of the agent's.")] = None,
    websocket: Annotated[bool, typer.Option("--websocket", help="Not over WebRTC: where UDP does not pass.")] = False,
    text: Annotated[bool, typer.Option("--text", help="Without sound: type, a line a turn.")] = False,
    url: UrlOption = None,
    key: KeyOption = None,
    config: ConfigOption = None,
) -> None:
    """Hold a call and print both sides' words and each turn's times."""
    from realtime.client.errors import ApiError, ConnectError
    from realtime.client.talk import talk as hold_call
    from realtime.client.typed import talk_typed

    settings = load_settings(config_path(config))
    found = key or find_key(settings)
    base_url = server_url(settings, url)
    try:
        if text:
            raise typer.Exit(asyncio.run(talk_typed(sys.stdin, base_url=base_url, api_key=found, agent=agent)))
        code = asyncio.run(
            hold_call(
                wav=wav,
                out=out,
                base_url=base_url,
                api_key=found,
                agent=agent,
                voice=voice,
                transport="websocket" if websocket else "webrtc",
            )
        )
    except KeyboardInterrupt:
        code = 0
    except (ApiError, ConnectError, OSError) as error:
        stop(str(error))
    raise typer.Exit(code)


@app.command()
def bench(
    calls: Annotated[int, typer.Option(min=1, max=2000, help="Try no more than so many.")] = 500,
    seconds: Annotated[float, typer.Option(min=2, max=600, help="How long each number of calls is measured.")] = 15.0,
) -> None:
    """Measure how many calls this machine carries: a server and its callers, here, for about two minutes."""
    from realtime.bench import BenchError, measure, summary
    from realtime.load import LoadError

    try:
        verdict = asyncio.run(measure(seconds=seconds, most=calls, say=say))
    except (BenchError, LoadError) as error:
        stop(str(error))
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    typer.echo(summary(verdict))
    raise typer.Exit(0 if verdict.carried else 1)


def _load_bot(spec: str | None) -> Bot | None:
    from realtime.agents.loading import BotError, load

    try:
        return None if spec is None else load(spec)
    except BotError as error:
        stop(str(error))


def _with_keys(settings: Settings, use: Callable[[ApiKeys], Coroutine[Any, Any, T]]) -> T:
    """What `use` makes of the data folder's keys."""
    from token_service.api_keys import ApiKeys

    return _with_store(settings, lambda store: use(ApiKeys(store)))


def _with_store(settings: Settings, use: Callable[[Store], Coroutine[Any, Any, T]]) -> T:
    """What `use` makes of the data folder's store."""
    from realtime.local import open_store
    from realtime.settings import SettingsError, data_folder
    from realtime.store.base import StoreError

    async def run() -> T:
        store = open_store(data_folder(settings))
        try:
            return await use(store)
        finally:
            await store.close()

    try:
        return asyncio.run(run())
    except (SettingsError, StoreError) as error:
        stop(str(error))


if __name__ == "__main__":
    sys.exit(app())
