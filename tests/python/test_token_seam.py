"""Proves that all of LiteLLM counts through the extension, with the numbers that it has without."""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from importlib.resources import files
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

import fast_litellm
from fast_litellm import _encoding_definitions, _encodings, _native
from support import forked, in_fork, region, run_python, until

litellm = pytest.importorskip("litellm")

FEATURE, NAME = 1, "rust_token_counting"
TABLES = str(files("litellm").joinpath("litellm_core_utils/tokenizers"))
DEFAULT = "litellm.litellm_core_utils.default_encoding"


@pytest.fixture(scope="module", autouse=True)
def registry() -> Iterator[ModuleType]:
    """LiteLLM and tiktoken, without encodings. Every test patches them in a forked child."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        importlib.import_module("litellm.utils")
        importlib.import_module("litellm.main")
        found = importlib.import_module("tiktoken.registry")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(found, "ENCODINGS", {})
        patch.delitem(sys.modules, DEFAULT, raising=False)
        for owner, name in (
            (litellm, "encoding"),
            (litellm.main, "encoding"),
            (importlib.import_module("litellm.litellm_core_utils"), "default_encoding"),
        ):
            patch.delitem(vars(owner), name, raising=False)
        yield found


def accelerate(**variables: str) -> dict[str, str]:
    warnings.simplefilter("ignore")
    os.environ.pop("FAST_LITELLM_ENABLED", None)
    for feature in ("ROUTING", "RATE_LIMITING", "CONNECTION_POOL"):
        os.environ[f"FAST_LITELLM_RUST_{feature}"] = "false"
    os.environ.update(variables)
    assert fast_litellm.apply_acceleration() is True
    return status()


def status() -> dict[str, str]:
    found: dict[str, str] = fast_litellm.get_patch_status()["seams"]["token_counting"]
    return found


def seam() -> Any:
    from fast_litellm.integrations import litellm as integration

    return integration._seams["token_counting"]


def is_ours(encoding: object) -> bool:
    return isinstance(encoding, _encodings.RustEncoding)


def default_encoding() -> Any:
    return importlib.import_module(DEFAULT).encoding


def watch() -> list[str]:
    """Names of the extension's methods that are called from now on."""
    asked: list[str] = []
    for encoding in importlib.import_module(
        "fast_litellm.integrations.litellm.token_counting"
    )._made.values():
        core = encoding._core_bpe

        class Watched:
            def __init__(self, inner: Any) -> None:
                self._inner = inner

            def __getattr__(self, name: str) -> Any:
                method = getattr(self._inner, name)

                def call(*args: Any) -> Any:
                    asked.append(name)
                    return method(*args)

                return call

        vars(core)["ours"] = Watched(core.ours)
        encoding._loaded()
    return asked


# Where it is applied


@in_fork
def test_whatever_was_bound_before_is_replaced_and_put_back(registry: ModuleType) -> None:
    bound = default_encoding()
    assert litellm.encoding is litellm.main.encoding is bound
    assert litellm.main._get_encoding() is bound
    before = dict(registry.ENCODINGS)
    assert before == {"cl100k_base": bound}
    assert accelerate() == {"state": "applied", "reason": ""}
    ours = registry.get_encoding("cl100k_base")
    assert is_ours(ours)
    for kept in (default_encoding(), litellm.encoding, litellm.main.encoding):
        assert kept is ours
    assert litellm.main._get_encoding() is ours
    # What tiktoken had loaded is what is fallen back to.
    assert ours.tiktokens_own is bound
    assert set(registry.ENCODINGS) == set(_encoding_definitions.IMPLEMENTED)
    assert "token_counting" in fast_litellm.get_patch_status()["components"]
    fast_litellm.remove_acceleration()
    assert before == registry.ENCODINGS
    for kept in (default_encoding(), litellm.encoding, litellm.main.encoding):
        assert kept is bound
    assert litellm.main._encoding_cache is bound
    # Whoever has kept ours counts on, by tiktoken.
    assert ours.encode("hello world") == [15339, 1917]
    # And again, with the same objects.
    accelerate()
    assert registry.get_encoding("cl100k_base") is ours is default_encoding()
    asked = watch()
    assert litellm.encode(model="gpt-4", text="hello world") == [15339, 1917]
    assert asked == ["encode_ordinary"]


