"""A browser that may use nothing but the relay: coturn as deploy/compose.yaml starts it, with a token's credentials."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress

import ifaddr
import pytest

from tests.calls.server import ROOT, Server, free_port
from tests.web.conftest import NewPage
from tests.web.test_page import AUDIBLE, LIVE, loudest

sync_api = pytest.importorskip("playwright.sync_api")
expect = sync_api.expect

SECRET = "a long random text"
RELAY_ONLY = """
    const Stock = RTCPeerConnection;
    window.RTCPeerConnection = class extends Stock {
        constructor({ iceServers, ...rest }) {
            const over = (url) => new RegExp("^URL$").test(url);
            const narrowed = iceServers.map(({ urls, ...server }) => ({ ...server, urls: [urls].flat().filter(over) }));
            super({ ...rest, iceServers: narrowed, iceTransportPolicy: "relay" });
            window.connection = this;
        }
    };"""
"""The browser offers its relayed address only, and reaches the relay by one kind of URL."""
URLS = {"udp": "turn:.*=udp", "tcp": "turn:.*=tcp", "tls": "turns:.*"}
PAIR = """async () => {
    const stats = await connection.getStats();
    const all = [...stats.values()];
    const { selectedCandidatePairId } = all.find(({ type }) => type === "transport");
    const { candidateType, relayProtocol } = stats.get(stats.get(selectedCandidatePairId).localCandidateId);
    return [candidateType, relayProtocol];
}"""


def address() -> str:
    """One that this machine is reached at; a relay passes nothing on to loopback."""
    found = [ip.ip for adapter in ifaddr.get_adapters() for ip in adapter.ips if isinstance(ip.ip, str)]
    outward = [ip for ip in found if not ip.startswith(("127.", "169.254."))]
    if not outward:
        pytest.skip("this machine has only its loopback address")
    return outward[0]


@pytest.fixture(scope="module")
def relayed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server beside a coturn, both with the settings of compose.yaml."""
    turnserver = shutil.which("turnserver")
    if turnserver is None:
        pytest.skip("coturn is not installed: apt-get install coturn")
    folder, public, port = tmp_path_factory.mktemp("turn"), address(), free_port()
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    subject = ["-subj", f"/CN={public}", "-addext", f"subjectAltName=IP:{public}"]
    made = ["-newkey", "rsa:2048", "-nodes", "-days", "2", "-out", str(certificate), "-keyout", str(key)]
    subprocess.run(["openssl", "req", "-x509", *made, *subject], check=True, capture_output=True)
    compose = (ROOT / "deploy/compose.yaml").read_text(encoding="utf-8")
    for name, value in {"PUBLIC_ADDRESS": public, "VOICE_NAME": public, "TURN_SECRET": SECRET}.items():
        compose = re.sub(rf"\$\{{{name}(:\?[^}}]*)?\}}", value, compose)
    compose = compose.replace("3478", str(port))
    options = re.findall(r"^ +- (--\S.*)$", compose, re.MULTILINE)
    settings = "\n".join(line.strip() for line in compose[compose.index("[ice]") :].splitlines()[:3])
    tls_port = free_port()
    settings = settings.replace('=tcp"]', f'=tcp", "turns:{public}:{tls_port}?transport=tcp"]')
    options = [option for option in options if option not in ("--no-tls", "--no-dtls")]
    own = [
        f"--tls-listening-port={tls_port}",
        f"--cert={certificate}",
        f"--pkey={key}",
        f"--pidfile={folder}/pid",
        f"--userdb={folder}/db",
        f"--log-file={folder}/log",
    ]
    process = subprocess.Popen([turnserver, *options, *own], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(public, port)
        environ = {"TURN_SECRET": SECRET, "REALTIME_PUBLIC_ADDRESS": public}
        with Server(folder / "server", "--engines", "instant", config=settings, environ=environ) as server:
            yield server
    finally:
        process.terminate()
        process.wait(15)


def wait_for(host: str, port: int) -> None:
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline:
        with suppress(OSError), socket.create_connection((host, port), 2):
            return
        time.sleep(0.05)
    raise AssertionError("coturn did not start")


@pytest.mark.parametrize("transport", URLS)
def test_a_call_goes_through_the_relay_alone(relayed: Server, new_page: NewPage, transport: str) -> None:
    page = new_page(relayed.url, script=RELAY_ONLY.replace("URL", URLS[transport]))
    page.click("#talk")
    page.wait_for_selector(LIVE)
    expect(page.locator("#facts")).not_to_contain_text("websocket")
    assert page.evaluate(PAIR) == ["relay", transport]
    page.wait_for_selector("body[data-activity=hearing]")
    page.wait_for_selector("body[data-activity=speaking]")
    assert loudest(page, 500) > AUDIBLE


def test_a_relay_takes_no_credentials_but_the_tokens(relayed: Server, new_page: NewPage) -> None:
    """Without the right ones there is no relayed address, and the call is held over the WebSocket."""
    wrong = RELAY_ONLY.replace("...server, urls", "...server, credential: 'wrong', urls").replace("URL", URLS["udp"])
    page = new_page(relayed.url, script=wrong)
    page.click("#talk")
    page.wait_for_selector(LIVE)
    expect(page.locator("#facts")).to_contain_text("websocket")
