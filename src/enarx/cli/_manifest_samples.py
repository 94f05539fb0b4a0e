"""Samples of an evidence folder that are no single file of evidence: parts, chains, logs, measurements, sets.

Each kind has a function that gives what differs from the manifest, by name, and raises what the sample is refused with.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from enarx.attest import (
    AnyBinding,
    AuthenticityOnly,
    Cache,
    Collateral,
    Document,
    EvidenceRejected,
    Kind,
    TrustAnchors,
    Vendor,
    Verifier,
)
from enarx.attest.azure import parse_hcl_report
from enarx.attest.chain import verify_chain
from enarx.attest.checks import Ledger
from enarx.attest.material import recognise_collateral
from enarx.attest.measure import (
    Algorithm,
    SevFirmware,
    Unmeasurable,
    Vmm,
    check_event_data,
    enclave_size,
    flat_pages,
    hash_kernel,
    mrenclave,
    parse_id_block,
    parse_sev_firmware,
    parse_tpm_event_log,
    replay,
    sev_es_launch_digest,
    sev_launch_digest,
    snp_launch_digest,
    verify_id_auth,
    verify_sigstruct,
)
from enarx.attest.pef import OAEP, Digests, parse_digests, parse_esm_blob
from enarx.attest.registry import BUILTIN
from enarx.attest.sev import (
    PlatformChain,
    SessionKeys,
    VerifiedLaunch,
    build_secret_table,
    pack_secret,
    parse_amd_certificate,
    parse_certificate,
    parse_launch_measure,
)
from enarx.attest.sev import verify_chain as verify_platform
from enarx.attest.snp import VERIFIER as SNP
from enarx.attest.snp import parse_report
from enarx.attest.snp._certs import read_endorsement
from enarx.attest.tdx._log import parse_td_log
from enarx.attest.tee import Context
from enarx.attest.tpm import VERIFIER as TPM
from enarx.attest.tpm import pack_evidence, parse_evidence, read_tpm2_pcrs
from enarx.attest.x509 import parse_certificate as parse_x509
from enarx.cli._files import read
from enarx.cli._manifest_fields import different, snp_report_fields
from enarx.cli._manifest_fields_quotes import tpm_document
from enarx.tcb.errors import EnarxError, Malformed


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One entry of a manifest, and the folder that it is about."""

    folder: Path
    entry: Mapping[str, Any]

    @property
    def expected(self) -> Mapping[str, Any]:
        """What the manifest says about it."""
        found: Mapping[str, Any] = self.entry["expected"]
        return found

    def time(self) -> datetime:
        """When it is judged."""
        return datetime.fromisoformat(self.entry["verification_time"])

    def path(self, role: str) -> Path:
        """Where the file in this role lies."""
        return self.folder / str(self.entry["files"][role])

    def read(self, role: str) -> bytes:
        """The file in this role."""
        return read(self.path(role))

    def at(self, path: str) -> bytes:
        """A file that the entry names elsewhere."""
        return read(self.folder / path)


def tpm_quotes(sample: Sample) -> list[str]:
    """Every quote with the key that was enrolled, and with its certificate where there is one."""
    logs = (
        Collateral(documents=(Document(Kind.EVENT_LOG, sample.read("event_log")),))
        if "event_log" in sample.entry["files"]
        else Collateral.none()
    )
    enrolled = TrustAnchors.none().adding(sample.read("ak_public"), name="enrolled key")
    wrong: list[str] = []
    for expected in sample.expected["quotes"]:
        evidence = _quote(sample, expected["files"])
        _genuine(evidence, sample, logs, enrolled)
        found = tpm_document(parse_evidence(evidence))
        wrong += different(found, expected, f"{expected['name']}.")
    if "ak_certificate" in sample.expected:
        chain = [sample.at(path) for path in sample.expected["ak_certificate"]["chain"]]
        certified = _quote(sample, expected["files"], certificate=sample.read("ak_certificate"))
        _genuine(certified, sample, logs | Collateral(certificates=tuple(chain)), TrustAnchors.vendor())
    return wrong