@in_fork
def test_whatever_was_bound_meanwhile_is_bound_to_tiktokens_afterwards(
    registry: ModuleType,
) -> None:
    assert DEFAULT not in sys.modules
    accelerate()
    assert is_ours(default_encoding())
    assert is_ours(litellm.encoding)
    assert is_ours(litellm.main._get_encoding())
    fast_litellm.remove_acceleration()
    found = default_encoding()
    assert type(found).__module__ == "tiktoken.core"
    # As if LiteLLM had asked tiktoken.
    assert {"cl100k_base": found} == registry.ENCODINGS
    assert "encoding" not in vars(litellm)
    assert "encoding" not in vars(litellm.main)
    assert "encoding" not in vars(litellm.utils)
    assert litellm.main._encoding_cache is None
    assert litellm.encoding is litellm.main._get_encoding() is found
    assert found.encode("hello world") == [15339, 1917]


def test_it_comes_before_litellms_first_use_and_workers_share_the_tables() -> None:
    done = run_python(
        """
        import importlib, json, os, socket, sys, threading, warnings
        warnings.simplefilter("ignore")
        os.environ.pop("TIKTOKEN_CACHE_DIR", None)
        import fast_litellm
        assert not {"tiktoken", "litellm"} & set(sys.modules)
        armed = fast_litellm.get_patch_status()["seams"]["token_counting"]
        assert armed["state"] == "armed", armed

        def refused(*_):
            raise AssertionError("the network is asked")

        socket.getaddrinfo = socket.socket.connect = refused
        import litellm
        assert fast_litellm.get_patch_status()["seams"]["token_counting"]["state"] == "applied"
        import tiktoken
        # Files are not read either: nobody has told where they are.
        assert "TIKTOKEN_CACHE_DIR" not in os.environ
        names = tiktoken.list_encoding_names()
        cores = {name: tiktoken.get_encoding(name)._core_bpe for name in names}
        loaded = lambda: sorted(name for name in cores if cores[name].is_loaded)
        assert loaded() == [], loaded()
        threads = threading.active_count()
        receive, send = os.pipe()
        if os.fork() == 0:
            found = [loaded(), litellm.token_counter("gpt-4o", text="hello world"), loaded()]
            os.write(send, json.dumps(found).encode())
            os._exit(0)
        os.wait()
        print(os.read(receive, 10_000).decode())
        assert loaded() == ["cl100k_base", "o200k_base"]
        assert threading.active_count() == threads
        encoding = importlib.import_module("litellm.litellm_core_utils.default_encoding").encoding
        assert encoding is tiktoken.get_encoding("cl100k_base")
        assert all("theirs" not in vars(core) for core in cores.values())
        """,
        env={"FAST_LITELLM_RUST_ROUTING": "false", "FAST_LITELLM_RUST_RATE_LIMITING": "false"},
    )
    both = ["cl100k_base", "o200k_base"]
    assert json.loads(done.stdout) == [both, 2, both]


@in_fork
def test_tiktoken_alone_is_enough(registry: ModuleType) -> None:
    import tiktoken

    accelerate()
    assert is_ours(tiktoken.get_encoding("o200k_base"))
    assert is_ours(tiktoken.encoding_for_model("gpt-4o"))


@in_fork
def test_a_fork_is_made_even_if_the_tables_cannot_be_loaded() -> None:
    accelerate()
    made = importlib.import_module("fast_litellm.integrations.litellm.token_counting")._made
    made["cl100k_base"].load = lambda: (_ for _ in ()).throw(_native.PanicException("no table"))
    before = region().feature_standing(FEATURE)["errors_total"]
    assert forked(lambda: litellm.token_counter("gpt-4", text="hello world")) == 2
    assert region().feature_standing(FEATURE)["errors_total"] == before + 1


# Where it is not applied


def without(owner: str, name: str) -> Callable[[ModuleType], None]:
    def change(_: ModuleType) -> None:
        delattr(importlib.import_module(owner), name)

    return change


def other_patterns(_: ModuleType) -> None:
    known = _encoding_definitions.IMPLEMENTED
    for name, definition in known.items():
        known[name] = definition._replace(pattern=".")


