"""EMULATED Intel: its authorities, what it knows of the platforms it made, and what its services say of them.

Everything that it signs follows from one secret in its store; what changes is in the store too: revocations, TCB
recoveries, platforms. Certificates, lists and documents are made when they are asked for, at the time that is given.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from enarx.attest import Collateral, Document, Kind
from enarx.attest.dcap._pck import SGX_EXTENSION
from enarx.tcb.wire import Value, decode, encode
from enarx_emulator.errors import EmulatorError
from enarx_emulator.intel import documents
from enarx_emulator.intel._recovery import (
    ENCLAVES,
    FIRST_NUMBER,
    Recovery,
    enclave_levels,
    module_identities,
    tcb_levels,
)
from enarx_emulator.intel.documents import VALID_FOR, Json, tdx_module
from enarx_emulator.intel.pck import (
    authority_key,
    intel_name,
    pem,
    sgx_items,
    tcb_items,
    tlv,
    usual_extensions,
)
from enarx_emulator.intel.processor import (
    MODELS,
    PCE_ID,
    SVNS,
    KeyDependencies,
    Model,
    Processor,
    derive_key,
    pck_key,
    ppid_of,
)
from enarx_emulator.intel.sgx import Flag, KeyName, attributes
from enarx_emulator.machine import Store
from enarx_emulator.pki import Cert
from enarx_emulator.seed import Seed, random_seed

EPOCH: Final = datetime(2024, 1, 1, tzinfo=UTC)
ROOT_END: Final = datetime(2049, 12, 31, 23, 59, 59, tzinfo=UTC)
CA_END: Final = datetime(2045, 1, 1, tzinfo=UTC)
PCK_YEARS: Final = timedelta(days=7 * 365)
PCE_PROD_ID: Final = 0
MAX_STATE_BYTES: Final = 1 << 20
_ENCLAVE_KEY: Final = "intel-enclave-signer"
_CURVE: Final = ec.SECP256R1()
_ROOT_CRL: Final = "https://emulated.invalid/IntelSGXRootCA.der"
_PCK_CRL: Final = "https://emulated.invalid/sgx/certification/v4/pckcrl?ca={}&encoding=der"
_STATUSES: Final = (
    "OutOfDate",
    "OutOfDateConfigurationNeeded",
    "ConfigurationNeeded",
    "ConfigurationAndSWHardeningNeeded",
    "SWHardeningNeeded",
    "Revoked",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Platform:
    """What Intel keeps of a processor that it made: enough for every key that the platform attests with."""

    model: Model
    root_provisioning_key: bytes
    instance: bytes

    def provisioning_key(self, pce_mrsigner: bytes, *, cpu_svn: bytes, pce_svn: int) -> bytes:
        """Derive what EGETKEY gives to the platform's PCE (16 bytes)."""
        sealable = attributes(Flag.INIT | Flag.PROVISION_KEY | Flag.MODE64, 0)
        dependencies = KeyDependencies(
            key_name=KeyName.PROVISION,
            isv_prod_id=PCE_PROD_ID,
            isv_svn=pce_svn,
            attributes=sealable,
            attributes_mask=PCE_KEY_MASK,
            mrsigner=pce_mrsigner,
            cpu_svn=cpu_svn,
            misc_mask=0xFFFFFFFF,
        )
        return derive_key(self.root_provisioning_key, dependencies)


PCE_KEY_MASK: Final = attributes((1 << 64) - 1, 0)
"""The attributes that the PCE binds its keys to."""


