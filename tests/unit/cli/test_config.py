"""``enarx config``: what it writes is what it checks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from enarx.cli._exit import ExitCode
from enarx.cli._main import main
from enarx.cli._template import TEMPLATE
from enarx.tcb.workload import Config, Connect, Listen, Protocol, parse_config


@pytest.fixture(autouse=True)
def _empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_the_template_means_the_default() -> None:
    assert parse_config(TEMPLATE) == Config()


def test_the_template_is_valid_with_every_entry_in_use() -> None:
    config = parse_config("\n".join(line.removeprefix("# ") for line in TEMPLATE.splitlines()))
    assert config.args == ("--greeting", "hello")
    assert config.steward == "https://steward.example.org"
    assert config.env == {"LOG_LEVEL": "info"}
    assert config.files[3:] == (
        Listen(protocol=Protocol.TLS, name="web", address="::", port=8443),
        Connect(protocol=Protocol.TLS, host="db.example.org", name="database", port=5432),
    )


def test_init_twice(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "init"]) == ExitCode.DONE
    assert Path("Enarx.toml").read_text() == TEMPLATE
    assert capsys.readouterr() == ("", "enarx: wrote Enarx.toml\n")
    Path("Enarx.toml").write_text("mine")
    assert main(["config", "init"]) == ExitCode.REFUSED
    assert '"Enarx.toml" does already exist.' in capsys.readouterr().err
    assert Path("Enarx.toml").read_text() == "mine"


def test_init_does_not_follow_a_dangling_link(capsys: pytest.CaptureFixture[str]) -> None:
    Path("Enarx.toml").symlink_to("elsewhere")
    assert main(["config", "init"]) == ExitCode.REFUSED
    assert not Path("elsewhere").exists()


def test_init_elsewhere(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "init", "other.toml", "--json"]) == ExitCode.DONE
    assert json.loads(capsys.readouterr().out) == {"schema": "enarx.config-init/1", "path": "other.toml"}
    assert main(["config", "init", "missing/other.toml"]) == ExitCode.UNAVAILABLE


def test_check_shows_what_the_template_means(capsys: pytest.CaptureFixture[str]) -> None:
    main(["config", "init"])
    capsys.readouterr()
    assert main(["config", "check"]) == ExitCode.DONE
    out, err = capsys.readouterr()
    assert [line.split() for line in out.splitlines()[:4]] == [
        ["fd", "kind", "name", "stream"],
        ["0", "stdin", "stdin"],
        ["1", "stdout", "stdout"],
        ["2", "stderr", "stderr"],
    ]
    assert "FD_NAMES  stdin:stdout:stderr\n" in out
    assert f"sha256:{Config().digest().hex()}" in out
    assert err == ""


def test_check_gives_one_document(capsys: pytest.CaptureFixture[str]) -> None:
    Path("x.toml").write_text('[[files]]\nkind = "listen"\nprot = "tls"\nname = "web"\n[env]\nA = "1"')
    assert main(["config", "check", "x.toml", "--json"]) == ExitCode.DONE
    document = json.loads(capsys.readouterr().out)
    assert document.pop("digest").startswith("sha256:")
    assert document == {
        "schema": "enarx.config-check/1",
        "args": [],
        "env": {"A": "1"},
        "steward": None,
        "files": [{"fd": 0, "kind": "listen", "name": "web", "prot": "tls", "port": 443, "addr": "::"}],
        "fd_names": "web",
        "warnings": ["no entry of kind stderr: error messages of the workload are lost"],
    }


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        ("args = ['x']", "there are no [[files]]"),
        ("[[files]]\nkind = 'stdout'", "no entry of kind stderr"),
        (
            "[[files]]\nkind = 'stderr'\nname = 'a'\n[[files]]\nkind = 'stdin'\nname = 'a'",
            "2 descriptors are named 'a'",
        ),
        ("files = [{kind = 'stderr'}]\nenv = {FD_COUNT = '1'}", "env.FD_COUNT"),
    ],
)
def test_check_warns(capsys: pytest.CaptureFixture[str], text: str, warning: str) -> None:
    Path("Enarx.toml").write_text(text)
    assert main(["config", "check"]) == ExitCode.DONE
    err = capsys.readouterr().err
    assert err.startswith("enarx: warning: ")
    assert warning in err


def test_check_names_the_line(capsys: pytest.CaptureFixture[str]) -> None:
    Path("Enarx.toml").write_text("[[files]]\nkind = 'listen'\nprot = 'tcp'\nname = 'a'\nhost = '::'\n")
    assert main(["config", "check"]) == ExitCode.MALFORMED
    assert capsys.readouterr().err == (
        "enarx: error: files[0].host: unknown key (line 5)\nhint: listen entries take `addr`\n"
    )


def test_check_cannot_command_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    Path("Enarx.toml").write_text('args = ["\\u001b[2J"]\n[env]\n"\\u001b" = "x"')
    assert main(["config", "check"]) == ExitCode.DONE
    assert "\x1b" not in capsys.readouterr().out


def test_check_reads_no_more_than_the_limit(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "check", "/dev/zero"]) == ExitCode.MALFORMED


def test_check_of_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "check"]) == ExitCode.UNAVAILABLE
    assert "Enarx.toml: no such file" in capsys.readouterr().err
