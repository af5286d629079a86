r"""What tiktoken's encodings are, told from the installed tiktoken without reading a file.

An encoding is a pattern that splits a text, a table of ranks that merges the bytes of each piece, and
special tokens. The extension implements one of each by name. Where the installed tiktoken has another
one, the encoding is left to tiktoken: the ids would not be the same.

All releases of tiktoken from 0.8 to 0.14 have the patterns below (`tiktoken_ext/openai_public.py`). 0.6
and 0.7 split other pieces for `cl100k_base`: without `\s++$`, white space at the end of a text is divided
at its last line break. Their `gpt2`, `r50k_base`, `p50k_base` and `p50k_edit` are spelled otherwise and
split the same; LiteLLM works with no tiktoken before 0.8, so they are not taken for known.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from types import FunctionType
from typing import Any, NamedTuple

#: Where tiktoken says what its encodings are: functions by name, each of which loads a table.
_DEFINITIONS = "tiktoken_ext.openai_public"
#: Its functions that read a table's files, with their parameters for the files' sha256.
_LOADERS = {
    "load_tiktoken_bpe": ("expected_hash",),
    "data_gym_to_mergeable_bpe_ranks": ("vocab_bpe_hash", "encoder_json_hash"),
}

_R50K = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"
_CL100K = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+"
    r"|\s++$|\s*[\r\n]|\s+(?!\S)|\s"
)
_O200K = "|".join(
    (
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
        r"\p{N}{1,3}",
        r" ?[^\s\p{L}\p{N}]+[\r\n/]*",
        r"\s*[\r\n]+",
        r"\s+(?!\S)",
        r"\s+",
    )
)
_FIM = ("<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>")
_END, _END_OF_PROMPT = "<|endoftext|>", "<|endofprompt|>"
#: Named special tokens of o200k_harmony; the others up to 201,087 are reserved.
_HARMONY = {
    199_998: "startoftext",
    199_999: "endoftext",
    200_002: "return",
    200_003: "constrain",
    200_005: "channel",
    200_006: "start",
    200_007: "end",
    200_008: "message",
    200_012: "call",
    200_018: "endofprompt",
}
_GPT2_FILES = (
    "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
    "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
)
_R50K_FILE = "306cd27f03c1a714eca7108e03d66b7dc042abe8c258b44c199a7ed9838dd930"
_P50K_FILE = "94b5ca7dff4d00767bc256fdd1b27e5b17361d7b8a5f968547f9f23eb70d2069"
_CL100K_FILE = "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7"
_O200K_FILE = "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d"


class Definition(NamedTuple):
    """An encoding without its table.

    Attributes:
        name: what tiktoken calls it.
        pattern: the regular expression that splits a text into pieces.
        special_tokens: their numbers by text.
        files: sha256 of the files that its table comes from.
        largest: its largest token, special ones included.
    """

    name: str
    pattern: str
    special_tokens: Mapping[str, int]
    files: tuple[str, ...]
    largest: int


def _harmony() -> dict[str, int]:
    # 200,018 has two names there: what o200k_base calls it, and a reserved one.
    named = {f"<|{name}|>": number for number, name in _HARMONY.items()}
    reserved = {
        f"<|reserved_{number}|>": number
        for number in range(200_000, 201_088)
        if number not in _HARMONY or number == 200_018
    }
    return named | reserved


_CL100K_SPECIAL = {
    _END: 100_257,
    **dict(zip(_FIM, range(100_258, 100_261), strict=True)),
    _END_OF_PROMPT: 100_276,
}
_P50K_EDIT_SPECIAL = {_END: 50_256, **dict(zip(_FIM, range(50_281, 50_284), strict=True))}
_O200K_SPECIAL = {_END: 199_999, _END_OF_PROMPT: 200_018}

#: What the extension implements, by name.
IMPLEMENTED = {
    each.name: each
    for each in (
        Definition("cl100k_base", _CL100K, _CL100K_SPECIAL, (_CL100K_FILE,), 100_276),
        Definition("o200k_base", _O200K, _O200K_SPECIAL, (_O200K_FILE,), 200_018),
        Definition("o200k_harmony", _O200K, _harmony(), (_O200K_FILE,), 201_087),
        Definition("p50k_base", _R50K, {_END: 50_256}, (_P50K_FILE,), 50_280),
        Definition("p50k_edit", _R50K, _P50K_EDIT_SPECIAL, (_P50K_FILE,), 50_283),
        Definition("r50k_base", _R50K, {_END: 50_256}, (_R50K_FILE,), 50_256),
        # The same table as r50k_base's, which is made from its files.
        Definition("gpt2", _R50K, {_END: 50_256}, _GPT2_FILES, 50_256),
    )
}


class Differences(NamedTuple):
    """How the installed tiktoken compares.

    Attributes:
        same: names of encodings that are what the extension implements.
        others: why an encoding is not, by name.
    """

    same: tuple[str, ...]
    others: dict[str, str]


def compare() -> Differences:
    """Compare what the installed tiktoken defines with what the extension implements.

    Raises:
        ImportError: tiktoken's definitions are not where they were.
    """
    constructors = vars(importlib.import_module(_DEFINITIONS)).get("ENCODING_CONSTRUCTORS")
    others = {}
    same = []
    for name, implemented in IMPLEMENTED.items():
        if not isinstance(constructors, dict):
            others[name] = "tiktoken defines it elsewhere"
        elif name in constructors:
            difference = _difference(constructors[name], implemented)
            if difference:
                others[name] = difference
            else:
                same.append(name)
    return Differences(tuple(same), others)


def construct(name: str) -> dict[str, Any]:
    """An encoding's parts as tiktoken itself loads them: from its cache, or from the network."""
    parts: dict[str, Any] = importlib.import_module(_DEFINITIONS).ENCODING_CONSTRUCTORS[name]()
    return parts


def _difference(constructor: Any, implemented: Definition) -> str:
    """In what an encoding is not what is implemented; empty = in nothing."""
    try:
        parts, files = _defined(constructor)
    except Exception as error:  # noqa: BLE001  # it is somebody else's, and may do anything
        return f"its definition cannot be told ({type(error).__name__}: {error})"
    if parts.get("name") != implemented.name:
        return "its name is another"
    if parts.get("pat_str") != implemented.pattern:
        return "its pattern is not the one that is implemented"
    if parts.get("special_tokens") != dict(implemented.special_tokens):
        return "its special tokens are not those that are implemented"
    if files != implemented.files:
        return "its table is not the one that is implemented"
    return ""


def _defined(constructor: Any) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Parts of an encoding without its ranks, and sha256 of the files that those would come from."""
    files: list[str] = []

    def reader(hashes: tuple[str, ...]) -> Callable[..., dict[bytes, int]]:
        def note(*_: Any, **named: Any) -> dict[bytes, int]:
            files.extend(str(named[each]) for each in hashes)
            return {}

        return note

    # The functions run with names of their own, so that nobody else's loader is replaced meanwhile.
    names: dict[str, Any] = dict(constructor.__globals__)
    for name, value in list(names.items()):
        if name in _LOADERS:
            names[name] = reader(_LOADERS[name])
        elif isinstance(value, FunctionType) and value.__globals__ is constructor.__globals__:
            names[name] = _with_names(value, names)
    parts: dict[str, Any] = _with_names(constructor, names)()
    return parts, tuple(files)


def _with_names(function: Any, names: dict[str, Any]) -> FunctionType:
    """The same function with other global names."""
    return FunctionType(
        function.__code__, names, function.__name__, function.__defaults__, function.__closure__
    )
