"""The vendors' services on this machine, with any mistake in their answers: a server that gives what it was told.

``python -m tests.forge.services PORT FOLDER`` puts a report and its root into FOLDER and answers for AMD's service.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from ssl import SSLContext
from types import TracebackType
from typing import Self
from urllib.parse import quote

from tests.forge import dcap, snp

REPORTS = {
    "Milan": snp.Case(crls=(snp.ark().crl(),)),
    "Genoa": snp.Case(
        report=snp.Report().but(cpuid=bytes([0x19, 0x11, 0x01])),
        leaf=snp.vcek(snp.ask("Genoa"), product="Genoa"),
        intermediates=(snp.ask("Genoa"),),
        root=snp.ark("Genoa"),
        crls=(snp.ark("Genoa").crl(),),
    ),
    "Turin": snp.Case(
        report=snp.Report().but(
            cpuid=bytes([0x1A, 0x02, 0x01]),
            chip_id=snp.HWID[:8],
            **dict.fromkeys(
                ("current_tcb", "reported_tcb", "committed_tcb", "launch_tcb"), snp.tcb_bytes(fmc=2)
            ),
        ),
        leaf=snp.vcek(
            snp.ask("Turin"), product="Turin", structure=1, hwid=snp.HWID[:8], tcb={"fmc": 2, **snp.TCB}
        ),
        intermediates=(snp.ask("Turin"),),
        root=snp.ark("Turin"),
        crls=(snp.ark("Turin").crl(),),
    ),
}
"""A report of each product line with its collateral."""


@dataclass(frozen=True, kw_only=True)
class Reply:
    """One answer."""

    body: bytes = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    length: int | None = None
    """What Content-Length says, where it is not the truth."""

    def __call__(self, handler: BaseHTTPRequestHandler) -> None:
        """Send it."""
        handler.send_response(self.status)
        for name, value in self.headers.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(self.body) if self.length is None else self.length))
        handler.end_headers()
        handler.wfile.write(self.body)


Route = Callable[[BaseHTTPRequestHandler], object]


class Service:
    """A server on a free port of this machine for the time of a ``with``."""

    def __init__(
        self,
        routes: Mapping[str, Route],
        *,
        otherwise: Route = Reply(status=404),
        tls: SSLContext | None = None,
        port: int = 0,
    ) -> None:
        self.routes = dict(routes)
        """What each path with its query gives, and ``otherwise`` all others."""
        self.asked: list[tuple[str, Mapping[str, str]]] = []
        """Path and headers of each request, in order."""
        self.ended = threading.Event()
        """Set when nobody waits for an answer any more."""
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                service.asked.append((self.path, {name.lower(): text for name, text in self.headers.items()}))
                with contextlib.suppress(OSError):  # the client may go away
                    service.routes.get(self.path, otherwise)(self)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 -- the base class's name
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        scheme = "http" if tls is None else "https"
        self.url = f"{scheme}://127.0.0.1:{self._server.server_address[1]}"

    @property
    def paths(self) -> list[str]:
        """What was asked for."""
        return [path for path, _ in self.asked]

    def serve(self) -> None:
        """Answer until the end."""
        self._server.serve_forever(poll_interval=0.02)

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self.serve, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.ended.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def kds(*lines: str) -> dict[str, Route]:
    """AMD's service, which knows the machines of ``REPORTS`` of these lines."""
    routes: dict[str, Route] = {}
    spl = "blSPL=04&teeSPL=01&snpSPL=24&ucodeSPL=213"
    chips = {
        "Milan": f"{snp.HWID.hex()}?{spl}",
        "Genoa": f"{snp.HWID.hex()}?{spl}",
        "Turin": f"{snp.HWID[:8].hex()}?fmcSPL=02&{spl}",
    }
    for line in lines:
        case = REPORTS[line]
        assert case.leaf is not None
        chain = dcap.pem(case.intermediates[0].der, case.root.der)
        routes[f"/vcek/v1/{line}/{chips[line]}"] = Reply(body=case.leaf.der)
        routes[f"/vcek/v1/{line}/cert_chain"] = Reply(body=chain)
        routes[f"/vcek/v1/{line}/crl"] = Reply(body=case.crls[0])
        routes[f"/vlek/v1/{line}/cert_chain"] = Reply(body=dcap.pem(snp.asvk(line).der, case.root.der))
        routes[f"/vlek/v1/{line}/crl"] = Reply(body=case.crls[0])
    return routes


def pcs(tee: str) -> dict[str, Route]:
    """Intel's service, as a caching service gives it, for the platform of ``tests.forge.dcap``."""
    signers = quote(dcap.pem(dcap.tcb_signing().der, dcap.root().der))
    info = dcap.document("tcbInfo", dcap.tcb_info(tee))
    identity = dcap.document("enclaveIdentity", dcap.qe_identity(tee))
    qve = dcap.document("enclaveIdentity", dcap.qe_identity("SGX", id="QVE"))
    issuers = quote(dcap.pem(dcap.pck_ca().der, dcap.root().der))
    api = "certification/v4"
    return {
        f"/{tee.lower()}/{api}/tcb?fmspc=00a06d080000": Reply(
            body=info, headers={"TCB-Info-Issuer-Chain": signers}
        ),
        f"/{tee.lower()}/{api}/qe/identity": Reply(
            body=identity, headers={"SGX-Enclave-Identity-Issuer-Chain": signers}
        ),
        f"/sgx/{api}/qve/identity": Reply(body=qve, headers={"SGX-Enclave-Identity-Issuer-Chain": signers}),
        f"/sgx/{api}/pckcrl?ca=platform&encoding=der": Reply(
            body=dcap.pck_ca().crl(), headers={"SGX-PCK-CRL-Issuer-Chain": issuers}
        ),
        f"/sgx/{api}/rootcacrl": Reply(body=dcap.root().crl().hex().encode()),
    }


def main(port: str, folder: str) -> None:
    """Play AMD's service, for those who try the commands."""
    case, service = REPORTS["Milan"], Service(kds("Milan"), port=int(port))
    Path(folder).mkdir(exist_ok=True)
    Path(folder, "report.bin").write_bytes(case.report.raw)
    Path(folder, "root.pem").write_bytes(dcap.pem(case.root.der))
    service.serve()


if __name__ == "__main__":
    main(*sys.argv[1:])
