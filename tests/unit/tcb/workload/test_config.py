"""Enarx.toml: what the original accepted is accepted, with its defaults; all else is refused with its line."""

from __future__ import annotations

import pytest

from enarx.tcb.workload._config import (
    MAX_BYTES,
    Config,
    Connect,
    Listen,
    Null,
    Protocol,
    Stderr,
    Stdin,
    Stdout,
    parse_config,
)
from enarx.tcb.workload._toml import InvalidConfig

EVERY_KIND = """
args = ["--upper", "", "ü"]
steward = "https://steward.example.org:3000/path"

[env]
MODE = "prod"
EMPTY = ""

[[files]]
kind = "stdin"
[[files]]
name = "X"
kind = "listen"
prot = "tcp"
port = 9000
[[files]]
kind = "stdout"
[[files]]
kind = "null"
[[files]]
kind = "stderr"
[[files]]
kind = "connect"
prot = "tls"
host = "example.com"
"""


def entry(**keys: object) -> str:
    lines = [f"{key} = {value if isinstance(value, int) else repr(value)}" for key, value in keys.items()]
    return "\n".join(["[[files]]", *lines, ""]).replace("True", "true")


def refusal(text: str | bytes) -> InvalidConfig:
    with pytest.raises(InvalidConfig) as caught:
        parse_config(text)
    return caught.value


def test_every_kind_with_defaults() -> None:
    config = parse_config(EVERY_KIND)
    assert config.args == ("--upper", "", "ü")
    assert config.env == {"MODE": "prod", "EMPTY": ""}
    assert config.steward == "https://steward.example.org:3000/path"
    assert config.files == (
        Stdin(),
        Listen(protocol=Protocol.TCP, name="X", address="::", port=9000),
        Stdout(),
        Null(),
        Stderr(),
        Connect(protocol=Protocol.TLS, name="example.com", host="example.com", port=443),
    )


def test_fd_names_are_those_of_the_original() -> None:
    assert parse_config(EVERY_KIND).fd_names == "stdin:X:stdout:null:stderr:example.com"


def test_the_environment_starts_with_the_descriptors() -> None:
    config = parse_config('[env]\nFD_COUNT = "9"\nA = "1"\n[[files]]\nkind = "stdout"\nname = "log"\n')
    assert config.environ == ("FD_COUNT=1", "FD_NAMES=log", "A=1", "FD_COUNT=9")


def test_without_a_file_there_are_the_three_standard_streams() -> None:
    assert Config().files == (Stdin(), Stdout(), Stderr())


@pytest.mark.parametrize("text", ["", 'args = ["x"]', "files = []"])
def test_a_file_without_files_has_none(text: str) -> None:
    assert parse_config(text).files == ()


@pytest.mark.parametrize(("protocol", "port"), [("tls", 443), ("tcp", 80)])
def test_default_ports(protocol: str, port: int) -> None:
    text = entry(kind="listen", prot=protocol, name="a") + entry(kind="connect", prot=protocol, host="h")
    assert [getattr(file, "port", None) for file in parse_config(text).files] == [port, port]


def test_names_may_repeat() -> None:
    assert parse_config(entry(kind="stdin", name="a") + entry(kind="stdout", name="a")).fd_names == "a:a"


@pytest.mark.parametrize("port", [0, 1, 65535])
def test_ports_have_sixteen_bits(port: int) -> None:
    file = parse_config(entry(kind="listen", prot="tcp", name="a", port=port)).files[0]
    assert isinstance(file, Listen)
    assert file.port == port


def test_a_host_with_colons_needs_a_name() -> None:
    error = refusal(entry(kind="connect", prot="tcp", host="::1"))
    assert error.key == "files[0].host"
    assert "name" in error.hint
    assert parse_config(entry(kind="connect", prot="tcp", host="::1", name="local")).fd_names == "local"


def test_line_endings_of_windows() -> None:
    assert parse_config(EVERY_KIND.replace("\n", "\r\n")) == parse_config(EVERY_KIND)


@pytest.mark.parametrize("url", ["https://h", "HTTPS://h/", "https://[::1]:8443", "https://h.example/a?b#c"])
def test_stewards(url: str) -> None:
    assert parse_config(f'steward = "{url}"').steward == url


LISTEN = {"kind": "listen", "prot": "tls", "name": "a"}
CONNECT = {"kind": "connect", "prot": "tls", "host": "h"}


