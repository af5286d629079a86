"""Proves that encodings over the extension's core do what tiktoken's do, whatever they are asked."""

from __future__ import annotations

import copy
import inspect
import os
import pickle
import threading
import time
import types
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files
from typing import Any

import pytest

tiktoken = pytest.importorskip("tiktoken")
pytest.importorskip("litellm")

import tiktoken_ext.openai_public as openai_public  # noqa: E402
from tiktoken import _tiktoken  # noqa: E402

from fast_litellm import UnavailableError, _encoding_definitions, _encodings, _native  # noqa: E402
from fast_litellm._encodings import RustEncoding  # noqa: E402
from fast_litellm._native import PanicException, Region  # noqa: E402
from fast_litellm._token_gate import FEATURE, Gate  # noqa: E402
from support import forked, run_python  # noqa: E402

#: Those whose tables LiteLLM carries; r50k_base and gpt2 have theirs from elsewhere.
CARRIED = ("cl100k_base", "o200k_base", "o200k_harmony", "p50k_base", "p50k_edit")
NAMES = (*CARRIED, "r50k_base", "gpt2")
MAX_ERRORS = 10
END = "<|endoftext|>"


class Text(str):
    """A str of another class."""

    __slots__ = ()


TEXTS: list[Any] = [
    "",
    "a",
    "Hello, world! It's 12345 tokens\n\n  and   white space \n ",
    f"before {END} after",
    "<|fim_prefix|>x<|endofprompt|><|start|>assistant<|",
    "你好 世界 שלום नमस्ते 👩\u200d👩\u200d👧 e\u0301 \u017fK \u017f\u212a",
    "\ud83d\ude00 pair, \ud800 lone",
    f"\udc00{END}",
    "x" * 3000,
    Text(f"of a class of its own {END}"),
    b"bytes",
    None,
    5,
    ["a"],
]
TOKENS: list[Any] = [
    [],
    [1, 2, 3],
    (9906, 11),
    range(20),
    [50256],
    [100257, 15],
    [199999, 200018],
    [162, 121],
    [10**6],
    [1, 10**6, -1],
    [-1],
    [2**32],
    [2**70],
    [1.5],
    [True],
    ["1"],
    "12",
    None,
    7,
    {1, 2},
]


@pytest.fixture(scope="module")
def theirs() -> Iterator[Callable[[str], Any]]:
    """Encodings that tiktoken has made from LiteLLM's copies of its files."""
    tables = files("litellm").joinpath("litellm_core_utils/tokenizers")
    before = os.environ.get("TIKTOKEN_CACHE_DIR")
    os.environ["TIKTOKEN_CACHE_DIR"] = str(tables)
    made: dict[str, Any] = {}

    def get(name: str) -> Any:
        if name not in made and name in CARRIED:
            made[name] = tiktoken.core.Encoding(**openai_public.ENCODING_CONSTRUCTORS[name]())
        elif name not in made:
            definition = _encoding_definitions.IMPLEMENTED[name]
            made[name] = tiktoken.core.Encoding(
                name,
                pat_str=definition.pattern,
                mergeable_ranks=_native.CoreBPE("r50k_base").mergeable_ranks(),
                special_tokens=dict(definition.special_tokens),
            )
        return made[name]

    yield get
    if before is None:
        del os.environ["TIKTOKEN_CACHE_DIR"]


@pytest.fixture
def gate(region: Region) -> Gate:
    region.set_feature_switch(FEATURE, 100)
    return Gate(region)


def ours(name: str, gate: Gate, theirs: Any = None) -> RustEncoding:
    return RustEncoding(_encoding_definitions.IMPLEMENTED[name], gate, theirs)


def outcome(call: Callable[[], Any]) -> Any:
    """What a call returns, with its type; or what it raises, with its text."""
    try:
        value = call()
    except Exception as error:  # noqa: BLE001  # any that tiktoken raises
        return type(error), str(error)
    if type(value).__module__ == "numpy":
        return "numpy", value.dtype, value.tolist()
    return type(value), value


def no_fault(region: Region) -> bool:
    standing = region.feature_standing(FEATURE)
    return standing["errors_total"] == 0 and region.fallback_count() == 0


def same(left: Any, right: Any, method: str, *args: Any, **kwargs: Any) -> None:
    found = outcome(lambda: getattr(left, method)(*args, **kwargs))
    expected = outcome(lambda: getattr(right, method)(*args, **kwargs))
    assert found == expected, (method, args, kwargs)


