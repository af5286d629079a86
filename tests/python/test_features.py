"""Proves what features are set to, for whom, and how they stand with all workers."""

from __future__ import annotations

import json
import os
import time
import warnings
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import fast_litellm
from fast_litellm import ConfigError, _feature_config, _features, _native
from fast_litellm._breaker import MAX_ERRORS, Breaker
from fast_litellm._feature_config import NAMES, Setting
from support import Forked, Worker, forked, in_fork, run_python, until

ROUTING, LIMITER = "rust_routing", "rust_rate_limiting"
DOCUMENTED = {
    "FAST_LITELLM_RUST_ROUTING": "rust_routing",
    "FAST_LITELLM_RUST_TOKEN_COUNTING": "rust_token_counting",
    "FAST_LITELLM_RUST_RATE_LIMITING": "rust_rate_limiting",
    "FAST_LITELLM_RUST_CONNECTION_POOL": "rust_connection_pool",
    "FAST_LITELLM_BATCH_TOKEN_COUNTING": "batch_token_counting",
}


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable of this package's, and nothing read before or kept after."""
    for name in [name for name in os.environ if name.startswith("FAST_LITELLM")]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(_features, "_settings", None)


def loaded(**variables: str) -> dict[str, Setting]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        return _feature_config.load()


def written(path: Path, document: object) -> str:
    text = document if isinstance(document, str) else json.dumps({"features": document})
    path.write_text(text)
    return str(path)


# Settings


def test_everything_is_on_by_default() -> None:
    assert loaded() == dict.fromkeys(NAMES, Setting("enabled", 100, "default"))
    packaged = json.loads(Path(_feature_config.PACKAGED).read_text())
    assert packaged == {"features": {name: {"enabled": True} for name in NAMES}}


@pytest.mark.parametrize(("variable", "feature"), DOCUMENTED.items())
def test_each_variable_sets_its_feature_alone(variable: str, feature: str) -> None:
    settings = loaded(**{variable: "canary:7"})
    assert settings.pop(feature) == Setting("canary", 7, variable)
    assert set(settings.values()) == {Setting("enabled", 100, "default")}


@pytest.mark.parametrize(
    ("value", "state", "percent"),
    [
        *((value, "enabled", 100) for value in ("true", "TRUE", "1", "yes", "on", " on ")),
        *((value, "disabled", 0) for value in ("false", "False", "0", "no", "off")),
        ("canary", "canary", 10),
        ("canary:10", "canary", 10),
        ("Canary: 3", "canary", 3),
        ("rollout:50", "rollout", 50),
        ("rollout:0", "rollout", 0),
        ("rollout:100", "rollout", 100),
        ("", "enabled", 100),
    ],
)
def test_values_of_variables(value: str, state: str, percent: int) -> None:
    assert loaded(FAST_LITELLM_RUST_ROUTING=value)[ROUTING][:2] == (state, percent)


@pytest.mark.parametrize(
    "value",
    ["maybe", "rollout", "rollout:", "canary:", "rollout:101", "rollout:-1", "canary:1.5",
     "rollout:5%", "rollout:1_0", "rollout:٣", "50", "true:50", ":", "rollout:5:5"],
)  # fmt: skip
def test_malformed_variables_are_refused_by_name_and_value(value: str) -> None:
    with pytest.raises(ConfigError) as refused:
        loaded(FAST_LITELLM_RUST_ROUTING=value)
    assert "FAST_LITELLM_RUST_ROUTING" in str(refused.value)
    assert repr(value) in str(refused.value)


@pytest.mark.parametrize(
    ("entry", "state", "percent"),
    [
        # As the reference has them.
        ({"enabled": True}, "enabled", 100),
        ({"enabled": False}, "disabled", 0),
        ({"enabled": False, "rollout_percentage": 25}, "rollout", 25),
        ({"enabled": True, "rollout_percentage": 50}, "rollout", 50),
        ({"enabled": False, "deployment_type": "canary"}, "canary", 10),
        # And what follows.
        ({}, "enabled", 100),
        ({"rollout_percentage": 30}, "rollout", 30),
        ({"enabled": True, "rollout_percentage": 100}, "enabled", 100),
        ({"enabled": True, "rollout_percentage": 0}, "disabled", 0),
        ({"enabled": True, "deployment_type": "canary"}, "canary", 10),
        ({"enabled": False, "deployment_type": "canary", "rollout_percentage": 3}, "canary", 3),
    ],
)
def test_entries_of_a_file(tmp_path: Path, entry: dict[str, Any], state: str, percent: int) -> None:
    path = written(tmp_path / "flags.json", {ROUTING: entry})
    settings = loaded(FAST_LITELLM_FEATURE_CONFIG=path)
    assert settings[ROUTING][:3] == (state, percent, path)
    assert settings[LIMITER] == Setting("enabled", 100, "default")


