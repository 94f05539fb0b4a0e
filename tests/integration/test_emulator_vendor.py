"""Machines and their vendors as real processes: evidence of the one is judged with what the other answers, and what
happens to the vendor changes the verdict.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from enarx.attest import (
    AuthenticityOnly,
    Claims,
    EvidenceRejected,
    ReportData,
    TrustAnchors,
    Vendor,
    Verifier,
)
from enarx.attest.fetch import Client, CollateralUnavailable, Services, fetch_collateral
from enarx.attest.sgx import VERIFIER as SGX
from enarx.attest.snp import VERIFIER as SNP
from enarx.attest.tdx import VERIFIER as TDX
from enarx_emulator.client import Platform
from enarx_emulator.program import pack_image

PROGRAM = str(Path(sys.executable).with_name("enarx-emulator"))
PYTHON = Path(sys.executable).resolve()
DATA = bytes(range(64))
GUEST = """
import socket, sys
sys.path[:0] = {path!r}
from enarx.attest.sgx import VERIFIER as SGX
from enarx.attest.snp import VERIFIER as SNP
from enarx.attest.tdx import VERIFIER as TDX
from enarx_emulator.client import PortTree
channel, port = socket.socket(fileno=3), PortTree(socket.socket(fileno=4))
port.make('report/r')
port.write('report/r/inblob', bytes(range(64)))
channel.sendall(port.read('report/r/outblob'))
"""


@contextlib.contextmanager
def running(*arguments: str) -> Iterator[dict[str, object]]:
    """A process of the emulator, and the document with which it says that it is ready."""
    process = subprocess.Popen(
        [PROGRAM, *arguments, "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, process.communicate()[1]
        yield json.loads(line)
    finally:
        process.terminate()
        process.communicate(timeout=60)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("emulator")


@pytest.fixture(scope="module")
def url(home: Path) -> Iterator[str]:
    """The vendors."""
    with running("vendor", "serve", "--vendor", str(home / "vendor")) as ready:
        yield str(ready["url"])


@pytest.fixture(autouse=True)
def undisturbed(url: str) -> Iterator[None]:
    """Whatever a test let happen is over after it."""
    yield
    for name, arguments in (("outage", {"kind": "none"}), ("clock", {"now": "real"}), ("faults", {})):
        assert post(url, name, arguments)[0] == 200


def post(url: str, name: str, arguments: object, kind: str = "application/json") -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)
    with contextlib.closing(connection):
        body = json.dumps(arguments)
        connection.request("POST", f"/emulated/v1/event/{name}", body, {"Content-Type": kind})
        response = connection.getresponse()
        return response.status, response.read()


def get(url: str, path: str) -> tuple[int, bytes, http.client.HTTPMessage]:
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)
    with contextlib.closing(connection):
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read(), response.headers


@pytest.fixture(scope="module")
def evidence(home: Path) -> dict[str, bytes]:
    """A report and a quote, each asked for by a measured guest on its port."""
    return {kind: evidence_of(kind, home) for kind in ("snp", "tdx")}


def evidence_of(kind: str, home: Path) -> bytes:
    program = home / f"{kind}.py"
    program.write_text(GUEST.format(path=sys.path))
    argv = [str(PYTHON), "-I", "-S", str(program)]
    image = pack_image([PYTHON, program], argv)
    options = ("--state", str(home / kind), "--vendor", str(home / "vendor"), "--beside-real-hardware")
    with running("start", kind, *options), Platform(home / kind) as platform:
        guest = platform.command("launch", image=image)["guest"]
        assert isinstance(guest, int)
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.settimeout(60)
            platform.run(guest, argv, channel=theirs.fileno())
            theirs.close()
            return b"".join(iter(lambda: ours.recv(65536), b""))


def anchors(url: str) -> TrustAnchors:
    """The emulated roots, named by whoever means to trust them."""
    found = TrustAnchors.none()
    for name, vendor in (("Milan", Vendor.AMD), ("intel", Vendor.INTEL)):
        status, pem, _ = get(url, f"/emulated/v1/root/{name}")
        assert status == 200
        found = found.adding(pem, name="emulated", vendor=vendor)
    return found


def judge(url: str, evidence: bytes, roots: TrustAnchors | None = None) -> Claims:
    """Fetch what the evidence needs, and verify it."""
    now = datetime.now(UTC)
    client = Client(exchange_s=5, total_s=5, sleep=lambda _: None)
    fetched = fetch_collateral([evidence], now=now, services=Services(kds=url, pcs=url), client=client)
    verifier = Verifier(tees=[SNP, SGX, TDX], anchors=roots or anchors(url), policy=AuthenticityOnly())
    return verifier.verify(evidence, collateral=fetched.collateral, binding=ReportData(DATA), now=now)


@pytest.mark.parametrize("kind", ["snp", "tdx"])
def test_evidence_of_a_guest_is_accepted_with_what_its_vendor_answers(
    url: str, evidence: dict[str, bytes], kind: str
) -> None:
    claims = judge(url, evidence[kind])
    assert (claims.tee.value, claims.bound, claims.debug) == (kind, True, False)
    assert (claims.root.name, claims.root.is_vendor) == ("emulated", False)


@pytest.mark.parametrize(("kind", "check"), [("snp", "snp.chain.root"), ("tdx", "dcap.pck.root")])
def test_the_vendors_roots_reject_it(url: str, evidence: dict[str, bytes], kind: str, check: str) -> None:
    with pytest.raises(EvidenceRejected) as refused:
        judge(url, evidence[kind], TrustAnchors.vendor())
    assert refused.value.check.name == check


def test_a_tcb_recovery_makes_a_platform_out_of_date(url: str, evidence: dict[str, bytes]) -> None:
    assert judge(url, evidence["tdx"]).tcb_status == "UpToDate"
    models = [model["fmspc"] for model in json.loads(get(url, "/sgx/certification/v4/fmspcs")[1])]
    before = json.loads(get(url, "/emulated/v1/state")[1])["tcb_evaluation_number"]
    for fmspc in models:
        newer = {"fmspc": fmspc, "cpu_svn": "ff" * 16, "pce_svn": "99", "tee_tcb_svn": "ff" * 16}
        assert post(url, "recover-intel-tcb", newer)[0] == 200
    after = json.loads(get(url, "/emulated/v1/state")[1])["tcb_evaluation_number"]
    assert after == before + len(models)
    assert judge(url, evidence["tdx"]).tcb_status == "OutOfDate"


def test_collateral_of_long_ago_has_expired(url: str, evidence: dict[str, bytes]) -> None:
    long_ago = datetime.now(UTC) - timedelta(days=200)
    assert post(url, "clock", {"now": long_ago.isoformat()})[0] == 200
    with pytest.raises(EvidenceRejected) as refused:
        judge(url, evidence["tdx"])
    assert "next_update" in refused.value.check.name or "not_after" in refused.value.check.name


def test_a_withdrawn_authority_endorses_nothing(url: str, evidence: dict[str, bytes]) -> None:
    assert post(url, "faults", {"names": "snp-revoked-ask"})[0] == 200
    with pytest.raises(EvidenceRejected) as refused:
        judge(url, evidence["snp"])
    assert refused.value.check.name == "snp.crl.revoked"


@pytest.mark.parametrize("kind", ["refuse", "limit", "garbage", "cut"])
@pytest.mark.parametrize("tee", ["snp", "tdx"])
def test_an_outage_is_told_and_nothing_is_accepted(
    url: str, evidence: dict[str, bytes], tee: str, kind: str
) -> None:
    assert post(url, "outage", {"kind": kind, "service": "kds" if tee == "snp" else "pcs"})[0] == 200
    with pytest.raises(CollateralUnavailable):
        judge(url, evidence[tee])
    assert get(url, "/emulated/v1/state")[0] == 200


def test_a_service_that_hangs_holds_up_nobody_else(url: str, evidence: dict[str, bytes]) -> None:
    assert post(url, "outage", {"kind": "hang", "service": "pcs"})[0] == 200
    with pytest.raises(CollateralUnavailable):
        judge(url, evidence["tdx"])
    judge(url, evidence["snp"])


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/vcek/v1/Milan/cert_chain", 200),
        ("/vcek/v1/Milan/crl", 200),
        ("/vcek/v1/Rome/cert_chain", 404),
        ("/vcek/v1/Milan/00", 400),
        ("/sgx/certification/v4/tcb?fmspc=zz", 400),
        ("/sgx/certification/v4/tcb?fmspc=00&fmspc=11", 400),
        ("/sgx/certification/v4/pckcrl?ca=processor", 200),
        ("/sgx/certification/v4/rootcacrl", 200),
        ("/IntelSGXRootCA.der", 200),
        ("/sgx/certification/v3/tcb", 404),
        ("/tdx/certification/v4/qe/identity", 200),
        ("/emulated/v1/root/Rome", 404),
        ("/emulated/v1/other", 404),
        ("/../../etc/passwd", 404),
        ("/?" + "&".join(f"p{number}=1" for number in range(40)), 400),
    ],
)
def test_paths_are_answered_as_the_vendors_do(url: str, path: str, status: int) -> None:
    assert get(url, path)[0] == status


def test_issuer_chains_come_in_headers(url: str) -> None:
    status, body, headers = get(url, "/tdx/certification/v4/qe/identity")
    assert status == 200
    assert json.loads(body)["enclaveIdentity"]["id"] == "TD_QE"
    assert headers["SGX-Enclave-Identity-Issuer-Chain"].startswith("-----BEGIN%20CERTIFICATE-----")


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("none", {}),
        ("outage", {}),
        ("outage", {"kind": "slow"}),
        ("outage", {"kind": "none", "service": "all", "more": "1"}),
        ("clock", {"now": "yesterday"}),
        ("faults", {"names": "no-such"}),
        ("faults", []),
        ("revoke-amd-authority", {"product": "Rome"}),
        ("revoke-intel-certificate", {"serial": "xyz"}),
        ("recover-intel-tcb", {"pce_svn": "-1"}),
    ],
)
def test_a_wrong_event_changes_nothing(url: str, name: str, arguments: object) -> None:
    before = json.loads(get(url, "/emulated/v1/state")[1])
    status, body = post(url, name, arguments)
    assert status == 400
    assert "error" in json.loads(body)
    after = json.loads(get(url, "/emulated/v1/state")[1])
    assert {**after, "now": ""} == {**before, "now": ""}


def test_a_web_page_cannot_let_things_happen(url: str) -> None:
    assert post(url, "outage", {"kind": "refuse"}, kind="text/plain")[0] == 404
    assert get(url, "/vcek/v1/Milan/crl")[0] == 200


def test_events_come_from_the_command_line_too(url: str) -> None:
    command = [PROGRAM, "vendor", "event", "--url", url, "outage", "service=kds", "kind=refuse", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert json.loads(done.stdout)["outages"] == {"kds": "refuse", "pcs": "none"}
    wrong = subprocess.run(
        [*command[:-3], "service=none"], capture_output=True, text=True, timeout=60, check=False
    )
    assert wrong.returncode == 3
    assert wrong.stderr.startswith("enarx-emulator: error: outage")


def test_a_port_that_is_taken_is_named(url: str, home: Path) -> None:
    port = url.rpartition(":")[2]
    command = [PROGRAM, "vendor", "serve", "--vendor", str(home / "vendor"), "--port", port]
    second = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (second.returncode, second.stderr) == (
        4,
        f"enarx-emulator: error: port {port}: address already in use\n",
    )


@pytest.mark.parametrize("kind", ["snp", "tdx", "sgx"])
def test_a_sample_can_be_had_without_a_guest_of_ones_own(url: str, home: Path, kind: str) -> None:
    command = [
        PROGRAM,
        "evidence",
        kind,
        "--state",
        str(home / f"sample-{kind}"),
        "--vendor",
        str(home / "vendor"),
    ]
    options = ["--image", __file__, "--report-data", DATA.hex(), "--out", str(home / f"out-{kind}"), "--json"]
    options += ["--beside-real-hardware"]
    done = subprocess.run([*command, *options], capture_output=True, text=True, timeout=120, check=True)
    evidence = (home / f"out-{kind}" / "evidence.bin").read_bytes()
    root = (home / f"out-{kind}" / "root.pem").read_bytes()
    named = TrustAnchors.none().adding(
        root, name="sample", vendor=Vendor.AMD if kind == "snp" else Vendor.INTEL
    )
    claims = judge(url, evidence, named)
    assert (claims.tee.value, claims.bound) == (kind, True)
    assert claims.measurement.hex() == json.loads(done.stdout)["measurement"]


def test_clients_that_go_away_are_passed_over(home: Path) -> None:
    process = subprocess.Popen(
        [PROGRAM, "vendor", "serve", "--vendor", str(home / "vendor"), "--json"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    port = int(json.loads(process.stdout.readline())["url"].rpartition(":")[2])
    for data in (b"", b"GET", b"\xff\xff\r\n\r\n", b"GET /vcek/v1/Milan/crl HTTP/1.1\r\n\r\n", b"G" * 70000):
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
            )  # a reset, not an end
            client.sendall(data)
    assert get(f"http://127.0.0.1:{port}", "/emulated/v1/state")[0] == 200
    process.terminate()
    assert process.communicate(timeout=60)[1] == ""
