"""What goes to which stream, and in which colours."""

from __future__ import annotations

import errno
import io
import json
import os

import pytest

from enarx.cli._exit import ExitCode
from enarx.cli._output import Output, coloured, printable


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_results_go_to_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    Output(as_json=False).result("enarx.x/1", {"a": 1}, "text")
    assert capsys.readouterr() == ("text\n", "")


def test_results_are_one_document(capsys: pytest.CaptureFixture[str]) -> None:
    Output(as_json=True).result("enarx.x/1", {"a": "ü"}, "text")
    out, err = capsys.readouterr()
    assert json.loads(out) == {"schema": "enarx.x/1", "a": "ü"}
    assert (out.count("\n"), err) == (1, "")


def test_the_rest_goes_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    output = Output(as_json=False)
    output.note("note")
    output.warning("careful")
    assert output.error(ExitCode.REFUSED, "no", "yes") is ExitCode.REFUSED
    expected = "enarx: note\nenarx: warning: careful\nenarx: error: no\nhint: yes\n"
    assert capsys.readouterr() == ("", expected)


@pytest.mark.parametrize(
    ("stream", "variables", "expected"),
    [
        (Terminal(), {}, True),
        (Terminal(), {"NO_COLOR": ""}, True),
        (Terminal(), {"NO_COLOR": "1"}, False),
        (Terminal(), {"TERM": "dumb"}, False),
        (io.StringIO(), {}, False),
    ],
)
def test_colours(
    monkeypatch: pytest.MonkeyPatch, stream: io.StringIO, variables: dict[str, str], expected: bool
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert coloured(stream) is expected


def test_errors_are_red_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("sys.stderr", terminal := Terminal())
    Output(as_json=False).error(ExitCode.REFUSED, "no")
    assert terminal.getvalue() == "enarx: \x1b[31merror\x1b[0m: no\n"


@pytest.mark.parametrize(
    ("text", "shown"), [("ä\nb", "ä\nb"), ("\x1b[2J", "\\x1b[2J"), ("a\rb", "a\\rb"), ("\u202e", "\\u202e")]
)
def test_control_characters_are_shown_not_sent(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_every_code_has_a_meaning() -> None:
    assert all(code.meaning.endswith(".") and code.__doc__ == code.meaning for code in ExitCode)
    assert len({code.meaning for code in ExitCode}) == len(ExitCode)


class Full(io.StringIO):
    def write(self, text: str) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_an_error_that_cannot_be_written_as_a_document_is_told_to_people(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with ``enarx verify --json > /dev/full``."""
    monkeypatch.setattr("sys.stdout", Full())
    output = Output(as_json=True)
    with pytest.raises(OSError, match="No space left"):
        output.result("enarx.x/1", {}, "text")
    assert output.error(ExitCode.REFUSED, "no", "yes") is ExitCode.REFUSED
    assert capsys.readouterr().err == "enarx: error: no\nhint: yes\n"
