"""The bill of materials of a keep in CycloneDX 1.6 JSON: the same keep always gives the same document.

Source: ECMA-424, first edition (CycloneDX 1.6). There is no timestamp, and the serial number is a digest.
"""

from __future__ import annotations

import json
from hashlib import sha256
from urllib.parse import quote
from uuid import UUID

from enarx import __version__
from enarx.tenant.image._inventory import Group, Inventory, Item, Kind

Json = dict[str, object]


def bill_of_materials(inventory: Inventory) -> Json:
    """Give the document for everything that is trusted inside a keep."""
    components = [_component(group) for group in inventory.groups]
    components.append(
        {
            "type": "library",
            "bom-ref": "openssl",
            "name": "openssl",
            "version": inventory.openssl,
            "description": "Linked into cryptography; ends TLS",
        }
    )
    document: Json = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "component": {"type": "application", "bom-ref": "keep", "name": "keep", "version": __version__}
        },
        "components": components,
        "dependencies": [{"ref": "keep", "dependsOn": sorted(str(it["bom-ref"]) for it in components)}],
    }
    digest = sha256(json.dumps(document, sort_keys=True).encode()).digest()
    return {**document, "serialNumber": f"urn:uuid:{UUID(bytes=digest[:16], version=5)}"}


def _component(group: Group) -> Json:
    component: Json = {
        "type": "library",
        "bom-ref": f"{group.kind.value}/{group.name}",
        "name": group.name,
        "components": [_file(group, item) for item in group.items],
    }
    if group.version:
        component["version"] = group.version
    match group.kind:
        case Kind.OURS:
            component["licenses"] = [{"license": {"id": "Apache-2.0"}}]
            component["purl"] = f"pkg:pypi/enarx@{group.version}"
        case Kind.DISTRIBUTION:
            component["purl"] = f"pkg:pypi/{group.name}@{group.version}"
            if group.license:
                component["licenses"] = [{"expression": group.license}]
        case Kind.INTERPRETER | Kind.STANDARD_LIBRARY:
            component["purl"] = f"pkg:generic/python@{group.version}"
        case Kind.PACKAGE:
            component["purl"] = f"pkg:deb/debian/{group.name}@{quote(group.version, safe=':~')}"
    return component


def _file(group: Group, item: Item) -> Json:
    properties = [{"name": "enarx:bytes", "value": str(item.size)}]
    if item.lines:
        properties.append({"name": "enarx:lines", "value": str(item.lines)})
    return {
        "type": "file",
        "bom-ref": f"{group.kind.value}/{group.name}/{item.name}",
        "name": item.name,
        "hashes": [{"alg": "SHA-256", "content": item.sha256}],
        "properties": properties,
    }
