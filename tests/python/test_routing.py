"""Routing among deployments: the strategies, what calls report, what is shared, and bad input."""

from __future__ import annotations

import asyncio
import math
import sys
import types
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fast_litellm
from fast_litellm import _fallback_router
from fast_litellm._rust import AdvancedRouter, Region, UnavailableError
from support import Forked, Worker, forked, run_python, until

STRATEGIES = ["simple_shuffle", "least_busy", "latency_based", "cost_based"]

Router = Any
Make = Callable[..., Router]


def deployment(name: str = "a", model_name: str = "gpt", **params: Any) -> dict[str, Any]:
    return {
        "model_name": model_name,
        "litellm_params": {"model": f"provider/{name}", **params},
        "model_info": {"id": name},
    }


def three(**params: Any) -> list[dict[str, Any]]:
    return [deployment(name, **params) for name in "abc"]


@pytest.fixture(params=["native", "fallback"])
def make(request: pytest.FixtureRequest, region: Region, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Makes a router: the extension's in a region of its own, or the one in plain Python."""
    if request.param == "native":
        return lambda *args, **kwargs: AdvancedRouter(*args, region=region, **kwargs)
    monkeypatch.setattr(_fallback_router, "_known", {})
    return _fallback_router.AdvancedRouter


def chosen(router: Router, models: list[dict[str, Any]], times: int = 400) -> Counter[str]:
    picks = (router.get_available_deployment(models, "gpt") for _ in range(times))
    return Counter(pick["model_info"]["id"] if pick else None for pick in picks)


def about(found: int, share: float, of: int = 400) -> bool:
    """Within ten standard deviations."""
    return abs(found - share * of) <= 10 * math.sqrt(of * share * (1 - share))


def last_failure(router: Router, name: str) -> tuple[str, int | None]:
    failure = router.health(name)["last_failure"]
    assert failure.pop("age_s") in (0, 1)
    assert set(failure) == {"kind", "status"}
    return failure["kind"], failure["status"]


def call(router: Router, name: str, **measured: Any) -> None:
    assert router.start(name).success(**measured)


# Choosing


def test_the_very_dict_of_the_list_is_returned(make: Make) -> None:
    models = [deployment("x", "other"), deployment("a")]
    for strategy in STRATEGIES:
        router = make(strategy)
        assert router.get_available_deployment(models, "gpt") is models[1]
        assert router.get_available_deployment(tuple(models), "gpt") is models[1]
        assert router.get_available_deployment(iter(models), "gpt") is models[1]
        assert router.get_available_deployment(models, "nothing") is None
        assert router.get_available_deployment([], "gpt") is None
        # An equal name that is another object.
        assert router.get_available_deployment(models, "".join(["g", "pt"])) is models[1]


@pytest.mark.parametrize(
    ("metrics", "shares"),
    [
        ([{"weight": 1}, {"weight": 3}, {"rpm": 9}], [0.25, 0.75, 0]),
        ([{"rpm": 100, "tpm": 1}, {"rpm": 300}, {"tpm": 10**9}], [0.25, 0.75, 0]),
        ([{"tpm": 0.5}, {"tpm": 0.5, "rpm": 0}, {"rpm": None}], [0.5, 0.5, 0]),
        ([{}, {"weight": 0}, {"weight": None}], [1 / 3, 1 / 3, 1 / 3]),
    ],
    ids=["weight", "rpm", "tpm", "alike"],
)
def test_a_shuffle_goes_by_weight_then_rpm_then_tpm(
    make: Make, metrics: list[dict[str, Any]], shares: list[float]
) -> None:
    models = [deployment(name, **params) for name, params in zip("abc", metrics, strict=True)]
    found = chosen(make(), models)
    for name, share in zip("abc", shares, strict=True):
        assert about(found[name], share), found


@settings(max_examples=30)
@given(st.lists(st.integers(0, 1000) | st.floats(0, 1e308), min_size=1, max_size=12))
def test_a_shuffle_never_chooses_who_has_no_weight_if_others_have(weights: list[float]) -> None:
    region = _SHARED.setdefault("region", Region.create("weights", keys=1024, lease_chunks=64))
    router = AdvancedRouter(region=region)
    models = [deployment(str(n), weight=weight) for n, weight in enumerate(weights)]
    found = chosen(router, models, 50)
    assert sum(found.values()) == 50
    assert None not in found
    if any(weights):
        assert all(weights[int(name)] > 0 for name in found)


_SHARED: dict[str, Region] = {}


def test_the_shuffle_has_litellms_distribution(region: Region) -> None:
    from litellm.router_strategy.simple_shuffle import simple_shuffle

    weights = [{"weight": 5}, {"weight": 2, "rpm": 100}, {"rpm": 7}, {"weight": 0.5}]
    models = [deployment(name, **params) for name, params in zip("abcd", weights, strict=True)]
    ours = chosen(AdvancedRouter(region=region), models, 3_000)
    picks = (simple_shuffle(lambda _: None, models, "gpt", None) for _ in range(3_000))
    theirs = Counter(str(pick["model_info"]["id"]) for pick in picks)
    for name, share in zip("abcd", [5 / 7.5, 2 / 7.5, 0, 0.5 / 7.5], strict=True):
        assert about(ours[name], share, 3_000), ours
        assert about(theirs[name], share, 3_000), theirs


def test_the_least_busy_is_chosen(make: Make) -> None:
    router, models = make("least_busy"), three()
    assert all(about(n, 1 / 3) for n in chosen(router, models).values())
    calls = [router.start(name) for name in "aab"]
    assert set(chosen(router, models)) == {"c"}
    calls.append(router.start("c"))
    found = chosen(router, models)
    assert set(found) == {"b", "c"}
    assert about(found["b"], 0.5)
    assert calls[0].failure(status=400)
    assert calls[1].success()
    assert set(chosen(router, models)) == {"a"}


def test_the_fastest_is_chosen_after_each_was_tried(make: Make) -> None:
    router, models = make("latency_based"), three()
    call(router, "a", latency_s=0.5)
    call(router, "b", latency_s=0.25)
    assert set(chosen(router, models)) == {"c"}
    call(router, "c", latency_s=0.75)
    assert set(chosen(router, models)) == {"b"}
    call(router, "b", latency_s=2)
    assert set(chosen(router, models)) == {"a"}
    # One that has only failed is not taken for one that was never tried.
    assert router.start("d").failure(500)
    assert set(chosen(router, [*models, deployment("d")])) == {"a"}


def test_the_cheapest_is_chosen(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "litellm", raising=False)
    router = make("cost_based")
    models = [
        deployment("a", input_cost_per_token=2e-6, output_cost_per_token=2e-6),
        deployment("b", input_cost_per_token=1e-6, output_cost_per_token=2e-6),
        deployment("c"),
        deployment("d"),
    ]
    models[3]["model_info"] |= {"input_cost_per_token": 2e-6, "output_cost_per_token": 1e-6}
    found = chosen(router, models)
    assert set(found) == {"b", "d"}
    assert about(found["b"], 0.5)
    free = deployment("e", input_cost_per_token=0, output_cost_per_token=0.0)
    assert set(chosen(router, [*models, free])) == {"e"}
    # Half a price: the other half is the default, 5 for a token.
    assert set(chosen(router, [models[2], deployment("f", input_cost_per_token=4.9)])) == {"f"}
    assert set(chosen(router, [models[2], deployment("f", input_cost_per_token=5.1)])) == {"c"}


def test_prices_that_litellm_knows_are_used_if_it_is_loaded(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = types.ModuleType("litellm")
    row = {"input_cost_per_token": 1e-6, "output_cost_per_token": 1e-6}
    fake.model_cost = {"provider/a": row, "base": {**row, "output_cost_per_token": 5e-7}}  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "litellm", fake)
    router, models = make("cost_based"), three()
    assert set(chosen(router, models)) == {"a"}
    models[1]["litellm_params"]["base_model"] = "base"
    assert set(chosen(router, models)) == {"b"}
    models[2]["model_info"]["base_model"] = "base"
    assert set(chosen(router, models)) == {"b", "c"}
    # Its own price goes before.
    models[0]["litellm_params"] |= {"input_cost_per_token": 0, "output_cost_per_token": 0}
    assert set(chosen(router, models)) == {"a"}


def test_litellm_is_not_imported_for_its_prices() -> None:
    code = """
        import sys
        from fast_litellm import AdvancedRouter
        models = [{"model_name": "gpt", "litellm_params": {"model": "gpt-4o"}}]
        assert AdvancedRouter("cost_based").get_available_deployment(models, "gpt") is models[0]
        assert "litellm" not in sys.modules
    """
    run_python(code)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_blocked_and_cooled_down_deployments_are_left_out(make: Make, strategy: str) -> None:
    router, models = make(strategy), three()
    pick = router.get_available_deployment
    assert pick(models, "gpt", ["a", "provider/b"]) is models[2]
    assert pick(models, "gpt", blocked_models={"a", "b", "c"}) is None
    assert pick(models, "gpt", ("gpt",)) is None
    assert pick(models, "gpt", []) is not None
    assert pick(models, "gpt", ["unknown"]) is not None
    assert router.cool_down(models[0], 60, "maintenance")
    assert not router.cool_down("a", 30)
    assert pick(models, "gpt", ["b"]) is models[2]
    assert router.cool_down("b", 60)
    assert router.cool_down("c", 0.05)
    assert pick(models, "gpt") is None
    until(lambda: pick(models, "gpt") is models[2], "end a cooldown")
    assert router.end_cooldown(models[0])
    assert not router.end_cooldown("a")
    assert pick(models, "gpt", ["c"]) is models[0]
    assert not router.end_cooldown("never seen")


def test_strategies_have_two_names_each_and_others_are_refused(make: Make) -> None:
    theirs = ["simple-shuffle", "least-busy", "latency-based-routing", "cost-based-routing"]
    assert [make(name).strategy for name in theirs] == STRATEGIES
    assert [make(name).strategy for name in STRATEGIES] == STRATEGIES
    assert make().strategy == "simple_shuffle"
    for wrong in ("", "SIMPLE_SHUFFLE", "usage-based-routing"):
        with pytest.raises(ValueError, match="strategy") as caught:
            make(wrong)
        assert all(name in str(caught.value) for name in [f'"{wrong}"', *STRATEGIES])
    for no_name in (None, 7, b"least_busy"):
        with pytest.raises(TypeError):
            make(no_name)


# Ids


def test_deployments_without_an_id_are_told_apart_by_what_they_are(make: Make) -> None:
    router = make("least_busy")
    one = {"model_name": "gpt", "litellm_params": {"model": "m", "api_key": "k1", "rpm": 5}}
    same = {"litellm_params": {"rpm": 5, "api_key": "k1", "model": "m"}, "model_name": "gpt"}
    assert router.deployment_id(one) == router.deployment_id({**same, "model_info": {"id": None}})
    others = [
        {**one, "model_name": "gpt2"},
        {**one, "litellm_params": {**one["litellm_params"], "api_key": "k2"}},
        {**one, "litellm_params": {**one["litellm_params"], "rpm": "5"}},
        {**one, "litellm_params": {**one["litellm_params"], "rpm": 5.0}},
        {**one, "litellm_params": {**one["litellm_params"], "tags": ["x", ["y"]]}},
        {**one, "litellm_params": {**one["litellm_params"], "tags": ["x", "y"]}},
        {**one, "litellm_params": {**one["litellm_params"], "tags": {"x": None}}},
        {**one, "litellm_params": {**one["litellm_params"], "tags": {"x": True}}},
    ]
    ids = {router.deployment_id(entry) for entry in [one, *others]}
    assert len(ids) == 9
    held = router.start(one)
    assert router.get_available_deployment([one, others[1]], "gpt") is others[1]
    assert router.health(same)["in_flight"] == 1
    assert router.get_available_deployment([one], "gpt", [router.deployment_id(one)]) is None
    del held


def test_ids_without_an_id_show_no_credential_and_agree_between_workers(region: Region) -> None:
    secret = "sk-secret"
    entry = {"model_name": "gpt", "litellm_params": {"model": "m", "api_key": secret}}
    here = AdvancedRouter(region=region).deployment_id(entry)
    assert forked(lambda: AdvancedRouter(region=region).deployment_id(entry)) == here
    assert secret not in here
    # Keyed: without the region's secret nobody finds the key by trying.
    other = Region.create("other", keys=1024, lease_chunks=64)
    assert AdvancedRouter(region=other).deployment_id(entry) != here


def test_ids_are_text_or_whole_numbers(make: Make) -> None:
    router = make("least_busy")
    entry = deployment()
    for value, name in ((7, "7"), ("7", "7"), (2**80, str(2**80)), ("é\ud800", "é\\ud800")):
        entry["model_info"]["id"] = value
        assert router.get_available_deployment([entry], "gpt") is entry
        if make is not _fallback_router.AdvancedRouter:
            assert router.deployment_id(entry) == name
    held = router.start(7)
    assert router.health({**entry, "model_info": {"id": "7"}})["in_flight"] == 1
    del held
    for wrong in (True, 1.5, "", b"x", ["a"]):
        entry["model_info"]["id"] = wrong
        with pytest.raises(TypeError, match=r"model_list\[0\]: the id must be"):
            router.get_available_deployment([entry], "gpt")
        with pytest.raises(TypeError, match="deployment"):
            router.start(wrong)


# Bad input


@pytest.mark.parametrize(
    ("entry", "error", "message"),
    [
        ("gpt", TypeError, "must be a dict, not str"),
        (None, TypeError, "must be a dict, not NoneType"),
        ({}, ValueError, "has no model_name"),
        ({"model_name": None}, ValueError, "has no model_name"),
        ({"model_name": 3}, TypeError, "model_name must be a str, not int"),
        ({"model_name": "gpt"}, ValueError, "has no litellm_params"),
        ({"model_name": "gpt", "litellm_params": []}, TypeError, "litellm_params must be a dict"),
        ({"model_name": "gpt", "litellm_params": {}}, ValueError, "has no litellm_params.model"),
        (deployment() | {"model_info": "a"}, TypeError, "model_info must be a dict, not str"),
        (
            {"model_name": "gpt", "litellm_params": {"model": "m", "client": object()}},
            ValueError,
            "no model_info.id, and none can be made, because its litellm_params hold a object",
        ),
    ],
)
def test_a_malformed_deployment_is_named_by_its_index(
    make: Make, entry: Any, error: type[Exception], message: str
) -> None:
    for strategy in STRATEGIES:
        with pytest.raises(error) as caught:
            make(strategy).get_available_deployment([deployment(), entry], "gpt")
        assert "model_list[1]" in str(caught.value)
        assert message in str(caught.value)


@pytest.mark.parametrize("value", ["3", -1, math.nan, math.inf, [], "sk-secret"])
def test_a_number_that_is_none_is_named(make: Make, value: Any) -> None:
    for strategy, name in (
        ("simple_shuffle", "weight"),
        ("simple_shuffle", "rpm"),
        ("cost_based", "input_cost_per_token"),
    ):
        models = [deployment("a"), deployment("b", **{name: value})]
        with pytest.raises(ValueError, match="use a finite number") as caught:
            make(strategy).get_available_deployment(models, "gpt")
        assert f"model_list[1]: litellm_params.{name} is " in str(caught.value)
        # It may be a secret in the wrong place.
        assert "secret" not in str(caught.value)


def test_a_list_nested_in_itself_is_refused(make: Make) -> None:
    tags: list[Any] = []
    tags.append(tags)
    entry = {"model_name": "gpt", "litellm_params": {"model": "m", "tags": tags}}
    with pytest.raises(ValueError, match="nested too deeply"):
        make().get_available_deployment([entry], "gpt")


def test_arguments_of_other_types_are_refused(make: Make) -> None:
    router = make()
    for models in ("gpt", {"model_name": "gpt"}, 7, None):
        with pytest.raises(TypeError):
            router.get_available_deployment(models, "gpt")
    for model in (None, 7, b"gpt"):
        with pytest.raises(TypeError):
            router.get_available_deployment(three(), model)
    for blocked in ("a", {"a": 1}, 7):
        with pytest.raises(TypeError):
            router.get_available_deployment(three(), "gpt", blocked)
    for number in (-1, 31 * 86_400 + 1, math.nan, math.inf):
        with pytest.raises(ValueError, match="cooldown_s"):
            make(cooldown_s=number)
        with pytest.raises(ValueError, match="seconds"):
            router.cool_down("a", number)
    with pytest.raises(ValueError, match="allowed_fails=-1"):
        make(allowed_fails=-1)
    with pytest.raises(ValueError, match="max_parallel=-1"):
        router.start("a", max_parallel=-1)


# Calls


def test_a_call_ends_once(make: Make) -> None:
    router = make()
    held = router.start("a")
    assert router.health("a")["in_flight"] == 1
    assert held.deployment_id == "a"
    assert held.success(tokens=30, cost=0.25, first_token_s=0.5, latency_s=2.0)
    assert not held.success(tokens=30)
    assert not held.failure(500)
    with held:
        pass
    del held
    health = router.health("a")
    assert health["in_flight"] == 0
    assert (health["requests"], health["successes_total"], health["failures_total"]) == (1, 1, 0)
    assert (health["tokens"], health["cost_total"]) == (30, 0.25)
    assert (health["latency_s"], health["first_token_s"]) == (2.0, 0.5)
    assert health["last_failure"] is None
    assert router.health("never seen") is None


def test_the_latency_is_measured_unless_it_is_given(make: Make) -> None:
    import time

    router = make()
    held = router.start("a")
    time.sleep(0.05)
    held.success()
    assert 0.05 <= router.health("a")["latency_s"] < 5


def test_a_block_ends_its_call(make: Make) -> None:
    router = make()
    with router.start("a") as held:
        assert router.health("a")["in_flight"] == 1
    assert not held.success()
    with pytest.raises(KeyError), router.start("a"):
        raise KeyError
    health = router.health("a")
    assert (health["in_flight"], health["successes"], health["failures"]) == (0, 1, 1)
    assert last_failure(router, "a") == ("other", None)


@pytest.mark.parametrize("error", [KeyboardInterrupt, asyncio.CancelledError, GeneratorExit])
def test_a_call_that_is_cancelled_or_dropped_counts_as_neither(
    make: Make, error: type[BaseException]
) -> None:
    router = make()
    with pytest.raises(error), router.start("a"):
        raise error
    router.start("a")
    health = router.health("a")
    assert (health["in_flight"], health["requests"], health["failures_total"]) == (0, 0, 0)


@pytest.mark.parametrize(
    ("arguments", "kind", "status"),
    [
        ({"status": 429}, "rate_limited", 429),
        ({"status": 503, "error": TimeoutError()}, "server", 503),
        ({"error": TimeoutError()}, "timeout", None),
        ({"error": asyncio.TimeoutError()}, "timeout", None),
        ({"error": ConnectionRefusedError(111, "refused")}, "connection", None),
        ({"error": "Rate limit reached, retry in 500 ms"}, "rate_limited", None),
        ({"error": RuntimeError("Error code: 401 - no")}, "authentication", 401),
        ({"error": ValueError("what?")}, "other", None),
        ({"error": "\ud800"}, "other", None),
        ({}, "other", None),
    ],
)
def test_failures_are_classified(
    make: Make, arguments: dict[str, Any], kind: str, status: int | None
) -> None:
    router = make()
    assert router.start("a").failure(**arguments)
    assert last_failure(router, "a") == (kind, status)


def test_exceptions_of_clients_are_classified_by_their_status_or_name(make: Make) -> None:
    class ConnectTimeoutError(ConnectionError):
        pass

    class Response:
        status_code = 404

    class HttpError(Exception):
        response = Response()

    class RateLimitError(Exception):
        status_code = 429

    class HostileError(Exception):
        status_code = "429"

        @property
        def response(self) -> None:
            raise RuntimeError

        def __str__(self) -> str:
            raise RuntimeError

    router = make()
    for error, kind in (
        (ConnectTimeoutError("HTTP 500"), "timeout"),
        (HttpError(), "not_found"),
        (RateLimitError(), "rate_limited"),
    ):
        assert router.start("a").failure(error=error)
        assert router.health("a")["last_failure"]["kind"] == kind
    if make is not _fallback_router.AdvancedRouter:
        assert router.start("a").failure(error=HostileError())
        assert router.health("a")["last_failure"]["kind"] == "other"


def test_numbers_out_of_range_leave_the_call_as_it_is(make: Make) -> None:
    router = make()
    held = router.start("a")
    for name in ("tokens", "cost", "first_token_s", "latency_s"):
        with pytest.raises(ValueError, match=f"{name}=-1"):
            held.success(**{name: -1})
    for number in (math.nan, math.inf):
        with pytest.raises(ValueError, match="cost="):
            held.success(cost=number)
    for status in (0, 99, 1000, -1, 2**70):
        with pytest.raises(ValueError, match="status="):
            held.failure(status)
    assert router.health("a")["in_flight"] == 1
    assert held.success()


def test_a_limit_of_parallel_calls_is_kept(make: Make) -> None:
    router = make()
    held = [router.start("a", max_parallel=2) for _ in range(2)]
    assert router.start("a", max_parallel=2) is None
    assert router.start("a", max_parallel=0) is None
    assert router.start("b", max_parallel=2) is not None
    extra = router.start("a")
    assert extra is not None
    assert held[0].success()
    assert router.start("a", max_parallel=2) is None
    extra.success()
    assert router.start("a", max_parallel=2) is not None


# Cooldowns by themselves


def fail(router: Router, name: str, status: int, times: int = 1) -> None:
    for _ in range(times):
        assert router.start(name).failure(status)


def is_cool(router: Router, name: str) -> bool:
    return bool(router.health(name)["cooldown_s"] > 0)


def test_a_deployment_with_alternatives_cools_down_at_once_for_what_will_not_pass(
    make: Make,
) -> None:
    router = make()
    for status, cools in (
        (429, True),
        (401, True),
        (402, True),
        (404, True),
        (400, False),
        (403, False),
        (408, False),
        (500, False),
    ):
        fail(router, str(status), status)
        assert is_cool(router, str(status)) is cools, status
    assert 4 < router.health("429")["cooldown_s"] <= 5
    assert router.health("429")["cooldown_reason"] == "rate_limited"
    assert router.health("500")["cooldown_reason"] is None


def test_more_than_half_of_five_calls_cool_down(make: Make) -> None:
    router, models = make(), three()
    call(router, "a")
    call(router, "a")
    fail(router, "a", 500, 2)
    assert not is_cool(router, "a")
    fail(router, "a", 500)
    assert is_cool(router, "a")
    assert set(chosen(router, models, 50)) == {"b", "c"}


def test_allowed_fails_counts_failures_in_a_row(make: Make) -> None:
    router = make(allowed_fails=2, cooldown_s=0.2)
    fail(router, "a", 500, 2)
    call(router, "a")
    fail(router, "a", 500, 2)
    assert not is_cool(router, "a")
    fail(router, "a", 500)
    assert is_cool(router, "a")
    assert router.health("a")["failures_in_a_row"] == 3
    until(lambda: not is_cool(router, "a"), "end the cooldown", 2)


def test_no_cooldown_without_alternatives_or_with_a_length_of_zero(make: Make) -> None:
    router, lone = make(), [deployment("a"), deployment("x", "other")]
    assert router.get_available_deployment(lone, "gpt") is lone[0]
    fail(router, "a", 429, 20)
    assert not is_cool(router, "a")
    # It has got one.
    until(
        lambda: router.get_available_deployment([*lone, deployment("b")], "gpt") is lone[0],
        "choose the first",
    )
    fail(router, "a", 429)
    assert is_cool(router, "a")
    never = make(cooldown_s=0)
    fail(never, "c", 429, 20)
    assert not is_cool(never, "c")


# Workers


class Routing:
    """A router and the calls that it has started, in a worker."""

    def __init__(self, region: Region, strategy: str) -> None:
        self.router = AdvancedRouter(strategy, region=region)
        self.calls: list[Any] = []

    def start(self, name: str, times: int) -> int:
        self.calls += [self.router.start(name) for _ in range(times)]
        return len(self.calls)

    def succeed(self, name: str, latency_s: float) -> None:
        call(self.router, name, latency_s=latency_s, tokens=10, cost=0.5)

    def fail(self, name: str, status: int) -> None:
        fail(self.router, name, status)

    def chosen(self, times: int) -> list[str]:
        picks = (self.router.get_available_deployment(three(), "gpt") for _ in range(times))
        return [pick["model_info"]["id"] if pick else "" for pick in picks]

    def end_inherited(self) -> list[bool]:
        return [call.success() for call in self.calls]

    def drop(self) -> None:
        self.calls.clear()


def test_workers_share_flights_latencies_tokens_and_cooldowns(region: Region) -> None:
    busy = Routing(region, "least_busy")
    fast = AdvancedRouter("latency_based", region=region)
    with Worker(busy) as one, Worker(busy) as two:
        assert one.call("start", "a", 2) == 2
        assert two.call("start", "b", 1) == 1
        assert set(busy.chosen(50)) == set(two.call("chosen", 50)) == {"c"}
        for name, latency_s in (("a", 0.5), ("b", 0.25), ("c", 0.75)):
            one.call("succeed", name, latency_s)
        assert set(chosen(fast, three())) == {"b"}
        two.call("succeed", "b", 3.0)
        assert set(chosen(fast, three())) == {"a"}
        health = fast.health("b")
        assert (health["tokens"], health["cost_total"], health["in_flight"]) == (20, 1.0, 1)
        one.call("fail", "a", 429)
        assert set(chosen(fast, three())) == {"c"}
        assert set(two.call("chosen", 50)) == {"c"}


@pytest.mark.parametrize("waited_for", [True, False], ids=["waited-for", "zombie"])
def test_a_killed_child_leaves_nothing_in_flight(region: Region, waited_for: bool) -> None:
    busy = Routing(region, "least_busy")
    call(busy.router, "b")
    with Worker(busy) as worker:
        worker.call("start", "a", 3)
        busy.start("c", 1)
        assert set(busy.chosen(50)) == {"b"}
        worker.kill(wait=waited_for)
        busy.start("b", 1)
        try:
            # A router looks for dead workers once a second.
            until(lambda: set(busy.chosen(20)) == {"a"}, "free its calls", 3)
            assert busy.router.health("a")["in_flight"] == 0
        finally:
            if not waited_for:
                worker.reap()


def test_a_parents_calls_are_not_the_childs_to_end(region: Region) -> None:
    parent = Routing(region, "least_busy")
    parent.start("a", 2)
    with Worker(parent) as child:
        assert child.call("end_inherited") == [False, False]
        child.call("drop")
        assert parent.router.health("a")["in_flight"] == 2
    assert parent.end_inherited() == [True, True]
    assert parent.router.health("a")["successes"] == 2


def test_no_two_workers_choose_the_same_sequence(region: Region) -> None:
    routing = Routing(region, "simple_shuffle")
    routing.chosen(10)
    children = [Forked(lambda: tuple(routing.chosen(60))) for _ in range(4)]
    sequences = {child.result() for child in children} | {tuple(routing.chosen(60))}
    assert len(sequences) == 5


def test_a_region_without_room_says_what_to_raise() -> None:
    small = Region.create("small", keys=1024, lease_chunks=64, deployments=64)
    router = AdvancedRouter(region=small)

    def fill() -> None:
        for n in range(200):
            fail(router, f"deployment-{n}", 500)

    with pytest.raises(UnavailableError, match="FAST_LITELLM_SHM_DEPLOYMENTS"):
        fill()
    assert router.get_available_deployment([deployment("unknown")], "gpt") is not None


# The module's function, the process's region, subclasses


def test_the_functions_settings_and_context() -> None:
    def in_child() -> None:
        models = three()
        get = fast_litellm.get_available_deployment
        router = fast_litellm.AdvancedRouter("least_busy")
        held = [router.start(name) for name in "ab"]
        for settings_ in (
            "least_busy",
            {"strategy": "least-busy"},
            {"routing_strategy": "least-busy", "num_retries": 3},
        ):
            assert {str(get(models, "gpt", settings=settings_)) for _ in range(50)} == {
                str(models[2])
            }
        assert len({str(get(models, "gpt")) for _ in range(100)}) == 3
        assert len({str(get(models, "gpt", settings={"x": 1})) for _ in range(100)}) == 3
        assert get(models, "gpt", ["a"], {"blocked_models": ["b"], "request_id": "r"}) is models[2]
        assert get(models, "gpt", None, object()) in models
        for wrong in (7, {"strategy": 7}):
            with pytest.raises(TypeError, match="settings must be a strategy"):
                get(models, "gpt", settings=wrong)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="unknown"):
            get(models, "gpt", settings="unknown")
        with pytest.raises(TypeError, match="list of strings"):
            get(models, "gpt", ["a"], {"blocked_models": "b"})
        del held

    forked(in_child)


