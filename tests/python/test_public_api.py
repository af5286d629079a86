"""Holds the package to its published interface: names, parameters, and the keys of what is returned."""

from __future__ import annotations

import inspect
import json
from typing import Any

import pytest

import fast_litellm
from support import run_python

#: Functions by their parameters as they may be given by position; "=" marks a default.
FUNCTIONS = {
    "health_check": "",
    "apply_acceleration": "",
    "remove_acceleration": "",
    "get_patch_status": "",
    "is_enabled": "feature_name request_id=",
    "get_feature_status": "",
    "reset_errors": "feature_name=",
    "record_performance": "component operation duration_ms success= input_size= output_size=",
    "get_performance_stats": "component=",
    "compare_implementations": "rust_component python_component",
    "get_recommendations": "",
    "export_performance_data": "component= format=",
    "check_rate_limit": "key",
    "get_rate_limit_stats": "",
    "get_connection": "endpoint",
    "return_connection": "connection_id",
    "remove_connection": "connection_id",
    "health_check_connection": "connection_id",
    "cleanup_expired_connections": "",
    "get_connection_pool_stats": "",
    "get_available_deployment": "model_list model blocked_models= context= settings=",
}
#: Methods, with the constructor under the class's own name; "@" is a property.
CLASSES = {
    "SimpleTokenCounter": {
        "SimpleTokenCounter": "model_max_tokens=",
        "count_tokens": "text model=",
        "count_tokens_batch": "texts model=",
        "estimate_cost": "input_tokens output_tokens model",
        "get_model_limits": "model",
        "validate_input": "text model",
        "model_max_tokens": "@",
    },
    "SimpleRateLimiter": {
        "SimpleRateLimiter": "requests_per_minute=",
        "check": "key=",
        "is_allowed": "key=",
        "get_remaining": "key=",
        "get_stats": "",
    },
    "SimpleConnectionPool": {
        "SimpleConnectionPool": "pool_name=",
        "get_connection": "endpoint",
        "return_connection": "connection_id",
        "health_check": "connection_id",
        "cleanup": "",
        "get_stats": "",
    },
    "AdvancedRouter": {
        "AdvancedRouter": "strategy=",
        "get_available_deployment": "model_list model blocked_models=",
        "strategy": "@",
    },
}
#: What a constructor's first parameter is when it is not given.
DEFAULTS = {
    "SimpleTokenCounter": 4096,
    "SimpleRateLimiter": 60,
    "SimpleConnectionPool": "default",
    "AdvancedRouter": "simple_shuffle",
}


def positional(callable_: Any) -> str:
    """A signature as the tables above write it."""
    parameters = inspect.signature(callable_).parameters.values()
    return " ".join(
        each.name + ("=" if each.default is not each.empty else "")
        for each in parameters
        if each.kind is not each.KEYWORD_ONLY and each.name != "self"
    )


def assert_takes(callable_: Any, published: str) -> None:
    """Takes what is published; what comes after that, or by keyword only, is ours to add."""
    ours = positional(callable_).split()
    wanted = published.split()
    assert ours[: len(wanted)] == wanted
    assert all(more.endswith("=") for more in ours[len(wanted) :])


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_take_what_is_published(name: str) -> None:
    function = getattr(fast_litellm, name)
    assert_takes(function, FUNCTIONS[name])
    assert name in fast_litellm.__all__
    assert inspect.getdoc(function)


@pytest.mark.parametrize("name", CLASSES)
def test_classes_have_what_is_published(name: str) -> None:
    published = getattr(fast_litellm, name)
    assert name in fast_litellm.__all__
    for method, parameters in CLASSES[name].items():
        if method == name:
            assert_takes(published, parameters)
            first = next(iter(inspect.signature(published).parameters.values()))
            assert first.default == DEFAULTS[name]
        elif parameters == "@":
            # Not by making one: that would make this process's region, which other tests do not expect.
            assert inspect.isdatadescriptor(inspect.getattr_static(published, method))
        else:
            assert_takes(getattr(published, method), parameters)
            assert inspect.getdoc(getattr(published, method)), method


