"""The faces of a TEE refuse and answer as Linux and Gramine do."""

from __future__ import annotations

import errno
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enarx_emulator.coco import SecretTree
from enarx_emulator.errors import FirmwareError
from enarx_emulator.gramine import AttestationTree, Enclave
from enarx_emulator.ibm.ultravisor import Status
from enarx_emulator.tree import Faces, Tree
from enarx_emulator.tsm import (
    GENERATIONS,
    MAX_ENTRIES,
    MeasurementTree,
    Provider,
    Register,
    Report,
    ReportTree,
)

DATA = bytes(range(64))


def report(inblob: bytes, privlevel: int) -> Report:
    return Report(outblob=inblob + bytes([privlevel]), auxblob=b"certificates")


SEV = Provider(name="sev_guest", new_report=report, privlevel_floor=1, auxblob=True)
TDX = Provider(name="tdx_guest", new_report=report)


def refused(call: Callable[[], object]) -> str:
    with pytest.raises(OSError, match=r".") as caught:
        call()
    assert caught.value.errno is not None
    return errno.errorcode[caught.value.errno]


def tsm(provider: Provider = SEV, *faults: str) -> ReportTree:
    tree = ReportTree(provider, faults=frozenset(faults))
    tree.make("report/a")
    return tree


def test_a_report_is_made_from_what_was_written() -> None:
    tree = tsm()
    tree.write("report/a/inblob", DATA)
    tree.write("report/a/privlevel", b"2\n")
    assert tree.read("report/a/outblob") == DATA + b"\2"
    assert tree.read("report/a/auxblob") == b"certificates"
    assert tree.read("report/a/provider") == b"sev_guest\n"
    assert tree.read("report/a/privlevel_floor") == b"1\n"
    assert tree.list("report") == ["a"]
    tree.remove("report/a")
    assert tree.list("report") == []


def test_the_generation_counts_writes_and_reports_are_made_once_for_each() -> None:
    calls: list[bytes] = []

    def counted(inblob: bytes, privlevel: int) -> Report:
        calls.append(inblob)
        return report(inblob, privlevel)

    tree = tsm(Provider(name="tdx_guest", new_report=counted))
    assert tree.read("report/a/generation") == b"0\n"
    tree.write("report/a/inblob", bytes(64))
    tree.write("report/a/inblob", DATA)
    assert tree.read("report/a/generation") == b"2\n"
    assert tree.read("report/a/outblob") == tree.read("report/a/outblob") == DATA + b"\0"
    assert calls == [DATA]
    tree.write("report/a/inblob", DATA)
    tree.read("report/a/outblob")
    assert calls == [DATA, DATA]


def test_so_many_unread_writes_that_the_counter_came_round_are_refused() -> None:
    tree = tsm(TDX)
    tree._entries["a"].write_generation = GENERATIONS - 1
    assert refused(lambda: tree.write("report/a/inblob", DATA)) == "EBUSY"