def _quote(sample: Sample, files: Mapping[str, str], *, certificate: bytes | None = None) -> bytes:
    if "pcrs" in files:
        values = json.loads(sample.at(files["pcrs"]))["pcrs"]
        pcrs = b"".join(bytes.fromhex(values[index]) for index in sorted(values, key=int))
    else:
        pcrs = read_tpm2_pcrs(sample.read("pcr_file_tpm2_tools")) or b""
    quote, signature = sample.at(files["attest"]), sample.at(files["signature"])
    return pack_evidence(quote, signature, pcrs, certificate=certificate)


def _genuine(evidence: bytes, sample: Sample, collateral: Collateral, anchors: TrustAnchors) -> None:
    verifier = Verifier(tees=[TPM], anchors=anchors, policy=AuthenticityOnly())
    verifier.verify(evidence, collateral=collateral, binding=AnyBinding(), now=sample.time())


def tpm_event_log(sample: Sample) -> list[str]:
    """Events, and the registers to which they lead in every bank that is listed."""
    log = parse_tpm_event_log(sample.read("event_log"))
    wrong = ["events"] if len(log.events) != sample.expected["events"] else []
    for bank, expected in sample.expected["replayed_pcrs"].items():
        algorithm = Algorithm[bank.upper()]
        check_event_data(log, algorithm)
        found = {str(index): value.hex() for index, value in replay(log, algorithm).items()}
        wrong += [f"replayed_pcrs.{bank}"] if found != expected else []
    return wrong


def cc_event_log(sample: Sample) -> list[str]:
    """A log of a TD that must not be taken for one."""
    parse_td_log(sample.read("event_log"))
    return []


def sev_platform(sample: Sample) -> list[str]:
    """Every edge of the chain of a platform."""
    pdh, pek, oca, cek = (parse_certificate(sample.read(name)) for name in ("pdh", "pek", "oca", "cek"))
    ask, ark = (parse_amd_certificate(sample.read(name)) for name in ("ask", "ark"))
    chain = PlatformChain(pdh=pdh, pek=pek, oca=oca, cek=cek, ask=ask, ark=ark)
    verify_platform(chain, anchors=TrustAnchors.vendor(), ledger=Ledger())
    return []


def sev_measurements(sample: Sample) -> list[str]:
    """Recorded measurements, each with the digest of what was launched."""
    wrong = []
    for vector in json.loads(sample.read("vectors"))["vectors"]:
        blob = bytes.fromhex(vector.get("launch_measure_blob") or vector["launch_measure"] + vector["mnonce"])
        api = (vector["api_major"], vector["api_minor"])
        tik = bytes.fromhex(vector["tik_hex"]) if "tik_hex" in vector else sample.read("tik")
        digest, policy = _launched(sample, vector), vector["policy"].to_bytes(4, "little")
        found = parse_launch_measure(blob, api=api, build=vector["build_id"])
        wrong += [vector["name"]] if found.mac(tik, policy=policy, digest=digest) != found.measure else []
    return wrong


def _launched(sample: Sample, vector: Mapping[str, Any]) -> bytes:
    if "launch_digest" in vector:
        return bytes.fromhex(vector["launch_digest"])
    kernel = None
    if "kernel" in vector:
        initrd = sample.at(vector["initrd"])
        kernel = hash_kernel(sample.at(vector["kernel"]), initrd=initrd, cmdline=vector["cmdline"])
    image = sample.at(vector["firmware"])
    firmware = SevFirmware(image=image, gpa=0, kernel_hashes_gpa=0 if kernel is None else 1)
    return sev_launch_digest(firmware, kernel=kernel)


def sev_secrets(sample: Sample) -> list[str]:
    """Recorded packets, byte for byte."""
    wrong = []
    for number, vector in enumerate(json.loads(sample.read("vectors"))["vectors"]):
        keys = SessionKeys(tek=sample.at(vector["tek"]), tik=sample.at(vector["tik"]))
        table = build_secret_table({UUID(guid): sample.at(path) for guid, path in vector["secrets"]})
        blob = bytes.fromhex(vector["launch_measure_blob"])
        packet = pack_secret(
            VerifiedLaunch(measure=blob[:32]), table, keys=keys, iv=bytes.fromhex(vector["iv"])
        )
        if (packet.header.hex(), packet.payload.hex()) != (vector["header"], vector["payload"]):
            wrong.append(f"packet {number}")
    return wrong