#: Calls everything once, as a newcomer would, and prints what came back.
WALK = """
import json, os
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
{before}
import fast_litellm as f
seen = {{"available": f.RUST_ACCELERATION_AVAILABLE, "health": f.health_check()}}
seen["patches"] = f.get_patch_status()
seen["enabled"] = [f.is_enabled("rust_routing"), f.is_enabled("rust_routing", "request-1")]
seen["features"] = f.get_feature_status()
seen["reset"] = [f.reset_errors(), f.reset_errors("rust_routing")]
for _ in range(30):
    f.record_performance("rust_x", "check", 0.5, True, 10, 20)
    f.record_performance("python_x", "check", duration_ms=1.2, success=True)
seen["stats"] = f.get_performance_stats()
seen["one"] = f.get_performance_stats("rust_x")
seen["comparison"] = f.compare_implementations("rust_x", "python_x")
seen["nothing"] = f.compare_implementations("rust_nothing", "python_nothing")
seen["recommendations"] = f.get_recommendations()
seen["json"] = json.loads(f.export_performance_data())
seen["csv"] = f.export_performance_data("rust_x", "csv")
seen["check"] = f.check_rate_limit("alice")
limiter = f.SimpleRateLimiter(requests_per_minute=3)
seen["refused"] = [limiter.check("bob") for _ in range(4)][-1]
seen["anonymous"] = [limiter.is_allowed(), limiter.get_remaining(), limiter.get_stats()]
seen["limits"] = f.get_rate_limit_stats()
seen["connection"] = f.get_connection("https://api.openai.com")
seen["healthy"] = f.health_check_connection(seen["connection"])
seen["held"] = f.get_connection_pool_stats()
seen["returned"] = f.return_connection(seen["connection"])
seen["pool"] = f.get_connection_pool_stats()
seen["cleaned"] = f.cleanup_expired_connections()
pool = f.SimpleConnectionPool("walk")
one, two = pool.get_connection("https://api.openai.com"), pool.get_connection("https://api.openai.com")
pool.return_connection(one)
seen["own"] = [one != two, pool.health_check(two), pool.cleanup(), pool.get_stats()]
seen["removed"] = f.remove_connection(f.get_connection("https://api.openai.com"))
parts = {{"litellm_params": {{"model": "openai/gpt"}}, "model_info": {{"id": "a"}}}}
models = [{{"model_name": "gpt", **parts}}]
seen["deployment"] = f.get_available_deployment(models, "gpt", None, None, None)
seen["blocked"] = f.get_available_deployment(models, "gpt", blocked_models=["a"])
router = f.AdvancedRouter("cost_based")
seen["routed"] = [router.strategy, router.get_available_deployment(models, "gpt")]
counter = f.SimpleTokenCounter()
seen["tokens"] = [counter.model_max_tokens, counter.count_tokens("Hello, world!"),
                  counter.count_tokens_batch(["Hello", "world"], "gpt-4")]
seen["model"] = [counter.estimate_cost(1000, 500, "gpt-4"), counter.get_model_limits("gpt-4"),
                 counter.validate_input("Hello", "gpt-4")]
seen["applied"] = f.apply_acceleration()
seen["removed_acceleration"] = f.remove_acceleration()
seen["unpatched"] = f.get_patch_status()
print(json.dumps(seen))
"""
WITHOUT_EXTENSION = """
import sys, warnings
warnings.simplefilter("ignore")
sys.modules["fast_litellm._rust"] = None
# Where LiteLLM carries the tables of tiktoken.
import importlib.util
spec = importlib.util.find_spec("litellm")
tables = os.path.join(spec.submodule_search_locations[0], "litellm_core_utils", "tokenizers")
os.environ["TIKTOKEN_CACHE_DIR"] = tables
"""


@pytest.fixture(scope="module", params=["extension", "plain"])
def seen(request: pytest.FixtureRequest) -> dict[str, Any]:
    """What everything returned, with the extension and without."""
    before = "" if request.param == "extension" else WITHOUT_EXTENSION
    walked = run_python(WALK.format(before=before))
    found: dict[str, Any] = json.loads(walked.stdout.splitlines()[-1])
    found["native"] = request.param == "extension"
    return found


