"""The commands that bring telephone calls to a running server: `realtime audiosocket`, `realtime bridge`.

As in `realtime.cli`, what is not needed for `--help` is imported where it is used.
"""

from __future__ import annotations

import asyncio
import os
from typing import Annotated

import typer

from realtime.cli_shared import (
    ConfigOption,
    KeyOption,
    UrlOption,
    config_path,
    find_key,
    load_settings,
    server_url,
    stop,
)

bridge_app = typer.Typer(no_args_is_help=True, help="Bring telephone calls here from a gateway.")


def audiosocket(
    port: Annotated[int, typer.Option(min=0, max=65535, help="The TCP port that Asterisk dials.")] = 9092,
    host: Annotated[str, typer.Option(help="The address to listen on. AudioSocket has no TLS.")] = "127.0.0.1",
    line: Annotated[str, typer.Option(help="Which \\[telephony.NAME] the calls are of.")] = "audiosocket",
    url: UrlOption = None,
    config: ConfigOption = None,
) -> None:
    """Take calls from Asterisk's AudioSocket over TCP and carry them to the running server."""
    import logging

    from realtime.audiosocket import Listener, listen
    from realtime.telephone import lines
    from signaling.telephony.routes import PREFIX

    settings = load_settings(config_path(config))
    found = lines(settings).get(line)
    if found is None or found.secrets is None or found.carrier.name != "audiosocket":
        stop(f"there is no [telephony.{line}] with a secret whose carrier is audiosocket in the settings")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    socket_url = f"{server_url(settings, url).rstrip('/').replace('http', 'ws', 1)}{PREFIX}/{line}"
    try:
        asyncio.run(listen(host, port, Listener(socket_url, found.secrets.main)))
    except KeyboardInterrupt:
        raise typer.Exit(0) from None
    except OSError as error:
        stop(f"cannot listen on {host}:{port}: {error}")


@bridge_app.command("janus")
def bridge_janus(
    account: Annotated[str, typer.Option(help="Whose calls are answered: sip:user@domain.")],
    proxy: Annotated[str | None, typer.Option(help="The registrar, sip:host:port. Default: the domain.")] = None,
    auth_user: Annotated[str | None, typer.Option(help="The name that goes with SIP_SECRET.")] = None,
    janus: Annotated[str, typer.Option(help="Janus's WebSocket API.")] = "ws://127.0.0.1:8188",
    calls: Annotated[int, typer.Option(min=1, max=500, help="How many at once.")] = 10,
    agent: Annotated[str | None, typer.Option(help="Who answers.")] = None,
    number: Annotated[list[str] | None, typer.Option(help="DIALLED=AGENT for one number. Repeatable.")] = None,
    url: UrlOption = None,
    key: KeyOption = None,
    config: ConfigOption = None,
) -> None:
    """Answer the SIP calls of an account through Janus (docs/telephony/sip.md).

    SIP_SECRET in the environment is the account's password; without it the account is dialled directly and registers
    nowhere. JANUS_API_SECRET is Janus's, where it has one.
    """
    import logging

    from realtime.bridge.janus import Account, Destination, run

    settings = load_settings(config_path(config))
    found = key or find_key(settings)
    if found is None:
        stop("no API key: give --key, or set INFRAI_API_KEY")
    agents = dict(each.partition("=")[::2] for each in number or ())
    destination = Destination(server_url(settings, url), found, agent, agents)
    whose = Account(account, os.environ.get("SIP_SECRET"), proxy, auth_user)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("httpx2").setLevel(logging.WARNING)
    try:
        asyncio.run(run(janus, os.environ.get("JANUS_API_SECRET"), whose, destination, calls))
    except KeyboardInterrupt:
        raise typer.Exit(0) from None
