"""Prices and limits of models: LiteLLM's, as they are known to whoever is nearest.

That is LiteLLM itself where it is loaded, with what the program has registered; else the file that an
installed LiteLLM carries, read without importing it; else the copy packed with this package.
"""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from functools import lru_cache
from pathlib import Path
from typing import Any

from fast_litellm.errors import UnknownModelError

#: The packed copy, beside this file.
PACKED = "model_prices.json.gz"
_INSTALLED = "model_prices_and_context_window_backup.json"
_RELEVANT = re.compile(
    r"(input|output)_cost_per_token(_above_\d+k_tokens)?|max_(input_|output_)?tokens"
)
_TIER = re.compile(r"input_cost_per_token_above_(\d+)k_tokens")


def relevant(entry: dict[str, Any]) -> dict[str, Any]:
    """What is used here of LiteLLM's entry of a model."""
    return {
        key: value
        for key, value in entry.items()
        if _RELEVANT.fullmatch(key) and isinstance(value, (int, float))
    }


def installed_file() -> Path | None:
    """LiteLLM's own file of prices, if it is installed; does not import it."""
    try:
        spec = importlib.util.find_spec("litellm")
    except (ImportError, ValueError):
        return None
    for directory in (spec and spec.submodule_search_locations) or ():
        file = Path(directory) / _INSTALLED
        if file.is_file():
            return file
    return None


@lru_cache(maxsize=1)
def _on_disk() -> dict[str, Any]:
    file = installed_file()
    if file is not None:
        try:
            models: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
            return models
        except (OSError, ValueError):
            pass  # Damaged: the packed copy is next.
    import gzip

    packed: dict[str, Any] = json.loads(
        gzip.decompress(Path(__file__).with_name(PACKED).read_bytes())
    )
    return packed


def _loaded() -> Any:
    """LiteLLM, if the program has loaded it and it is ready."""
    litellm = sys.modules.get("litellm")
    return litellm if isinstance(getattr(litellm, "model_cost", None), dict) else None


def entry_of(model: str) -> dict[str, Any]:
    """LiteLLM's entry of a model; a provider before the name is passed over where there is none with it.

    Raises:
        UnknownModelError: no such model.
    """
    if not isinstance(model, str):
        raise TypeError(f"model must be a str, not {type(model).__name__}")
    litellm = _loaded()
    models: dict[str, Any] = litellm.model_cost if litellm is not None else _on_disk()
    name = model
    while True:
        entry = models.get(name)
        if isinstance(entry, dict):
            return relevant(entry)
        _, provider, name = name.partition("/")
        if not provider:
            raise UnknownModelError(
                f"model {model!r} has no known price or limits: use a name of LiteLLM's model list, or "
                "register it with litellm.register_model"
            )


def cost_of(model: str, input_tokens: int, output_tokens: int) -> float:
    """Price of a call in US dollars.

    Where LiteLLM is loaded it is asked; else the price of a token, in and out, is that of the highest
    tier that the input exceeds.

    Raises:
        UnknownModelError: no such model, or it is not paid by the token.
    """
    for name, tokens in (("input_tokens", input_tokens), ("output_tokens", output_tokens)):
        if not isinstance(tokens, int):
            raise TypeError(f"{name} must be an int, not {type(tokens).__name__}")
        if tokens < 0:
            raise ValueError(f"{name}={tokens}: use 0 or more")
    entry = entry_of(model)
    if "input_cost_per_token" not in entry and "output_cost_per_token" not in entry:
        raise UnknownModelError(f"model {model!r} is not paid by the token")
    litellm = _loaded()
    if litellm is not None:
        try:
            prompt, completion = litellm.cost_per_token(
                model=model, prompt_tokens=input_tokens, completion_tokens=output_tokens
            )
            return float(prompt + completion)
        except Exception:  # noqa: BLE001, S110  # it knows the name otherwise than by its rules: ours are near
            pass
    exceeded = [int(tier[1]) for key in entry if (tier := _TIER.fullmatch(key))]
    above = max((tier for tier in exceeded if input_tokens > tier * 1_000), default=None)
    suffix = "" if above is None else f"_above_{above}k_tokens"

    def price(direction: str) -> float:
        plain = f"{direction}_cost_per_token"
        return float(entry.get(plain + suffix, entry.get(plain, 0.0)))

    return input_tokens * price("input") + output_tokens * price("output")


def limits_of(model: str) -> dict[str, int | None]:
    """Most tokens of a model.

    Returns:
        `max_input_tokens`, `max_output_tokens`, `max_tokens` (LiteLLM's: most tokens of an answer), and
        `context_window` (most tokens of an input, else `max_tokens`); None = unknown.

    Raises:
        UnknownModelError: no such model.
    """
    entry = entry_of(model)
    limits: dict[str, int | None] = {}
    for name in ("max_input_tokens", "max_output_tokens", "max_tokens"):
        value = entry.get(name)
        limits[name] = None if value is None else int(value)
    window = limits["max_input_tokens"]
    limits["context_window"] = limits["max_tokens"] if window is None else window
    return limits
