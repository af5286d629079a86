"""Proves that tokens are counted as tiktoken counts them, and priced as LiteLLM prices them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fast_litellm
from fast_litellm import SimpleTokenCounter, _fallback_tokens
from support import run_python

#: Models by the encoding they have.
MODELS = {
    "gpt-4": "cl100k_base",
    "gpt-3.5-turbo": "cl100k_base",
    "gpt-4o": "o200k_base",
    "openai/gpt-4o-mini": "o200k_base",
    "gpt-oss-120b": "o200k_harmony",
    "text-davinci-003": "p50k_base",
    "davinci": "r50k_base",
    "claude-3-opus-20240229": "cl100k_base",
}
TEXTS = [
    "",
    " ",
    "Hello, world!",
    "def f(x):\n    return x + 1\n\n\n\tpass",
    "Γειά, Привет мир, 你好\uff0c世界",
    "👩‍👩‍👧‍👦 e\u0301 \u017f \u212a",
    "<|endoftext|> and <|fim_prefix|>",
    "\x00\x1f\x7f\u2028",
    "a" * 2_000,
    " " * 2_000,
    "lone \ud800 surrogate",
]


@pytest.fixture(scope="module", autouse=True)
def encodings() -> dict[str, Any]:
    """Tiktoken's own, from the tables that LiteLLM carries where it carries them."""
    if "CUSTOM_TIKTOKEN_CACHE_DIR" not in os.environ:
        import importlib.util

        spec = importlib.util.find_spec("litellm")
        assert spec is not None
        assert spec.submodule_search_locations is not None
        directory = Path(spec.submodule_search_locations[0], "litellm_core_utils", "tokenizers")
        os.environ["TIKTOKEN_CACHE_DIR"] = str(directory)
    import tiktoken

    return {name: tiktoken.get_encoding(name) for name in ("cl100k_base", "o200k_base")}


@pytest.mark.parametrize("model", [None, "gpt-4", "gpt-4o"])
def test_counts_are_tiktokens(encodings: dict[str, Any], model: str | None) -> None:
    encoding = encodings[MODELS[model or "gpt-4"]]
    counter = SimpleTokenCounter()
    expected = [len(encoding.encode(text, disallowed_special=())) for text in TEXTS]
    assert [counter.count_tokens(text, model) for text in TEXTS] == expected
    assert counter.count_tokens_batch(TEXTS, model) == expected
    assert counter.count_tokens_batch(TEXTS * 300, model, threads=3) == expected * 300


@settings(max_examples=200)
@given(st.text(st.characters(codec="utf-8"), max_size=300))
def test_any_text_counts_as_in_tiktoken(text: str) -> None:
    import tiktoken

    counter = SimpleTokenCounter()
    for model in ("gpt-4", "gpt-4o"):
        encoding = tiktoken.get_encoding(MODELS[model])
        assert counter.count_tokens(text, model) == len(encoding.encode_ordinary(text))


def test_models_have_the_encoding_that_tiktoken_gives_them() -> None:
    import tiktoken

    for model, encoding in MODELS.items():
        try:
            assert tiktoken.encoding_name_for_model(model.rpartition("/")[2]) == encoding
        except KeyError:
            assert encoding == "cl100k_base", model
    # A text that is of another length in each of them.
    text = "ﷺ 你好 x = 'Hello'\n" + " " * 9
    by_encoding: dict[str, set[int]] = {}
    for model, encoding in MODELS.items():
        counted = SimpleTokenCounter().count_tokens(text, model)
        by_encoding.setdefault(encoding, set()).add(counted)
    assert all(len(counts) == 1 for counts in by_encoding.values())
    assert len({min(counts) for counts in by_encoding.values()}) >= 4


def test_bad_input_is_refused_with_the_value() -> None:
    counter = SimpleTokenCounter()
    with pytest.raises(TypeError, match="text must be a str, not bytes"):
        counter.count_tokens(b"x")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="not a str"):
        counter.count_tokens_batch("abc")
    with pytest.raises(TypeError, match="text must be a str, not int"):
        counter.count_tokens_batch(["a", 1])  # type: ignore[list-item]
    for number in (0, -5):
        with pytest.raises(fast_litellm.OutOfRangeError, match=f"model_max_tokens={number}"):
            SimpleTokenCounter(number)


# Prices and limits

LOOK_UP = """
import json, sys
{before}
from fast_litellm import SimpleTokenCounter, UnknownModelError
counter = SimpleTokenCounter(100)
seen = {{}}
for model in json.loads(sys.argv[1]):
    try:
        seen[model] = [counter.estimate_cost(tokens, 700, model) for tokens in (0, 1, 1000, 300_000)]
        seen[model].append(counter.get_model_limits(model))
    except UnknownModelError as error:
        seen[model] = str(error)
print(json.dumps([seen, "litellm" in sys.modules]))
"""
#: Tiers, one without output, one that is not paid by the token, one that does not exist.
PRICED = [
    "gpt-4o",
    "azure/gpt-4o",
    "gemini/gemini-2.5-pro",
    "claude-3-haiku-20240307",
    "text-embedding-3-small",
    "whisper-1",
    "no-such-model",
]


