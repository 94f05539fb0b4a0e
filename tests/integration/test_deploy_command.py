"""``enarx deploy``, ``keep`` and ``audit`` as users run them, against a real agent on an emulated machine."""

from __future__ import annotations

import json
import re
import shutil
import signal
import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from tests.integration.agent_process import TIMEOUT_S, Machine, Process, client, machine, until
from tests.integration.deploy_tenant import Tenant, readme_cells, root_of

from enarx.attest import Tee
from enarx.tenant.deployment import PRE_BOOT
from enarx.tenant.image import build_image

ROOT = Path(__file__).resolve().parents[2]
TEES = ("snp", "tdx", "sgx", "sev", "sev-es", "pef")
Guest = Callable[[str], Path]


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("image") / "keep.tar"
    build_image(path)
    return path


@pytest.fixture(scope="module")
def owned(tmp_path_factory: pytest.TempPathFactory, image: Path) -> Iterator[Machine]:
    with machine(tmp_path_factory.mktemp("machine") / "state", image) as made:
        yield made


@pytest.fixture(scope="module")
def agent(owned: Machine) -> Process:
    return owned.agent()


@pytest.fixture
def tenant(tmp_path: Path, owned: Machine, agent: Process) -> Tenant:
    return Tenant(tmp_path / "home", agent.first["url"], root_of(owned.state, tmp_path / "root.pem"))


def documents(stderr: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stderr.decode().splitlines()]


def test_output_and_exit_code_are_the_programs_and_every_step_is_told(tenant: Tenant, guest: Guest) -> None:
    done = tenant.deploy(guest("echo"), stdin=b"one\ntwo\n")
    assert (done.returncode, done.stdout) == (0, b"one\ntwo\n")
    steps = [
        line.removeprefix("enarx: ") for line in done.stderr.decode().splitlines() if line.startswith("enarx")
    ]
    told = "\n".join(steps)
    assert re.search(r"(?m)^host: launched snp keep [0-9a-f]{32} on emulated-snp$", told)
    assert (
        len(
            re.findall(
                r"(?m)^tenant: accepted the (empty|locked) keep: snp [0-9a-f]{96}, root root.pem ", told
            )
        )
        == 2
    )
    order = [
        told.index(it) for it in ("host: launched", "the empty keep", "the locked keep", "the workload runs")
    ]
    assert order == sorted(order)
    assert tenant.deploy(guest("exit"), "--", "7").returncode == 7


def test_a_keep_that_is_not_trusted_gets_nothing(tenant: Tenant, guest: Guest, tmp_path: Path) -> None:
    missing = f"key={tmp_path / 'is-not-there'}"
    done = tenant.deploy(guest("echo"), "--secret", missing, trusting=False)
    assert done.returncode == 119
    assert b"rejected the empty keep (snp.chain.root)" in done.stderr
    assert b"hint: the chain ends in a key that is not trusted" in done.stderr
    assert b"delivered" not in done.stderr
    assert b"is-not-there" not in done.stderr  # nobody has even looked for the secret
    done = tenant.deploy(guest("echo"), "--secret", missing)
    assert done.returncode == 4
    assert b"is-not-there" in done.stderr


def test_a_policy_of_ones_own_decides(tenant: Tenant, guest: Guest, tmp_path: Path) -> None:
    policy = tmp_path / "policy.toml"
    policy.write_text(f'version = 1\n[snp]\nvendor_root = "any"\nmeasurement = ["{"ab" * 48}"]\n')
    done = tenant.deploy(guest("echo"), "--policy", policy)
    assert done.returncode == 119
    assert b"policy.snp.measurement" in done.stderr
    policy.write_text("version = 1\n[snp\n")
    assert tenant.deploy(guest("echo"), "--policy", policy).returncode == 3