class Recorder:
    """The extension's core, with what it was asked; fails as told."""

    def __init__(self, name: str) -> None:
        self._core = _native.CoreBPE(name)
        self.asked: list[tuple[str, tuple[Any, ...]]] = []
        self.error: BaseException | None = None

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._core, name)

        def call(*args: Any) -> Any:
            self.asked.append((name, args))
            if self.error is not None:
                raise self.error
            return method(*args)

        return call


def recorded(name: str, gate: Gate, theirs: Any = None) -> tuple[RustEncoding, Recorder]:
    encoding = ours(name, gate, theirs)
    recorder = Recorder(name)
    vars(encoding._core_bpe)["ours"] = recorder
    return encoding, recorder


# What they are


@pytest.mark.parametrize("name", NAMES)
def test_an_encoding_is_what_tiktokens_is(
    name: str, gate: Gate, theirs: Callable[[str], Any]
) -> None:
    left, right = ours(name, gate), theirs(name)
    assert isinstance(left, tiktoken.Encoding)
    assert repr(left) == repr(right)
    for attribute in ("name", "_pat_str", "_special_tokens", "max_token_value", "n_vocab"):
        assert getattr(left, attribute) == getattr(right, attribute)
    assert (left.eot_token, left.special_tokens_set) == (right.eot_token, right.special_tokens_set)
    for token in (0, left.eot_token, left.max_token_value):
        assert left.is_special_token(token) is right.is_special_token(token)
    # So far nothing has needed the table.
    assert not left._core_bpe.is_loaded
    assert left._mergeable_ranks == right._mergeable_ranks
    assert left.token_byte_values() == right.token_byte_values()
    for text in TEXTS[:9]:
        same(left, right, "encode", text, disallowed_special=())
    assert "theirs" not in vars(left._core_bpe)


def test_every_method_is_there_with_its_parameters() -> None:
    for name, method in vars(tiktoken.Encoding).items():
        if inspect.isfunction(method) and name not in ("__init__", "__getstate__", "__setstate__"):
            found = inspect.signature(getattr(RustEncoding, name)).parameters
            expected = inspect.signature(method).parameters
            assert list(found) == list(expected), name
            assert [(each.kind, each.default) for each in found.values()] == [
                (each.kind, each.default) for each in expected.values()
            ], name


# What they return and raise


@pytest.mark.parametrize("name", ["cl100k_base", "o200k_harmony", "p50k_edit"])
def test_texts_are_encoded_as_tiktoken_does(
    name: str, region: Region, gate: Gate, theirs: Callable[[str], Any]
) -> None:
    left, right = ours(name, gate), theirs(name)
    for text in TEXTS:
        same(left, right, "encode_ordinary", text)
        same(left, right, "encode_ordinary_batch", ["one", text, "two"])
        same(left, right, "encode_ordinary_batch", text)
        for allowed in ({}, "all", set(), {END}, frozenset({END, "no such token"}), [END], {1}):
            given: dict[str, Any] = {} if allowed == {} else {"allowed_special": allowed}
            for refused in ({}, "all", (), {END}, [END, "world"], frozenset(), {"ell", "x"}, 5):
                if refused != {}:
                    given["disallowed_special"] = refused
                for method in ("encode", "encode_to_numpy"):
                    same(left, right, method, text, **given)
                same(left, right, "encode_batch", ["one", text, f"{END} two"], **given)
    same(left, right, "encode", "a", disallowed_special={""})
    same(left, right, "encode_batch", [], allowed_special=[END])
    same(left, right, "encode_batch", 5)
    assert no_fault(region)
    assert "theirs" not in vars(left._core_bpe)


@pytest.mark.parametrize("name", ["cl100k_base", "o200k_harmony", "p50k_edit"])
def test_tokens_are_decoded_as_tiktoken_does(
    name: str, region: Region, gate: Gate, theirs: Callable[[str], Any]
) -> None:
    numpy = pytest.importorskip("numpy")
    left, right = ours(name, gate), theirs(name)
    for tokens in (*TOKENS, numpy.array([1, 2], dtype=numpy.uint32)):
        for method in ("decode_bytes", "decode", "decode_tokens_bytes", "decode_with_offsets"):
            same(left, right, method, tokens)
        for errors in ("strict", "ignore", "no such way", None):
            same(left, right, "decode", tokens, errors)
            same(left, right, "decode_batch", [[1], tokens, [10**6]], errors=errors)
        same(left, right, "decode_batch", [[1], tokens])
        same(left, right, "decode_bytes_batch", [tokens, [1], [2]])
        same(left, right, "decode_bytes_batch", tokens)
        same(left, right, "decode_single_token_bytes", tokens)
    for token in (0, 300, left.eot_token, left.max_token_value, 10**6, -1, 2**40, 1.5, "1"):
        same(left, right, "decode_single_token_bytes", token)
    assert no_fault(region)
    assert "theirs" not in vars(left._core_bpe)


