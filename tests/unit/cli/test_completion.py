"""Shell completion: the scripts, and what they ask us."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from enarx.cli._main import main


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_scripts_ask_us(capsys: pytest.CaptureFixture[str], shell: str) -> None:
    assert main(["completion", shell]) == 0
    assert f"_ENARX_COMPLETE={shell}_complete" in capsys.readouterr().out


def test_bash_accepts_the_script(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    main(["completion", "bash"])
    (tmp_path / "script").write_text(capsys.readouterr().out)
    subprocess.run(["bash", "-n", str(tmp_path / "script")], check=True)


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        ("ru", "plain,run"),
        ("config ch", "plain,check"),
        ("run --requ", "plain,--require-sandbox"),
        ("run x", "file,x"),
    ],
)
def test_answers(words: str, answer: str) -> None:
    asked = f"enarx {words}"
    environment = {
        **os.environ,
        "_ENARX_COMPLETE": "bash_complete",
        "COMP_WORDS": asked,
        "COMP_CWORD": str(len(asked.split()) - 1),
    }
    done = subprocess.run(
        [sys.executable, "-m", "enarx.cli"], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout == f"{answer}\n"
