"""Every check has a test in which only that check fails: the tests of attest are run with this check made to pass, and
then the evidence is accepted (``tests.alone``).
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from enarx.attest.catalogue import NAMES
from enarx.attest.registry import BUILTIN

ROOT: Final = Path(__file__).parents[2]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600), pytest.mark.xdist_group("checks alone")]

IMPLIED: Final = {
    "snp.signing_key.signed": "snp.signing_key",  # no certificate is for a report that is not signed
    "snp.signature.range": "snp.signature",
    "snp.chain.length": "snp.chain.names",  # AMD's chains have three names, and Intel's
    "dcap.pck.length": "dcap.pck.names",
    "dcap.pck.order": "dcap.pck.root_certificate",
    "dcap.tcb_signing.length": "dcap.tcb_signing.path_length",
    "dcap.tcb_signing.path_length": "dcap.tcb_signing.names",
    "dcap.attestation_key": "dcap.signature",
    "nitro.algorithm": "nitro.signature",  # what is announced is what is verified
    "nitro.certificate.key": "nitro.signature",
    "cca.platform.algorithm": "cca.platform.signature",
    "cca.realm.algorithm": "cca.realm.signature",
    "tpm.hash": "tpm.signature",
    "sev.pek.usage": "sev.pdh.signature",  # signatures are found by the roles of those who made them
    "sev.oca.usage": "sev.pek.signature.oca",
    "sev.cek.usage": "sev.pek.signature.cek",
    "sev.pek.signers": "sev.pek.signature.oca",
    "nitro.chain.root": "nitro.chain.issuer",
    "snp.chain.root": "snp.chain.issuer",
    "dcap.pck.root": "dcap.pck.issuer",
    "dcap.tcb_signing.root": "dcap.tcb_signing.issuer",
    "tpm.chain.root": "tpm.chain.issuer",
    "azure.ak_certificate.chain.root": "azure.ak_certificate.chain.issuer",
}
"""Checks that cannot fail without another one that is made later: the first says more clearly what is wrong."""


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """What happened in each test when the check that failed was made to pass."""
    path = tmp_path_factory.mktemp("alone") / "found.json"
    names = "not flipped and not byte and not bytes and not many and not memory"  # those take long
    run = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    watched = ["-p", "tests.alone", "--alone", str(path), "-m", "not evidence", "-k", names]
    folders = ["tests/unit/attest", "--ignore", "tests/unit/attest/fetch", "tests/unit/tenant/test_launch.py"]
    plain = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    done = subprocess.run([*run, *watched, *folders], cwd=ROOT, capture_output=True, timeout=600, env=plain)
    assert done.returncode == 0, done.stdout[-4000:]
    told: dict[str, list[str]] = json.loads(path.read_bytes())
    return told


def test_every_check_fails_alone_in_some_test(found: dict[str, list[str]]) -> None:
    enough = {"accepted", "ended", "noted"}
    missing = {name: found.get(name, []) for name in NAMES if not enough & set(found.get(name, ()))}
    implied = {name: found.get(name, []) for name, other in IMPLIED.items() if other in found.get(name, ())}
    assert missing == implied


def keys(rules: type[Any]) -> Iterator[tuple[str, str]]:
    """The class that declares each policy key, and its name."""
    for declared in dataclasses.fields(rules):
        owner = next(
            one for one in reversed(rules.__mro__) if declared.name in getattr(one, "__annotations__", ())
        )
        yield owner.__qualname__, declared.name


def names_of(rules: type[Any], section: str) -> Iterator[tuple[str, tuple[str, str]]]:
    """The check of each policy key, with where the key is declared."""
    for declared, where in zip(dataclasses.fields(rules), keys(rules), strict=True):
        table = declared.metadata["key"].table
        if table is not None:
            yield from names_of(table, f"{section}.{declared.name}")
        else:
            yield f"{section}.{declared.name}", where


def test_every_policy_key_decides_alone_in_some_test(found: dict[str, list[str]]) -> None:
    sections = [
        pair
        for verifier in BUILTIN.values()
        for tee, rules in verifier.rules.items()
        for pair in names_of(rules, f"policy.{tee.value}")
    ]
    deciding = {
        where
        for name, where in sections
        if any(
            (check == name or check.startswith(f"{name}.")) and "accepted" in what
            for check, what in found.items()
        )
    }
    assert sorted({where for _, where in sections} - deciding) == []