@pytest.mark.parametrize("name", ["cl100k_base", "p50k_edit"])
def test_pieces_are_encoded_as_tiktoken_does(
    name: str, region: Region, gate: Gate, theirs: Callable[[str], Any]
) -> None:
    left, right = ours(name, gate), theirs(name)
    for piece in ("hello", b"hello", "helloqqqq", b"\xff\xfe", "", END, 5, None, "\ud800"):
        same(left, right, "encode_single_token", piece)
        if piece:  # of which tiktoken panics where there is none
            same(left, right, "_encode_single_piece", piece)
    for data in (b"hello world", b"\xff raw \xf0\x9f", "text"):
        same(left, right, "_encode_bytes", data)
    same(left, right, "_encode_only_native_bpe", "hello world, it's 12345")
    found, expected = (each.encode_with_unstable("hello fanta") for each in (left, right))
    assert (found[0], sorted(found[1])) == (expected[0], sorted(expected[1]))
    same(left, right, "encode_with_unstable", f"x{END}")
    assert no_fault(region)


@pytest.mark.parametrize("threads", [1, 3, None, True, 0, -1, 1.5, "2"])
def test_the_number_of_threads_is_taken_as_tiktoken_takes_it(
    threads: Any, gate: Gate, theirs: Callable[[str], Any]
) -> None:
    left, right = ours("p50k_base", gate), theirs("p50k_base")
    for method, batch in (
        ("encode_batch", ["a", "b"]),
        ("encode_ordinary_batch", ["a", "b"]),
        ("decode_batch", [[1], [2]]),
        ("decode_bytes_batch", [[1], [2]]),
    ):
        same(left, right, method, batch, num_threads=threads)


@pytest.mark.parametrize("enabled", [True, False])
def test_batches_start_no_thread_of_pythons_and_keep_to_those_they_are_given(
    enabled: bool, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def is_enabled(name: str) -> bool:
        asked.append(name)
        return enabled

    monkeypatch.setattr(_encodings, "is_enabled", is_enabled)
    monkeypatch.setattr(threading.Thread, "start", lambda _: pytest.fail("a thread was started"))
    encoding, recorder = recorded("cl100k_base", gate)
    texts = ["one", "two"]
    assert encoding.encode_batch(texts, num_threads=5) == [[606], [20375]]
    assert encoding.encode_ordinary_batch(texts, num_threads=6) == [[606], [20375]]
    assert encoding.decode_batch([[606], [20375]], num_threads=7) == texts
    assert encoding.decode_bytes_batch([[606]], num_threads=4) == [b"one"]
    assert [args[-1] for _, args in recorder.asked] == ([5, 6, 7, 4] if enabled else [1] * 4)
    assert asked == ["batch_token_counting"] * 4


def test_threads_may_share_an_encoding(gate: Gate, theirs: Callable[[str], Any]) -> None:
    texts = [f"text {n} " * (n % 50) for n in range(400)]
    expected = [theirs("cl100k_base").encode(text) for text in texts]
    encoding = ours("cl100k_base", gate)
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda _: [encoding.encode(text) for text in texts], range(4)):
            assert found == expected
    assert "theirs" not in vars(encoding._core_bpe)


# Copies


def test_a_copy_is_the_encoding_itself(gate: Gate) -> None:
    encoding = ours("cl100k_base", gate)
    assert copy.copy(encoding) is encoding
    assert copy.deepcopy({"x": [encoding]})["x"][0] is encoding