def no_definitions(_: ModuleType) -> None:
    sys.modules["tiktoken_ext.openai_public"] = None


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (without("tiktoken.registry", "_lock"), "_lock"),
        (without("tiktoken.core", "_special_token_regex"), "_special_token_regex"),
        (without("tiktoken._tiktoken", "CoreBPE"), "CoreBPE"),
        (other_patterns, "its pattern is not the one that is implemented"),
        (no_definitions, "ModuleNotFoundError"),
    ],
)
@in_fork
def test_a_tiktoken_that_is_not_known_is_left_alone(
    registry: ModuleType, change: Callable[[ModuleType], None], why: str
) -> None:
    before = dict(registry.ENCODINGS)
    change(registry)
    found = accelerate()
    assert found["state"] == "not_applied"
    assert why in found["reason"]
    assert before == registry.ENCODINGS


@in_fork
def test_one_encoding_that_is_not_known_is_left_to_tiktoken(registry: ModuleType) -> None:
    known = _encoding_definitions.IMPLEMENTED
    known["o200k_base"] = known["o200k_base"]._replace(special_tokens={})
    registry.ENCODINGS["p50k_base"] = somebody_elses = SimpleNamespace(name="p50k_base")
    found = accelerate()
    assert found["state"] == "applied"
    assert "o200k_base is left to tiktoken: its special tokens" in found["reason"]
    assert "p50k_base is left to tiktoken: somebody else" in found["reason"]
    assert is_ours(registry.get_encoding("cl100k_base"))
    assert registry.ENCODINGS["p50k_base"] is somebody_elses
    assert "o200k_base" not in registry.ENCODINGS
    os.environ["TIKTOKEN_CACHE_DIR"] = TABLES
    assert not is_ours(registry.get_encoding("o200k_base"))
    fast_litellm.remove_acceleration()
    assert registry.ENCODINGS["p50k_base"] is somebody_elses


@in_fork
def test_an_error_while_it_is_applied_leaves_all_as_it_was(registry: ModuleType) -> None:
    bound = default_encoding()
    compat = importlib.import_module("fast_litellm.integrations.litellm._compat")
    kept, calls = compat.kept_encodings, []

    def broken() -> Any:
        calls.append(1)
        if len(calls) == 1:
            raise RuntimeError("injected")
        return kept()

    compat.kept_encodings = broken
    found = accelerate()
    assert found == {"state": "not_applied", "reason": "RuntimeError: injected"}
    assert {"cl100k_base": bound} == registry.ENCODINGS
    assert default_encoding() is bound


@in_fork
def test_switched_off_in_the_environment_nothing_is_touched(registry: ModuleType) -> None:
    found = accelerate(FAST_LITELLM_RUST_TOKEN_COUNTING="false")
    assert found["state"] == "not_applied"
    assert "FAST_LITELLM_RUST_TOKEN_COUNTING" in found["reason"]
    assert registry.ENCODINGS == {}
    assert not is_ours(default_encoding())


@in_fork
def test_what_somebody_else_has_put_there_meanwhile_stays(registry: ModuleType) -> None:
    accelerate()
    default_encoding()
    registry.ENCODINGS["o200k_base"] = theirs = SimpleNamespace(name="o200k_base")
    fast_litellm.remove_acceleration()
    assert registry.ENCODINGS["o200k_base"] is theirs
    assert set(registry.ENCODINGS) == {"cl100k_base", "o200k_base"}


@in_fork
def test_litellms_native_tokenizer_is_left_to_it_and_told() -> None:
    catalog = importlib.import_module("litellm.rust_bridge.catalog")
    assert accelerate()["reason"] == ""
    native = importlib.import_module("litellm.litellm_core_utils.tokenizer").OpenAIEncoding
    rules = (catalog.RouteRule(catalog.Route.TOKENIZER, catalog.Rollout.RUST_REQUIRED),)
    catalog.RULES = (*rules, *catalog.RULES)
    assert "native tokenizer is switched on" in status()["reason"]
    assert status()["state"] == "applied"
    get = importlib.import_module("litellm.rust_bridge.tokenizer").get_encoding
    assert isinstance(get("cl100k_base"), native)
    assert litellm.token_counter("gpt-4", text="hello world") == 2
    fast_litellm.remove_acceleration()
    assert isinstance(get("cl100k_base"), native)


