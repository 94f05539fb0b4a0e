"""What ``enarx platform info`` writes."""

from __future__ import annotations

import json

from enarx.cli._platform import render_text, to_json
from enarx.host.platform import Backend, Fact, Report

API = Fact(name="API Version", passed=True, info="12")
REPORT = Report(
    enarx="1.2.3",
    system={"name": "Linux", "release": "6.12", "version": "#1 SMP", "machine": "x86_64"},
    backends=(
        Backend(name="kvm", data=(Fact(name="Driver", passed=True, info="/dev/kvm", facts=(API,)),)),
        Backend(
            name="sgx",
            data=(Fact(name="CPU", passed=True),),
            configuration=(
                Fact(name="AESM Daemon Socket", passed=False, info="/run/\x1b[31m", advice="start aesmd"),
                Fact(name="Cache", passed=False, advice="start aesmd"),
            ),
        ),
    ),
)


def test_text_is_a_tree_with_each_advice_once_and_nothing_that_commands_a_terminal() -> None:
    assert render_text(REPORT) == "\n".join(
        (
            "Enarx version 1.2.3",
            "System Info: Linux 6.12 #1 SMP x86_64",
            "",
            "✔ Backend: kvm",
            "  ✔ Driver: /dev/kvm",
            "    ✔ API Version: 12",
            "",
            "✗ Backend: sgx",
            "  ✔ CPU",
            "  ✗ AESM Daemon Socket: /run/\\x1b[31m",
            "  ✗ Cache",
            "  → start aesmd",
        )
    )


def test_icons_are_green_and_red_when_asked_for() -> None:
    lines = render_text(REPORT, colour=True).splitlines()
    assert lines[3] == "\x1b[32m✔\x1b[0m Backend: kvm"
    assert lines[7] == "\x1b[31m✗\x1b[0m Backend: sgx"
    assert lines[9].endswith("/run/\\x1b[31m")


def test_the_document_has_a_version_and_null_for_what_is_absent() -> None:
    document = json.loads(json.dumps(to_json(REPORT)))
    assert document["version"] == 1
    assert document["enarx"] == "1.2.3"
    assert document["system"]["machine"] == "x86_64"
    kvm, sgx = document["backends"]
    assert kvm["data"][0]["facts"] == [
        {"name": "API Version", "pass": True, "info": "12", "advice": None, "facts": []}
    ]
    assert (kvm["usable"], sgx["usable"], sgx["available"], sgx["configured"]) == (True, False, True, False)
    assert sgx["data"][0]["info"] is None
    assert sgx["configuration"][1]["advice"] == "start aesmd"
