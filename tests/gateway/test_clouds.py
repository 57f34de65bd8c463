"""Which provider an instance uses, and how the gateway reaches it."""

from __future__ import annotations

import base64
import json

import pytest

from claude_orchestrator.gateway.address import ApiAddress
from claude_orchestrator.gateway.clouds import (
    VERTEX_HOST,
    cloud_of,
    count_path,
    half_configured,
    is_count,
    model_in,
    regional,
    why_not_routed,
)
from claude_orchestrator.gateway.requests import RequestKind, count_request, kind_of, read_request

FOUNDRY = {"CLAUDE_CODE_USE_FOUNDRY": "1"}
VERTEX = {"CLAUDE_CODE_USE_VERTEX": "1"}
PARENT = "/projects/p/locations/us-east5/publishers/anthropic/models/"


@pytest.mark.parametrize("off", ["", "0", "false", "No", "off"])
def test_a_switch_that_is_off_chooses_nothing(off: str) -> None:
    assert (
        cloud_of({"CLAUDE_CODE_USE_VERTEX": off}) is None
        and why_not_routed({"CLAUDE_CODE_USE_BEDROCK": off}, can_sign=True) is None
    )


def test_the_address_comes_from_the_base_url_or_from_what_stands_for_it() -> None:
    assert ApiAddress.of({**FOUNDRY, "ANTHROPIC_FOUNDRY_BASE_URL": "http://own/x/"}).url == "http://own/x"
    named = ApiAddress.of({**FOUNDRY, "ANTHROPIC_FOUNDRY_RESOURCE": "mine", "ANTHROPIC_BASE_URL": "http://other"})
    assert named.url == "https://mine.services.ai.azure.com/anthropic" and not named.is_first_party
    assert named.variables("http://g/s") == (
        ("ANTHROPIC_FOUNDRY_BASE_URL", "http://g/s"),
        ("ANTHROPIC_FOUNDRY_RESOURCE", ""),
    )
    vertex = ApiAddress.of({**VERTEX, "ANTHROPIC_VERTEX_BASE_URL": "http://own/v1"})
    assert vertex.url_for(PARENT + "m:rawPredict") == f"http://own/v1{PARENT}m:rawPredict"
    assert vertex.variables("http://g/s") == (("ANTHROPIC_VERTEX_BASE_URL", "http://g/s"),)
    assert ApiAddress.of({}).variables("http://g/s") == (("ANTHROPIC_BASE_URL", "http://g/s"),)


@pytest.mark.parametrize(
    ("region", "host"),
    [
        ("us-east5", "https://us-east5-aiplatform.googleapis.com/v1"),
        ("europe-west1", "https://europe-west1-aiplatform.googleapis.com/v1"),
        ("eu", "https://aiplatform.eu.rep.googleapis.com/v1"),
        ("global", VERTEX_HOST),
        ("evil.example%2F", VERTEX_HOST),
        ("a@b", VERTEX_HOST),
    ],
)
def test_a_path_names_the_region_of_vertex(region: str, host: str) -> None:
    path = f"/projects/p/locations/{region}/publishers/anthropic/models/m:rawPredict"
    assert regional(VERTEX_HOST, path) == host
    assert regional("https://own/v1", path) == "https://own/v1"


def test_paths_of_vertex_have_a_model_and_a_cost() -> None:
    for verb in ("streamRawPredict", "rawPredict"):
        path = f"{PARENT}claude-opus-5-5@1:{verb}"
        assert model_in(path) == "claude-opus-5-5@1" and kind_of("POST", path, b"{}") is RequestKind.MESSAGE
    count = count_path(path)
    assert count == f"{PARENT}count-tokens:rawPredict" and is_count(count) and not model_in(count)
    assert kind_of("POST", count, b"{}") is RequestKind.FREE
    for odd in (f"{PARENT}m:predict", f"{PARENT}m:rawPredict/x", f"/x{PARENT}m:rawPredict", PARENT):
        assert kind_of("POST", odd, b"{}") is RequestKind.UNKNOWN


def test_the_count_of_a_request_names_its_model_where_the_path_does_not() -> None:
    body = b'{"max_tokens":5,"messages":[],"anthropic_version":"vertex-2023-10-16","stream":true}'
    path, counted = count_request(f"{PARENT}m:rawPredict", read_request(body, f"{PARENT}m:rawPredict"))
    assert path == f"{PARENT}count-tokens:rawPredict"
    assert counted == b'{"messages": [], "anthropic_version": "vertex-2023-10-16", "model": "m"}'
    own = read_request(b'{"max_tokens":5,"messages":[],"model":"x"}', "/v1/messages?beta=true")
    assert own.model == "x"
    assert count_request("/v1/messages?beta=true", own)[0] == "/v1/messages/count_tokens?beta=true"