def test_secrets_come_from_files_and_variables(tenant: Tenant, guest: Guest, tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(b"value of a file")
    done = tenant.deploy(
        guest("secrets"), "--secret", f"key={tmp_path / 'key'}", "--secret-env", "VARIABLE=env:CANARY"
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.decode().splitlines()
    assert "/run/secrets/key value of a file" in lines
    assert "/run/secrets/VARIABLE value of a variable" in lines
    assert "VARIABLE=value of a variable" in lines
    assert b"value of" not in done.stderr
    refused = tenant.deploy(
        guest("secrets"), "--secret", f"key={tmp_path / 'key'}", "--secret", "key=env:CANARY"
    )
    assert refused.returncode == 3
    assert b"given twice" in refused.stderr


def test_programs_get_every_step_as_a_document(tenant: Tenant, guest: Guest) -> None:
    done = tenant.deploy(guest("echo"), "--json", stdin=b"x")
    assert done.stdout == b"x"
    told = [it for it in done.stderr.splitlines() if it.startswith(b"{")]
    found = documents(b"\n".join(told))
    assert {it["schema"] for it in found[:-1]} == {"enarx.step/1"}
    assert [
        it["what"] for it in found if it.get("what") in ("created", "accepted", "delivered", "ended")
    ] == [
        "created",
        "accepted",
        "accepted",
        "delivered",
        "ended",
    ]
    result = found[-1]
    assert (result["schema"], result["exit_code"]) == ("enarx.deploy/1", 0)
    assert [it["stage"] for it in result["verdicts"]] == ["empty", "locked"]
    refused = documents(tenant.deploy(guest("echo"), "--json", trusting=False).stderr)
    assert refused[-1]["error"]["name"] == "not_accepted"


def test_a_keep_is_left_and_found_again_by_its_tenant_alone(
    tenant: Tenant, guest: Guest, tmp_path: Path
) -> None:
    left = tenant.deploy(guest("loop"), "--detach")
    assert left.returncode == 0, left.stderr
    name = left.stdout.decode().strip()
    listed = json.loads(tenant.run("keep", "list", "--json", trusting=False).stdout)["keeps"]
    assert [(it["keep"], it["state"]) for it in listed] == [(name, "ready")]
    assert tenant.run("keep", "logs", name[:8]).returncode == 0
    shown = tenant.run("keep", "evidence", name, "--out", tmp_path / "evidence.bin", "--json")
    assert json.loads(shown.stdout)["stage"] == "locked"
    assert (tmp_path / "evidence.bin").stat().st_size > 1000
    assert tenant.run("keep", "evidence", name, trusting=False).returncode == 119
    other = Tenant(tmp_path / "other", tenant.host, tenant.root)
    assert other.run("keep", "stop", name).returncode == 4
    stopped = json.loads(tenant.run("keep", "stop", name, "--json").stdout)
    assert stopped["ending"] == "stopped"
    assert json.loads(tenant.run("keep", "list", "--json", trusting=False).stdout)["keeps"] == []
    damaged = tenant.home / "enarx" / "keeps" / f"{'0' * 16}-{'a' * 32}.json"
    damaged.write_bytes(b"{")
    told = tenant.run("keep", "list", trusting=False)
    assert (told.returncode, told.stdout) == (1, b"no keeps\n")
    assert damaged.name.encode() in told.stderr


def test_who_attaches_gets_the_output_and_the_exit_code(tenant: Tenant, guest: Guest) -> None:
    name = tenant.deploy(guest("exit"), "--detach", "--", "7").stdout.decode().strip()
    assert tenant.run("keep", "attach", name).returncode == 7
    assert tenant.run("keep", "attach", name).returncode == 4  # it has told its end, and is forgotten


def test_a_keep_can_be_thrown_away_unverified(tenant: Tenant, guest: Guest) -> None:
    name = tenant.deploy(guest("loop"), "--detach").stdout.decode().strip()
    assert tenant.run("keep", "stop", name, "--force", trusting=False).returncode == 0
    assert tenant.run("keep", "logs", name).returncode == 4


def test_what_was_decided_comes_out_again(tenant: Tenant, guest: Guest, tmp_path: Path) -> None:
    record = tmp_path / "record"
    assert tenant.deploy(guest("echo"), "--audit", record).returncode == 0
    assert tenant.deploy(guest("echo"), "--audit", record, trusting=False).returncode == 119
    done = tenant.run("audit", "replay", record, "--json", trusting=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert [it["then"] for it in found["verdicts"]] == ["accepted", "accepted", "rejected: snp.chain.root"]
    assert found["same"]
    assert tenant.run("audit", "replay", record, "--head", found["head"], trusting=False).returncode == 0
    assert tenant.run("audit", "replay", record, "--head", "11" * 32, trusting=False).returncode == 3
    log = record / "log.jsonl"
    log.write_bytes(log.read_bytes().replace(b"rejected", b"accepted", 1))
    assert tenant.run("audit", "replay", record, trusting=False).returncode == 3


def test_endings_have_the_exit_codes_of_run(tenant: Tenant, guest: Guest, tmp_path: Path) -> None:
    done = tenant.deploy(guest("loop"), "--limit", "time=300ms")
    assert done.returncode == 124
    assert b"hint: raise it with --limit time" in done.stderr
    (tmp_path / "bad.wasm").write_bytes(b"\0asm nonsense")
    assert tenant.deploy(tmp_path / "bad.wasm").returncode == 3
    (tmp_path / "worse.wasm").write_bytes(b"no module")
    assert tenant.deploy(tmp_path / "worse.wasm").returncode == 3


def test_ctrl_c_ends_the_keep(tenant: Tenant, agent: Process, guest: Guest) -> None:
    command = tenant.command("deploy", guest("loop"), "--host", tenant.host)
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, env=tenant.environment
    ) as process:
        assert process.stderr is not None
        name = b""
        for line in process.stderr:
            if found := re.search(rb"launched snp keep ([0-9a-f]{32})", line):
                name = found[1]
            if b"the workload runs" in line:
                break
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=TIMEOUT_S) == 130
    with client(agent) as asker:
        assert asker.keep(name.decode()).ended


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--secret", "key"], 2, "expected NAME=FILE or NAME=env:VARIABLE"),
        (["--limit", "speed=9"], 2, "speed"),
        (["--tee", "sgx"], 4, "no 'sgx'"),
        (["--tee", "sgy"], 2, "sgy"),
        (["--trust-root", __file__], 3, "trust"),
    ],
)
def test_what_cannot_be_done_is_said(
    tenant: Tenant, guest: Guest, options: list[str], code: int, message: str
) -> None:
    done = tenant.deploy(guest("echo"), *options)
    assert done.returncode == code, done.stderr
    assert b"Traceback" not in done.stderr
    assert code in (2, 3) or message in done.stderr.decode()