def sev_digests(sample: Sample) -> list[str]:
    """Recorded launch digests of SEV, SEV-ES and SEV-SNP, and what cannot be launched."""
    vectors = json.loads(sample.read("vectors"))["vectors"]
    wrong = ["n_vectors"] if len(vectors) != sample.expected["n_vectors"] else []
    for vector in vectors:
        try:
            found = _launch_digest(sample, vector).hex()
        except Unmeasurable:
            found = None
        wrong += [vector["test"]] if found != vector.get("launch_digest") else []
    return wrong


def _launch_digest(sample: Sample, vector: Mapping[str, Any]) -> bytes:
    firmware = parse_sev_firmware(sample.at(vector["ovmf"]["path"]))
    kernel = None if vector["kernel"] is None else hash_kernel(b"", cmdline=vector["cmdline"] or "")
    vcpus, cpu = vector["vcpus"], vector["vcpu_sig"] or 0
    match vector["mode"]:
        case "SEV":
            return sev_launch_digest(firmware, kernel=kernel)
        case "SEV_ES":
            return sev_es_launch_digest(firmware, vcpus=vcpus, cpu_signature=cpu, kernel=kernel)
    return snp_launch_digest(
        firmware,
        vcpus=vcpus,
        cpu_signature=cpu,
        vmm=Vmm(vector["vmm"].lower()),
        features=vector["guest_features"],
        kernel=kernel,
        firmware_digest=bytes.fromhex(vector["ovmf_hash"]) if vector["ovmf_hash"] else None,
    )


def sgx_signature(sample: Sample) -> list[str]:
    """A SIGSTRUCT, and the enclave that it is of where there is one."""
    signed = verify_sigstruct(sample.read("sigstruct"))
    found: dict[str, Any] = {
        "mrenclave": signed.enclave_hash.hex(),
        "mrsigner": signed.mrsigner.hex(),
        "isvprodid": signed.isv_prod_id,
        "isvsvn": signed.isv_svn,
        "attributes": signed.attributes.hex(),
        "attributes_mask": signed.attributes_mask.hex(),
    }
    wrong = different(found, sample.expected)
    if "image" in sample.entry["files"]:
        image = sample.read("image")
        digest = mrenclave(size=enclave_size(len(image)), pages=flat_pages(image))
        wrong += ["image"] if digest != signed.enclave_hash else []
    return wrong


def snp_id_block(sample: Sample) -> list[str]:
    """An ID block with the signatures and keys that go with it."""
    block, auth = sample.read("id_block"), sample.read("id_auth")
    keys, parsed = verify_id_auth(block, auth), parse_id_block(block)
    found = {
        "id_key_digest": keys.id_key_digest.hex(),
        "author_key_digest": keys.author_key_digest.hex() if keys.author_key_digest else None,
        "launch_digest": parsed.launch_digest.hex(),
        "policy": hex(parsed.policy),
    }
    return different(found, sample.expected)


def snp_certificate(sample: Sample) -> list[str]:
    """A VCEK or VLEK without a report."""
    leaf = parse_x509(sample.read("endorsement_cert"))
    endorsement = read_endorsement(leaf)
    if endorsement is None:
        raise Malformed("certificate is neither a VCEK nor a VLEK")
    given = recognise_collateral(sample.read("vendor_chain"))
    context = Context(
        collateral=given,
        anchors=TrustAnchors.vendor(),
        now=sample.time(),
        cache=Cache(),
        ledger=Ledger(),
    )
    between = [parse_x509(der) for der in given.certificates]
    verify_chain(leaf, between, context, vendor=Vendor.AMD, name="snp.chain")
    tcb = endorsement.tcb
    found = {
        "product": endorsement.product,
        "fmc": tcb.fmc,
        "bl": tcb.bootloader,
        "tee": tcb.tee,
        "snp": tcb.snp,
        "ucode": tcb.microcode,
        "hwid": endorsement.hwid.hex() if endorsement.hwid else None,
    }
    return different(found, sample.expected["cert_extensions"])


