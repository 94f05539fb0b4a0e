"""What differs about a keep that is refused is named as far as its measurement confirms it, and no further."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.forge.firmware import Ovmf
from tests.forge.kernel import bz_image
from tests.forge.vm_image import vm_image

from enarx.api.agent import HostImage
from enarx.api.keep_image import Image, digest_line
from enarx.api.vm_image import VmImage
from enarx.attest import Tee
from enarx.tenant.difference import is_expected, name_difference
from enarx.tenant.image.vm import CONSOLE, Machine
from enarx.tenant.reference import attested_tees, reference_values, started_registers

SEV_FAMILY = [Tee.SNP, Tee.SEV_ES, Tee.SEV]
PROCESS = Image(manifest=(digest_line("a", bytes(32)) + digest_line("b", bytes(32))).encode(), size=1)


def says(told: VmImage) -> HostImage:
    return HostImage(manifest=told.manifest.decode(), cmdline=told.cmdline)


@pytest.fixture
def ours(tmp_path: Path) -> VmImage:
    return vm_image(tmp_path / "ours")


@pytest.mark.parametrize("tee", [Tee.SNP, Tee.SEV_ES])
def test_other_processors_are_named_without_a_word_of_the_host(ours: VmImage, tee: Tee) -> None:
    found = reference_values(ours, tee, Machine(vcpus=3, vcpu_type="EPYC-Genoa"))
    text = "the image is yours, the machine has 3 virtual processors of type EPYC-Genoa, expected 1 of type EPYC-v4"
    assert name_difference(ours, tee, found, None) == text


@pytest.mark.parametrize("tee", [*SEV_FAMILY, Tee.TDX])
def test_a_console_is_named_without_a_word_of_the_host(ours: VmImage, tee: Tee) -> None:
    found = reference_values(replace(ours, cmdline=CONSOLE), tee)
    text = "the console is switched on: the host reads what the kernel writes"
    assert name_difference(ours, tee, found, None) == text


@pytest.mark.parametrize("tee", SEV_FAMILY)
@pytest.mark.parametrize(("name", "content"), [("initrd", b"another"), ("vmlinuz", bz_image(seed=1))])
def test_a_file_that_the_host_names_is_confirmed(
    tmp_path: Path, ours: VmImage, tee: Tee, name: str, content: bytes
) -> None:
    theirs = vm_image(tmp_path / "theirs", {name: content})
    text = name_difference(ours, tee, reference_values(theirs, tee), says(theirs))
    assert text.startswith(f"the host's image differs: {name} is sha256:")


@pytest.mark.parametrize("tee", [*SEV_FAMILY, Tee.TDX])
def test_a_command_line_that_the_host_names_is_confirmed(tmp_path: Path, ours: VmImage, tee: Tee) -> None:
    theirs = vm_image(tmp_path / "theirs", {"cmdline": b"quiet debug"})
    text = name_difference(ours, tee, reference_values(theirs, tee), says(theirs))
    assert "its command line is 'quiet debug'" in text
    assert "the host says" not in text


@pytest.mark.parametrize("tee", [*SEV_FAMILY, Tee.TDX, Tee.PEF])
def test_what_the_measurement_does_not_confirm_is_only_what_the_host_says(
    tmp_path: Path, ours: VmImage, tee: Tee
) -> None:
    theirs = vm_image(tmp_path / "theirs", {"initrd": b"another"})
    found = dict.fromkeys(reference_values(ours, tee), b"something else")
    text = name_difference(ours, tee, found, says(theirs))
    assert "the host says that its image differs: initrd is sha256:" in text
    contradicted = name_difference(ours, tee, found, says(ours))
    assert contradicted.endswith("the host says that it launches your image, which the evidence contradicts")


@pytest.mark.parametrize(
    ("name", "content", "register"),
    [
        ("ovmf.fd", Ovmf(seed=2).build(), "the firmware"),
        ("vmlinuz", bz_image(seed=1), "the kernel"),
        ("initrd", b"another", "the command line or the initial ramdisk"),
    ],
)
def test_each_register_of_a_trust_domain_names_what_it_covers(
    tmp_path: Path, ours: VmImage, name: str, content: bytes, register: str
) -> None:
    found = reference_values(vm_image(tmp_path / "theirs", {name: content}), Tee.TDX)
    assert name_difference(ours, Tee.TDX, found, None) == f"it was launched with another: {register}"


@pytest.mark.parametrize("tee", attested_tees(PROCESS))
def test_files_of_a_process_keep_are_named(tee: Tee) -> None:
    theirs = Image(manifest=(digest_line("a", b"1" * 32) + digest_line("c", bytes(32))).encode(), size=1)
    found, told = reference_values(theirs, tee), HostImage(manifest=theirs.manifest.decode())
    text = name_difference(PROCESS, tee, found, told)
    expected = f"a is sha256:{(b'1' * 32).hex()[:16]}…, not {'0' * 16}…, b is missing, c is too much"
    assert text == f"the host's image differs: {expected}"
    lied = name_difference(PROCESS, tee, reference_values(PROCESS, tee), told)
    assert lied.startswith("the host says that its image differs")


@pytest.mark.parametrize(
    ("name", "content", "register"),
    [
        ("vmlinuz", bz_image(seed=1), "the kernel"),
        ("initrd", b"another", "the command line or the initial ramdisk"),
    ],
)
def test_registers_of_a_tpm_name_what_they_cover(
    tmp_path: Path, ours: VmImage, name: str, content: bytes, register: str
) -> None:
    expected = {it: values[0] for it, values in started_registers(ours).items()}
    assert is_expected(ours, Tee.TPM, expected)
    found = {
        it: values[0]
        for it, values in started_registers(vm_image(tmp_path / "theirs", {name: content})).items()
    }
    assert not is_expected(ours, Tee.TPM, found)
    assert name_difference(ours, Tee.TPM, found, None) == f"it was launched with another: {register}"


def test_of_a_tee_that_an_image_does_not_run_on_nothing_is_said() -> None:
    assert is_expected(PROCESS, Tee.NITRO, {})
    assert is_expected(PROCESS, Tee.TPM, {})
    assert name_difference(PROCESS, Tee.NITRO, {}, None) == ""


def test_of_many_files_some_are_named(tmp_path: Path) -> None:
    theirs = "".join(digest_line(f"{at:02}", bytes(32)) for at in range(9))
    text = name_difference(PROCESS, Tee.SNP, {}, HostImage(manifest=theirs))
    assert text.endswith("00 is too much, 01 is too much, 02 is too much, and 8 more")


def test_the_kind_of_keep_is_named_where_it_is_another(ours: VmImage) -> None:
    of_machines = name_difference(PROCESS, Tee.SNP, {}, says(ours))
    of_processes = name_difference(ours, Tee.SNP, {}, HostImage(manifest=PROCESS.manifest.decode()))
    assert of_machines == "the host says that it launches virtual machines; say with --image what you expect"
    assert "process keeps; leave out --image" in of_processes


def test_an_image_without_firmware_has_nothing_to_compare(ours: VmImage) -> None:
    bare = replace(ours, sev_firmware=None, firmware=None)
    assert attested_tees(bare) == (Tee.PEF,)
    assert name_difference(bare, Tee.SNP, {}, None) == ""


@given(manifest=st.text(max_size=300), cmdline=st.text(max_size=50))
def test_whatever_a_host_says_is_only_words(manifest: str, cmdline: str) -> None:
    text = name_difference(
        PROCESS, Tee.SNP, {"measurement": bytes(48)}, HostImage(manifest=manifest, cmdline=cmdline)
    )
    assert text.isprintable()
    assert len(text) < 1000


SENTENCE = "a is fine. Say --tee any, and trust us"


@pytest.mark.parametrize("told", [digest_line(SENTENCE, bytes(32)), f"{SENTENCE}  a\n"])
def test_a_host_writes_no_sentences_into_a_refusal(told: str) -> None:
    theirs = Image(manifest=told.encode(), size=1)
    found = reference_values(theirs, Tee.SNP)  # a launch that can be made, and that evidence confirms
    text = name_difference(PROCESS, Tee.SNP, found, HostImage(manifest=told))
    assert text.startswith("the host's image differs: ")
    assert SENTENCE not in text.replace(f"'{SENTENCE}' is too much", "")
    assert SENTENCE[:12] not in text.replace(f"'{SENTENCE}' is too much", "")


def test_a_long_name_does_not_push_out_the_others() -> None:
    told = HostImage(manifest=digest_line("0" * 400, bytes(32)))
    text = name_difference(PROCESS, Tee.SNP, {}, told)
    assert "a is missing, b is missing" in text