@pytest.mark.parametrize(
    ("text", "key", "line", "expected", "hint"),
    [
        ("x = 1", "x", 1, "unknown key", "known are steward, args, env, files"),
        ("\nargz = []", "argz", 2, "unknown key", "did you mean `args`?"),
        ('[package]\nname = "a"', "package", 1, "unknown key", "known are"),
        ("args = 'x'", "args", 1, "an array, found a string", ""),
        ("args = ['x', 1]", "args[1]", 1, "a string, found an integer", "quotation"),
        ('args = ["a\\u0000b"]', "args[0]", 1, "without NUL", ""),
        ("env = []", "env", 1, "a table, found an array", ""),
        ("[env]\n\nA = 1", "env.A", 3, "a string, found an integer", "quotation"),
        ("[env.A]\nB = 'x'", "env.A", 1, "a string, found a table", ""),
        ("[env]\nA = 1979-05-27", "env.A", 2, "a string, found a date", ""),
        ("[env]\n'A=B' = ''", "env", 1, "'A=B'", "neither '=' nor NUL"),
        ("[env]\n'' = ''", "env", 1, "found ''", "not empty"),
        ("[env]\n'A' = \"a\\u0000b\"", "env.A", 2, "without NUL", ""),
        ("steward = 1", "steward", 1, "an https URL, found an integer", "https://"),
        ("steward = 'http://h'", "steward", 1, "scheme 'http'", "https://"),
        ("steward = 'https://user:secret@h'", "steward", 1, "malformed", "credentials"),
        ("steward = 'https://h\\n'", "steward", 1, "malformed", ""),
        ("steward = 'h'", "steward", 1, "a string", ""),
        ("files = 1", "files", 1, "an array, found an integer", ""),
        ("files = ['x']", "files[0]", 1, "a table, found a string", "[[files]]"),
        ("[[files]]\nname = 'a'", "files[0].kind", 1, "found nothing", "known are null"),
        ("[[files]]\nkind = 'stdn'", "files[0].kind", 2, "'stdn'", "did you mean `stdin`?"),
        ("[[files]]\nkind = 'STDIN'", "files[0].kind", 2, "'STDIN'", "known are"),
        ("[[files]]\nkind = 1", "files[0].kind", 2, "found 1", ""),
        (entry(kind="stdin", prot="tcp"), "files[0].prot", 3, "unknown key", "known are kind, name"),
        (entry(kind="null", name="a:b"), "files[0].name", 3, "without ':'", "colons"),
        (entry(kind="null", name=1), "files[0].name", 3, "a string, found an integer", ""),
        (entry(kind="null", name=""), "files[0].name", 3, "1 to 255", ""),
        (entry(kind="null", name="a" * 256), "files[0].name", 3, "1 to 255", ""),
        ('[[files]]\nkind = "null"\nname = "a\\u001b[2J"', "files[0].name", 3, "printable", ""),
        (entry(kind="listen", name="a"), "files[0].prot", 1, "found nothing", "known are tls, tcp"),
        (entry(**LISTEN | {"prot": "TLS"}), "files[0].prot", 3, "'TLS'", ""),
        (entry(kind="listen", prot="tls"), "files[0].name", 1, "found nothing", "finds the socket"),
        (entry(**LISTEN, host="h"), "files[0].host", 5, "unknown key", "listen entries take `addr`"),
        (entry(**LISTEN, port=65536), "files[0].port", 5, "65536", ""),
        (entry(**LISTEN, port=-1), "files[0].port", 5, "-1", ""),
        (entry(**LISTEN, port=True), "files[0].port", 5, "found a boolean", ""),
        (entry(**LISTEN, port="443"), "files[0].port", 5, "'443'", ""),
        (
            "[[files]]\nkind='listen'\nprot='tls'\nname='a'\nport=443.0",
            "files[0].port",
            5,
            "found a float",
            "",
        ),
        (entry(**LISTEN, addr=1), "files[0].addr", 5, "a string", ""),
        (entry(**LISTEN, addr=""), "files[0].addr", 5, "1 to 255", ""),
        (entry(**LISTEN, prt=1), "files[0].prt", 5, "unknown key", "did you mean `prot`?"),
        (entry(kind="connect", prot="tls"), "files[0].host", 1, "found nothing", ""),
        (entry(**CONNECT, addr="h"), "files[0].addr", 5, "unknown key", "connect entries take `host`"),
        (entry(**CONNECT, name="a:b"), "files[0].name", 5, "without ':'", ""),
        (entry(**CONNECT) + "\n" + entry(**CONNECT, port=70000), "files[1].port", 10, "70000", ""),
    ],
)
def test_refusals_name_the_key_the_line_and_the_remedy(
    text: str, key: str, line: int, expected: str, hint: str
) -> None:
    error = refusal(text)
    assert (error.key, error.line) == (key, line)
    assert expected in str(error)
    assert hint in error.hint
    assert str(error).startswith(f"{key}: ")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"\xff", "UTF-8"),
        ("args = ['\ud800']", "UTF-8"),
        ("args = [", "TOML"),
        ("a = 1\na = 2", "TOML"),
        ("\ufeffargs = []", "TOML"),
        ("x = " + "9" * 5000, "TOML"),
        ("x = 1979-99-99", "TOML"),
        ("x = " + "[" * 100_000, "too deeply"),
        ("x = " + "{a=" * 100_000, "too deeply"),
        (" " * (MAX_BYTES + 1), "at most 1000000 bytes"),
        ("args = [" + "'',\n" * 4097 + "]", "at most 4096 entries"),
        ("[env]\n" + "".join(f"a{n} = ''\n" for n in range(4097)), "at most 4096 entries"),
        (entry(kind="null") * 1025, "at most 1024 entries"),
    ],
)
def test_refusals_of_hostile_text(text: str | bytes, expected: str) -> None:
    assert expected in str(refusal(text))


