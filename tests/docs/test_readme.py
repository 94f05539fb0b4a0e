"""What the README shows is what happens."""

from __future__ import annotations

import re
import ssl
import subprocess
import sys
from datetime import datetime, tzinfo
from typing import Any, Self

import pytest
from tests.docs.console import ROOT, Command, agrees, steps
from tests.evidence import Evidence

from enarx.attest import EvidenceRejected, MalformedEvidence, registry
from enarx.cli._main import COMMANDS

README = (ROOT / "README.md").read_text()


@pytest.mark.timeout(300)  # the first C build also compiles the C library
@pytest.mark.xdist_group("docs")
def test_first_command_of_the_readme_writes_what_it_shows() -> None:
    first = next(step for step in steps(README) if isinstance(step, Command))
    assert first.line == "make demo"
    done = subprocess.run([sys.executable, "tools/demo.py"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert agrees(first.output, done.stdout)


def test_commands_of_the_readme_exist() -> None:
    named = set(re.findall(r"(?m)^enarx (\w+)", README))
    assert named
    assert named <= set(COMMANDS)


def test_readme_names_no_kind_of_evidence_that_is_not_verified() -> None:
    sentence = re.search(r"`enarx verify` judges real evidence of ([^.]*?),\s+offline", README)
    assert sentence is not None
    named = {
        name.lower().removeprefix("sev-").removeprefix("aws ").removeprefix("arm ")
        for name in re.split(r", | and ", " ".join(sentence[1].split()))
    }
    assert {"snp", "sgx", "tdx"} <= named <= set(registry.BUILTIN)


@pytest.fixture
def names() -> dict[str, Any]:
    """What the Python of the README defines."""
    code = re.search(r"```python\n(.*?)```", README, re.DOTALL)
    assert code is not None
    names: dict[str, Any] = {}
    exec(code[1], names)  # noqa: S102 (our own page)
    return names


def test_python_of_the_readme_refuses_what_is_no_evidence(names: dict[str, Any]) -> None:
    with pytest.raises(MalformedEvidence):
        names["is_it_genuine"](b"no report", b"")


@pytest.mark.evidence
def test_python_of_the_readme_accepts_a_real_report_and_no_changed_one(
    names: dict[str, Any], evidence: Evidence, capsys: pytest.CaptureFixture[str]
) -> None:
    report = evidence.read("snp/milan-v2-go-sev-guest/report.bin")
    vcek = ssl.DER_cert_to_PEM_cert(evidence.read("snp/milan-v2-go-sev-guest/vcek.der")).encode()
    chain = vcek + evidence.read("roots/amd_milan_ask_ark_asvk.pem")
    names["datetime"] = _Then
    names["is_it_genuine"](report, chain)
    assert capsys.readouterr().out.startswith("snp b07af9620f3b")
    with pytest.raises(EvidenceRejected):
        names["is_it_genuine"](bytes([*report[:0x90], report[0x90] ^ 1, *report[0x91:]]), chain)


class _Then(datetime):
    """A clock that stands at the time of the sample."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> Self:
        return cls(2022, 11, 23, 12, tzinfo=tz)
