"""The OpenAPI document is valid and describes every route and every problem in the code."""

import re
from pathlib import Path

from flask import Flask

from app import create_app
from app.process.version import VERSION
from app.settings import Settings
from app.web.problems import PROBLEMS, TYPE_BASE
from tests.api_description.conformance import KEYWORDS
from tests.api_description.description import (
    API,
    CONTENT,
    described_parameters,
    nodes,
    operations,
    problem_types,
    schemas,
)
from tests.conftest import migrate
from tests.system.service import SECRET, token


def test_the_document_has_the_form_of_openapi_3_1() -> None:
    assert re.fullmatch(r"3\.1\.\d+", CONTENT["openapi"])
    assert {"title", "version"} <= CONTENT["info"].keys()
    assert CONTENT["info"]["version"] == VERSION
    assert CONTENT.keys() <= {"openapi", "info", "servers", "security", "tags", "paths", "webhooks", "components"}
    assert all(path.startswith("/") for path in CONTENT["paths"])
    names = [operation["operationId"] for _, _, operation in operations()]
    assert len(names) == len(set(names))
    tags = {tag["name"] for tag in CONTENT["tags"]}
    for path, method, operation in operations():
        where = f"{method} {path}"
        assert operation["summary"], where
        assert operation["tags"], where
        assert set(operation["tags"]) <= tags, where
        assert operation["responses"], where
        for status, response in operation["responses"].items():
            assert re.fullmatch("[1-5][0-9][0-9]", status), where
            assert API.resolved(response)["description"], f"{where} {status}"


def test_every_reference_leads_somewhere_and_every_component_is_used() -> None:
    references = {node["$ref"] for _, node in nodes(CONTENT) if "$ref" in node}
    for reference in references:
        assert API.at(reference) is not None
    components = CONTENT["components"]
    kinds = components.keys() - {"securitySchemes"}
    assert {f"#/components/{kind}/{name}" for kind in kinds for name in components[kind]} == references
    used = {name for at, node in nodes(CONTENT) if re.search(r"/security/\d+$", at) for name in node}
    assert components["securitySchemes"].keys() == used


def test_parameters_and_headers_are_well_formed_and_every_path_names_its_own() -> None:
    for path, method, operation in operations():
        parameters = described_parameters(path, operation)
        where = f"{method} {path}"
        keys = [(parameter["in"], parameter["name"].lower()) for parameter in parameters]
        assert len(keys) == len(set(keys)), where
        assert {name for kind, name in keys if kind == "path"} == set(re.findall(r"\{(\w+)\}", path)), where
        for parameter in parameters:
            assert parameter["in"] in ("path", "query", "header"), where
            assert parameter["in"] != "path" or parameter["required"] is True, where
            assert {"description", "schema"} <= parameter.keys(), where
        assert ("header", "x-request-id") in keys, where
    for path, method, operation in operations():
        for status, response in operation["responses"].items():
            headers = API.resolved(response)["headers"]
            assert API.resolved(headers["X-Request-Id"])["required"], f"{method} {path} {status}"
            assert all({"description", "schema"} <= API.resolved(header).keys() for header in headers.values())


def test_schemas_use_no_keyword_that_the_checker_does_not_check() -> None:
    found = list(schemas())
    assert len(found) > 100
    for at, schema in found:
        assert schema.keys() <= KEYWORDS, at  # OpenAPI 3.1 has no "nullable"
        assert set(schema.get("required", ())) <= schema.get("properties", {}).keys(), at
        if "pattern" in schema:
            re.compile(schema["pattern"])


def test_every_example_conforms_to_its_schema() -> None:
    checked = 0
    for at, node in nodes(CONTENT):
        if "schema" not in node:
            continue
        examples = [API.resolved(example)["value"] for example in node.get("examples", {}).values()]
        examples += [node["example"]] if "example" in node else []
        for example in examples:
            assert API.violations(node["schema"], example, at) == []
            checked += 1
    assert checked > 30


def application(folder: Path) -> Flask:
    return create_app(
        Settings.from_env(
            {
                "JWT_SECRET_KEY": SECRET,
                "DATABASE_URL": f"sqlite:///{folder}/detections.db",
                "IMAGES_DIR": str(folder / "images"),
                "VIDEOS_DIR": str(folder / "videos"),
            }
        )
    )


FILES_OF_A_PAGE = {"/docs/{name}"}


def test_every_route_is_described_with_its_methods_and_nothing_else_is(tmp_path: Path) -> None:
    routes: dict[str, set[str]] = {}
    for rule in application(tmp_path).url_map.iter_rules():
        if rule.endpoint.startswith("page."):
            continue  # pages are not part of the API
        path = re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule)
        routes.setdefault(path, set()).update((rule.methods or set()) - {"HEAD", "OPTIONS"})
    assert routes.keys() >= FILES_OF_A_PAGE
    routes = {path: methods for path, methods in routes.items() if path not in FILES_OF_A_PAGE}
    described: dict[str, set[str]] = {}
    for path, method, _ in operations():
        described.setdefault(path, set()).add(method.upper())
    assert described == routes


def test_every_problem_that_the_code_knows_is_described_with_its_status() -> None:
    described = set()
    for path, method, operation in operations():
        for status, response in operation["responses"].items():
            content = API.resolved(response).get("content", {})
            if int(status) < 400:
                assert "application/problem+json" not in content
                continue
            assert list(content) == ["application/problem+json"], f"{method} {path} {status}"
            schema = content["application/problem+json"]["schema"]
            for kind in problem_types(API.resolved(schema)):
                described.add((int(status), kind))
    known = {(status, TYPE_BASE + name) for status, name, _ in PROBLEMS.values()}
    beside = {
        (500, TYPE_BASE + "internal"),
        (412, TYPE_BASE + "precondition-failed"),
        (416, TYPE_BASE + "requested-range-not-satisfiable"),
    }
    assert described == known | beside


def test_the_cursors_that_the_document_shows_are_of_the_form_that_lists_take(tmp_path: Path) -> None:
    """Readers try the examples of the documentation."""
    client = application(tmp_path)
    migrate(f"sqlite:///{tmp_path}/detections.db")
    headers = {"Authorization": f"Bearer {token('root', roles=['admin'])}"}
    tried = 0
    for path, method, operation in operations():
        for parameter in described_parameters(path, operation):
            if parameter["name"] == "cursor":
                query = {"cursor": parameter["example"]}
                answer = client.test_client().open(path, method=method.upper(), query_string=query, headers=headers)
                assert answer.status_code == 200, answer.text
                tried += 1
    assert tried == 2
