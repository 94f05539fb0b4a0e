"""The keep's half against a host that lies (attacks A49 and A50)."""

from __future__ import annotations

import pytest

from enarx.tcb.errors import ProtocolViolation
from enarx.tcb.sallyport.guest import Guest
from enarx.tcb.sallyport.items import Admit, Deliver, Item, Opened, Ready, Reason, Refused

DELIVERY = Deliver(header=None, size=0)


def test_requests_have_fresh_numbers_and_answers_find_them_in_any_order() -> None:
    guest = Guest(sockets=True)
    first, second = guest.listen("::", 80), guest.connect("host", 443)
    assert first.request != second.request
    assert guest.answered(Opened(request=second.request, port=443), 1)[0] is second
    assert guest.pending
    refusal = Refused(request=first.request, reason=Reason.LIMIT, detail="")
    assert guest.answered(refusal, 0) == (first, refusal)
    assert not guest.pending


def test_a_listener_on_a_port_of_the_hosts_choice() -> None:
    guest = Guest(sockets=True)
    guest.listen("::", 0)
    assert guest.answered(Opened(request=1, port=40000), 1)[1] == Opened(request=1, port=40000)


def test_an_answer_with_an_unknown_number_is_a_violation() -> None:
    guest = Guest(sockets=True)
    guest.listen("::", 80)
    with pytest.raises(ProtocolViolation, match="request 2, which is not open"):
        guest.answered(Opened(request=2, port=80), 1)


def test_a_second_answer_is_a_violation() -> None:
    guest = Guest(sockets=True)
    guest.listen("::", 80)
    guest.answered(Opened(request=1, port=80), 1)
    with pytest.raises(ProtocolViolation, match="not open"):
        guest.answered(Opened(request=1, port=80), 1)


@pytest.mark.parametrize("item", [Ready(version="1"), DELIVERY])
def test_an_answer_of_another_kind_is_a_violation(item: Item) -> None:
    guest = Guest(sockets=True)
    guest.listen("::", 80)
    with pytest.raises(ProtocolViolation, match="where an answer is expected"):
        guest.answered(item, 0)


@pytest.mark.parametrize("descriptors", [0, 2, 3])
def test_a_missing_or_surplus_socket_is_a_violation(descriptors: int) -> None:
    guest = Guest(sockets=True)
    guest.listen("::", 80)
    with pytest.raises(ProtocolViolation, match="descriptors"):
        guest.answered(Opened(request=1, port=80), descriptors)


def test_a_socket_beside_a_refusal_is_a_violation() -> None:
    guest = Guest(sockets=True)
    guest.listen("::", 80)
    with pytest.raises(ProtocolViolation, match="descriptors"):
        guest.answered(Refused(request=1, reason=Reason.LIMIT, detail=""), 1)


def test_another_port_than_the_one_asked_for_is_a_violation() -> None:
    guest = Guest(sockets=True)
    guest.listen("::", 443)
    with pytest.raises(ProtocolViolation, match="opened port 80, asked was 443"):
        guest.answered(Opened(request=1, port=80), 1)


def test_a_keep_without_sockets_takes_no_descriptor() -> None:
    guest = Guest(sockets=False)
    guest.connect("host", 80)
    guest.delivered(DELIVERY, 0)
    with pytest.raises(ProtocolViolation, match="descriptors"):
        guest.answered(Opened(request=1, port=80), 1)


def test_the_delivery_comes_once_and_with_three_streams() -> None:
    guest = Guest(sockets=True)
    with pytest.raises(ProtocolViolation, match="sent 2 descriptors"):
        guest.delivered(DELIVERY, 2)
    assert guest.delivered(DELIVERY, 3) is DELIVERY
    with pytest.raises(ProtocolViolation, match="the one delivery"):
        guest.delivered(DELIVERY, 3)


def test_something_else_before_the_delivery_is_a_violation() -> None:
    with pytest.raises(ProtocolViolation, match="sent Opened"):
        Guest(sockets=True).delivered(Opened(request=1, port=1), 3)


def test_an_admission_comes_once_with_the_door_and_instead_of_a_delivery() -> None:
    guest = Guest(sockets=True)
    guest.admitted(Admit(), 1)
    with pytest.raises(ProtocolViolation, match="Admit where the admission is expected"):
        guest.admitted(Admit(), 1)
    with pytest.raises(ProtocolViolation, match="Deliver where the one delivery is expected"):
        guest.delivered(DELIVERY, 3)


@pytest.mark.parametrize("descriptors", [0, 2])
def test_an_admission_without_its_door_is_a_violation(descriptors: int) -> None:
    with pytest.raises(ProtocolViolation, match="descriptors beside an admission"):
        Guest(sockets=True).admitted(Admit(), descriptors)


def test_an_attested_keep_takes_no_delivery_of_the_host() -> None:
    with pytest.raises(ProtocolViolation, match="Deliver where the admission is expected"):
        Guest(sockets=True).admitted(DELIVERY, 3)