def test_it_can_be_subclassed(region: Region) -> None:
    class Mine(AdvancedRouter):
        def get_available_deployment(self, *args: Any, **kwargs: Any) -> Any:
            return super().get_available_deployment(*args, **kwargs) or "none"

    router = Mine("least_busy", region=region)
    assert router.get_available_deployment([], "gpt") == "none"
    assert router.strategy == "least_busy"


def test_without_the_extension_the_package_routes_all_the_same() -> None:
    code = """
        import sys, warnings
        sys.modules["fast_litellm._rust"] = None
        warnings.simplefilter("ignore")
        import fast_litellm
        assert not fast_litellm.RUST_ACCELERATION_AVAILABLE
        models = [{"model_name": "gpt", "litellm_params": {"model": "m"}}]
        assert fast_litellm.get_available_deployment(models, "gpt") is models[0]
        router = fast_litellm.AdvancedRouter("least_busy")
        with router.start(models[0]):
            assert router.health(models[0])["in_flight"] == 1
        try:
            fast_litellm.AdvancedRouter("x")
        except fast_litellm.OutOfRangeError:
            print("refused")
    """
    assert run_python(code).stdout == "refused\n"


def test_a_forked_child_of_the_fallback_starts_without_calls(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_fallback_router, "_known", {})
    router = _fallback_router.AdvancedRouter("least_busy")
    held = router.start("a")
    assert held is not None
    assert forked(lambda: (held.success(), router.health("a")["in_flight"])) == (False, 0)  # type: ignore[index]
    assert held.success()


