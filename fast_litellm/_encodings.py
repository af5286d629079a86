"""tiktoken's encodings over the extension's core: same ids, same bytes, same errors.

What tiktoken's own methods do right on top of another core is inherited. This is the only file that knows
tiktoken's private names. It imports tiktoken, so it is for those who have it.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Collection, Iterable, Sequence
from collections.abc import Set as AbstractSet
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal, TypeVar

from tiktoken import _tiktoken, core, registry

from fast_litellm import _native
from fast_litellm._encoding_definitions import Definition, construct
from fast_litellm._features import is_enabled
from fast_litellm._log import logger
from fast_litellm._native import FAULTS
from fast_litellm._token_gate import Gate

T = TypeVar("T")
Item = TypeVar("Item")

#: Default of `allowed_special`, and LiteLLM's `disallowed_special`: told by identity.
_NONE_ALLOWED: AbstractSet[str] = set()
_NONE_DISALLOWED: tuple[str, ...] = ()
#: What tiktoken raises of arguments that its core does not take; its words differ between releases.
_REFUSALS = (TypeError, OverflowError)
#: What a batch raises because of one of its items.
_OF_AN_ITEM = (UnicodeEncodeError, KeyError, *_REFUSALS)
#: Threads of a batch whose caller leaves it to Python, as `ThreadPoolExecutor` has it.
_MOST_DEFAULT_THREADS = 32


def probe() -> str:
    """Why tiktoken's encodings cannot be replaced; empty = they can."""
    for owner, names in (
        (registry, ("_lock", "ENCODINGS", "get_encoding")),
        (core, ("Encoding", "_special_token_regex", "raise_disallowed_special_token")),
        (_tiktoken, ("CoreBPE",)),
    ):
        for name in names:
            if not hasattr(owner, name):
                return f"{owner.__name__} has no {name}"
    return ""


def is_tiktokens_own(encoding: object) -> bool:
    """Whether an encoding is exactly what tiktoken makes."""
    return type(encoding) is core.Encoding