class IntelVendor:
    """All authorities and services of one emulated Intel."""

    def __init__(
        self, store: Store, *, seed: Seed | None = None, faults: frozenset[str] = frozenset()
    ) -> None:
        """``seed``: what a store without a secret of its own is given; by default a new one."""
        root = store.once("intel-seed", lambda: (seed or random_seed()).root)
        self._store = store
        self._seed = Seed(root)
        self._enclave_key: rsa.RSAPrivateKey | None = None
        self.faults = faults

    # Authorities

    @property
    def root(self) -> Cert:
        """The root, to be trusted by name."""
        key = self._root_key
        return Cert(
            name=intel_name("Intel SGX Root CA"),
            key=key,
            path_length=1,
            not_before=EPOCH,
            not_after=ROOT_END,
            serial=self._serial("root"),
            extensions=usual_extensions(key, key, _ROOT_CRL),
        )

    def pck_ca(self, *, multi_package: bool) -> Cert:
        """The authority that certifies platforms of one kind."""
        kind = "Platform" if multi_package else "Processor"
        name = "Server" if "intel-pck-ca-name" in self.faults else kind
        key = self._ca_key(multi_package=multi_package)
        return Cert(
            name=intel_name(f"Intel SGX PCK {name} CA"),
            key=key,
            issuer=self.root,
            path_length=0,
            not_before=EPOCH,
            not_after=CA_END,
            serial=self._serial(kind),
            extensions=usual_extensions(key, self._root_key, _ROOT_CRL),
        )

    @property
    def tcb_signing(self) -> Cert:
        """Who signs TCB info and identities."""
        expired = "intel-tcb-signing-expired" in self.faults
        key = self._key("tcb signing")
        return Cert(
            name=intel_name("Intel SGX TCB Signing"),
            key=key,
            issuer=self.root,
            ca=False,
            crl_sign=False,
            not_before=EPOCH,
            not_after=EPOCH + timedelta(days=30) if expired else CA_END,
            serial=self._serial("tcb signing"),
            extensions=usual_extensions(key, self._root_key, _ROOT_CRL),
        )

    @property
    def enclave_key(self) -> rsa.RSAPrivateKey:
        """Who signs Intel's own enclaves (RSA-3072). It is made when it is first needed, and kept."""
        if self._enclave_key is None:
            self._enclave_key = stored_rsa_key(self._store, _ENCLAVE_KEY)
        return self._enclave_key

    @property
    def ppid_key(self) -> rsa.RSAPrivateKey:
        """To whom platforms encrypt their names (RSA-3072)."""
        return stored_rsa_key(self._store, "intel-ppid-key")

    # Platforms

    def register(self, processor: Processor) -> None:
        """Note a platform as made, or as registered by its owner."""
        made = Platform(
            model=processor.model,
            root_provisioning_key=processor.root_provisioning_key,
            instance=processor.platform_instance_id,
        )
        value: dict[str, Value] = {
            "model": made.model.name,
            "root_provisioning_key": made.root_provisioning_key,
            "instance": made.instance,
        }
        self._store.once(f"intel-platform-{self.ppid(made).hex()}", lambda: encode(value))

    def platform(self, ppid: bytes) -> Platform | None:
        """Give a platform that is known."""
        data = self._store.get(f"intel-platform-{ppid.hex()}")
        match decode(data, max_bytes=MAX_STATE_BYTES) if data is not None else None:
            case {
                "model": str() as model,
                "root_provisioning_key": bytes() as key,
                "instance": bytes() as instance,
            } if model in MODELS:
                return Platform(model=MODELS[model], root_provisioning_key=key, instance=instance)
            case _:
                return None

    def ppid(self, platform: Platform) -> bytes:
        """Derive a platform's name (16 bytes)."""
        return ppid_of(platform.provisioning_key(self.pce_mrsigner, cpu_svn=bytes(16), pce_svn=0))

    @property
    def pce_mrsigner(self) -> bytes:
        """MRSIGNER of Intel's enclaves."""
        return mrsigner_of(self.enclave_key)

    def pck(self, ppid: bytes, *, cpu_svn: bytes, pce_svn: int) -> Cert:
        """Certify the key that a platform has at these security versions. Raises ``EmulatorError`` if unknown."""
        platform = self.platform(ppid)
        if platform is None:
            raise EmulatorError(f"no platform has the ppid {ppid.hex()}")
        key = pck_key(platform.provisioning_key(self.pce_mrsigner, cpu_svn=cpu_svn, pce_svn=pce_svn))
        model = platform.model
        extension = sgx_items(
            fmspc=model.fmspc,
            pce_id=PCE_ID,
            ppid=ppid,
            sgx_type=model.sgx_type,
            tcb=tcb_items(cpu_svn, pce_svn, cpu_svn),
            instance=platform.instance if model.multi_package else None,
            bits={1: True, 2: True, 3: True},
        )
        issuer_key = self._ca_key(multi_package=model.multi_package)
        usual = usual_extensions(
            key, issuer_key, _PCK_CRL.format("platform" if model.multi_package else "processor")
        )
        is_ca = "intel-pck-is-ca" in self.faults
        expired = "intel-pck-expired" in self.faults
        named = f"pck {ppid.hex()} {cpu_svn.hex()} {pce_svn}"
        return Cert(
            name=intel_name("Intel SGX PCK Certificate"),
            key=key,
            issuer=self.pck_ca(multi_package=model.multi_package),
            ca=is_ca,
            crl_sign=False,
            not_before=EPOCH,
            not_after=EPOCH + timedelta(days=30) if expired else EPOCH + PCK_YEARS,
            serial=self._serial("revoked" if "intel-pck-revoked" in self.faults else named),
            extensions=[*usual, (SGX_EXTENSION, False, tlv(0x30, *extension))],
            signer=self._key("stranger") if "intel-pck-unsigned" in self.faults else None,
        )

    def pck_chain(self, ppid: bytes, *, cpu_svn: bytes, pce_svn: int) -> bytes:
        """Give the certificates that go into a quote: leaf, intermediate, root, in PEM."""
        leaf = self.pck(ppid, cpu_svn=cpu_svn, pce_svn=pce_svn)
        assert leaf.issuer is not None  # noqa: S101 -- pck() always names one
        chain = [leaf.der, leaf.issuer.der, self.root.der]
        if "intel-pck-chain-order" in self.faults:
            chain[1:] = chain[:0:-1]
        return pem(*chain)

    # Revocation and TCB recovery

    def revoke(self, serial: int) -> None:
        """List a certificate as revoked, in the list of whoever issued it. Raises ``EmulatorError``."""
        if not 0 < serial < 1 << 160:
            raise EmulatorError(f"serial number is {serial:#x}, expected one of at most 20 bytes")
        revoked, recoveries = self._state()
        self._put_state(sorted({*revoked, serial}), recoveries)

    def recover(self, recovery: Recovery) -> int:
        """Announce what is needed from now on; give its evaluation number. The number in ``recovery`` is ignored."""
        _check(recovery)
        revoked, recoveries = self._state()
        number = self.newest_number + 1
        self._put_state(revoked, [*recoveries, replace(recovery, number=number)])
        return number

    @property
    def newest_number(self) -> int:
        """The evaluation number of the last TCB recovery."""
        return max((one.number for one in self._state()[1]), default=FIRST_NUMBER)

    def evaluation_dates(self) -> list[tuple[int, datetime]]:
        """Number and time of each TCB recovery, oldest first."""
        return [(one.number, datetime.fromtimestamp(one.at, UTC)) for one in self._state()[1]]

    def root_crl(self, now: datetime) -> bytes:
        """What the root withdrew, in DER."""
        revoked = set(self._state()[0])
        below = [self.pck_ca(multi_package=True), self.pck_ca(multi_package=False), self.tcb_signing]
        listed = [one.serial for one in below if one.serial in revoked]
        if "intel-ca-revoked" in self.faults:
            listed += [one.serial for one in below[:2] if one.serial not in listed]
        return self._crl(self.root, self._root_key, listed, now)

    def pck_crl(self, now: datetime, *, multi_package: bool) -> bytes:
        """Which platforms' certificates are withdrawn, in DER."""
        serials = [*self._state()[0], self._serial("revoked")]  # which a certificate has by a fault alone
        issuer_key = self._ca_key(multi_package=multi_package)
        return self._crl(self.pck_ca(multi_package=multi_package), issuer_key, serials, now)

    @property
    def _root_key(self) -> ec.EllipticCurvePrivateKey:
        return self._key("imposter root" if "intel-root-imposter" in self.faults else "root")

    def _ca_key(self, *, multi_package: bool) -> ec.EllipticCurvePrivateKey:
        curve = ec.SECP384R1() if "intel-pck-algorithm" in self.faults else _CURVE
        return self._seed.ec_key(f"pck {'Platform' if multi_package else 'Processor'} ca", curve)

    def _crl(
        self, issuer: Cert, key: ec.EllipticCurvePrivateKey, serials: Sequence[int], now: datetime
    ) -> bytes:
        issued = self._issued(now)
        if "intel-crl-stale" in self.faults:
            issued -= 2 * VALID_FOR
        forged = "intel-crl-forged" in self.faults
        return issuer.crl(
            *serials,
            this_update=issued,
            next_update=issued + VALID_FOR,
            signer=self._key("stranger") if forged else None,
            extensions=[authority_key(key)],
        )

    # Documents

    def tcb_info(self, tee: str, model: Model, now: datetime, *, number: int | None = None) -> bytes:
        """What Intel says of platforms of a model: a TCB info for ``SGX`` or ``TDX``, signed."""
        number = self._number(number)
        known = [one for one in self._state()[1] if one.number <= number]
        levels = tcb_levels(model, known, tee)
        if "intel-tcb-out-of-date" in self.faults or "intel-tcb-revoked" in self.faults:
            status = "Revoked" if "intel-tcb-revoked" in self.faults else "OutOfDate"
            levels = [{**level, "tcbStatus": status} for level in levels]
        if "intel-tcb-no-level" in self.faults:
            tcb = levels[0]["tcb"]
            levels = [{**levels[0], "tcb": {**tcb, "pcesvn": 0xFFFF}}]
        if "intel-tcb-info-other-tee" in self.faults:
            tee = "SGX"
        with_tdx = tee == "TDX"
        body = documents.tcb_info(
            tee,
            fmspc=b"\xe0" + bytes(5) if "intel-tcb-info-other-platform" in self.faults else model.fmspc,
            pce_id=PCE_ID,
            evaluation_number=number,
            issued=self._document_issued(now, "tcb-info"),
            levels=levels,
            module=tdx_module() if with_tdx else None,
            modules=module_identities(model, known) if with_tdx else (),
        )
        return self._document("tcbInfo", body, changed="intel-tcb-info-changed")

    def identity(self, kind: str, now: datetime, *, number: int | None = None) -> bytes:
        """How to know one of Intel's enclaves (``QE``, ``TD_QE``, ``QVE``): an identity, signed."""
        number = self._number(number)
        known = [one for one in self._state()[1] if one.number <= number]
        levels = enclave_levels(kind, known)
        if "intel-qe-out-of-date" in self.faults:
            levels = [{**level, "tcbStatus": "OutOfDate"} for level in levels]
        if "intel-qe-no-level" in self.faults:
            levels = [{**levels[0], "tcb": {"isvsvn": 0xFFFF}}]
        body = documents.enclave_identity(
            "QVE" if "intel-qe-identity-other" in self.faults else kind,
            mrsigner=self.pce_mrsigner,
            isv_prod_id=ENCLAVES[kind][0],
            evaluation_number=number,
            issued=self._document_issued(now, "qe-identity"),
            levels=levels,
        )
        return self._document("enclaveIdentity", body, changed="intel-qe-identity-changed")

    def sign_document(self, name: str, body: Json) -> bytes:
        """Sign any document as the service does."""
        return documents.document(name, documents.body_bytes(body), self._key("tcb signing"))

    def collateral(self, tee: str, model: Model, now: datetime) -> Collateral:
        """All that a verifier needs beside a quote; ``tee`` is ``SGX`` or ``TDX``."""
        ca = self.pck_ca(multi_package=model.multi_package)
        identity = "TD_QE" if tee == "TDX" else "QE"
        return Collateral(
            certificates=(self.tcb_signing.der, ca.der, self.root.der),
            crls=(self.root_crl(now), self.pck_crl(now, multi_package=model.multi_package)),
            documents=(
                Document(Kind.TCB_INFO, self.tcb_info(tee, model, now)),
                Document(Kind.QE_IDENTITY, self.identity(identity, now)),
            ),
        )

    def _document(self, name: str, body: Json, *, changed: str) -> bytes:
        made = self.sign_document(name, body)
        number = b'"tcbEvaluationDataNumber":'
        return made.replace(number, number + b"9") if changed in self.faults else made

    def _document_issued(self, now: datetime, what: str) -> datetime:
        issued = self._issued(now)
        if f"intel-{what}-expired" in self.faults:
            return issued - 2 * VALID_FOR
        return issued + 2 * VALID_FOR if f"intel-{what}-future" in self.faults else issued

    def _number(self, asked: int | None) -> int:
        if "intel-collateral-rollback" in self.faults:
            return FIRST_NUMBER - 1
        return self.newest_number if asked is None else asked

    def _issued(self, now: datetime) -> datetime:
        """Lists and documents are made once a day."""
        return now.replace(hour=0, minute=0, second=0, microsecond=0)

    def _key(self, label: str) -> ec.EllipticCurvePrivateKey:
        return self._seed.ec_key(label, _CURVE)

    def _serial(self, label: str) -> int:
        return int.from_bytes(self._seed.derive(f"serial {label}", 20), "big") >> 1

    def _state(self) -> tuple[list[int], list[Recovery]]:
        data = self._store.get("intel-state")
        if data is None:
            return [], []
        match decode(data, max_bytes=MAX_STATE_BYTES):
            case {"revoked": list() as revoked, "recoveries": list() as recoveries}:
                serials = [int.from_bytes(one, "big") for one in revoked if isinstance(one, bytes)]
                return serials, [Recovery.restore(one) for one in recoveries]
            case _:
                raise EmulatorError("the vendor's state is not that of an emulated intel")

    def _put_state(self, revoked: Sequence[int], recoveries: Sequence[Recovery]) -> None:
        value: dict[str, Value] = {
            "revoked": [serial.to_bytes(20, "big") for serial in revoked],
            "recoveries": [one.save() for one in recoveries],
        }
        self._store.put("intel-state", encode(value))