def test_tdx_has_no_levels_and_no_certificates() -> None:
    tree = tsm(TDX)
    assert tree.list("report/a") == ["generation", "inblob", "outblob", "provider"]
    assert refused(lambda: tree.write("report/a/privlevel", b"0")) == "ENOENT"


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda tree: tree.make("report/a"), "EEXIST"),
        (lambda tree: tree.make("report"), "EEXIST"),
        (lambda tree: tree.make("other"), "EPERM"),
        (lambda tree: tree.make(""), "EPERM"),
        (lambda tree: tree.make("report/a/b"), "EPERM"),
        (lambda tree: tree.make("report/b/c"), "ENOENT"),
        (lambda tree: tree.make("report/.."), "ENOENT"),
        (lambda tree: tree.make("report/" + 256 * "n"), "ENAMETOOLONG"),
        (lambda tree: tree.remove("report"), "EPERM"),
        (lambda tree: tree.remove("report/b"), "ENOENT"),
        (lambda tree: tree.remove("report/a/inblob"), "EPERM"),
        (lambda tree: tree.list("report/b"), "ENOENT"),
        (lambda tree: tree.list("report/a/inblob"), "ENOTDIR"),
        (lambda tree: tree.read("report/a"), "EISDIR"),
        (lambda tree: tree.read("report/a/inblob"), "EACCES"),
        (lambda tree: tree.read("report/a/privlevel"), "EACCES"),
        (lambda tree: tree.read("report/a/service_provider"), "ENOENT"),
        (lambda tree: tree.read("report/a/outblob"), "EINVAL"),
        (lambda tree: tree.write("report/a/outblob", b""), "EACCES"),
        (lambda tree: tree.write("report/a/generation", b"1"), "EACCES"),
        (lambda tree: tree.write("report/a/inblob", bytes(65)), "EFBIG"),
        (lambda tree: tree.write("report/a/privlevel", b"0"), "EINVAL"),
        (lambda tree: tree.write("report/a/privlevel", b"4"), "EINVAL"),
        (lambda tree: tree.write("report/a/privlevel", b"-1"), "EINVAL"),
        (lambda tree: tree.write("report/a/privlevel", b"4294967296"), "ERANGE"),
    ],
)
def test_tsm_refuses_as_linux_does(call: Callable[[ReportTree], object], error: str) -> None:
    tree = tsm()
    assert refused(lambda: call(tree)) == error


@pytest.mark.parametrize("size", [0, 1, 63])
def test_an_inblob_of_another_size_makes_no_report(size: int) -> None:
    tree = tsm()
    tree.write("report/a/inblob", bytes(size))
    assert refused(lambda: tree.read("report/a/outblob")) == "EINVAL"


def test_a_guest_cannot_fill_the_memory_of_the_platform() -> None:
    tree = tsm()
    for number in range(MAX_ENTRIES - 1):
        tree.make(f"report/{number}")
    assert refused(lambda: tree.make("report/last")) == "ENOMEM"


def test_an_error_of_the_firmware_is_an_error_of_the_device() -> None:
    def fails(inblob: bytes, privlevel: int) -> Report:
        raise FirmwareError(Status.U_BUSY, "later")

    tree = tsm(Provider(name="sev_guest", new_report=fails))
    tree.write("report/a/inblob", DATA)
    assert refused(lambda: tree.read("report/a/outblob")) == "EIO"


@pytest.mark.parametrize(
    ("fault", "error"), [("tsm-absent", "ENXIO"), ("tsm-busy", "EBUSY"), ("tsm-io-error", "EIO")]
)
def test_faults_of_the_interface(fault: str, error: str) -> None:
    def use() -> None:
        tree = tsm(SEV, fault)
        tree.write("report/a/inblob", DATA)
        tree.read("report/a/outblob")

    assert refused(use) == error


def test_faults_that_only_a_careful_reader_sees() -> None:
    tree = tsm(SEV, "tsm-generation")
    tree.write("report/a/inblob", DATA)
    before = tree.read("report/a/generation")
    tree.read("report/a/outblob")
    assert tree.read("report/a/generation") != before
    assert tsm(SEV, "tsm-provider").read("report/a/provider") == b"other_guest\n"
    for fault, found in (("tsm-truncated", DATA), ("tsm-empty", b"")):
        tree = tsm(TDX, fault)
        tree.write("report/a/inblob", DATA)
        assert tree.read("report/a/outblob") == found
    tree = tsm(TDX, "tsm-replay")
    for data in (DATA, bytes(64)):
        tree.write("report/a/inblob", data)
        assert tree.read("report/a/outblob") == DATA + b"\0"


def test_secrets_are_read_and_wiped() -> None:
    tree = SecretTree({"guid": b"secret"})
    assert tree.list("") == ["coco"]
    assert tree.list("coco") == ["guid"]
    assert tree.read("coco/guid") == b"secret"
    assert refused(lambda: tree.write("coco/guid", b"")) == "EACCES"
    assert refused(lambda: tree.make("coco/new")) == "EPERM"
    tree.remove("coco/guid")
    assert refused(lambda: tree.read("coco/guid")) == "ENOENT"
    assert tree.list("coco") == []


