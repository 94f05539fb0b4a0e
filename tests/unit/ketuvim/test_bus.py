"""Where devices may be attached."""

from __future__ import annotations

import pytest

from ketuvim import Bus, Console, Misuse


@pytest.mark.parametrize("ports", [range(0), range(0, 8, 2), range(-1, 3)])
def test_a_device_is_at_consecutive_numbers(ports: range) -> None:
    with pytest.raises(Misuse, match="consecutive"):
        Bus().attach_ports(ports, Console())


def test_two_devices_do_not_overlap() -> None:
    bus = Bus()
    bus.attach_memory(range(0x1000, 0x2000), Console())
    bus.attach_memory(range(0x2000, 0x3000), Console())
    bus.attach_ports(range(0x1000, 0x2000), Console())
    with pytest.raises(Misuse, match="overlaps"):
        bus.attach_memory(range(0x1FFF, 0x2001), Console())