# Switches


def follow(percent: int) -> None:
    breaker = seam()._gate.breaker
    until(lambda: (breaker.open, breaker.percent)[1] == percent, "follow the switch", 1.0)


@in_fork
def test_the_switch_is_followed_and_shown() -> None:
    accelerate()
    asked = watch()

    def count() -> int:
        asked.clear()
        for _ in range(20):
            assert litellm.encode(model="gpt-4", text="hello world") == [15339, 1917]
        return asked.count("encode_ordinary")

    assert count() == 20
    fast_litellm.set_feature(NAME, False)
    time.sleep(0.3)
    assert count() == 0
    assert status() == {
        "state": "not_applied",
        "reason": "switched off for all workers with set_feature",
    }
    fast_litellm.set_feature(NAME, "rollout:50")
    follow(50)
    assert count() == 10
    assert status() == {"state": "applied", "reason": "rolled out to 50%"}
    fast_litellm.set_feature(NAME, True)
    follow(100)
    assert count() == 20
    assert region().fallback_count() == 0


@in_fork
def test_an_open_breaker_is_shown_and_costs_no_count() -> None:
    accelerate()
    assert litellm.token_counter("gpt-4", text="hello world") == 2
    for _ in range(10):
        region().feature_error(FEATURE)
    time.sleep(0.3)
    asked = watch()
    assert litellm.token_counter("gpt-4", text="hello world") == 2
    assert asked in ([], ["mergeable_ranks"])
    assert status() == {"state": "applied", "reason": "its breaker is open"}
    assert fast_litellm.health_check()["status"] == "degraded"
    fast_litellm.reset_errors(NAME)
    time.sleep(0.3)
    asked.clear()
    assert litellm.token_counter("gpt-4", text="hello world") == 2
    assert asked == ["encode_ordinary"]
    assert fast_litellm.health_check()["status"] == "ok"


@in_fork
def test_calls_are_timed_under_the_name_of_what_has_done_them() -> None:
    accelerate(FAST_LITELLM_PERFORMANCE_SAMPLING="1")
    encoding = importlib.import_module("tiktoken").get_encoding("cl100k_base")

    def counts() -> dict[str, int]:
        stats = fast_litellm.get_performance_stats()
        return {
            f"{component}.{name}": each["count"]
            for component, numbers in stats.items()
            for name, each in numbers["operations"].items()
        }

    for _ in range(5):
        encoding.encode("hello", disallowed_special=())
    encoding.encode("<|endoftext|>", allowed_special="all")
    encoding.encode_batch(["hello", "world"])
    encoding.decode([15339])
    assert counts() == {"rust_tokens.encode": 6, "rust_tokens.batch": 1}
    fast_litellm.set_feature(NAME, False)
    time.sleep(0.3)
    for _ in range(3):
        encoding.encode("hello")
    assert counts()["python_tokens.encode"] == 3
    found = fast_litellm.compare_implementations("rust_tokens", "python_tokens")
    assert found["operations"] == ["encode"]


# LiteLLM's numbers

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "Get the weather",
            "parameters": {
                "type": "object",
                "properties": {
                    "place": {"type": "string", "description": "a city, e.g. Zürich"},
                    "unit": {"type": "string", "enum": ["C", "F"]},
                },
                "required": ["place"],
            },
        },
    }
]
CONVERSATION: list[dict[str, Any]] = [
    {"role": "system", "content": "You are <|endoftext|> a helpful assistant."},
    {"role": "user", "name": "Zoë", "content": "How is the weather? " * 200},
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {
                "id": "call_1",
                "type": "function",
                "function": {"name": "get_weather", "arguments": '{"place": "München"}'},
            }
        ],
    },
    {"role": "tool", "tool_call_id": "call_1", "content": '{"temperature": 21}'},
    {
        "role": "user",
        "content": [
            {"type": "text", "text": "What do you see? 👀 你好"},
            {
                "type": "image_url",
                "image_url": {"url": "https://no.such.host/x.png", "detail": "low"},
            },
        ],
    },
]
MODELS = (
    *("", "gpt-3.5-turbo", "gpt-3.5-turbo-0301", "gpt-4", "gpt-4o", "azure/gpt-4o", "o3", "gpt-5"),
    *("text-davinci-003", "claude-opus-4-5", "claude-3-opus", "mistral/mistral-large-latest"),
    *("meta-llama/llama-3-8b", "replicate/llama-2-70b-chat", "command-r", "no-such-model"),
)