def test_it_is_pickled_by_name_for_processes_without_fast_litellm(
    gate: Gate, tmp_path: Any, theirs: Callable[[str], Any]
) -> None:
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        pickled = pickle.dumps(ours("p50k_base", gate), protocol)
        assert b"fast_litellm" not in pickled
        assert len(pickled) < 200
    path = tmp_path / "pickled"
    path.write_bytes(pickled)
    tables = str(files("litellm").joinpath("litellm_core_utils/tokenizers"))
    done = run_python(
        f"""
        import pickle, sys
        encoding = pickle.load(open({str(path)!r}, "rb"))
        assert "fast_litellm" not in sys.modules and type(encoding).__module__ == "tiktoken.core"
        print(encoding.name, encoding.encode("hello world"))
        """,
        env={"TIKTOKEN_CACHE_DIR": tables},
    )
    assert done.stdout == "p50k_base [31373, 995]\n"


# Faults

CALLS: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
    ("encode", ("hello world",), {"disallowed_special": ()}),
    ("encode", (f"hello {END}",), {"allowed_special": "all"}),
    ("encode", ("\ud800 lone",), {}),
    ("encode_ordinary", ("hello world",), {}),
    ("encode_to_numpy", ("hello",), {}),
    ("encode_batch", (["a", "b"],), {}),
    ("encode_ordinary_batch", (["a", "b"],), {}),
    ("encode_single_token", ("hello",), {}),
    ("_encode_single_piece", ("hello",), {}),
    ("decode", ([1, 2],), {}),
    ("decode_bytes", ([1, 2],), {}),
    ("decode_single_token_bytes", (300,), {}),
    ("decode_tokens_bytes", ([300],), {}),
    ("decode_with_offsets", ([300],), {}),
    ("decode_batch", ([[1], [2]],), {}),
    ("decode_bytes_batch", ([[1], [2]],), {}),
    ("token_byte_values", (), {}),
]


@pytest.mark.parametrize("kind", [RuntimeError, PanicException, MemoryError, ValueError])
def test_what_the_extension_cannot_do_tiktoken_does(
    kind: type[BaseException], region: Region, gate: Gate, theirs: Callable[[str], Any]
) -> None:
    right = theirs("p50k_base")
    failed = 0
    for method, args, kwargs in CALLS:
        encoding, recorder = recorded("p50k_base", gate, right)
        # Once as the first call, once when all calls are known to be the extension's.
        for error in (kind("injected"), None, kind("injected")):
            recorder.error = error
            before = len(recorder.asked)
            same(encoding, right, method, *args, **kwargs)
            asked = len(recorder.asked) - before
            # A text that tiktoken has to mend first is tried anew when that is done.
            assert asked == (2 if args == ("\ud800 lone",) else 1), method
            failed += asked if error else 0
        region.reset_feature(FEATURE)
        gate.breaker._looked_at = 0.0
    counted = region.feature_standing(FEATURE)["errors_total"], region.fallback_count()
    # What is asked senselessly is no reason to open the breaker.
    assert counted == (0 if kind is ValueError else failed, failed)


def test_ten_faults_open_the_breaker_and_a_reset_closes_it(
    region: Region, gate: Gate, theirs: Callable[[str], Any]
) -> None:
    encoding, recorder = recorded("p50k_base", gate, theirs("p50k_base"))
    recorder.error = RuntimeError("injected")
    for _ in range(MAX_ERRORS + 20):
        assert encoding.encode("hello world") == [31373, 995]
        assert encoding.decode([31373]) == "hello"
    assert len(recorder.asked) == MAX_ERRORS
    assert region.feature_standing(FEATURE)["breaker"] == "open"
    recorder.error = None
    region.reset_feature(FEATURE)
    gate.breaker._looked_at = 0.0
    assert encoding.encode("hello world") == [31373, 995]
    assert len(recorder.asked) == MAX_ERRORS + 1


