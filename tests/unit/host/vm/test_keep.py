"""Machines that do not start leave nothing behind."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from enarx.host.vm import Accelerator, Boot, Guest, Protection, VmKeep
from enarx.tcb.errors import Unavailable

TRANSLATED = Accelerator(kvm=False, detail="")


def held() -> list[str]:
    """The files that this process has open, by name."""
    return sorted(os.path.realpath(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd"))


def test_a_file_that_is_missing_leaves_none_of_the_others_open(tmp_path: Path) -> None:
    kernel = tmp_path / "kernel"
    kernel.write_bytes(b"kernel")
    with pytest.raises(Unavailable, match="initrd: no such file"):
        VmKeep(
            Protection.NONE,
            Boot(kernel=kernel, initrd=tmp_path / "initrd"),
            Guest(cmdline=""),
            accelerator=TRANSLATED,
        )
    assert str(kernel) not in held()
