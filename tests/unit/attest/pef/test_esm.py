"""ESM blobs: those of IBM's tool are opened, ours are read back, everything else is refused."""

from __future__ import annotations

import os
from hashlib import sha256

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from hypothesis import given
from hypothesis import strategies as st
from tests.evidence import Evidence
from tests.forge.pki import ec_key, rsa_key

from enarx.attest.errors import MalformedEvidence
from enarx.attest.pef import OAEP, Digests, build_esm_blob, parse_digests, parse_esm_blob
from enarx.attest.pef._fdt import Node, build_fdt, parse_fdt

DIGESTS = Digests.of(kernel=b"kernel", initrd=b"initrd", bootargs="quiet")


def pem(key: rsa.RSAPrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def blob(**files: bytes) -> bytes:
    return build_esm_blob(DIGESTS, machines={"m": pem(rsa_key("machine"))}, files=files, random=os.urandom)


@pytest.mark.evidence
def test_the_blob_of_ibms_tool_is_read_and_opened(evidence: Evidence) -> None:
    sample = evidence.sample("pef/svm-tool-1")
    parsed = parse_esm_blob(sample.read("esm_blob"))
    key = load_pem_private_key(sample.read("machine_private_TEST_ONLY"), None)
    assert isinstance(key, rsa.RSAPrivateKey)
    assert {box.name for box in parsed.lockboxes} == set(sample.expected["lockboxes"].values())
    fingerprint = sha256(sample.read("machine_public")).digest()
    box = next(box for box in parsed.lockboxes if box.fingerprint == fingerprint)
    symmetric = key.decrypt(box.encrypted_key, OAEP)
    assert symmetric.hex() == sample.expected["symmetric_key"]
    digests = parse_digests(parsed.digests.open(symmetric))
    bootargs = sample.expected["bootargs"]
    kernel, initrd = sample.read("kernel"), sample.read("initrd")
    assert digests == Digests.of(kernel=kernel, initrd=initrd, bootargs=bootargs)
    assert digests.rtas.hex() == sample.expected["digests"]["rtas"]
    opened = {name: sha256(part.open(symmetric)).hexdigest() for name, part in parsed.files.items()}
    assert opened == sample.expected["files_sha256"]


def test_a_blob_of_ours_is_read_back() -> None:
    parsed = parse_esm_blob(blob(one=b"first", two=b""))
    (box,) = parsed.lockboxes
    key = rsa_key("machine").decrypt(box.encrypted_key, OAEP)
    assert (box.name, box.comment) == ("lockbox-1", "m")
    assert parse_digests(parsed.digests.open(key)) == DIGESTS
    assert {name: part.open(key) for name, part in parsed.files.items()} == {"one": b"first", "two": b""}


def test_every_part_of_a_machine_changes_its_measurement() -> None:
    others = [
        Digests.of(kernel=b"kernel2", initrd=b"initrd", bootargs="quiet"),
        Digests.of(kernel=b"kernel", initrd=b"initrd2", bootargs="quiet"),
        Digests.of(kernel=b"kernel", initrd=b"initrd", bootargs="quiet "),
        Digests.of(kernel=b"kernel", initrd=b"initrd", bootargs="quiet", rtas=b""),
    ]
    assert len({DIGESTS.measurement, *(other.measurement for other in others)}) == 5


def test_a_key_that_is_not_rsa_is_refused() -> None:
    other = ec_key("machine").public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    for wrong, message in ((other, "not RSA"), (b"nothing", "not a public key")):
        with pytest.raises(MalformedEvidence, match=message):
            build_esm_blob(DIGESTS, machines={"m": wrong}, files={}, random=os.urandom)


def test_a_flipped_bit_in_what_is_sealed_is_found() -> None:
    data = blob(one=b"first")
    box, sealed = parse_esm_blob(data).lockboxes[0], parse_esm_blob(data).files["one"]
    key = rsa_key("machine").decrypt(box.encrypted_key, OAEP)
    for part in (sealed.iv, sealed.mac, sealed.ciphertext):
        changed = parse_esm_blob(data.replace(part, bytes([part[0] ^ 1]) + part[1:])).files["one"]
        with pytest.raises(MalformedEvidence, match="not what was sealed"):
            changed.open(key)


def tree(**properties: bytes) -> bytes:
    return build_fdt(Node(properties=properties))


def put(data: bytes, at: int, number: int) -> bytes:
    return data[:at] + number.to_bytes(4, "big") + data[at + 4 :]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "wants 4 bytes"),
        (put(tree(), 0, 1), "magic 0x1"),
        (put(tree(), 20, 16), "version 16"),
        (tree() + b"\0", "claims"),
        (put(tree(), 8, 4), "outside"),
        (put(tree(), 12, 1 << 20), "outside"),
        (put(tree(), 40, 1), "reserves memory"),
        (put(tree(), 56, 2), "does not begin"),
        (put(tree(), 64, 4), "token 4"),
        (put(tree(), 68, 2), "something follows"),
        (put(tree(a=b"1"), 72, 99), "outside of the strings"),
        (put(tree(a=b"1"), 68, 1 << 16), "wants 65536"),
        (tree(**{"a b": b""}), "is no name"),
    ],
)
def test_a_broken_tree_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(MalformedEvidence, match=message):
        parse_fdt(data)


def test_a_name_that_is_there_twice_is_refused() -> None:
    data = build_fdt(Node(properties={"aa": b"", "bb": b""}))
    with pytest.raises(MalformedEvidence, match="twice"):
        parse_fdt(data.replace(b"bb\0", b"aa\0"))


def test_a_deep_tree_is_refused() -> None:
    node = Node()
    for _ in range(8):
        node = Node(children={"n": node})
    with pytest.raises(MalformedEvidence, match="deeper"):
        parse_fdt(build_fdt(node))


@given(st.binary(max_size=200))
def test_the_parser_is_total(data: bytes) -> None:
    for start in (b"", tree(a=b"1")[:60]):
        try:
            parse_esm_blob(start + data)
        except MalformedEvidence:
            continue
        raise AssertionError("random bytes made a blob")


@given(st.dictionaries(st.from_regex(r"[a-z-]{1,20}", fullmatch=True), st.binary(max_size=30), max_size=5))
def test_what_is_written_is_read(properties: dict[str, bytes]) -> None:
    node = Node(properties=properties, children={"child": Node(properties=properties)})
    assert parse_fdt(build_fdt(node)) == node