def test_nobody_at_the_address_is_said(tenant: Tenant, guest: Guest) -> None:
    done = tenant.run("deploy", guest("echo"), "--host", "http://127.0.0.1:9")
    assert done.returncode == 4
    assert b"enarx host serve" in done.stderr
    assert b"errno" not in done.stderr.lower()
    assert tenant.run("deploy", guest("echo"), "--host", "ftp://x").returncode == 3


@pytest.mark.parametrize("allowed", [True, False])
def test_a_workload_listens_only_where_the_owner_of_the_machine_allows(
    tmp_path: Path, owned: Machine, example: Callable[[str], Path], allowed: bool
) -> None:
    """And what flows there the host cannot read either: TLS ends in the keep."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    package = tmp_path / "package"
    package.mkdir()
    shutil.copy(example("tls-echo"), package / "main.wasm")
    config = (ROOT / "examples/tls-echo/Enarx.toml").read_text()
    (package / "Enarx.toml").write_text(re.sub(r"port = \d+", f"port = {port}", config))
    agent = owned.agent("--allow-listen", f"127.0.0.1:{port if allowed else port - 1}")
    tenant = Tenant(tmp_path / "home", agent.first["url"], root_of(owned.state, tmp_path / "root.pem"))
    if not allowed:
        done = tenant.deploy(package)
        assert done.returncode == 4, done.stderr
        assert b"the owner of the machine does not allow" in done.stderr
        return
    left = tenant.deploy(package, "--detach")
    assert left.returncode == 0, left.stderr
    name = left.stdout.decode().strip()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE

    def echoes() -> bool:
        try:
            plain = socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_S)
        except ConnectionRefusedError:
            return False
        with context.wrap_socket(plain) as sock:
            sock.sendall(b"hello\n")
            return sock.recv(100) == b"hello\n"

    until(echoes, "nobody answers")
    assert tenant.run("keep", "stop", name).returncode == 0


@pytest.mark.slow
def test_the_same_workload_runs_on_every_tee_as_the_readme_shows(
    tmp_path: Path, image: Path, example: Callable[[str], Path]
) -> None:
    vote = example("sealed-vote")
    ballots = f"ballots={ROOT / 'examples/sealed-vote/ballots.txt'}"
    cells = readme_cells()
    assert [line[0] for line in cells if line[3] != "—"] == list(TEES)
    with ExitStack() as stack:
        for tee in TEES:
            state = tmp_path / tee
            agent = stack.enter_context(machine(state, image, tee)).agent()
            tenant = Tenant(tmp_path / "home", agent.first["url"], root_of(state, tmp_path / f"{tee}.pem"))
            done = tenant.deploy(vote, "--tee", tee, "--secret", ballots, "--", 5, "tea", "coffee", "cocoa")
            assert b"8 ballots counted" in done.stdout, done.stderr
            when = "before it boots" if Tee(tee) in PRE_BOOT else "when it runs"
            shown = (tee, when, str(done.returncode), f"{sha256(done.stdout).hexdigest()[:16]}…")
            assert shown in [line[:4] for line in cells], shown


def test_who_lacks_collateral_is_told_to_ask_the_vendor(image: Path, guest: Guest, tmp_path: Path) -> None:
    """A real host of SNP has no certificates at hand, unless its owner gave them to it."""
    with machine(tmp_path / "state", image, "snp", "--fault", "snp-missing-vcek") as made:
        root = root_of(tmp_path / "state", tmp_path / "root.pem")
        done = Tenant(tmp_path / "home", made.agent().first["url"], root).deploy(guest("echo"))
    assert done.returncode == 4
    assert b"snp.certificate: absent" in done.stderr
    assert b"hint: the host did not send it: --collateral vendor asks AMD or Intel" in done.stderr
