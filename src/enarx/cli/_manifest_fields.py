"""How the manifest of an evidence folder spells what each kind of evidence says."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from hashlib import sha256
from typing import Any, Final

from enarx.attest import Claims
from enarx.attest.azure import AzureEvidence, AzureSnpDetail, AzureTdxDetail
from enarx.attest.cca import CcaDetail, PlatformToken, RealmToken
from enarx.attest.snp import SnpDetail, SnpReport
from enarx.attest.tdx import TdReport


def different(found: Mapping[str, Any], expected: Mapping[str, Any], path: str = "") -> list[str]:
    """Name what the manifest says otherwise; what it does not say is no difference."""
    wrong: list[str] = []
    for name, value in found.items():
        if isinstance(value, Mapping) and isinstance(expected.get(name), Mapping):
            wrong += different(value, expected[name], f"{path}{name}.")
        elif name in expected and expected[name] != value:
            wrong.append(f"{path}{name}")
    return wrong


def cca_fields(claims: Claims) -> dict[str, Any]:
    """The claims of both tokens by their numbers."""
    detail = claims.detail
    assert isinstance(detail, CcaDetail)  # noqa: S101 -- claims of CCA have it
    return {
        "realm_signature_ok": True,
        "platform_signature_ok": True,
        "rak_binding_ok": True,
        "rak_hash": [detail.realm.public_key_hash_algorithm.name.lower()],
        "realm_claims": _realm(detail.realm),
        "platform_claims": _platform(detail.platform),
    }


def _realm(realm: RealmToken) -> dict[str, Any]:
    found = {
        "265": realm.profile,
        "10": realm.challenge.hex(),
        "44235": realm.personalization_value.hex(),
        "44236": realm.hash_algorithm.value,
        "44237": realm.public_key.hex(),
        "44238": realm.rim.hex(),
        "44239": [value.hex() for value in (realm.rem0, realm.rem1, realm.rem2, realm.rem3)],
        "44240": realm.public_key_hash_algorithm.value,
    }
    return {name: value for name, value in found.items() if value is not None}


def _platform(platform: PlatformToken) -> dict[str, Any]:
    components = [
        {
            "1": one.component_type,
            "2": one.measurement_value.hex(),
            "4": one.version,
            "5": one.signer_id.hex(),
            "6": one.hash_algorithm.value if one.hash_algorithm else None,
        }
        for one in platform.software_components
    ]
    found = {
        "265": platform.profile,
        "10": platform.challenge.hex(),
        "2396": platform.implementation_id.hex(),
        "256": platform.instance_id.hex(),
        "2401": platform.config.hex(),
        "2395": platform.security_lifecycle,
        "2402": platform.hash_algorithm.value,
        "2400": platform.verification_service,
        "2399": [{name: value for name, value in one.items() if value is not None} for one in components],
    }
    return {name: value for name, value in found.items() if value is not None}


def snp_fields(claims: Claims) -> dict[str, object]:
    """The fields of the report; of Azure the one inside."""
    detail = claims.detail
    assert isinstance(detail, SnpDetail)  # noqa: S101 -- claims of SNP have it
    return snp_report_fields(detail.report)


def snp_report_fields(report: SnpReport) -> dict[str, object]:
    """The fields of a report."""
    return {
        "version": report.version,
        "guest_svn": report.guest_svn,
        "policy": hex(report.policy.value),
        "vmpl": report.vmpl,
        "sig_algo": 1,
        "platform_info": hex(report.platform_info.value),
        "key_info": hex(
            report.author_key_en | report.mask_chip_key << 1 | (report.signing_key.value == "vlek") << 2
        ),
        "cpuid_fms": bytes(report.cpuid or (0, 0, 0)).hex(),
        "current_ver": ".".join(map(str, report.current_version)),
        "committed_ver": ".".join(map(str, report.committed_version)),
        "launch_mit_vector": hex(report.launch_mit_vector or 0),
        "current_mit_vector": hex(report.current_mit_vector or 0),
        "mbz_violations": [],
        **{name: getattr(report, name).hex() for name in _SNP_OCTETS},
    }


_SNP_OCTETS: Final = (
    "family_id",
    "image_id",
    "report_data",
    "measurement",
    "host_data",
    "id_key_digest",
    "author_key_digest",
    "report_id",
    "report_id_ma",
    "chip_id",
    "current_tcb",
    "reported_tcb",
    "committed_tcb",
    "launch_tcb",
)


def tdx_fields(report: TdReport) -> dict[str, object]:
    """The fields of the body of a TD's quote."""
    names = {
        "mrsigner_seam": "mrsignerseam",
        "seam_attributes": "seamattributes",
        "mr_config_id": "mrconfigid",
        "mr_owner": "mrowner",
        "mr_owner_config": "mrownerconfig",
        "mr_service_td": "mrservicetd",
    }
    octets = {name: value for name, value in report.fields().items() if isinstance(value, bytes)}
    return {
        **{names.get(name, name): value.hex() for name, value in octets.items()},
        "tdattributes": report.td_attributes.value.to_bytes(8, "little").hex(),
        "xfam": report.xfam.to_bytes(8, "little").hex(),
    }


def azure_fields(claims: Claims) -> dict[str, Any]:
    """What hardware, paravisor and virtual TPM say, each below its name."""
    detail, evidence = claims.detail, claims.evidence
    assert isinstance(detail, AzureSnpDetail | AzureTdxDetail)  # noqa: S101 -- claims of Azure have it
    assert isinstance(evidence, AzureEvidence)  # noqa: S101 -- claims of Azure are of it
    hcl, quote = evidence.hcl, evidence.quote
    hardware = (
        {"snp": {"fields": snp_fields(claims), "signature_ok": True, "chain_ok": True}}
        if isinstance(detail, AzureSnpDetail)
        else {"tdx": {"fields": tdx_fields(detail.report), "report_data_equals_tdreport": True}}
    )
    return {
        "ak_signature_ok": True,
        "pcr_digest_ok": True,
        "var_data_bound_to_hw_report": True,
        "hcl": {
            "report_type": hcl.report_type.value,
            "hash_type": hcl.hash_type.value,
            "var_data_sha256": sha256(hcl.runtime.raw).hexdigest(),
            "keys": list(hcl.runtime.keys),
            "user_data": hcl.runtime.user_data.hex().upper(),
            "vm_configuration": dict(hcl.runtime.vm_configuration),
        },
        "tpm": {
            "extra_data": quote.extra_data.hex(),
            "pcr_selection": [[quote.bank.value, list(quote.selection)]],
            "pcr_digest": quote.pcr_digest.hex(),
            "pcrs_sha256": {str(index): value.hex() for index, value in quote.pcrs.items()},
        },
        **hardware,
    }


DOCUMENTS: Final[Mapping[str, Callable[[Claims], Mapping[str, Any]]]] = {
    "snp": lambda claims: {"fields": snp_fields(claims)},
    "azure-snp": azure_fields,
    "azure-tdx": azure_fields,
    "cca": cca_fields,
}
"""By the name of the TEE: what the manifest's ``expected`` holds, as far as this reads it."""
