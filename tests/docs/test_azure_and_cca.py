"""The policies of the page on Azure and CCA are policies, and its Python is ours."""

from __future__ import annotations

import inspect
import re

from tests.docs.console import ROOT

from enarx.attest import Policy, Tee
from enarx.attest.azure import pack_evidence
from enarx.attest.registry import BUILTIN

PAGE = (ROOT / "docs" / "how-to" / "azure-and-cca.md").read_text()


def test_policies_of_the_page_are_read_and_leave_nothing_open() -> None:
    texts = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    policies = [Policy.parse(text, BUILTIN.values()) for text in texts]
    assert [set(policy.sections) for policy in policies] == [{Tee.AZURE_SNP}, {Tee.CCA}]
    assert policies[0].lint() == []
    assert [line.partition(":")[0] for line in policies[1].lint()] == ["cca.vendor_root"]


def test_call_of_the_page_fits() -> None:
    call = re.search(r"pack_evidence\((.*?)\)\n```", PAGE)
    assert call is not None
    *positional, keyword = call[1].split(", ")
    inspect.signature(pack_evidence).bind(*positional, **{keyword.partition("=")[0]: b""})