class CoreBPE:
    """What `tiktoken.Encoding` takes for its core: the extension's, or tiktoken's own where that is to be.

    Attributes:
        gate: decides which.
        ours: the extension's core; its table is loaded when it is first used.
        theirs: tiktoken's own encoding; made from the extension's ranks when it is first used.
    """

    ours: _native.CoreBPE
    theirs: core.Encoding

    def __init__(self, definition: Definition, gate: Gate, theirs: core.Encoding | None) -> None:
        self.gate = gate
        self._definition = definition
        if theirs is not None:
            self.theirs = theirs

    def __getattr__(self, name: str) -> Any:
        # Two threads may make the same; a lock might be held by one of them when another forks.
        value: object
        if name == "ours":
            value = _native.CoreBPE(self._definition.name)
        elif name == "theirs":
            value = self._tiktokens_own()
        else:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        setattr(self, name, value)
        return value

    def _tiktokens_own(self) -> core.Encoding:
        definition = self._definition
        try:
            return core.Encoding(
                definition.name,
                pat_str=definition.pattern,
                mergeable_ranks=self.ours.mergeable_ranks(),
                special_tokens=dict(definition.special_tokens),
            )
        except FAULTS as error:  # whoever asks has to have an answer
            logger().error("%s: tiktoken loads its own table (%s)", definition.name, error)
            return core.Encoding(**construct(definition.name))

    def encode_ordinary(self, text: str) -> list[int]:
        """Tokens of a text without special ones."""
        tokens: list[int] = self._do("encode_ordinary", text)
        return tokens

    def encode(self, text: str, allowed_special: AbstractSet[str]) -> list[int]:
        """Tokens of a text with the special ones that are allowed."""
        tokens: list[int] = self._do("encode", text, allowed_special)
        return tokens

    def encode_to_tiktoken_buffer(self, text: str, allowed_special: AbstractSet[str]) -> Any:
        """The same as numbers of 32 bits."""
        return self._do("encode_to_tiktoken_buffer", text, allowed_special)

    def encode_single_token(self, piece: bytes) -> int:
        """The token that is these bytes."""
        token: int = self._do("encode_single_token", piece)
        return token

    def encode_single_piece(self, piece: bytes) -> list[int]:
        """Tokens of bytes that are not split."""
        tokens: list[int] = self._do("encode_single_piece", piece)
        return tokens

    def decode_bytes(self, tokens: Sequence[int]) -> bytes:
        """Bytes of tokens."""
        found: bytes = self._do("decode_bytes", tokens)
        return found

    def decode_single_token_bytes(self, token: int) -> bytes:
        """Bytes of one token."""
        found: bytes = self._do("decode_single_token_bytes", token)
        return found

    def token_byte_values(self) -> list[bytes]:
        """Bytes of all tokens but special ones, sorted."""
        values: list[bytes] = self._do("token_byte_values")
        return values

    def encode_with_unstable(self, text: str, allowed_special: AbstractSet[str]) -> Any:
        """Tokens that will stay, and what the others may become; tiktoken's own core does that."""
        return self.theirs._core_bpe.encode_with_unstable(text, allowed_special)

    def _encode_bytes(self, text: bytes) -> list[int]:
        return self.theirs._core_bpe._encode_bytes(text)

    def _do(self, name: str, *arguments: Any) -> Any:
        began = self.gate.begin()
        if began >= 0:
            try:
                result = getattr(self.ours, name)(*arguments)
            except FAULTS as error:
                return self.recover(error, began, name, *arguments)
        else:
            result = getattr(self.theirs._core_bpe, name)(*arguments)
        if began:
            self.gate.end(began, "decode" if name.startswith("decode") else "encode")
        return result

    def recover(self, error: BaseException, began: int, name: str, *arguments: Any) -> Any:
        """Have tiktoken do what the extension has raised at, unless tiktoken would raise as well.

        Raises:
            UnicodeEncodeError, KeyError: `error`, which says what tiktoken says.
            TypeError, OverflowError: tiktoken's own, in its words.
        """
        if isinstance(error, UnicodeEncodeError | KeyError):
            raise error
        if isinstance(error, _REFUSALS):
            _raise_as_tiktoken_does(name, *arguments)
        self.gate.failed(name, error)
        result = getattr(self.theirs._core_bpe, name)(*arguments)
        if began:
            self.gate.end(began, "decode" if name.startswith("decode") else "encode", ours=False)
        return result


@functools.lru_cache(maxsize=1)
def _smallest() -> Any:
    """A core of tiktoken's that has next to no table: it refuses arguments as any other."""
    return _tiktoken.CoreBPE({bytes([value]): value for value in range(256)}, {}, r"\S+|\s+")


def _raise_as_tiktoken_does(name: str, *arguments: Any) -> None:
    """Raise what tiktoken's core raises of these arguments' types; nothing if it takes them."""
    try:
        getattr(_smallest(), name)(*arguments)
    except _REFUSALS as refusal:
        raise refusal from None
    except Exception:  # noqa: BLE001, S110  # it takes the types, and its table is not what is asked
        pass


