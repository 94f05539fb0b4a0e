"""What a guest can make QEMU say."""

from __future__ import annotations

import json
import socket

from enarx.host.vm._qmp import MAX_EVENTS, Control

TIMEOUT_S = 20.0


def line(**said: object) -> bytes:
    return json.dumps(said).encode() + b"\r\n"


def event(name: str, **data: object) -> bytes:
    return line(event=name, data=data, timestamp={"seconds": 1, "microseconds": 1})


def test_a_guest_that_causes_events_for_ever_takes_no_memory_and_its_end_is_known() -> None:
    ours, qemu = socket.socketpair()
    with qemu:
        control = Control(ours)
        version = {"qemu": {"major": 10, "minor": 0, "micro": 0}, "package": ""}
        qemu.sendall(line(QMP={"version": version, "capabilities": []}))
        qemu.settimeout(TIMEOUT_S)
        asked = json.loads(qemu.recv(4096))
        assert asked["execute"] == "qmp_capabilities"
        qemu.sendall(line(**{"return": {}}))
        for number in range(10 * MAX_EVENTS):
            qemu.sendall(event("RTC_CHANGE", offset=number))
        qemu.sendall(event("SHUTDOWN", guest=True, reason="guest-shutdown"))
    control.join(TIMEOUT_S)
    assert len(control.events) == MAX_EVENTS
    assert control.events[-1] == ("SHUTDOWN", {"guest": True, "reason": "guest-shutdown"})
