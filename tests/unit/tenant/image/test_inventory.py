"""The inventory of a keep: every file with its digest, and the bill of materials in a form that others can read."""

from __future__ import annotations

import json
from collections import Counter
from hashlib import sha256
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

import enarx
from enarx.cli._main import main
from enarx.tcb.errors import Unavailable
from enarx.tenant.image import DISTRIBUTIONS, Inventory, Kind, bill_of_materials, image_files, take_inventory
from enarx.tenant.image import _inventory as module

pytestmark = pytest.mark.xdist_group("image")


@pytest.fixture(scope="module")
def inventory() -> Inventory:
    return take_inventory()


def test_every_packed_file_is_counted_once(inventory: Inventory) -> None:
    counted = Counter(
        item.name for group in inventory.of(Kind.OURS, Kind.DISTRIBUTION) for item in group.items
    )
    assert counted == Counter(file.path for file in image_files())


def test_digests_and_lines_are_those_of_the_files(inventory: Inventory) -> None:
    content = Path(enarx.__file__).read_bytes()
    item = inventory.of(Kind.OURS)[0].items[0]
    assert (item.name, item.size, item.sha256) == (
        "enarx/__init__.py",
        len(content),
        sha256(content).hexdigest(),
    )
    assert item.lines == sum(1 for line in content.decode().split("\n") if line.strip())


def test_what_the_machine_adds(inventory: Inventory) -> None:
    names = {item.name for group in inventory.of(Kind.SYSTEM, Kind.INTERPRETER) for item in group.items}
    assert {"libc.so.6", "libffi.so.8"} <= {
        name[:11] if name.startswith("libffi") else name for name in names
    }
    standard = {item.name for group in inventory.of(Kind.STANDARD_LIBRARY) for item in group.items}
    assert {"os.py", "tomllib/_parser.py", "ctypes/__init__.py"} <= standard
    assert not any("site-packages" in name or name.startswith("/") for name in names | standard)


def test_versions(inventory: Inventory) -> None:
    versions = {group.name: group.version for group in inventory.groups}
    assert versions["enarx.tcb"] == enarx.__version__
    assert versions["wasmtime"] == "50.0.1"
    assert versions["C library"].startswith("2.")
    assert inventory.openssl.startswith("OpenSSL ")
    assert {group.name for group in inventory.of(Kind.DISTRIBUTION)} <= set(DISTRIBUTIONS)


def test_a_keep_that_does_not_load_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "module_name", lambda path: "enarx.tcb.no_such_module")
    with pytest.raises(Unavailable, match="no_such_module"):
        take_inventory()


def test_the_bill_of_materials_obeys_its_schema(inventory: Inventory) -> None:
    document = json.dumps(bill_of_materials(inventory))
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(document) is None


def test_the_schema_check_can_fail(inventory: Inventory) -> None:
    document = {**bill_of_materials(inventory), "serialNumber": "1"}
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(document)) is not None


def test_the_bill_of_materials_is_deterministic(inventory: Inventory) -> None:
    assert bill_of_materials(take_inventory()) == bill_of_materials(inventory)


def test_another_keep_has_another_serial_number(inventory: Inventory) -> None:
    other = Inventory(groups=inventory.groups[1:], openssl=inventory.openssl)
    assert bill_of_materials(other)["serialNumber"] != bill_of_materials(inventory)["serialNumber"]


def test_the_command_shows_ours_first(capsys: pytest.CaptureFixture[str], inventory: Inventory) -> None:
    assert main(["tcb"]) == 0
    out = capsys.readouterr().out
    ours, theirs = out.split("\nTheirs\n")
    assert all(item.name in ours for item in inventory.of(Kind.OURS)[0].items)
    assert "_libwasmtime.so" in theirs
    assert f"ours: {inventory.of(Kind.OURS)[0].lines:,} lines" in theirs


def test_the_command_gives_documents(capsys: pytest.CaptureFixture[str], inventory: Inventory) -> None:
    assert main(["tcb", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == "enarx.tcb/1"
    total = document["totals"]["theirs"]
    assert total["files"] == sum(
        len(group.items) for group in inventory.groups if group.kind is not Kind.OURS
    )
    assert total["bytes"] == sum(group.size for group in inventory.groups if group.kind is not Kind.OURS)
    assert main(["tcb", "--sbom"]) == 0
    assert json.loads(capsys.readouterr().out) == bill_of_materials(inventory)