class RustEncoding(core.Encoding):
    """An encoding of tiktoken's whose calls go through the extension.

    Args:
        definition: which one.
        gate: decides which calls go through tiktoken's own instead.
        theirs: tiktoken's own, if it has been loaded; else it is made when it is needed.
    """

    _core_bpe: CoreBPE

    def __init__(
        self, definition: Definition, gate: Gate, theirs: core.Encoding | None = None
    ) -> None:
        self.name = definition.name
        self.max_token_value = definition.largest
        self._pat_str = definition.pattern
        self._special_tokens = dict(definition.special_tokens)
        self._special_token_values = set(self._special_tokens.values())
        # In the place of a cached property's value.
        vars(self)["special_tokens_set"] = set(self._special_tokens)
        self._core_bpe = CoreBPE(definition, gate, theirs)
        #: What every special token begins with.
        self._mark = os.path.commonprefix(list(self._special_tokens))
        self.use(gate)

    def __getattr__(self, name: str) -> Any:
        value: object
        if name == "_ordinary":
            value = self._core_bpe.ours.encode_ordinary
        elif name == "_mergeable_ranks":
            value = self._ranks()
        else:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        vars(self)[name] = value
        return value

    def __reduce__(self) -> tuple[Callable[[str], core.Encoding], tuple[str]]:
        """Pickled by name, for processes without fast_litellm, too."""
        return registry.get_encoding, (self.name,)

    def __copy__(self) -> RustEncoding:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> RustEncoding:
        return self

    @property
    def tiktokens_own(self) -> core.Encoding:
        """tiktoken's own encoding of the same name; made if it has not been loaded."""
        return self._core_bpe.theirs

    def use(self, gate: Gate) -> None:
        """Have another gate decide from now on."""
        self._core_bpe.gate = gate
        self._begin = gate.begin

    def load(self) -> None:
        """Load the tables that calls need now, if they are not loaded."""
        if self._core_bpe.gate.mixed():
            _ = self._core_bpe.theirs
        _ = self._ordinary

    def encode_ordinary(self, text: str) -> list[int]:
        """Tokens of a text, in which no special one is told."""
        began = self._begin()
        if began < 0:
            tokens = self._core_bpe.theirs.encode_ordinary(text)
        else:
            try:
                tokens = self._ordinary(text)
            except UnicodeEncodeError:
                return self.encode_ordinary(_without_surrogates(text))
            except FAULTS as error:
                return self._recover(error, began, text)
        if began:
            self._core_bpe.gate.end(began, "encode")
        return tokens

    def encode(
        self,
        text: str,
        *,
        allowed_special: Literal["all"] | AbstractSet[str] = _NONE_ALLOWED,
        disallowed_special: Literal["all"] | Collection[str] = "all",
    ) -> list[int]:
        """Tokens of a text.

        Args:
            text: what to encode.
            allowed_special: special tokens that are told in it; "all" = each.
            disallowed_special: those that it must not have; "all" = each that is not allowed.

        Raises:
            ValueError: the text has a special token that is not allowed.
        """
        if allowed_special is _NONE_ALLOWED and (
            disallowed_special is _NONE_DISALLOWED
            or (disallowed_special == "all" and type(text) is str and self._mark not in text)
        ):
            return self.encode_ordinary(text)
        return super().encode(
            text, allowed_special=allowed_special, disallowed_special=disallowed_special
        )

    def encode_ordinary_batch(self, text: list[str], *, num_threads: int = 8) -> list[list[int]]:
        """Tokens of each text as `encode_ordinary` has them, by several threads."""
        return self._batch(
            list(text),
            num_threads,
            lambda items, threads: self._core_bpe.ours.encode_batch(items, set(), threads),
            self.encode_ordinary,
            lambda items: self.tiktokens_own.encode_ordinary_batch(items, num_threads=num_threads),
        )

    def encode_batch(
        self,
        text: list[str],
        *,
        num_threads: int = 8,
        allowed_special: Literal["all"] | AbstractSet[str] = _NONE_ALLOWED,
        disallowed_special: Literal["all"] | Collection[str] = "all",
    ) -> list[list[int]]:
        """Tokens of each text as `encode` has them, by several threads."""
        if allowed_special == "all":
            allowed_special = self.special_tokens_set
        if disallowed_special == "all":
            disallowed_special = self.special_tokens_set - allowed_special
        if not isinstance(disallowed_special, frozenset):
            disallowed_special = frozenset(disallowed_special)
        refused, allowed = disallowed_special, allowed_special

        def together(items: list[str], threads: int) -> list[list[int]]:
            _refuse(items, refused)
            return self._core_bpe.ours.encode_batch(items, set(allowed), threads)

        special: dict[str, Any] = {"allowed_special": allowed, "disallowed_special": refused}
        return self._batch(
            list(text),
            num_threads,
            together,
            functools.partial(self.encode, **special),
            lambda items: self.tiktokens_own.encode_batch(
                items, num_threads=num_threads, **special
            ),
        )

    def decode_batch(
        self, batch: Sequence[Sequence[int]], *, errors: str = "replace", num_threads: int = 8
    ) -> list[str]:
        """Texts of each list of tokens, by several threads."""

        def together(items: list[Any], threads: int) -> list[str]:
            found = self._core_bpe.ours.decode_batch(items, threads)
            return [each.decode("utf-8", errors=errors) for each in found]

        return self._batch(
            list(batch),
            num_threads,
            together,
            functools.partial(self.decode, errors=errors),
            lambda items: self.tiktokens_own.decode_batch(
                items, errors=errors, num_threads=num_threads
            ),
        )

    def decode_bytes_batch(
        self, batch: Sequence[Sequence[int]], *, num_threads: int = 8
    ) -> list[bytes]:
        """Bytes of each list of tokens, by several threads."""
        return self._batch(
            list(batch),
            num_threads,
            lambda items, threads: self._core_bpe.ours.decode_batch(items, threads),
            self.decode_bytes,
            lambda items: self.tiktokens_own.decode_bytes_batch(items, num_threads=num_threads),
        )

    def _batch(
        self,
        items: list[Item],
        num_threads: int | None,
        together: Callable[[list[Item], int], list[T]],
        alone: Callable[[Item], T],
        elsewhere: Callable[[list[Item]], list[T]],
    ) -> list[T]:
        """Do a batch.

        Args:
            items: what to do.
            num_threads: as tiktoken takes it.
            together: does it by the extension, with so many threads.
            alone: does one item.
            elsewhere: has tiktoken do it.
        """
        threads = _threads(num_threads)
        gate = self._core_bpe.gate
        began = gate.begin()
        if began < 0:
            results = elsewhere(items)
        else:
            try:
                results = together(items, threads)
            except _Disallowed as error:
                core.raise_disallowed_special_token(error.token)
            except (*_OF_AN_ITEM, UnicodeDecodeError, LookupError):
                # The first one at fault raises as it does alone; tiktoken mends surrogates.
                return [alone(item) for item in items]
            except FAULTS as error:
                gate.failed("a batch", error)
                began = -began
                results = elsewhere(items)
        if began:
            gate.end(began, "batch")
        return results

    def _recover(self, error: BaseException, began: int, text: str) -> list[int]:
        tokens: list[int] = self._core_bpe.recover(error, began, "encode_ordinary", text)
        return tokens

    def _ranks(self) -> dict[bytes, int]:
        try:
            return self._core_bpe.ours.mergeable_ranks()
        except FAULTS as error:
            self._core_bpe.gate.failed("mergeable_ranks", error)
            return self.tiktokens_own._mergeable_ranks


