"""``enarx deploy`` to machines that launch VM keeps: the results of process keeps, and what differs is named."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from tests.integration.agent_process import BIN, TIMEOUT_S, Process, machine
from tests.integration.deploy_tenant import ROOT, Tenant, readme_cells, root_of
from tests.integration.vm_keep import keep_image

from enarx.api.keep_image import MANIFEST, manifest_line
from enarx.api.vm_image import (
    CMDLINE,
    INITRD,
    KERNEL,
    SEV_FIRMWARE,
    SNP_ID_AUTH,
    SNP_ID_BLOCK,
    VmImage,
    read_vm_image,
)
from enarx.attest import Tee
from enarx.tenant.deployment import PRE_BOOT
from enarx.tenant.image.vm import CONSOLE

ARGUMENTS = ("--secret", f"ballots={ROOT / 'examples/sealed-vote/ballots.txt'}")
OPTIONS = ("--", 5, "tea", "coffee", "cocoa")
REJECTED = 119
Deployed = tuple[int, bytes, str]


@pytest.fixture(scope="module")
def image() -> VmImage:
    return keep_image()


@dataclass(frozen=True)
class Somebody:
    """Who expects ``image``, and meets hosts that launch what they want."""

    folder: Path
    image: VmImage
    module: Path

    def deploy(self, tee: str, launched: Path, *options: str, expected: bool = True) -> Deployed:
        """Deploy on a machine of this kind, which was started with ``options`` and launches ``launched``."""
        state = self.folder / "machine"
        with machine(state, launched, tee, *options) as made:
            root = root_of(state, self.folder / "root.pem")
            agent = made.agent()
            agent.heard("keeps are virtual machines; (KVM|TCG)")
            assert agent.first["accelerator"].startswith(("KVM", "TCG"))
            tenant = Tenant(self.folder / "home", agent.first["url"], root)
            wanted = ("--image", self.image.directory) if expected else ()
            done = tenant.deploy(self.module, *wanted, "--tee", tee, *ARGUMENTS, *OPTIONS)
        return done.returncode, done.stdout, done.stderr.decode()


@pytest.fixture
def somebody(tmp_path: Path, image: VmImage, example: Callable[[str], Path]) -> Somebody:
    return Somebody(tmp_path, image, example("sealed-vote"))


def changed(image: VmImage, place: Path, **files: bytes) -> Path:
    """The image of a host that has changed some files, and its manifest accordingly."""
    shutil.copytree(image.directory, place)
    for name, content in files.items():
        (place / name.replace("_", "-")).write_bytes(content)
    beside = (MANIFEST, SNP_ID_BLOCK, SNP_ID_AUTH)
    names = sorted(path.name for path in place.iterdir() if path.name not in beside)
    lines = [manifest_line(name, (place / name).read_bytes()) for name in names]
    (place / MANIFEST).write_text("".join(lines))
    assert read_vm_image(place).manifest != image.manifest
    return place


@pytest.mark.slow
@pytest.mark.parametrize("tee", ["snp", "tdx", "sev", "sev-es", "pef"])
def test_the_same_workload_runs_in_virtual_machines_as_the_readme_shows(somebody: Somebody, tee: str) -> None:
    code, stdout, stderr = somebody.deploy(tee, somebody.image.directory)
    assert b"8 ballots counted" in stdout, stderr
    when = "before it boots" if Tee(tee) in PRE_BOOT else "when it runs"
    shown = f"{sha256(stdout).hexdigest()[:16]}…"
    assert (tee, when, str(code), shown, shown) in readme_cells()
    assert "asked for a virtual machine" in stderr
    accepted = re.findall(r"tenant: accepted the (empty|locked) keep", stderr)
    assert accepted == ["empty", "locked"]


def one_byte(content: bytes) -> bytes:
    return content[:-1] + bytes([content[-1] ^ 1])


@pytest.mark.slow
def test_a_machine_that_only_a_tpm_has_measured_is_accepted_by_who_asks_for_one(somebody: Somebody) -> None:
    seeds, key = somebody.folder / "seeds", somebody.folder / "seeds" / "attestation-key.pem"
    options = ("--image", str(somebody.image.directory), "--listen", "127.0.0.1:0", "--json")
    agent = Process("enarx", "host", "serve", "--backend", f"vm-tpm={seeds}", *options)
    try:
        tenant = Tenant(somebody.folder / "home", agent.first["url"], key)
        expecting = ("--image", somebody.image.directory, *ARGUMENTS)
        unasked = tenant.deploy(somebody.module, *expecting, *OPTIONS)
        assert (unasked.returncode, unasked.stdout) == (4, b"")
        assert b"the host offers tpm, which the policy does not accept" in unasked.stderr
        assert b"--tee tpm" in unasked.stderr
        of_process = tenant.deploy(somebody.module, "--tee", "tpm", *OPTIONS)
        assert (of_process.returncode, of_process.stdout) == (4, b"")
        assert b"a TPM says nothing of process keeps" in of_process.stderr
        done = tenant.deploy(somebody.module, *expecting, "--tee", "tpm", *OPTIONS)
    finally:
        assert agent.end() == 0
    shown = f"{sha256(done.stdout).hexdigest()[:16]}…"
    assert ("tpm", "when it runs", str(done.returncode), "—", shown) in readme_cells(), done.stderr
    assert done.stderr.count(b"its memory is OPEN to whoever runs the machine") == 2


@pytest.mark.slow
def test_an_image_is_accepted_by_who_signed_it_and_a_block_of_another_launches_nothing(
    somebody: Somebody, tmp_path: Path
) -> None:
    """Whoever signs an image for SNP is named in its evidence; the measurement need not be known."""
    id_key, signed = tmp_path / "id.pem", tmp_path / "signed"
    key = ec.generate_private_key(ec.SECP384R1())
    id_key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    shutil.copytree(somebody.image.directory, signed)
    sign = [
        str(BIN / "enarx"),
        "image",
        "sign",
        str(signed),
        "--id-key",
        str(id_key),
        "--guest-svn",
        "3",
        "--json",
    ]
    told = json.loads(subprocess.run(sign, check=True, capture_output=True, timeout=TIMEOUT_S).stdout)
    policy = tmp_path / "policy.toml"
    text = 'version = 1\n[snp]\nmeasurement = "any"\nvendor_root = "any"\nguest_svn = {}\nid_key_digest = ["{}"]\n'
    with machine(tmp_path / "machine", signed, "snp") as made:
        root = root_of(made.state, tmp_path / "root.pem")
        tenant = Tenant(tmp_path / "home", made.agent().first["url"], root)
        policy.write_text(text.format(4, told["id_key_digest"]))
        older = tenant.deploy(somebody.module, "--policy", policy, *ARGUMENTS, *OPTIONS)
        assert (older.returncode, older.stdout) == (REJECTED, b"")
        assert b"policy.snp.guest_svn" in older.stderr
        policy.write_text(text.format(3, told["id_key_digest"]))
        done = tenant.deploy(somebody.module, "--policy", policy, *ARGUMENTS, *OPTIONS)
        assert done.returncode == 0, done.stderr
        assert b"8 ballots counted" in done.stdout
        other = changed(read_vm_image(signed), tmp_path / "changed", cmdline=b"quiet")
        made.image = other
        foreign = Tenant(tmp_path / "home", made.agent().first["url"], root)
        refused = foreign.deploy(somebody.module, "--policy", policy, *ARGUMENTS, *OPTIONS)
        assert refused.returncode != 0
        assert b"BAD_MEASUREMENT" in refused.stderr


@pytest.mark.parametrize(
    ("name", "spoil", "told"),
    [
        (KERNEL, one_byte, "vmlinuz is sha256:"),
        (INITRD, one_byte, "initrd is sha256:"),
        (CMDLINE, lambda line: line + b" debug", r"its command line is '.* debug'"),
        (
            CMDLINE,
            lambda line: CONSOLE.encode(),
            "the console is switched on|its command line is 'console=ttyS0",
        ),
        (
            SEV_FIRMWARE,
            lambda firmware: firmware[:64] + one_byte(firmware[64:128]) + firmware[128:],
            "ovmf-sev.fd is",
        ),
    ],
    ids=["kernel", "initrd", "command line", "console", "firmware"],
)
def test_a_changed_image_is_refused_before_it_boots_and_what_differs_is_named(
    somebody: Somebody, name: str, spoil: Callable[[bytes], bytes], told: str
) -> None:
    """SEV-ES is measured before anything runs: nothing has booted when it is refused."""
    content = spoil((somebody.image.directory / name).read_bytes())
    place = changed(somebody.image, somebody.folder / "changed", **{name: content})
    code, stdout, stderr = somebody.deploy("sev-es", place)
    assert (code, stdout) == (REJECTED, b""), stderr
    assert "sev.measure" in stderr
    assert re.search(told, stderr), stderr


def test_another_number_of_processors_is_refused_and_named(somebody: Somebody) -> None:
    code, stdout, stderr = somebody.deploy("sev-es", somebody.image.directory, "--vcpus", "2")
    assert (code, stdout) == (REJECTED, b""), stderr
    assert "the machine has 2 virtual processors of type EPYC-v4, expected 1" in stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("tee", "options", "console", "told"),
    [
        ("snp", ("--vcpus", "2"), False, "the machine has 2 virtual processors of type EPYC-v4, expected 1"),
        ("tdx", (), True, "the console is switched on"),
    ],
    ids=["snp", "tdx"],
)
def test_what_attests_when_it_runs_is_refused_and_named(
    somebody: Somebody, tee: str, options: tuple[str, ...], console: bool, told: str
) -> None:
    launched = somebody.image.directory
    if console:
        launched = changed(somebody.image, somebody.folder / "changed", cmdline=CONSOLE.encode())
    code, stdout, stderr = somebody.deploy(tee, launched, *options)
    assert (code, stdout) == (REJECTED, b""), stderr
    assert f"policy.{tee}." in stderr
    assert told in stderr, stderr


def test_who_expects_a_process_keep_is_told_of_the_virtual_machine(somebody: Somebody) -> None:
    code, stdout, stderr = somebody.deploy("sev", somebody.image.directory, expected=False)
    assert (code, stdout) == (REJECTED, b""), stderr
    assert "the host says that it launches virtual machines; say with --image what you expect" in stderr


def test_pef_starts_nothing_but_the_image_that_its_secret_was_sealed_for(somebody: Somebody) -> None:
    other = somebody.image.directory
    place = changed(somebody.image, somebody.folder / "changed", cmdline=b"quiet")
    expecting = replace(somebody, image=read_vm_image(place))
    code, stdout, stderr = expecting.deploy("pef", other)
    assert stdout == b""
    assert code != 0
    assert "Traceback" not in stderr
    assert "U_" in stderr or "refuse" in stderr, stderr