FEATURES = {
    "rust_routing",
    "rust_token_counting",
    "rust_rate_limiting",
    "rust_connection_pool",
    "batch_token_counting",
}


def test_the_state_of_the_package(seen: dict[str, Any]) -> None:
    assert seen["available"] is seen["native"]
    assert seen["health"]["rust_available"] is seen["native"]
    assert seen["health"]["status"] == ("ok" if seen["native"] else "degraded")
    components = set(seen["health"]["components"])
    assert {"tokens", "connection_pool", "rate_limiter"} <= components
    assert ("core" in components) is seen["native"]
    assert seen["patches"]["applied"] is seen["native"]
    assert seen["applied"] is seen["native"]
    assert seen["unpatched"]["applied"] is False
    assert seen["unpatched"]["components"] == []


def test_features(seen: dict[str, Any]) -> None:
    assert set(seen["features"]) == FEATURES
    for status in seen["features"].values():
        assert status["rollout_percentage"] == 100
        assert status["errors"] == status["error_count"] == 0
        assert isinstance(status["enabled"], bool)
    assert seen["reset"] == [None, None]
    assert seen["enabled"] == [seen["features"]["rust_routing"]["enabled"]] * 2


def test_measurements(seen: dict[str, Any]) -> None:
    assert {"rust_x", "python_x"} <= set(seen["stats"])
    assert set(seen["one"]) == {"rust_x"}
    comparison = seen["comparison"]
    assert comparison["rust_avg_ms"] == pytest.approx(0.5, rel=0.01)
    assert comparison["python_avg_ms"] == pytest.approx(1.2, rel=0.01)
    assert comparison["speedup"] == pytest.approx(2.4, rel=0.02)
    assert comparison["recommendation"] == "use_rust"
    assert {"rust_avg_ms", "python_avg_ms", "speedup", "recommendation"} <= set(seen["nothing"])
    assert seen["nothing"]["speedup"] is None
    assert isinstance(seen["recommendations"], list)
    assert seen["json"]
    assert seen["csv"].splitlines()[0].count(",") >= 3
    assert "rust_x" in seen["csv"]
    assert "python_x" not in seen["csv"]


def test_rate_limits(seen: dict[str, Any]) -> None:
    shape = {"allowed", "reason", "remaining_requests", "retry_after_ms"}
    assert set(seen["check"]) == set(seen["refused"]) == shape
    assert (seen["check"]["allowed"], seen["check"]["reason"]) == (True, "ok")
    assert seen["check"]["retry_after_ms"] is None
    assert (seen["refused"]["allowed"], seen["refused"]["remaining_requests"]) == (False, 0)
    assert 0 < seen["refused"]["retry_after_ms"] <= 20_000
    assert seen["anonymous"][:2] == [True, 2]
    assert seen["limits"]["total_checks"] == 6
    assert seen["limits"]["allowed_count"] == 5
    assert seen["limits"]["denied_count"] == 1


def test_connections(seen: dict[str, Any]) -> None:
    assert isinstance(seen["connection"], str)
    assert seen["healthy"] is True
    keys = ("total_connections", "active_connections", "idle_connections")
    assert [seen["held"][key] for key in keys] == [1, 1, 0]
    assert [seen["pool"][key] for key in keys] == [1, 0, 1]
    assert seen["returned"] is seen["cleaned"] is seen["removed"] is None
    *facts, own = seen["own"]
    assert facts == [True, True, None]
    assert [own[key] for key in keys] == [2, 1, 1]


def test_routing(seen: dict[str, Any]) -> None:
    assert seen["deployment"]["model_info"]["id"] == "a"
    assert seen["blocked"] is None
    assert seen["routed"][0] == "cost_based"
    assert seen["routed"][1]["model_info"]["id"] == "a"


def test_tokens(seen: dict[str, Any]) -> None:
    assert seen["tokens"] == [4096, 4, [1, 1]]
    cost, limits, fits = seen["model"]
    assert cost == pytest.approx(0.06)
    assert (limits["context_window"], limits["max_output_tokens"]) == (8192, 4096)
    assert fits is True