class _Disallowed(Exception):  # noqa: N818  # it is what was found
    """A text of a batch has a special token that is not allowed."""

    def __init__(self, token: str) -> None:
        super().__init__(token)
        self.token = token


def _refuse(texts: Iterable[object], disallowed: frozenset[str]) -> None:
    """Look for special tokens that are not allowed.

    Raises:
        _Disallowed: the first that was found.
        TypeError: something else than a str comes before it.
    """
    if not disallowed:
        return
    mark = _mark_of(disallowed)
    for text in texts:
        if type(text) is not str:
            raise TypeError
        if mark in text:
            found = core._special_token_regex(disallowed).search(text)
            if found:
                raise _Disallowed(found.group())


@functools.lru_cache(maxsize=128)
def _mark_of(tokens: frozenset[str]) -> str:
    """What all of these begin with: a text without it has none of them."""
    return os.path.commonprefix(list(tokens))


def _threads(asked: int | None) -> int:
    """How many threads a batch may have.

    Raises:
        ValueError, TypeError: as Python says of a pool of so many.
    """
    if asked is None:
        asked = min(_MOST_DEFAULT_THREADS, (os.cpu_count() or 1) + 4)
    elif type(asked) is not int or asked < 1:
        ThreadPoolExecutor(asked)  # which starts none
        asked = int(asked)
    return asked if is_enabled("batch_token_counting") else 1


def _without_surrogates(text: str) -> str:
    """What tiktoken takes for a text that is not valid Unicode."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