def test_parameters_that_change_while_they_are_hashed_do_no_harm(make: Make) -> None:
    class Number(int):
        def __repr__(self) -> str:
            params[f"more{len(params)}"] = 1
            return "1"

        __str__ = __repr__

    params: dict[str, Any] = {"model": "provider/a"}
    params |= {"limit": Number(10**30), "other": 2}
    assert make().deployment_id({"model_name": "gpt", "litellm_params": params})


def test_an_error_that_cannot_be_asked_is_not_hidden(make: Make) -> None:
    class MuteError(Exception):
        @property
        def status_code(self) -> int:
            raise RuntimeError("no status")

        @property
        def response(self) -> None:
            raise RuntimeError("no response")

        def __str__(self) -> str:
            raise RuntimeError("no text")

    router = make()
    with pytest.raises(MuteError), router.start("a"):
        raise MuteError
    assert router.start("a").failure(error=MuteError())
    assert router.health("a")["failures"] == 2
    assert last_failure(router, "a") == ("other", None)


@pytest.mark.parametrize("sign", [1, -1])
def test_numbers_that_no_float_holds_are_out_of_range(make: Make, sign: int) -> None:
    huge = sign * 10**400
    with pytest.raises(ValueError, match=r"model_list\[0\]: litellm_params.weight"):
        make().get_available_deployment([deployment("a", weight=huge)], "gpt")
    call = make().start("a")
    with pytest.raises(ValueError, match="tokens="):
        call.success(tokens=huge)
    assert call.success()


def test_ids_that_hash_as_they_like_are_told_apart(make: Make) -> None:
    class Id(str):
        __slots__ = ()

        def __hash__(self) -> int:
            return 7

    models = [deployment("a"), deployment("b")]
    for model in models:
        model["model_info"]["id"] = Id(model["model_info"]["id"])
    router = make()
    assert router.cool_down("a", 60)
    router.start("b")
    for listed in (models, models[::-1]) * 10:
        assert (
            router.get_available_deployment(listed, "gpt")["litellm_params"]["model"]
            == "provider/b"
        )
    blocked = [models[1]["model_info"]["id"]]
    assert router.get_available_deployment(models, "gpt", blocked) is None