def test_a_thousand_checks_show_in_the_measurements() -> None:
    """As the guide to tuning has it."""
    ran = run_python(
        """
import fast_litellm
for i in range(1000):
    fast_litellm.check_rate_limit(f"user_{i}")
print(bool(fast_litellm.get_performance_stats()))
"""
    )
    assert ran.stdout.split() == ["True"]


def test_litellm_counts_encodes_and_decodes_as_before() -> None:
    assert run_python(
        """
import os
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
import fast_litellm
import litellm
tokens = litellm.encode(model="gpt-3.5-turbo", text="Hello, world!")
assert litellm.decode(model="gpt-3.5-turbo", tokens=tokens) == "Hello, world!"
messages = [{"role": "user", "content": "Hello, world!"}]
print(len(tokens), litellm.token_counter(model="gpt-3.5-turbo", messages=messages))
"""
    ).stdout.split() == ["4", "11"]


def test_the_guides_ways_of_using_it_work() -> None:
    """Threads, executors of an event loop, many keys, periodic checks, switching off and on again."""
    ran = run_python(
        """
import asyncio, concurrent.futures, statistics, time
import fast_litellm
from fast_litellm import SimpleRateLimiter, SimpleTokenCounter

limiter = SimpleRateLimiter(requests_per_minute=100)
users = [f"user_{i}" for i in range(200)]
with concurrent.futures.ThreadPoolExecutor(max_workers=8) as executor:
    assert all(answer["allowed"] for answer in executor.map(limiter.check, users))

async def main():
    loop = asyncio.get_running_loop()
    calls = [loop.run_in_executor(None, limiter.check, f"async_{i}") for i in range(100)]
    return await asyncio.gather(*calls)

assert all(answer["allowed"] for answer in asyncio.run(main()))
times = []
for i in range(300):
    began = time.perf_counter()
    limiter.check(f"key_{i % 100}")
    times.append((time.perf_counter() - began) * 1000)
assert statistics.mean(times) > 0
for i in range(5000):
    assert limiter.check(f"one_of_many_{i}")["allowed"]
counter = SimpleTokenCounter()
texts = ["text1", "text2", "text3"]
assert counter.count_tokens_batch(texts) == [counter.count_tokens(text) for text in texts]
assert fast_litellm.health_check()["status"] == "ok"
for key, value in fast_litellm.get_performance_stats().items():
    assert isinstance(key, str) and value["count"] > 0
for recommendation in fast_litellm.get_recommendations():
    assert recommendation["message"]
features = fast_litellm.get_feature_status()
assert features["rust_token_counting"]["error_count"] == 0
fast_litellm.reset_errors()
fast_litellm.reset_errors("rust_routing")
comparison = fast_litellm.compare_implementations("rust_rate_limiter", "python_rate_limiter")
assert comparison["recommendation"] in ("use_rust", "use_python", "no_difference", "insufficient_data")
stats = fast_litellm.get_connection_pool_stats()
assert (stats.get("active_connections"), stats.get("idle_connections")) == (0, 0)
fast_litellm.remove_acceleration()
assert fast_litellm.get_patch_status()["applied"] is False
assert fast_litellm.apply_acceleration() is True
assert fast_litellm.get_patch_status()["applied"] is True
print("walked")
"""
    )
    assert ran.stdout.split() == ["walked"]


def test_the_guides_switches_are_understood() -> None:
    env = {
        "FAST_LITELLM_RUST_ROUTING": "false",
        "FAST_LITELLM_BATCH_TOKEN_COUNTING": "canary:10",
        "FAST_LITELLM_RUST_RATE_LIMITING": "rollout:50",
    }
    ran = run_python(
        """
import json, fast_litellm
status = fast_litellm.get_feature_status()
print(json.dumps({name: [each["enabled"], each["rollout_percentage"]] for name, each in status.items()}))
""",
        env=env,
    )
    assert json.loads(ran.stdout) == {
        "rust_routing": [False, 0],
        "rust_token_counting": [True, 100],
        "rust_rate_limiting": [True, 50],
        "rust_connection_pool": [True, 100],
        "batch_token_counting": [True, 10],
    }