def test_a_variable_overrules_the_file_and_the_switch_of_all_both(tmp_path: Path) -> None:
    path = written(
        tmp_path / "flags.json", {ROUTING: {"enabled": False}, LIMITER: {"enabled": False}}
    )
    settings = loaded(FAST_LITELLM_FEATURE_CONFIG=path, FAST_LITELLM_RUST_ROUTING="rollout:40")
    assert settings[ROUTING] == Setting("rollout", 40, "FAST_LITELLM_RUST_ROUTING")
    assert settings[LIMITER] == Setting("disabled", 0, path, f"{path}: {LIMITER} is off")
    off = loaded(FAST_LITELLM_ENABLED="false", FAST_LITELLM_RUST_ROUTING="true")
    assert {setting.source for setting in off.values()} == {"FAST_LITELLM_ENABLED"}
    assert {setting.percent for setting in off.values()} == {0}


@pytest.mark.parametrize(
    ("document", "named"),
    [
        ("", "is not JSON"),
        ("{'features': {}}", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("[]", "has no features"),
        ('{"flags": {}}', "has no features"),
        ('{"features": []}', "has no features"),
        ('{"features": {"rust_routing": {}, "rust_routing": {}}}', "'rust_routing' is there twice"),
        (
            '{"features": {"rust_routing": {"enabled": true, "enabled": false}}}',
            "'enabled' is there twice",
        ),
        ({ROUTING: True}, "rust_routing is True"),
        ({ROUTING: {"enabled": "true"}}, "enabled='true'"),
        ({ROUTING: {"enabled": 1}}, "enabled=1"),
        ({ROUTING: {"rollout_percentage": "25"}}, "rollout_percentage='25'"),
        ({ROUTING: {"rollout_percentage": 2.5}}, "rollout_percentage=2.5"),
        ({ROUTING: {"rollout_percentage": True}}, "rollout_percentage=True"),
        ({ROUTING: {"rollout_percentage": 101}}, "rollout_percentage=101"),
        ({ROUTING: {"rollout_percentage": -1}}, "rollout_percentage=-1"),
        ({ROUTING: {"deployment_type": "blue"}}, "deployment_type='blue'"),
        ({ROUTING: {"rollout_percent": 5}}, "rollout_percent=5"),
        ({ROUTING: {"enabled": False, "rollout_percentage": 100}}, "contradicts"),
    ],
)
def test_a_file_that_cannot_be_meant_is_refused(
    tmp_path: Path, document: object, named: str
) -> None:
    path = written(tmp_path / "flags.json", document)
    with pytest.raises(ConfigError) as refused:
        loaded(FAST_LITELLM_FEATURE_CONFIG=path)
    assert named in str(refused.value)
    assert path in str(refused.value)


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00")
    for path, named in (
        ("missing.json", "No such file"),
        (".", "directory"),
        ("binary.json", "JSON"),
    ):
        with pytest.raises(ConfigError, match=named) as refused:
            loaded(FAST_LITELLM_FEATURE_CONFIG=str(tmp_path / path))
        assert str(tmp_path) in str(refused.value)


def test_what_other_versions_know_is_told_and_skipped(tmp_path: Path) -> None:
    path = written(
        tmp_path / "flags.json", json.dumps({"version": 2, "features": {"rust_teleport": {}}})
    )
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        assert loaded(FAST_LITELLM_FEATURE_CONFIG=path) == loaded()
    texts = [str(each.message) for each in told]
    assert ["'version'" in texts[0], "'rust_teleport'" in texts[1]] == [True, True]
    assert all(path in text for text in texts)


def test_malformed_settings_are_refused_by_the_import() -> None:
    for name, value in (
        ("FAST_LITELLM_RUST_ROUTING", "rollout:200"),
        ("FAST_LITELLM_FEATURE_CONFIG", "/nowhere/flags.json"),
        ("FAST_LITELLM_BREAKER_REST_S", "-1"),
    ):
        done = run_python("import fast_litellm", env={name: value}, check=False)
        assert done.returncode == 1
        last = done.stderr.strip().splitlines()[-1]
        assert "ConfigError" in last
        assert value in last


# Rollout

ids = st.text(max_size=40)


@given(st.sampled_from(NAMES), ids)
def test_a_bucket_is_what_the_documentation_says(name: str, request_id: str) -> None:
    text = f"{name}:{request_id}".encode(errors="surrogatepass")
    expected = int(sha256(text).hexdigest()[:16], 16) % 10_000
    assert _features.bucket(name, request_id) == expected


def test_buckets_are_the_same_for_ever() -> None:
    """Numbers that another version must not change: whoever was in a rollout stays in it."""
    found = [
        _features.bucket(*pair)
        for pair in ((ROUTING, "gpt-4"), (LIMITER, "api_key:x"), (ROUTING, ""))
    ]
    assert found == [6911, 1993, 5914]


@given(ids, st.integers(0, 100), st.integers(0, 100))
def test_a_larger_percentage_only_adds_ids(request_id: str, one: int, other: int) -> None:
    low, high = sorted((one, other))
    if _features.in_rollout(ROUTING, request_id, low):
        assert _features.in_rollout(ROUTING, request_id, high)
    assert _features.in_rollout(ROUTING, request_id, 100)
    assert not _features.in_rollout(ROUTING, request_id, 0)


def test_percentages_are_what_they_say_and_features_differ() -> None:
    many = [f"req-{n}" for n in range(20_000)]
    for percent in (1, 5, 25, 50, 90):
        part = sum(_features.in_rollout(ROUTING, each, percent) for each in many) / len(many)
        # Five standard deviations.
        assert (
            abs(part - percent / 100) < 5 * (percent / 100 * (1 - percent / 100) / len(many)) ** 0.5
        )
    both = sum(
        _features.in_rollout(ROUTING, each, 50) and _features.in_rollout(LIMITER, each, 50)
        for each in many
    )
    assert abs(both / len(many) - 0.25) < 0.02


# The functions


@pytest.fixture
def shared(region: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A region of the test's own, which the package takes for the process's."""
    monkeypatch.setattr(_native, "default_region", lambda: region)
    return region


def status(name: str = ROUTING) -> dict[str, Any]:
    found: dict[str, Any] = fast_litellm.get_feature_status()[name]
    return found


def test_status_of_a_fresh_process(shared: Any) -> None:
    assert fast_litellm.get_feature_status() == {
        name: {
            "enabled": True, "errors": 0, "error_count": 0, "rollout_percentage": 100,
            "state": "enabled", "breaker": "closed", "errors_total": 0, "source": "default", "note": "",
        }
        for name in NAMES
    }  # fmt: skip


def test_enabled_or_not(shared: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [fast_litellm.is_enabled(name) for name in NAMES] == [True] * len(NAMES)
    monkeypatch.setenv("FAST_LITELLM_RUST_ROUTING", "rollout:50")
    _features.configure()
    # Without an id nobody knows which half it is.
    assert not fast_litellm.is_enabled(ROUTING)
    half = [fast_litellm.is_enabled(ROUTING, f"r{n}") for n in range(100)]
    assert 20 < sum(half) < 80
    assert half == [_features.in_rollout(ROUTING, f"r{n}", 50) for n in range(100)]
    assert status()["enabled"]
    assert status()["state"] == "rollout"
    for wrong in ("routing", "", None, 7, []):
        with pytest.raises(ValueError, match="rust_routing, rust_token_counting"):
            fast_litellm.is_enabled(wrong)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="is no feature"):
            fast_litellm.set_feature(wrong, True)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="is no feature"):
        fast_litellm.reset_errors("routing")
    with pytest.raises(TypeError, match="bytes"):
        fast_litellm.is_enabled(ROUTING, b"id")  # type: ignore[arg-type]


def test_a_switch_is_moved_for_all_workers(shared: Any) -> None:
    with Worker(fast_litellm) as worker:
        assert worker.call("is_enabled", ROUTING) is True
        moved = fast_litellm.set_feature(ROUTING, "rollout:25")
        assert (moved["rollout_percentage"], moved["state"], moved["source"]) == (
            25,
            "rollout",
            "set_feature",
        )
        assert worker.call("get_feature_status")[ROUTING] == moved
        ids = [f"r{n}" for n in range(50)]
        assert [worker.call("is_enabled", ROUTING, each) for each in ids] == [
            _features.in_rollout(ROUTING, each, 25) for each in ids
        ]
        assert worker.call("is_enabled", LIMITER) is True
        worker.call("set_feature", ROUTING, False)
        assert not fast_litellm.is_enabled(ROUTING, "r0")
        assert status()["note"] == "switched off for all workers with set_feature"
        assert fast_litellm.set_feature(ROUTING, "canary")["rollout_percentage"] == 10
        worker.call("set_feature", ROUTING, None)
        assert status()["source"] == "default"
    for wrong in ("rollout:101", "maybe", ""):
        with pytest.raises(ConfigError):
            fast_litellm.set_feature(ROUTING, wrong)
    for kind in (1, 0, 25.0):
        with pytest.raises(TypeError, match="rollout:25"):
            fast_litellm.set_feature(ROUTING, kind)  # type: ignore[arg-type]
    assert status()["source"] == "default"


def test_errors_of_all_workers_open_the_breaker_and_a_reset_closes_it(shared: Any) -> None:
    for _ in range(MAX_ERRORS - 1):
        forked(lambda: shared.feature_error(0))
    assert (status()["errors"], status()["error_count"], status()["enabled"]) == (9, 9, True)
    forked(lambda: shared.feature_error(0))
    assert (status()["errors"], status()["breaker"], status()["enabled"]) == (10, "open", False)
    assert status()["note"] == "its breaker is open"
    assert not fast_litellm.is_enabled(ROUTING, "r")
    assert fast_litellm.is_enabled(LIMITER)
    assert fast_litellm.health_check()["status"] == "degraded"
    forked(lambda: fast_litellm.reset_errors(LIMITER))
    assert status()["breaker"] == "open"
    forked(lambda: fast_litellm.reset_errors(ROUTING))
    assert (status()["errors"], status()["errors_total"], status()["enabled"]) == (0, 10, True)
    assert fast_litellm.health_check()["status"] == "ok"
    for number in (1, 3):
        shared.feature_error(number)
    fast_litellm.reset_errors()
    assert {each["errors"] for each in fast_litellm.get_feature_status().values()} == {0}


# Breakers as those see them who do the operations


@in_fork
def test_health_does_not_wait_for_what_nobody_would_try(shared: Any) -> None:
    os.environ["FAST_LITELLM_BREAKER_REST_S"] = "1"

    def health() -> str:
        return str(fast_litellm.health_check()["status"])

    for _ in range(MAX_ERRORS):
        shared.feature_error(0)
    assert health() == "degraded"
    # What is wanted off is no fault.
    fast_litellm.set_feature("rust_routing", False)
    assert health() == "ok"
    fast_litellm.set_feature("rust_routing", None)
    assert health() == "degraded"
    # Whoever sends no requests to what is degraded sends one again, which tries it.
    until(lambda: health() == "ok", "may be tried", timeout_s=3.0)
    assert fast_litellm.get_feature_status()["rust_routing"]["breaker"] == "half_open"
    os.environ["FAST_LITELLM_BREAKER_REST_S"] = "0"
    assert health() == "degraded"


def breaker_of(shared: Any, rest_s: int, changes: list[bool] | None = None) -> Breaker:
    os.environ["FAST_LITELLM_BREAKER_REST_S"] = str(rest_s)
    note = (lambda _: None) if changes is None else changes.append
    return Breaker(shared, 1, "thing", "something else is done", note)


def trip(breaker: Breaker) -> None:
    for _ in range(MAX_ERRORS):
        breaker.failed("work", RuntimeError("injected"))
    assert breaker.open
    assert breaker.tripped


@in_fork
def test_after_the_rest_one_worker_tries_and_its_success_is_everybodys(shared: Any) -> None:
    changes: list[bool] = []
    breaker = breaker_of(shared, 1, changes)
    trip(breaker)

    end = time.monotonic() + 1.9

    def tries() -> bool:
        mine = breaker_of(shared, 1)
        while time.monotonic() < end:
            if not mine.open:
                return True
            time.sleep(0.01)
        return False

    triers = [Forked(tries) for _ in range(4)]
    # Nobody succeeds, so that each second another one may try; never two within one.
    assert 1 <= sum(trier.result() for trier in triers) <= 2
    until(lambda: not breaker.open, "be tried", timeout_s=3.0)
    # The others wait while this one tries.
    assert forked(lambda: breaker_of(shared, 1).open) is True
    assert breaker.tripped
    breaker.succeeded()
    assert not breaker.open
    assert not breaker.tripped
    assert forked(lambda: breaker_of(shared, 1).open) is False
    assert changes == [True, False]


@in_fork
def test_a_trial_that_fails_rests_again(shared: Any) -> None:
    changes: list[bool] = []
    breaker = breaker_of(shared, 1, changes)

    def standing() -> str:
        return str(shared.feature_standing(1, 1)["breaker"])

    trip(breaker)
    until(lambda: not breaker.open, "be tried", timeout_s=3.0)
    breaker.failed("work", RuntimeError("again"))
    assert breaker.open
    began = time.monotonic()
    assert shared.feature_standing(1, 1)["errors"] == MAX_ERRORS + 1
    # A success that comes late, of an operation that began before, is nobody's.
    breaker.succeeded()
    assert breaker.open
    until(lambda: not breaker.open, "be tried again", timeout_s=3.0)
    # Whole seconds are counted, of a clock that is read now and then.
    assert time.monotonic() - began > 0.2
    # Nobody tells how it went, and nothing fails: it works.
    until(lambda: not breaker.open and standing() == "closed", "close", timeout_s=3.0)
    assert changes == [True, False, True, False]
    assert [event["event"] for event in json.loads(shared.inspect())["events"]][:2] == [
        "breaker_closed",
        "breaker_opened",
    ]


@in_fork
def test_without_a_rest_it_stays_open_until_it_is_reset(shared: Any) -> None:
    breaker = breaker_of(shared, 0)
    trip(breaker)
    time.sleep(1.1)
    assert breaker.open
    assert shared.feature_standing(1, 0)["breaker"] == "open"
    # With a rest of a second somebody would try by now.
    assert shared.feature_standing(1, 1)["breaker"] == "half_open"
    fast_litellm.reset_errors("rust_token_counting")
    until(lambda: not breaker.open, "close", timeout_s=1.0)


@in_fork
def test_units_follow_the_switch(shared: Any) -> None:
    changes: list[bool] = []
    breaker = breaker_of(shared, 30, changes)
    units = [f"u{n}" for n in range(200)]
    assert not breaker.open
    assert all(map(breaker.covers, units))
    before: set[str] = set()
    for percent in (5, 25, 60, 100):
        fast_litellm.set_feature("rust_token_counting", f"rollout:{percent}")
        until(
            lambda percent=percent: not breaker.open and breaker.percent == percent, "follow", 1.0
        )
        assert breaker.partial == (percent < 100)
        now = {unit for unit in units if breaker.covers(unit)}
        assert now == {u for u in units if _features.in_rollout("rust_token_counting", u, percent)}
        assert before <= now
        before = now
    fast_litellm.set_feature("rust_token_counting", False)
    until(lambda: breaker.open, "switch off", timeout_s=1.0)
    assert not any(map(breaker.covers, units))
    # Wanted, not a fault.
    assert not breaker.tripped
    fast_litellm.set_feature("rust_token_counting", None)
    until(lambda: not breaker.open, "switch on", timeout_s=1.0)
    assert changes == [True, False]


# Without what is usually there


def test_without_the_extension_flags_work_from_the_configuration() -> None:
    done = run_python(
        """
        import sys, warnings, json
        warnings.simplefilter("ignore")
        sys.modules["fast_litellm._rust"] = None
        import fast_litellm as f
        f.reset_errors()
        f.reset_errors("rust_routing")
        try:
            f.set_feature("rust_routing", True)
        except f.RegionError as error:
            refused = "environment" in str(error)
        on = [f.is_enabled("rust_routing", f"r{n}") for n in range(100)]
        print(json.dumps([refused, f.is_enabled("rust_token_counting"), 0 < sum(on) < 100,
                          f.get_feature_status()["rust_routing"]]))
        """,
        env={"FAST_LITELLM_RUST_ROUTING": "rollout:50"},
    )
    *found, routing = json.loads(done.stdout)
    assert found == [True, True, True]
    assert (routing["enabled"], routing["rollout_percentage"], routing["breaker"]) == (
        True,
        50,
        "closed",
    )


def test_a_process_that_was_started_with_a_feature_off_says_so() -> None:
    done = run_python(
        """
        import json, fast_litellm as f
        seams = lambda: f.get_patch_status()["seams"]["rate_limiting"]
        off, before = seams(), f.get_feature_status()["rust_rate_limiting"]
        after = f.set_feature("rust_rate_limiting", True)
        print(json.dumps([off, before, after, seams()["state"], f.is_enabled("rust_rate_limiting")]))
        """,
        env={"FAST_LITELLM_RUST_RATE_LIMITING": "no"},
    )
    off, before, after, state, enabled = json.loads(done.stdout)
    assert off == {"state": "not_applied", "reason": "FAST_LITELLM_RUST_RATE_LIMITING is false"}
    assert (before["enabled"], before["source"]) == (False, "FAST_LITELLM_RUST_RATE_LIMITING")
    assert before["note"] == "FAST_LITELLM_RUST_RATE_LIMITING is false"
    assert (after["enabled"], after["source"], enabled) == (True, "set_feature", True)
    assert "until a restart" in after["note"]
    assert state == "not_applied"
