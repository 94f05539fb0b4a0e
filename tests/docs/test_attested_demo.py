"""The listings of the demo's page are the guest's code, and its attacks are those that there are."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tests.docs.console import ROOT

from enarx.api.demo_guest import CODE, ENTRY, STUB, assemble
from enarx.host.demo.attacks import SevAttack, SgxAttack

PAGE = (ROOT / "docs" / "how-to" / "attested-demo.md").read_text()
LINE = re.compile(
    r"^\| (?P<at>[12][0-9a-f]{3}) \| `(?P<code>[0-9a-f ]+)` \| `(?P<text>[^`]+)` \|", re.MULTILINE
)


@pytest.mark.parametrize(("start", "code"), [(ENTRY, STUB), (CODE, assemble(2, 2))])
def test_listing_is_the_code_byte_for_byte(start: int, code: bytes) -> None:
    at = start
    for line in LINE.finditer(PAGE):
        if int(line["at"], 16) & 0xF000 == start:
            assert int(line["at"], 16) == at
            found = bytes.fromhex(line["code"])
            assert code[at - start :].startswith(found)
            at += len(found)
    assert at == start + len(code)


def test_comments_of_the_source_say_the_same() -> None:
    source = Path(ROOT / "src" / "enarx" / "api" / "demo_guest.py").read_text()
    told = re.findall(
        r'fromhex\("([0-9a-f ]+)"\),  # +([0-9a-f]{4}) +(?:(\w+): +)?([^;\n]*?) *(?:;.*)?$', source, re.M
    )
    listed = {line["at"]: (line["code"], line["text"]) for line in LINE.finditer(PAGE)}
    assert [at for _, at, _, _ in told] == [at for at in listed if at < "2000"]
    for code, at, label, text in told:
        assert listed[at] == (code, f"{label}: {text}" if label else text)


@pytest.mark.parametrize("attacks", [SevAttack, SgxAttack])
def test_page_explains_every_attack(attacks: type[SevAttack] | type[SgxAttack]) -> None:
    assert all(f"\n| `{attack.value}` |" in PAGE for attack in attacks)
