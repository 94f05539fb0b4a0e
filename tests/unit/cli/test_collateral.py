"""``enarx collateral``: what is fetched is written so that ``enarx verify`` takes it, and can be shown."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from tests.forge import dcap, snp
from tests.forge.services import REPORTS, Reply, Service, kds, pcs

from enarx.cli._main import main

AT = ["--at", "2025-01-01T00:00:00Z"]


@pytest.fixture
def service() -> Iterator[Service]:
    with Service({**kds("Milan", "Genoa", "Turin"), **pcs("SGX"), **pcs("TDX")}) as running:
        yield running


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "milan.bin").write_bytes(REPORTS["Milan"].report.raw)
    (tmp_path / "sgx.bin").write_bytes(dcap.sgx().quote.raw)
    (tmp_path / "tdx.bin").write_bytes(dcap.tdx().quote.raw)
    (tmp_path / "amd.der").write_bytes(snp.ark().der)
    (tmp_path / "intel.der").write_bytes(dcap.root().der)
    return tmp_path


def fetch(service: Service, folder: Path, *words: str) -> int:
    arguments = [str(folder / word) if word.endswith(".bin") else word for word in words]
    at = ["--kds", service.url, "--pcs", service.url, "--cache", str(folder / "cache")]
    return main(["collateral", "fetch", *arguments, *at, "--out", str(folder / "out")])


def read(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    return document


@pytest.mark.parametrize("name", ["milan", "sgx", "tdx"])
def test_what_was_fetched_verifies_the_evidence(service: Service, folder: Path, name: str) -> None:
    assert fetch(service, folder, f"{name}.bin") == 0
    root = folder / ("amd.der" if name == "milan" else "intel.der")
    words = [str(folder / f"{name}.bin"), "--collateral", str(folder / "out"), "--root", str(root)]
    assert main(["verify", *words, "--authenticity-only", *AT]) == 0


def test_document_names_files_addresses_and_origins(
    service: Service, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fetch(service, folder, "milan.bin", "--json") == 0
    document = read(capsys)
    assert document["schema"] == "enarx.collateral.fetch/1"
    first = document["files"][0]
    assert (folder / "out" / first["name"]).stat().st_size == first["bytes"]
    assert first["origin"] == "service"
    assert {one["url"] for one in document["files"]} == {service.url + path for path in service.paths}
    assert sorted(path.name for path in (folder / "out").iterdir()) == sorted(
        one["name"] for one in document["files"]
    )


def test_second_time_takes_certificates_from_the_cache(
    service: Service, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fetch(service, folder, "milan.bin")
    capsys.readouterr()
    fetch(service, folder, "milan.bin", "--json")
    assert [one["origin"] for one in read(capsys)["files"]][:2] == ["cache", "cache"]


def test_without_the_cache_everything_is_asked_for(service: Service, folder: Path) -> None:
    for _ in range(2):
        assert fetch(service, folder, "milan.bin", "--no-cache") == 0
    assert len(service.asked) == 6
    assert not (folder / "cache").exists()


def test_cache_lies_where_caches_lie(service: Service, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = [str(folder / "milan.bin"), "--kds", service.url, "--out", str(folder / "out")]
    monkeypatch.delenv("ENARX_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "xdg"))
    assert main(["collateral", "fetch", *words]) == 0
    assert len(list((folder / "xdg/enarx/collateral").iterdir())) == 3
    monkeypatch.setenv("ENARX_CACHE", str(folder / "own"))
    assert main(["collateral", "fetch", *words]) == 0
    assert len(list((folder / "own/collateral").iterdir())) == 3


def test_out_of_date_collateral_is_warned_of(
    service: Service, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fetch(service, folder, "milan.bin")
    assert "warning: vcek-milan.crl: the service gave what ended on 2025-01-11" in capsys.readouterr().err


def test_service_without_an_answer_is_exit_code_4(
    service: Service, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    service.routes = {"/vcek/v1/Milan/cert_chain": Reply(status=500)}
    assert fetch(service, folder, "milan.bin", "--json") == 4
    error = read(capsys)["error"]
    assert error["message"].startswith(service.url)
    assert "status" in error["message"]
    assert error["hint"]
    assert not (folder / "out").exists()


def test_what_is_no_evidence_is_exit_code_3(service: Service, folder: Path) -> None:
    (folder / "other.bin").write_bytes(b"no evidence")
    assert fetch(service, folder, "other.bin") == 3


def test_absent_file_is_exit_code_4(service: Service, folder: Path) -> None:
    assert fetch(service, folder, "absent.bin") == 4


def test_plain_http_to_another_machine_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [str(folder / "milan.bin"), "--kds", "http://kds.example.org", "--no-cache"]
    assert main(["collateral", "fetch", *words]) == 4
    assert "neither https nor on this machine" in capsys.readouterr().err


def test_what_takes_long_is_told_on_standard_error(
    service: Service, folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    go_on = threading.Event()
    route = service.routes["/vcek/v1/Milan/crl"]

    def late(handler: BaseHTTPRequestHandler) -> None:
        assert go_on.wait(30)
        route(handler)

    service.routes["/vcek/v1/Milan/crl"] = late
    at = ["--kds", service.url, "--no-cache", "--out", str(folder / "out")]
    command = [sys.executable, "-m", "enarx.cli", "collateral", "fetch", str(folder / "milan.bin"), *at]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
        assert process.stderr is not None
        assert process.stderr.readline().startswith("enarx: fetching: ")
        go_on.set()
        process.stderr.read()
    assert process.returncode == 0


def test_two_processes_share_cache_and_folder(service: Service, folder: Path) -> None:
    at = ["--kds", service.url, "--cache", str(folder / "cache"), "--out", str(folder / "out")]
    command = [sys.executable, "-m", "enarx.cli", "collateral", "fetch", str(folder / "milan.bin"), *at]
    both = [subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) for _ in range(2)]
    assert [process.wait(60) for process in both] == [0, 0]
    assert len(list((folder / "cache").iterdir())) == len(list((folder / "out").iterdir())) == 3


# show


def test_files_are_shown_with_status_and_numbers(
    service: Service, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fetch(service, folder, "milan.bin", "tdx.bin")
    (folder / "out" / "notes.txt").write_text("not collateral")
    capsys.readouterr()
    assert main(["collateral", "show", str(folder / "out"), *AT, "--json"]) == 0
    document = read(capsys)
    assert document["schema"] == "enarx.collateral.show/1"
    shown = {Path(one["file"]).name: one["sections"] for one in document["files"]}
    assert "notes.txt" not in shown
    info = shown["tcb-info-tdx-00a06d080000.json"][0]
    assert info["title"] == "tcb-info"
    assert info["fields"]["status"] == "in date until 2025-01-19"
    assert info["fields"]["tcbEvaluationDataNumber"] == 17
    assert info["fields"]["fmspc"] == "00A06D080000"
    assert info["fields"]["levels"] == "1 UpToDate"
    chip = next(sections for name, sections in shown.items() if name.startswith("vcek-milan-4"))[0]["fields"]
    assert (chip["tcb.microcode"], chip["product"]) == (213, "Milan-B0")
    assert "CN=SEV-Milan" in chip["issuer"]
    assert shown["vcek-milan.crl"][0]["fields"]["revoked"] in ([], "nothing")


@pytest.mark.parametrize(
    ("at", "status"),
    [
        ("2024-12-01", "not yet in date, begins on 2024-12-22"),
        ("2025-01-01", "in date until 2025-01-11"),
        ("2025-01-12", "ended on 2025-01-11"),
    ],
)
def test_status_is_that_of_the_time(
    folder: Path, capsys: pytest.CaptureFixture[str], at: str, status: str
) -> None:
    (folder / "list.crl").write_bytes(snp.ark().crl())
    assert main(["collateral", "show", str(folder / "list.crl"), "--at", at]) == 0
    assert status in capsys.readouterr().out


@pytest.mark.parametrize("data", [b"nothing we know", b'{"tcbInfo":[]', b""])
def test_named_file_that_is_no_collateral_is_exit_code_3(
    folder: Path, capsys: pytest.CaptureFixture[str], data: bytes
) -> None:
    (folder / "other").write_bytes(data)
    assert main(["collateral", "show", str(folder / "other")]) == 3
    assert "other: " in capsys.readouterr().err


@pytest.mark.parametrize(
    "dates",
    [
        {},
        {"issueDate": "soon", "nextUpdate": "later"},
        {"issueDate": "2024-01-01", "nextUpdate": "2025-01-01"},
    ],
)
def test_document_without_usable_dates_is_shown_as_such(
    folder: Path, capsys: pytest.CaptureFixture[str], dates: dict[str, str]
) -> None:
    (folder / "info.json").write_bytes(json.dumps({"tcbInfo": {"id": "SGX", **dates}}).encode())
    assert main(["collateral", "show", str(folder / "info.json")]) == 0
    assert "dates" in capsys.readouterr().out