@pytest.mark.parametrize(
    "text",
    ["a." * 499_999, "[" + "a." * 499_000 + "a]", "x = {" + "a." * 400_000, "x = [{b=1," + '"a".' * 200_000],
)
@pytest.mark.timeout(10)
def test_long_dotted_keys_do_not_take_quadratic_time(text: str) -> None:
    assert "40 or more" in str(refusal(text))


def test_dotted_text_is_no_dotted_key() -> None:
    arpa = ".".join("0123456789abcdef" * 2) + ".ip6.arpa"
    assert parse_config(f'args = ["{arpa}", """\n{"." * 400}\n{arpa}"""]').args[0] == arpa


@pytest.mark.parametrize(
    "text",
    [
        "[env]\nPASSWORD = ['hunter2']",
        "args = [['hunter2']]",
        '[env]\nPASSWORD = "hunter2\\u0000"',
        'args = ["hunter2\\u0000"]',
        "steward = 'https://me:hunter2@h/'",
    ],
)
def test_refusals_show_no_secret(text: str) -> None:
    error = refusal(text)
    assert "hunter2" not in str(error) + error.hint


def test_refusals_cannot_command_a_terminal() -> None:
    assert str(refusal('"\\u001b[2J" = 1')).isprintable()


class TestOverridden:
    def test_arguments_replace(self) -> None:
        assert parse_config("args = ['a', 'b']").overridden(args=["c"]).args == ("c",)

    def test_no_arguments_keep(self) -> None:
        assert parse_config("args = ['a']").overridden(env={"A": "1"}).args == ("a",)

    def test_environment_adds_and_wins(self) -> None:
        config = parse_config("[env]\nA = '1'\nB = '2'").overridden(env={"B": "3", "C": "4"})
        assert config.env == {"A": "1", "B": "3", "C": "4"}

    @pytest.mark.parametrize("env", [{"": "x"}, {"A=B": "x"}, {"A\0": "x"}, {"A": "\0"}, {"A": "\udc80"}])
    def test_what_a_file_cannot_say_is_refused(self, env: dict[str, str]) -> None:
        with pytest.raises(InvalidConfig):
            Config().overridden(env=env)

    def test_arguments_are_checked(self) -> None:
        with pytest.raises(InvalidConfig, match=r"args\[1\]"):
            Config().overridden(args=["a", "\0"])


class TestDigest:
    def test_is_stable(self) -> None:
        assert (
            parse_config(EVERY_KIND).digest().hex()
            == "555f70945603d92b615eb608579e670d4009dfbdc32465e1bac8394b0d560e0b"
        )

    @pytest.mark.parametrize(
        ("one", "other"),
        [
            (entry(**LISTEN), entry(**LISTEN, port=443, addr="::")),
            (
                entry(**CONNECT),
                "files = [{name = 'h', port = 443, host = 'h', prot = 'tls', kind = 'connect'}]",
            ),
            ("env = {A = 'x', B = 'y'}", "# comment\n[env]\nB = 'y'\nA = 'x'"),
            ("", "args = []\nfiles = []"),
        ],
    )
    def test_is_one_for_one_meaning(self, one: str, other: str) -> None:
        assert parse_config(one).digest() == parse_config(other).digest()

    @pytest.mark.parametrize(
        ("one", "other"),
        [
            ("args = ['a', 'b']", "args = ['b', 'a']"),
            ("args = ['a', 'b']", "args = ['ab']"),
            ("env = {A = ''}", ""),
            (entry(kind="stdin") + entry(kind="stdout"), entry(kind="stdout") + entry(kind="stdin")),
            (entry(kind="null"), entry(kind="null", name="x")),
            (entry(kind="null", name="stdin"), entry(kind="stdin")),
            (entry(**LISTEN), entry(**LISTEN, addr="127.0.0.1")),
            (entry(**LISTEN), entry(**LISTEN | {"prot": "tcp"}, port=443)),
            ("steward = 'https://h'", ""),
        ],
    )
    def test_differs_with_the_meaning(self, one: str, other: str) -> None:
        assert parse_config(one).digest() != parse_config(other).digest()