def answer(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except Exception as error:  # noqa: BLE001  # LiteLLM's own are to be the same, too
        return f"{type(error).__name__}: {error}"


def numbers() -> list[Any]:
    """What LiteLLM counts, encodes and decodes."""
    long = "".join(f"line {n}: the quick brown fox 你好\n" for n in range(400))
    custom = litellm.create_tokenizer(
        json.dumps(
            {
                "version": "1.0",
                "truncation": None,
                "padding": None,
                "added_tokens": [],
                "normalizer": None,
                "pre_tokenizer": {"type": "Whitespace"},
                "post_processor": None,
                "decoder": None,
                "model": {"type": "WordLevel", "vocab": {"[UNK]": 0, "a": 1}, "unk_token": "[UNK]"},
            }
        )
    )
    found: list[Any] = []
    for model in MODELS:
        text = {"text": "Hello, <|endoftext|> world! \ud83d\ude00 \ud800"}
        for given in (
            text,
            {"text": ["two ", "texts"]},
            {"text": long},
            {"text": long, "count_response_tokens": True},
            {"messages": CONVERSATION},
            {"messages": CONVERSATION, "use_default_image_token_count": True},
            *(
                {"messages": CONVERSATION, "tools": TOOLS, "tool_choice": choice}
                for choice in (
                    None,
                    "none",
                    "auto",
                    {"type": "function", "function": {"name": "get_weather"}},
                )
            ),
            {"messages": []},
            {"text": None},
        ):
            found.append(answer(lambda m=model, g=given: litellm.token_counter(m, **g)))
        tokens = answer(lambda m=model: litellm.encode(model=m, text=long))
        found.append(tokens)
        found.append(answer(lambda m=model, t=tokens: litellm.decode(model=m, tokens=t[:500])))
        found.append(answer(lambda m=model: litellm.decode(model=m, tokens=[10**7])))
    found.append(litellm.token_counter("gpt-4o", text="a b", custom_tokenizer=custom))
    found.append(litellm.encode("gpt-4o", "a b", custom_tokenizer=custom))
    litellm.disable_token_counter = True
    found.append(litellm.token_counter("gpt-4o", text="a b"))
    litellm.disable_token_counter = False
    return found


@in_fork
def test_litellms_numbers_are_the_same_with_and_without() -> None:
    # Any that would be downloaded are told from what cannot be had, as without a network.
    hub = importlib.import_module("litellm.rust_bridge.tokenizer")

    def unreachable(*_: Any, **__: Any) -> Any:
        raise OSError("no network")

    hub.from_pretrained = unreachable
    before = numbers()
    assert sum(isinstance(each, int) and each > 0 for each in before) > 100
    accelerate()
    asked = watch()
    assert numbers() == before
    assert len(asked) > 200
    assert region().fallback_count() == 0
    standing = fast_litellm.get_feature_status()[NAME]
    assert (standing["errors_total"], standing["breaker"]) == (0, "closed")
    fast_litellm.remove_acceleration()
    asked.clear()
    assert numbers() == before
    assert asked == []


@in_fork
def test_a_text_that_is_estimated_is_estimated_the_same() -> None:
    counter = importlib.import_module("litellm.litellm_core_utils.token_counter")
    text = "".join(f"line {n}: the quick brown fox\n" for n in range(5000))
    messages = [{"role": "user", "content": text}]

    def estimates() -> list[int]:
        found = [litellm.token_counter(model, text=text) for model in ("gpt-4", "gpt-4o")]
        return [*found, litellm.token_counter("gpt-4o", messages=messages)]

    exact = estimates()
    assert counter._get_extrapolating_count_function.__defaults__ == (4_000_000,)
    counter._get_extrapolating_count_function.__defaults__ = (20_000,)
    before = estimates()
    assert before != exact
    accelerate()
    asked = watch()
    assert estimates() == before
    assert asked
