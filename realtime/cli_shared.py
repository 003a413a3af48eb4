"""What the commands share: options that several have, the settings, the key and the address they work with.

As in `realtime.cli`, what is not needed for `--help` is imported where it is used.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

if TYPE_CHECKING:
    from realtime.settings import Settings

ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", help="The settings file. Default: REALTIME_CONFIG, else realtime.toml in this folder."),
]
UrlOption = Annotated[
    str | None, typer.Option("--url", help="The server. Default: INFRAI_BASE_URL, else as the settings say.")
]
KeyOption = Annotated[
    str | None,
    typer.Option("--key", help="An API key. Default: INFRAI_API_KEY, REALTIME_API_KEY, else the development key."),
]


def config_path(option: Path | None) -> Path | None:
    """The option, else `REALTIME_CONFIG`, else `realtime.toml` where it exists."""
    if option is not None:
        return option
    if os.environ.get("REALTIME_CONFIG"):
        return Path(os.environ["REALTIME_CONFIG"])
    here = Path("realtime.toml")
    return here if here.exists() else None


def load_settings(path: Path | None, agents: Collection[str] | None = None) -> Settings:
    """`agents`: names of the developer's own; None where the command does not load them."""
    from realtime.settings import SettingsError, load

    try:
        return load(path, os.environ, agents=agents)
    except SettingsError as error:
        count = len(error.mistakes)
        typer.echo(f"{error}\n\n{count} {'mistake' if count == 1 else 'mistakes'} in the settings.", err=True)
        raise typer.Exit(1) from None


def find_key(settings: Settings) -> str | None:
    from realtime import local
    from realtime.settings import SettingsError, data_folder

    try:
        return local.find_key(settings, data_folder(settings), os.environ)
    except SettingsError as error:
        stop(str(error))


def server_url(settings: Settings, option: str | None) -> str:
    from realtime.local import local_url

    return option or os.environ.get("INFRAI_BASE_URL") or local_url(settings.server.host, settings.server.port)


def say(message: str) -> None:
    typer.echo(f"realtime: {message}", err=True)


def stop(message: str) -> NoReturn:
    say(message)
    raise typer.Exit(1)