def attestation() -> AttestationTree:
    enclave = Enclave(
        my_target_info=bytes(512),
        report=lambda target, data: b"report" + target + data,
        quote=lambda data: b"quote" + data,
        keys={"_sgx_mrenclave": bytes(16)},
    )
    return AttestationTree(enclave)


def test_gramine_makes_reports_and_quotes_over_what_was_written() -> None:
    tree = attestation()
    assert tree.read("attestation/quote") == b"quote" + bytes(64)
    tree.write("attestation/user_report_data", DATA[:32])
    tree.write("attestation/target_info", b"t")
    assert tree.read("attestation/quote") == b"quote" + DATA[:32] + bytes(32)
    assert tree.read("attestation/report") == b"report" + b"t".ljust(512, b"\0") + DATA[:32] + bytes(32)
    assert tree.read("attestation/attestation_type") == b"dcap"
    tree.write("attestation/keys/default", bytes(range(16)))
    assert tree.read("attestation/keys/default") == bytes(range(16))
    assert tree.list("attestation/keys") == ["_sgx_mrenclave", "default"]


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda tree: tree.write("attestation/quote", b""), "EACCES"),
        (lambda tree: tree.write("attestation/keys/default", b"short"), "EACCES"),
        (lambda tree: tree.write("attestation/keys/_sgx_mrenclave", bytes(16)), "EACCES"),
        (lambda tree: tree.write("attestation/none", b""), "ENOENT"),
        (lambda tree: tree.read("attestation"), "EISDIR"),
        (lambda tree: tree.read("attestation/keys/none"), "ENOENT"),
        (lambda tree: tree.make("attestation/dir"), "EACCES"),
        (lambda tree: tree.remove("attestation/quote"), "EACCES"),
        (lambda tree: tree.list("attestation/quote"), "ENOENT"),
    ],
)
def test_gramine_refuses(call: Callable[[AttestationTree], object], error: str) -> None:
    tree = attestation()
    assert refused(lambda: call(tree)) == error


def test_registers_are_extended_by_writing() -> None:
    value = bytearray(48)

    def extend(digest: bytes) -> None:
        value[:] = digest

    rtmr = Register(read=lambda: bytes(value), extend=extend)
    fixed = Register(read=lambda: bytes(48), extend=None)
    tree = MeasurementTree({"rtmr2:sha384": rtmr, "mrtd:sha384": fixed})
    tree.write("measurements/rtmr2:sha384", bytes(range(48)))
    assert tree.read("measurements/rtmr2:sha384") == bytes(range(48))
    assert refused(lambda: tree.write("measurements/rtmr2:sha384", b"short")) == "EINVAL"
    assert refused(lambda: tree.write("measurements/mrtd:sha384", bytes(48))) == "EACCES"
    assert tree.list("measurements") == ["mrtd:sha384", "rtmr2:sha384"]


def test_faces_stand_side_by_side() -> None:
    faces = Faces({"report": tsm(), "coco": SecretTree({"guid": b"s"})})
    assert faces.list("") == ["coco", "report"]
    assert faces.read("coco/guid") == b"s"
    assert faces.read("report/a/generation") == b"0\n"
    assert refused(lambda: faces.read("other/x")) == "ENOENT"


PATHS = st.text(alphabet="report/a\0.inblob1", max_size=30) | st.sampled_from(
    ["report/a/inblob", "report/a/privlevel", "coco/guid", "attestation/quote", "attestation/keys/default"]
)


@given(st.lists(st.tuples(st.sampled_from(["make", "remove", "write", "read", "list"]), PATHS, st.binary())))
def test_whatever_a_guest_does_it_gets_an_answer_or_an_error_number(
    calls: list[tuple[str, str, bytes]],
) -> None:
    faces: Tree = Faces({"report": tsm(), "coco": SecretTree({"guid": b"s"}), "attestation": attestation()})
    numbers: list[int | None] = []
    for operation, path, data in calls:
        try:
            faces.write(path, data) if operation == "write" else getattr(faces, operation)(path)
        except OSError as error:
            numbers.append(error.errno)
    assert all(number in errno.errorcode for number in numbers)