def pef_blob(sample: Sample) -> list[str]:
    """A sealed blob, opened with the key of the machine for which it was made."""
    blob = parse_esm_blob(sample.read("esm_blob"))
    key = load_pem_private_key(sample.read("machine_private_TEST_ONLY"), None)
    public = sha256(sample.read("machine_public")).digest()
    box = next(box for box in blob.lockboxes if box.fingerprint == public)
    if not isinstance(key, rsa.RSAPrivateKey):
        raise Malformed("key of the machine is not RSA")
    symmetric = key.decrypt(box.encrypted_key, OAEP)
    digests, bootargs = parse_digests(blob.digests.open(symmetric)), sample.expected["bootargs"]
    launched = Digests.of(kernel=sample.read("kernel"), initrd=sample.read("initrd"), bootargs=bootargs)
    found = {
        "symmetric_key": symmetric.hex(),
        "digests": {name: getattr(digests, name).hex() for name in ("kernel", "initrd", "bootargs", "rtas")},
        "files_sha256": {name: sha256(part.open(symmetric)).hexdigest() for name, part in blob.files.items()},
    }
    wrong = different(found, sample.expected) + (["launched"] if launched != digests else [])
    names = sorted(box.name for box in blob.lockboxes)
    return wrong + (["lockboxes"] if names != sorted(sample.expected["lockboxes"].values()) else [])


def azure_reports(sample: Sample) -> list[str]:
    """Reports of Azure's paravisor without a quote: what they say, and whether chip and runtime data agree."""
    parsed = [parse_hcl_report(sample.read(f"hcl_report_{kind}")) for kind in ("snp", "tdx")]
    report = parse_report(parsed[0].hardware)
    certificates, failed = recognise_collateral(sample.read("certs")), ""
    verifier = Verifier(tees=[SNP], anchors=TrustAnchors.vendor(), policy=AuthenticityOnly())
    try:
        verifier.verify(report.raw, collateral=certificates, binding=AnyBinding(), now=sample.time())
    except EvidenceRejected as error:
        failed = error.check.name
    found = {
        "snp_signature_ok": not failed,
        "snp_chain_ok": failed in ("", "snp.signature"),
        "var_data_bound_snp": report.report_data == parsed[0].expected_report_data,
        "fields": snp_report_fields(report),
    }
    return different(found, sample.expected)


def refused_set(sample: Sample) -> list[str]:
    """Files that must all be refused, and a root under which the first would be genuine. Raises why the first is.

    Collateral is what lies beside each file.
    """
    files = {role: path for role, path in sample.entry["files"].items() if role != "test_root"}
    reasons: list[EnarxError] = []
    for path in files.values():
        try:
            _judge_any(sample, path, TrustAnchors.vendor())
        except EnarxError as error:
            reasons.append(error)
        else:
            return [path]
    if "test_root" in sample.entry["files"]:
        anchors = TrustAnchors.none().adding(sample.read("test_root"), name="test root")
        _judge_any(sample, next(iter(files.values())), anchors)
    raise reasons[0]


def _judge_any(sample: Sample, path: str, anchors: TrustAnchors) -> None:
    evidence = sample.at(path)
    beside = Collateral.none()
    for other in sorted((sample.folder / path).parent.iterdir()):
        if other.is_file() and other != sample.folder / path:
            try:
                beside |= recognise_collateral(read(other))
            except EnarxError:
                continue  # other evidence
    verifier = Verifier(tees=tuple(BUILTIN.values()), anchors=anchors, policy=AuthenticityOnly())
    verifier.verify(evidence, collateral=beside, binding=AnyBinding(), now=sample.time())


JUDGES: Final[Mapping[str, Callable[[Sample], list[str]]]] = {
    "tpm2-quote": tpm_quotes,
    "tcg-event-log": tpm_event_log,
    "cc-event-log-negative": cc_event_log,
    "sev-platform-chain": sev_platform,
    "sev-launch-measure": sev_measurements,
    "sev-launch-secret": sev_secrets,
    "launch-digest-vectors": sev_digests,
    "sgx-mrenclave": sgx_signature,
    "sgx-sigstruct": sgx_signature,
    "snp-id-block": snp_id_block,
    "pef-esm-blob": pef_blob,
    "cert-chain": snp_certificate,
    "azure-hcl-report": azure_reports,
    "negative-set": refused_set,
}
"""By the kind of the sample."""