def looked_up(before: str) -> list[Any]:
    code = LOOK_UP.format(before=before)
    ran = run_python(f"import sys\nsys.argv[1:] = [{json.dumps(PRICED)!r}]\n{code}")
    found: list[Any] = json.loads(ran.stdout.splitlines()[-1])
    return found


def test_prices_are_litellms_whether_it_is_loaded_installed_or_absent() -> None:
    loaded, is_loaded = looked_up(
        "import os; os.environ['LITELLM_LOCAL_MODEL_COST_MAP'] = 'True'\nimport litellm"
    )
    installed, was_loaded = looked_up("")
    packed, _ = looked_up(
        "import importlib.util\nfind = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, *rest: None if name == 'litellm' else find(name, *rest)"
    )
    assert (is_loaded, was_loaded) == (True, False)
    for model in PRICED[:5]:
        # LiteLLM multiplies and adds in another order.
        assert installed[model][:4] == pytest.approx(loaded[model][:4]), model
        assert installed[model][4] == loaded[model][4]
    assert "not paid by the token" in installed["whisper-1"]
    assert "no-such-model" in packed["no-such-model"]
    assert packed["gpt-4o"] == installed["gpt-4o"]


def test_the_price_list_agrees_with_litellms_own_function() -> None:
    """Over all models of OpenAI, Anthropic and Google, for a small and a large input."""
    different = run_python(
        """
import json, os
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
import litellm
from fast_litellm import _model_prices
loaded = _model_prices._loaded
different = checked = 0
for model, entry in litellm.model_cost.items():
    provider, mode = entry.get("litellm_provider"), entry.get("mode")
    if provider not in ("openai", "anthropic", "gemini") or mode != "chat":
        continue
    for tokens in (10, 300_000):
        _model_prices._loaded = loaded
        theirs = _model_prices.cost_of(model, tokens, 5) if "input_cost_per_token" in entry else None
        _model_prices._loaded = lambda: None
        ours = _model_prices.cost_of(model, tokens, 5) if theirs is not None else None
        checked += 1
        different += theirs is not None and abs(theirs - ours) > 1e-9
print(json.dumps([checked, different]))
"""
    )
    checked, wrong = json.loads(different.stdout.splitlines()[-1])
    assert checked > 100
    assert wrong <= checked // 50


def test_costs_of_bad_numbers_are_refused() -> None:
    counter = SimpleTokenCounter()
    with pytest.raises(ValueError, match="output_tokens=-1"):
        counter.estimate_cost(1, -1, "gpt-4")
    with pytest.raises(TypeError, match="input_tokens must be an int, not float"):
        counter.estimate_cost(1.5, 1, "gpt-4")  # type: ignore[arg-type]
    with pytest.raises(fast_litellm.UnknownModelError, match="register_model"):
        counter.get_model_limits("openai/nothing")


def test_an_input_is_valid_within_its_models_limit() -> None:
    counter = SimpleTokenCounter(model_max_tokens=3)
    assert counter.validate_input("one two three", "nobody-knows-it")
    assert not counter.validate_input("one two three four", "nobody-knows-it")
    assert counter.validate_input("word " * 8_000, "gpt-4")
    assert not counter.validate_input("word " * 9_000, "gpt-4")


@pytest.mark.parametrize(("setting", "several"), [("true", True), ("false", False)])
def test_a_batch_is_counted_by_several_threads_unless_switched_off(
    setting: str, several: bool
) -> None:
    done = run_python(
        """
        import os, threading, fast_litellm
        counter = fast_litellm.SimpleTokenCounter()
        texts = [f"lorem ipsum {n} dolor " * 200 for n in range(1000)]
        counter.count_tokens("x")
        most, done = 0, False

        def watch():
            global most
            while not done:
                most = max(most, len(os.listdir("/proc/self/task")))

        watcher = threading.Thread(target=watch)
        watcher.start()
        counts = counter.count_tokens_batch(texts, threads=4)
        done = True
        watcher.join()
        assert counts == [counter.count_tokens(text) for text in texts]
        print(most > 2)
        """,
        env={"FAST_LITELLM_BATCH_TOKEN_COUNTING": setting},
    )
    assert done.stdout == f"{several}\n"


def test_without_the_extension_tiktoken_counts(encodings: dict[str, Any]) -> None:
    plain = _fallback_tokens.TokenCounter()
    native = SimpleTokenCounter()
    for model in (None, "gpt-4o", "azure/gpt-4o"):
        assert plain.count_tokens_batch(TEXTS, model) == native.count_tokens_batch(TEXTS, model)
    with pytest.raises(ValueError, match="model_max_tokens=0"):
        _fallback_tokens.TokenCounter(0)