def test_bedrock_has_the_address_of_its_region_and_needs_what_signs() -> None:
    bedrock = {"CLAUDE_CODE_USE_BEDROCK": "1"}
    address = ApiAddress.of({**bedrock, "AWS_REGION": "eu-west-1", "AWS_PROFILE": "p"})
    assert address.url == "https://bedrock-runtime.eu-west-1.amazonaws.com" and dict(address.signs_with)["AWS_PROFILE"]
    assert address.url_for("/inference-profiles?type=X").startswith("https://bedrock.eu-west-1.amazonaws.com/inference")
    assert address.url_for("/model/m/invoke").startswith("https://bedrock-runtime.eu-west-1.")
    assert ApiAddress.of(bedrock).url == "https://bedrock-runtime.us-east-1.amazonaws.com"
    assert ApiAddress.of({**bedrock, "AWS_REGION": "evil.example/"}).fault() is not None
    own = ApiAddress.of({**bedrock, "ANTHROPIC_BEDROCK_BASE_URL": "http://own/x/", "AWS_BEARER_TOKEN_BEDROCK": "t"})
    assert own.url_for("/inference-profiles") == "http://own/x/inference-profiles" and not own.signs_with
    assert not ApiAddress.of({**bedrock, "CLAUDE_CODE_SKIP_BEDROCK_AUTH": "1"}).signs_with
    assert own.variables("http://g/s") == (("ANTHROPIC_BEDROCK_BASE_URL", "http://g/s"),)
    assert "needs the extra bedrock" in (why_not_routed(bedrock, can_sign=False) or "")
    assert why_not_routed({**bedrock, "AWS_BEARER_TOKEN_BEDROCK": "t"}, can_sign=False) is None
    assert why_not_routed(bedrock, can_sign=True) is None


def test_paths_of_bedrock_have_a_model_and_a_cost() -> None:
    model = "us.anthropic.claude-haiku-4-5-20251001-v1:0"
    for verb in ("invoke", "invoke-with-response-stream"):
        path = f"/model/{model.replace(':', '%3A')}/{verb}"
        assert model_in(path) == model and kind_of("POST", path, b"{}") is RequestKind.MESSAGE
    assert kind_of("POST", f"/model/{model}/count-tokens", b"{}") is RequestKind.FREE
    assert kind_of("GET", "/inference-profiles?type=SYSTEM_DEFINED", b"") is RequestKind.FREE
    for odd in (f"/model/{model}/converse", "/model//invoke", f"/x/model/{model}/invoke", f"/model/{model}/invoke/x"):
        assert kind_of("POST", odd, b"{}") is RequestKind.UNKNOWN
    body = b'{"max_tokens":5,"messages":[],"anthropic_version":"bedrock-2023-05-31","system":"s"}'
    where, counted = count_request(path, read_request(body, path))
    assert where == f"/model/{model.replace(':', '%3A')}/count-tokens"
    inner = json.loads(base64.b64decode(json.loads(counted)["input"]["invokeModel"]["body"]))
    assert inner == {"max_tokens": 1, "messages": [], "system": "s", "anthropic_version": "bedrock-2023-05-31"}


def test_what_is_half_configured_is_one_clear_line() -> None:
    assert half_configured({}) is None and half_configured(VERTEX) is None
    assert half_configured(FOUNDRY) == (
        "uses Foundry, but sets neither ANTHROPIC_FOUNDRY_RESOURCE nor ANTHROPIC_FOUNDRY_BASE_URL"
    )
    both = {**FOUNDRY, "ANTHROPIC_FOUNDRY_RESOURCE": "a", "ANTHROPIC_FOUNDRY_BASE_URL": "http://b"}
    assert "claude takes only one of them" in (half_configured(both) or "")
    assert half_configured({**FOUNDRY, **VERTEX}) == (
        "sets CLAUDE_CODE_USE_FOUNDRY and CLAUDE_CODE_USE_VERTEX: choose one provider"
    )


def test_unknown_providers_are_not_routed_and_other_switches_are_no_providers() -> None:
    assert "may name a provider" in (why_not_routed({"CLAUDE_CODE_USE_NEW_CLOUD": "1"}, can_sign=True) or "")
    assert why_not_routed({"CLAUDE_CODE_USE_NEW_CLOUD": "0", "CLAUDE_CODE_USE_CCR_V2": "1"}, can_sign=True) is None
    assert "a Unix socket" in (why_not_routed({"ANTHROPIC_UNIX_SOCKET": "/s"}, can_sign=True) or "")
