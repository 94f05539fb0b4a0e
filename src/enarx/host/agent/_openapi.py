"""The OpenAPI 3.1 document of the agent, made from its routes and the types of its messages."""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

from enarx import __version__
from enarx.api.problems import MEDIA_TYPE, Problem
from enarx.host.agent._routes import ROUTES, Route

_REFERENCE: Final = "#/components/schemas/{name}"


def openapi() -> dict[str, Any]:
    """Give the document."""
    kinds: list[Any] = [Problem]
    for route in ROUTES:
        kinds += [kind for kind in (route.takes, route.gives) if kind is not None and kind not in kinds]
    references, schemas = msgspec.json.schema_components(kinds, ref_template=_REFERENCE)
    named = dict(zip(kinds, references, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for route in ROUTES:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, named)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Enarx host agent",
            "version": __version__,
            "description": "Launches keeps and connects their tenants. Nothing it says is trusted by a tenant.",
        },
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(route: Route, named: dict[Any, Any]) -> dict[str, Any]:
    answer: dict[str, Any] = {"description": route.status.phrase}
    if route.gives is not None:
        answer["content"] = {route.media_type: {"schema": named[route.gives]}}
    failure = {"description": "What went wrong", "content": {MEDIA_TYPE: {"schema": named[Problem]}}}
    operation: dict[str, Any] = {
        "summary": route.summary,
        "operationId": route.handler.__name__.lstrip("_"),
        "parameters": [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
            for name in re.findall(r"\{(\w+)\}", route.path)
        ],
        "responses": {str(route.status.value): answer, "default": failure},
        "security": [{"token": []}, {}] if route.authenticated else [],
    }
    if route.takes is not None:
        operation["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": named[route.takes]}},
        }
    return operation