def _check(recovery: Recovery) -> None:
    """Raise ``EmulatorError`` for what no document could say."""
    if recovery.enclave:
        if recovery.enclave not in ENCLAVES:
            raise EmulatorError(f"enclave is {recovery.enclave!r}, expected one of {', '.join(ENCLAVES)}")
        known: tuple[str, ...] = ("OutOfDate", "Revoked")
    else:
        if recovery.fmspc not in {model.fmspc for model in MODELS.values()}:
            raise EmulatorError(f"fmspc is {recovery.fmspc.hex()!r}, which no emulated model has")
        for name, value in (("cpu_svn", recovery.cpu_svn), ("tee_tcb_svn", recovery.tee_tcb_svn)):
            if len(value) not in (0, SVNS):
                raise EmulatorError(f"{name} has {len(value)} bytes, expected {SVNS}")
        known = _STATUSES
    if recovery.older not in known:
        raise EmulatorError(f"older is {recovery.older!r}, expected one of {', '.join(known)}")
    for name, svn in (("pce_svn", recovery.pce_svn), ("isv_svn", recovery.isv_svn)):
        if not 0 <= svn < 1 << 16:
            raise EmulatorError(f"{name} is {svn}, expected less than 65536")


def mrsigner_of(key: rsa.RSAPrivateKey) -> bytes:
    """Give MRSIGNER of enclaves signed with a key (32 bytes)."""
    modulus = key.public_key().public_numbers().n
    return hashlib.sha256(modulus.to_bytes(384, "little")).digest()


def stored_rsa_key(store: Store, name: str) -> rsa.RSAPrivateKey:
    """Give the key of that name (RSA-3072, exponent 3, as SIGSTRUCT needs), after making it when there is none."""
    data = store.once(name, _new_rsa_key)
    key = load_pem_private_key(data, None, unsafe_skip_rsa_key_validation=True)  # we made it ourselves
    if not isinstance(key, rsa.RSAPrivateKey):
        raise EmulatorError(f"{name} in the store is no RSA key")
    return key


def _new_rsa_key() -> bytes:
    made = rsa.generate_private_key(3, 3072)
    return made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