@pytest.mark.parametrize("kind", [RuntimeError, PanicException])
def test_a_call_that_cannot_be_decided_is_tiktokens_and_counted(
    kind: type[BaseException],
    gate: Gate,
    region: Region,
    theirs: Callable[[str], Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    encoding, recorder = recorded("cl100k_base", gate, theirs("cl100k_base"))
    expected = theirs("cl100k_base").encode("hello world")

    def fail(*_: object) -> None:
        raise kind("no region")

    with monkeypatch.context() as patch:
        patch.setattr(gate.breaker, "_look", fail)
        assert encoding.encode("hello world") == expected
        assert recorder.asked == []
        assert region.feature_standing(FEATURE)["errors_total"] == 1
        patch.setattr(gate.breaker, "failed", fail)
        assert encoding.encode("hello world") == expected
    # When it looks the next time, all is well again.
    gate.breaker._looked_at = 0.0
    assert encoding.encode("hello world") == expected
    assert [name for name, _ in recorder.asked] == ["encode_ordinary"]


def test_a_trial_that_succeeds_closes_the_breaker(region: Region, gate: Gate) -> None:
    encoding, recorder = recorded("p50k_base", gate)
    for _ in range(MAX_ERRORS):
        region.feature_error(FEATURE)
    assert encoding.encode("hello") == [31373]
    # tiktoken's core was made of the extension's ranks, and has done it.
    assert [name for name, _ in recorder.asked] == ["mergeable_ranks"]
    gate.breaker._rest_s = 1
    time.sleep(1.05)
    assert encoding.encode("hello") == [31373]
    assert recorder.asked[-1][0] == "encode_ordinary"
    assert region.feature_standing(FEATURE)["breaker"] == "closed"


def test_a_table_that_cannot_be_loaded_is_tiktokens(
    region: Region, gate: Gate, theirs: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs("p50k_base")  # which has set where its files are
    asked = []

    def broken(name: str) -> Any:
        asked.append(name)
        raise PanicException("no table")

    monkeypatch.setattr(_native, "CoreBPE", broken)
    encoding = ours("p50k_base", gate)
    assert encoding.encode("hello world") == [31373, 995]
    assert encoding.decode([31373]) == "hello"
    assert encoding._mergeable_ranks == theirs("p50k_base")._mergeable_ranks
    assert asked[0] == "p50k_base"
    assert region.feature_standing(FEATURE)["errors_total"] >= 3


def test_what_the_extension_refuses_and_tiktoken_takes_is_counted(
    region: Region, gate: Gate, theirs: Callable[[str], Any]
) -> None:
    encoding, recorder = recorded("p50k_base", gate, theirs("p50k_base"))
    recorder.error = TypeError("not taken")
    assert encoding.encode("hello world", disallowed_special=()) == [31373, 995]
    assert encoding.encode_batch(["hello"]) == [[31373]]
    assert region.fallback_count() >= 2
    recorder.error = UnavailableError("too long")
    assert encoding.encode("hello world") == [31373, 995]
    assert region.feature_standing(FEATURE)["errors_total"] == 0


# Rollouts


def test_a_part_of_the_calls_goes_through_the_extension(
    region: Region, gate: Gate, theirs: Callable[[str], Any]
) -> None:
    encoding, recorder = recorded("p50k_base", gate, theirs("p50k_base"))
    for percent in (25, 1, 99, 100, 0):
        region.set_feature_switch(FEATURE, percent)
        gate.breaker._looked_at = 0.0
        gate._all(0.0)
        recorder.asked.clear()
        for _ in range(200):
            assert encoding.encode("hello world") == [31373, 995]
        assert len(recorder.asked) == 2 * percent
        for _ in range(100):
            assert encoding.decode([31373]) == "hello"
            assert encoding.encode_batch(["hello"]) == [[31373]]
        assert len(recorder.asked) == 4 * percent
    assert no_fault(region)


def test_a_gate_that_is_closed_sends_all_to_tiktoken(
    gate: Gate, theirs: Callable[[str], Any]
) -> None:
    encoding, recorder = recorded("p50k_base", gate, theirs("p50k_base"))
    assert encoding.encode("hello") == [31373]
    gate.close()
    asked = len(recorder.asked)
    for method, args, kwargs in CALLS:
        same(encoding, theirs("p50k_base"), method, *args, **kwargs)
    assert len(recorder.asked) == asked


def test_short_calls_are_the_extensions_own_while_all_calls_are(gate: Gate) -> None:
    encoding = ours("p50k_base", gate)
    encoding.load()
    core = encoding._core_bpe.ours
    # The first call looks how things stand, and tells.
    assert encoding.encode("hello") == [31373]
    natives = core.decode_bytes, core.decode_single_token_bytes, core.encode_single_token
    assert (encoding._bytes, encoding._bytes_of_one, encoding._token) == natives
    gate.close()
    assert encoding._bytes == encoding._core_bpe.decode_bytes


# Forks


def test_a_child_has_the_tables_of_its_parent(gate: Gate, region: Region) -> None:
    encoding = ours("cl100k_base", gate)
    encoding.load()
    core = encoding._core_bpe

    def child() -> tuple[bool, list[int]]:
        return core.is_loaded, encoding.encode("hello world")

    assert forked(child) == (True, [15339, 1917])
    assert "theirs" not in vars(core)
    # In a rollout both are needed.
    region.set_feature_switch(FEATURE, 50)
    gate.breaker._looked_at = 0.0
    encoding.load()
    assert "theirs" in vars(core)


def test_a_batch_is_done_where_threads_cannot_be_started() -> None:
    # A stack that no address space has room for.
    done = run_python(
        """
        from fast_litellm import SimpleTokenCounter
        from fast_litellm._rust import CoreBPE

        texts = ["a word " * (n * 1_000) for n in range(1, 40)]
        core = CoreBPE("r50k_base")
        assert core.count_batch(texts, 8) == [core.count_ordinary(text) for text in texts]
        assert len(SimpleTokenCounter().count_tokens_batch(texts, threads=8)) == len(texts)
        """,
        env={"RUST_MIN_STACK": str(1 << 50)},
    )
    assert done.stderr == ""


def test_a_child_counts_that_was_forked_during_the_first_count() -> None:
    # Whatever that count made without the interpreter, the child would wait for ever to be finished.
    run_python(
        """
        import os, random, signal, sys, threading, time
        from fast_litellm._rust import CoreBPE

        core = CoreBPE("r50k_base")
        sys.setswitchinterval(1e-5)

        def first_count_and_fork():
            counter = threading.Thread(target=core.count_ordinary, args=("a word " * 1_000,))
            counter.start()
            until = time.perf_counter() + random.random() * 1e-3
            while time.perf_counter() < until:
                pass
            child = os.fork()
            if child == 0:
                signal.alarm(30)
                os._exit(core.count_ordinary("hello world"))
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 2
            counter.join()

        # Each by a process that has not counted yet.
        for _ in range(60):
            child = os.fork()
            if child == 0:
                try:
                    first_count_and_fork()
                finally:
                    os._exit(sys.exc_info()[0] is not None)
            assert os.waitpid(child, 0)[1] == 0
        """
    )


# Definitions


def test_definitions_are_told_without_a_file_or_the_network(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("read_file", "read_file_cached"):
        monkeypatch.setattr(f"tiktoken.load.{name}", lambda *_: pytest.fail("something is read"))
    before = dict(vars(openai_public))
    found = _encoding_definitions.compare()
    assert set(found.same) == set(openai_public.ENCODING_CONSTRUCTORS)
    assert found.others == {}
    assert vars(openai_public) == before


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"pat_str": r"\s+|\S+"}, "pattern"),
        ({"special_tokens": {END: 1}}, "special tokens"),
        ({"name": "other"}, "name"),
    ],
)
def test_an_encoding_that_is_another_is_left_alone(
    change: dict[str, Any], why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    constructor = openai_public.ENCODING_CONSTRUCTORS["cl100k_base"]
    with_change = types.FunctionType(
        (lambda: {**constructor(), **change}).__code__,
        {"constructor": constructor, "change": change, **vars(openai_public)},
        closure=tuple(types.CellType(each) for each in (change, constructor)),
    )
    changed = {**openai_public.ENCODING_CONSTRUCTORS, "cl100k_base": with_change}
    monkeypatch.setattr(openai_public, "ENCODING_CONSTRUCTORS", changed)
    # A constructor that calls another one from its closure would load that one's file.
    monkeypatch.setattr("tiktoken.load.read_file_cached", lambda *_: b"")
    found = _encoding_definitions.compare()
    assert "cl100k_base" not in found.same
    assert why in found.others["cl100k_base"]
    assert "o200k_base" in found.same


def test_a_definition_that_cannot_be_told_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> Any:
        raise OSError("no network")

    changed = {**openai_public.ENCODING_CONSTRUCTORS, "o200k_base": broken, "gpt2": len}
    monkeypatch.setattr(openai_public, "ENCODING_CONSTRUCTORS", changed)
    found = _encoding_definitions.compare()
    assert "OSError: no network" in found.others["o200k_base"]
    assert "cannot be told" in found.others["gpt2"]


def test_another_table_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    known = _encoding_definitions.IMPLEMENTED
    other = known["cl100k_base"]._replace(files=("0" * 64,))
    monkeypatch.setitem(known, "cl100k_base", other)
    assert "table" in _encoding_definitions.compare().others["cl100k_base"]


def test_a_tiktoken_without_what_is_needed_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _encodings.probe() == ""
    monkeypatch.delattr(_tiktoken, "CoreBPE")
    assert "CoreBPE" in _encodings.probe()
