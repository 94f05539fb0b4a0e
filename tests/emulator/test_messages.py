"""What hosts and guests say is read strictly, whatever they send."""

from __future__ import annotations

import errno

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enarx.tcb.errors import Malformed, Unavailable
from enarx.tcb.wire import Value, decode, encode
from enarx_emulator.arguments import Arguments
from enarx_emulator.coco import SecretTree
from enarx_emulator.errors import EmulatorError, FirmwareError, Refused
from enarx_emulator.ibm.ultravisor import Status
from enarx_emulator.messages import (
    MAX_DATA_BYTES,
    MAX_PATH_BYTES,
    MAX_PORT_BYTES,
    answer_guest,
    pack_error,
    pack_operation,
    pack_request,
    pack_result,
    parse_answer,
    parse_reply,
    parse_request,
)

VALUES: st.SearchStrategy[Value] = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 63), (1 << 64) - 1) | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
)


@given(st.text(), st.dictionaries(st.text(), VALUES, max_size=4))
def test_a_request_arrives_as_it_was_sent(name: str, arguments: dict[str, Value]) -> None:
    assert parse_request(pack_request(name, arguments)) == (name, arguments)
    assert parse_reply(pack_result(arguments)) == arguments


@given(VALUES)
def test_any_message_is_read_or_refused(value: Value) -> None:
    for parse in (parse_request, parse_reply):
        try:
            parse(encode(value))
        except (Malformed, Refused):
            continue
        assert isinstance(value, dict)
    answer = decode(answer_guest(SecretTree({}), encode(value)), max_bytes=MAX_PORT_BYTES)
    assert isinstance(answer, list)
    assert answer[0] in errno.errorcode


def test_errors_arrive_with_the_firmware_s_status() -> None:
    with pytest.raises(Refused) as caught:
        parse_reply(pack_error(FirmwareError(Status.U_PERMISSION, "kernel is not it", hint="measure")))
    refused = caught.value
    assert (refused.status, refused.name, refused.hint) == (-11, "U_PERMISSION", "measure")
    assert str(refused) == "U_PERMISSION: kernel is not it"
    for error in (Malformed("a"), EmulatorError("a"), Unavailable("a")):
        with pytest.raises(Refused, match="a") as caught:
            parse_reply(pack_error(error))
        assert (caught.value.status, caught.value.name) == (0, "")


def test_a_mistake_of_the_emulator_tells_nothing_of_its_secrets() -> None:
    with pytest.raises(Refused) as caught:
        parse_reply(pack_error(ValueError("key is 1234")))
    assert str(caught.value) == "internal error: ValueError"


def test_answers_to_guests_are_data_or_error_numbers() -> None:
    tree = SecretTree({"guid": b"secret", "big": bytes(MAX_DATA_BYTES + 1)})
    assert parse_answer(answer_guest(tree, pack_operation("read", "coco/guid")), "") == b"secret"
    assert parse_answer(answer_guest(tree, pack_operation("list", "coco")), "") == b"big\nguid"
    wrong = [
        (pack_operation("read", "coco/none"), errno.ENOENT),
        (pack_operation("read", "coco/big"), errno.EFBIG),
        (pack_operation("write", "coco/guid", b"x"), errno.EACCES),
        (pack_operation("make", "coco/new"), errno.EPERM),
        (pack_operation("list", "coco", b"data"), errno.EINVAL),
        (pack_operation("read", "n" * (MAX_PATH_BYTES + 1)), errno.EINVAL),
        (pack_operation("write", "coco/guid", bytes(MAX_DATA_BYTES + 1)), errno.EINVAL),
        (pack_operation("report", ""), errno.EINVAL),
        (b"\xff", errno.EINVAL),
    ]
    for body, number in wrong:
        with pytest.raises(OSError, match=r".") as caught:
            parse_answer(answer_guest(tree, body), "")
        assert caught.value.errno == number
    assert parse_answer(answer_guest(tree, pack_operation("remove", "coco/guid")), "") == b""
    with pytest.raises(Malformed):
        parse_answer(encode([0]), "")


def test_arguments_are_taken_by_type_and_none_is_left() -> None:
    given = Arguments("launch", {"a": b"x", "b": 7, "c": True, "d": "t", "e": ["u"], "more": 1})
    assert "a" in given
    taken = given.data("a"), given.number("b"), given.flag("c"), given.text("d"), given.texts("e")
    assert taken == (b"x", 7, True, "t", ["u"])
    assert "a" not in given
    assert given.data("none", b"default") == b"default"
    with pytest.raises(Malformed, match="more is not an argument"):
        given.end()


@pytest.mark.parametrize(
    ("take", "value"),
    [
        ("data", "text"),
        ("number", -1),
        ("number", True),
        ("number", 1 << 64),
        ("flag", 1),
        ("text", b"bytes"),
        ("text", "t" * 5000),
        ("texts", "text"),
        ("texts", [1]),
    ],
)
def test_an_argument_of_another_type_is_refused(take: str, value: object) -> None:
    with pytest.raises(Malformed, match="launch: it"):
        getattr(Arguments("launch", {"it": value}), take)("it")
    with pytest.raises(Malformed, match="it is missing"):
        getattr(Arguments("launch", {}), take)("it")
