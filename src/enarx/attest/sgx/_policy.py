"""What a policy may ask of an SGX quote. Each key is one line of docs/reference/policy.md."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from enarx.attest.dcap import DcapRules
from enarx.attest.rules import (
    Anything,
    Exactly,
    Rule,
    at_least,
    boolean,
    digests,
    integers,
    key,
    octets,
    table,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class AttributeRules:
    """Bits of the enclave's ATTRIBUTES: ``true`` or ``false`` must be exactly so."""

    init: Rule = key(
        boolean,
        path="init",
        field="init",
        default=Exactly(True),
        advice="no processor reports an enclave that was not started",
    )
    mode64: Rule | None = key(boolean, path="mode64", field="mode64", default=None)
    provision_key: Rule = key(
        boolean,
        path="provision_key",
        field="provision_key",
        default=Exactly(False),
        advice="only enclaves of the platform's own need the provisioning key",
    )
    launch_key: Rule = key(
        boolean,
        path="launch_key",
        field="launch_key",
        default=Exactly(False),
        advice="only launch enclaves need the launch key",
    )
    kss: Rule | None = key(
        boolean,
        path="kss",
        field="kss",
        default=None,
        advice="sign the enclave with key separation and sharing",
    )
    xfrm: Rule | None = key(
        integers(0, 2**63 - 1),
        path="xfrm",
        field="xfrm",
        default=None,
        advice="the enclave was started with other extended features",
    )
    unknown: Rule | None = key(
        integers(0, 2**63 - 1),
        path="unknown",
        field="unknown",
        default=None,
        advice="bits without a meaning that this release knows; [0] refuses them",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class SgxRules(DcapRules):
    """The section ``[sgx]``."""

    measurement: Rule = key(
        digests(32),
        path="measurement",
        field="mrenclave",
        advice="not an enclave that was expected; compare with `enarx measure sgx` of the one you mean to run",
    )
    debug: Rule = key(
        boolean,
        path="debug",
        field="attributes.debug",
        default=Exactly(False),
        advice="the operator can read the enclave's memory; start it without DEBUG",
    )
    mrsigner: Rule | None = key(
        digests(32),
        path="detail.report.mrsigner",
        field="mrsigner",
        default=None,
        advice="the enclave is signed by another key",
    )
    isv_prod_id: Rule | None = key(
        integers(0, 0xFFFF),
        path="detail.report.isv_prod_id",
        field="isv_prod_id",
        default=None,
        advice="another product of the same signer",
    )
    min_isv_svn: Rule | None = key(
        at_least(0xFFFF),
        path="detail.report.isv_svn",
        field="isv_svn",
        default=None,
        advice="the enclave is of an older release",
    )
    isv_family_id: Rule | None = key(
        octets(16), path="detail.report.isv_family_id", field="isv_family_id", default=None
    )
    isv_ext_prod_id: Rule | None = key(
        octets(16), path="detail.report.isv_ext_prod_id", field="isv_ext_prod_id", default=None
    )
    config_id: Rule | None = key(
        octets(64),
        path="detail.report.config_id",
        field="config_id",
        default=None,
        advice="the enclave was started with another configuration",
    )
    min_config_svn: Rule | None = key(
        at_least(0xFFFF), path="detail.report.config_svn", field="config_svn", default=None
    )
    misc_select: Rule | None = key(
        octets(4), path="detail.report.misc_select", field="misc_select", default=None
    )
    cet_attributes: Rule | None = key(
        octets(1), path="detail.report.cet_attributes", field="cet_attributes", default=None
    )
    attributes: AttributeRules = table(
        AttributeRules, path="detail.report.attributes", field="attributes", default=AttributeRules()
    )

    def lint(self) -> Iterator[str]:
        """Say what in this section contradicts itself or does nothing."""
        yield from DcapRules.lint(self)
        kss_keys = (self.config_id, self.min_config_svn, self.isv_family_id, self.isv_ext_prod_id)
        if any(rule is not None for rule in kss_keys) and self.attributes.kss is None:
            yield "attributes.kss: without it config_id, config_svn, family and extended product mean nothing"
        if isinstance(self.measurement, Anything) and self.mrsigner is None:
            yield "mrsigner: neither the enclave nor its signer is named"
        if self.isv_prod_id is not None and self.mrsigner is None and isinstance(self.measurement, Anything):
            yield "isv_prod_id: every signer numbers its products alike; name the signer"
