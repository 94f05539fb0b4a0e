"""The examples do what their README files say, and their build gives the same bytes each time."""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import socket
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import pytest
from examples.build import EXAMPLES, BuildError, compile_source, names, source_of

Example = Callable[[str], Path]
ROOT: Final = EXAMPLES.parent
CONSOLE: Final = re.compile(r"```console\n(.*?)```", re.DOTALL)
SERVERS: Final = {"tls-echo", "kvstore"}


def _commands() -> list[tuple[str, str, str]]:
    """Every command in a README of an example with the output that the README shows below it."""
    found = []
    for name in names():
        for block in CONSOLE.findall((EXAMPLES / name / "README.md").read_text()):
            for part in re.split(r"(?m)^\$ ", block)[1:]:
                command, _, output = part.partition("\n")
                found.append((name, command, output))
    return found


COMMANDS: Final = [
    pytest.param(*entry, id=f"{entry[0]}-{number}") for number, entry in enumerate(_commands())
]


def test_every_example_has_a_readme_with_a_command() -> None:
    shown = {parameters.values[0] for parameters in COMMANDS}
    assert shown == set(names()) - SERVERS
    assert all((EXAMPLES / name / "README.md").exists() for name in names())


@pytest.mark.parametrize(("name", "command", "output"), COMMANDS)
def test_readme_shows_the_real_output(
    name: str, command: str, output: str, example: Example, enarx_command: tuple[str, ...], tmp_path: Path
) -> None:
    example(name)
    (tmp_path / "examples").symlink_to(EXAMPLES)
    start = f'enarx() {{ {shlex.join(enarx_command[:-1])} "$@"; }}\n'
    done = subprocess.run(
        ["bash", "-c", start + command], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert done.stdout + done.stderr == output


def test_rot13_twice_is_the_text(example: Example, enarx_run: Any) -> None:
    text = bytes(range(256)) * 700
    once = enarx_run(example("rot13"), stdin=text)
    twice = enarx_run(example("rot13"), stdin=once.stdout)
    assert once.stdout != text
    assert twice.stdout == text


def test_wordfreq_brings_its_report_back_only_when_asked(
    example: Example, enarx_run: Any, tmp_path: Path
) -> None:
    texts = f"{EXAMPLES / 'wordfreq' / 'texts'}::/texts:ro"
    for suffix, brought in (("", False), (":sync", True)):
        options = ["--dir", texts, "--dir", f"{tmp_path}::/out{suffix}"]
        done = enarx_run(example("wordfreq"), "/texts", "/out/report.txt", "1", options=options)
        assert done.returncode == 0, done.stderr
        assert (tmp_path / "report.txt").exists() is brought
    report = (tmp_path / "report.txt").read_text().splitlines()
    assert report[0] == "19\tthe"
    assert len(report) == 46


def test_wordfreq_names_the_directory_that_is_missing(example: Example, enarx_run: Any) -> None:
    done = enarx_run(example("wordfreq"), "/absent", "/report.txt")
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"/absent" in done.stderr


def test_sealed_vote_tells_totals_and_receipts_but_no_vote(example: Example, enarx_run: Any) -> None:
    folder = EXAMPLES / "sealed-vote"
    ballots = (folder / "ballots.txt").read_bytes()
    done = enarx_run(example("sealed-vote"), options=("--config", str(folder / "Enarx.toml")), stdin=ballots)
    assert done.returncode == 0
    assert b"8 ballots counted, 2 refused\n" in done.stdout
    receipts = re.findall(rb"\b[0-9a-f]{16}\b", done.stdout)
    lines = ballots.splitlines()
    counted = [
        line for line in lines if not line.startswith(b"mallory") and line != b"bob tea second-thoughts"
    ]
    assert receipts == sorted(hashlib.sha256(line).hexdigest()[:16].encode() for line in counted)
    for line in lines:
        voter, _, secret = line.split()
        assert voter not in done.stdout
        assert secret not in done.stdout


@pytest.mark.parametrize(
    ("ballots", "code"),
    [
        (b"a tea 12345678\nb tea 12345678\nc tea 12345678\nd tea 12345678\n", 3),
        (b"a tea 12345678\n" * 5, 3),
        (b"x" * 1_000_000 + b" tea 12345678\n", 3),
        (b"a tea short\nb tea\nc\n\n\0\n", 3),
        (b"", 3),
        (b"\n".join(b"voter%d tea 12345678" % i for i in range(20_000)), 0),
    ],
    ids=[
        "below the quorum",
        "one voter five times",
        "endless line",
        "malformed",
        "nothing",
        "twenty thousand",
    ],
)
def test_sealed_vote_stays_sealed_below_its_quorum(
    ballots: bytes, code: int, example: Example, enarx_run: Any
) -> None:
    config = EXAMPLES / "sealed-vote" / "Enarx.toml"
    done = enarx_run(example("sealed-vote"), options=("--config", str(config)), stdin=ballots)
    assert done.returncode == code, done.stderr
    assert (b"the urn stays sealed" in done.stdout) is (code == 3)


@pytest.mark.slow
@pytest.mark.xdist_group("primes-py")
def test_primes_reads_arguments_environment_standard_input_and_files(
    example: Example, enarx_run: Any, tmp_path: Path
) -> None:
    primes = example("primes-py")
    done = enarx_run(primes, "30", options=("--env", "PRIMES_PER_LINE=5"))
    assert (done.returncode, done.stdout) == (0, b"2 3 5 7 11\n13 17 19 23 29\n10 primes below 30\n")
    done = enarx_run(primes, stdin=b"97\n91\n")
    assert (done.returncode, done.stdout) == (0, b"97 is prime\n91 = 7 * 13\n")
    (tmp_path / "numbers").write_text("1000003\nmany\n")
    done = enarx_run(primes, "/data/numbers", options=("--dir", f"{tmp_path}::/data:ro"))
    assert (done.returncode, done.stdout) == (1, b"1000003 is prime\n")
    assert b"many" in done.stderr
    done = enarx_run(primes, "/absent")
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"/absent" in done.stderr


@pytest.mark.parametrize("prot", ["tcp", "tls"])
def test_echo_serves_many_at_once_and_none_waits_for_another(prot: str, example: Example, serve: Any) -> None:
    count, text = 50, os.urandom(100_000)
    server = serve(example("tls-echo"), str(count + 1), name="echo", prot=prot)
    with server.connect() as idle, socket.create_connection(("127.0.0.1", server.port)) as silent:
        peers = [server.connect() for _ in range(count)]

        def use(peer: socket.socket) -> bytes:
            back = bytearray()
            for at in range(0, len(text), 10_000):
                peer.sendall(text[at : at + 10_000])
                while len(back) < at + 10_000:
                    back += peer.recv(65536)
            return bytes(back)

        with ThreadPoolExecutor(8) as pool:
            assert set(pool.map(use, peers)) == {text}
        silent.close()
        for peer in [*peers, idle]:
            peer.close()
    assert server.finished()[0] == 0


def test_server_without_its_listener_says_so(example: Example, enarx_run: Any) -> None:
    for name, listener in (("tls-echo", "echo"), ("kvstore", "http")):
        done = enarx_run(example(name))
        assert done.returncode == 1
        assert f'no file named "{listener}"' in done.stderr.decode()


@pytest.mark.parametrize("name", ["hello", "rot13", "kvstore"])
def test_build_gives_the_same_bytes_in_another_place(name: str, example: Example, tmp_path: Path) -> None:
    assert compile_source(source_of(name), tmp_path / "again.wasm").read_bytes() == example(name).read_bytes()


def test_build_happens_only_when_something_changed(tmp_path: Path) -> None:
    source, output = tmp_path / "main.wat", tmp_path / "out.wasm"
    source.write_text('(module (func (export "_start")))')
    first = compile_source(source, output).stat().st_ino
    assert compile_source(source, output).stat().st_ino == first
    source.write_text('(module (func (export "_start") nop))')
    second = compile_source(source, output).stat().st_ino
    assert second != first
    output.write_bytes(output.read_bytes()[:-1])  # a build that was cut off is no build
    assert compile_source(source, output).read_bytes()[:4] == b"\0asm"
    assert output.stat().st_ino != second


@pytest.mark.parametrize(
    ("file", "text", "named"),
    [
        ("main.c", "int main(void) { return x; }", "main.c:1:"),
        ("main.wat", "(module (fun))", "fun"),
        ("main.rs", "", ".c"),
    ],
)
def test_build_error_names_file_and_place(file: str, text: str, named: str, tmp_path: Path) -> None:
    (tmp_path / file).write_text(text)
    with pytest.raises(BuildError, match=re.escape(named)):
        compile_source(tmp_path / file, tmp_path / "out.wasm")


def test_build_of_an_unknown_example_is_one_message() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "examples.build", "nope"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: example 'nope'")
    assert len(done.stderr.splitlines()) == 1
