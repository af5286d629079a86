"""tiktoken's encodings over the extension's core: same ids, same bytes, same errors.

What tiktoken's own methods do right on top of another core is inherited. This is the only file that knows
tiktoken's private names. It imports tiktoken, so it is for those who have it.
"""

from __future__ import annotations

import functools
import itertools
import os
from collections.abc import Callable, Collection, Iterable, Sequence
from collections.abc import Set as AbstractSet
from concurrent.futures import ThreadPoolExecutor
from time import monotonic
from typing import Any, Generic, Literal, TypeVar

from tiktoken import _tiktoken, core, registry  # type: ignore[attr-defined]

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
_OF_AN_ITEM = (UnicodeError, LookupError, *_REFUSALS)
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


def is_free(registered: object) -> bool:
    """Whether what stands in tiktoken's registry may be replaced."""
    return (
        registered is None or isinstance(registered, RustEncoding) or is_tiktokens_own(registered)
    )


def is_tiktokens_own(encoding: object) -> bool:
    """Whether an encoding is exactly what tiktoken makes."""
    return type(encoding) is core.Encoding


class _WhenAsked(Generic[T]):
    """An attribute that is made when it is first asked for.

    Two threads may both make it. `functools.cached_property` has a lock for that in older Pythons, which
    one of them might hold while another forks; and a class with `__getattr__` is slow in all it has.
    """

    def __init__(self, make: Callable[[Any], T]) -> None:
        self._make = make

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, instance: Any, owner: type) -> T:
        value = self._make(instance)
        vars(instance)[self._name] = value
        return value


class CoreBPE:
    """What `tiktoken.Encoding` takes for its core: the extension's, or tiktoken's where that is to be.

    Attributes:
        gate: decides which.
        ours: the extension's core; its table is loaded when it is first used.
        theirs: tiktoken's own encoding; made from the extension's ranks when it is first used.
    """

    def __init__(self, definition: Definition, gate: Gate, theirs: core.Encoding | None) -> None:
        self.gate = gate
        self._definition = definition
        if theirs is not None:
            vars(self)["theirs"] = theirs

    @property
    def is_loaded(self) -> bool:
        """Whether the extension's table is loaded."""
        return "ours" in vars(self)

    @_WhenAsked
    def ours(self) -> _native.CoreBPE:
        """The extension's core, with its table."""
        return _native.CoreBPE(self._definition.name)

    @_WhenAsked
    def theirs(self) -> core.Encoding:
        """The encoding as tiktoken has it, with another table."""
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
        tokens: list[int] = self.do(self.gate.due(), "encode_ordinary", text)
        return tokens

    def encode(self, text: str, allowed_special: AbstractSet[str]) -> list[int]:
        """Tokens of a text with the special ones that are allowed."""
        tokens: list[int] = self.do(self.gate.due(), "encode", text, allowed_special)
        return tokens

    def encode_to_tiktoken_buffer(self, text: str, allowed_special: AbstractSet[str]) -> Any:
        """The same as numbers of 32 bits."""
        return self.do(self.gate.due(), "encode_to_tiktoken_buffer", text, allowed_special)

    def encode_single_token(self, piece: bytes) -> int:
        """The token that is these bytes."""
        token: int = self.do(False, "encode_single_token", piece)
        return token

    def encode_single_piece(self, piece: bytes) -> list[int]:
        """Tokens of bytes that are not split."""
        tokens: list[int] = self.do(False, "encode_single_piece", piece)
        return tokens

    def decode_bytes(self, tokens: Sequence[int]) -> bytes:
        """Bytes of tokens."""
        found: bytes = self.do(False, "decode_bytes", tokens)
        return found

    def decode_single_token_bytes(self, token: int) -> bytes:
        """Bytes of one token."""
        found: bytes = self.do(False, "decode_single_token_bytes", token)
        return found

    def token_byte_values(self) -> list[bytes]:
        """Bytes of all tokens but special ones, sorted."""
        values: list[bytes] = self.do(False, "token_byte_values")
        return values

    def encode_with_unstable(self, text: str, allowed_special: AbstractSet[str]) -> Any:
        """Tokens that will stay, and what the others may become; tiktoken's own core does that."""
        return self.theirs._core_bpe.encode_with_unstable(text, allowed_special)

    def _encode_bytes(self, text: bytes) -> list[int]:
        tokens: list[int] = self.theirs._core_bpe._encode_bytes(text)
        return tokens

    def do(self, timed: bool, name: str, *arguments: Any) -> Any:
        """Have either core do something, as the gate decides.

        Args:
            timed: whether it is measured, which encoding is if the gate's `due` says so.
            name: the core's method.
            *arguments: what it takes.
        """
        began = self.gate.begin(timed)
        if began >= 0:
            try:
                result = getattr(self.ours, name)(*arguments)
            except FAULTS as error:
                return self.recover(error, began, name, *arguments)
        else:
            result = getattr(self.theirs._core_bpe, name)(*arguments)
        if began:
            self.gate.end(began, "encode")
        return result

    def recover(self, error: BaseException, began: int, name: str, *arguments: Any) -> Any:
        """Have tiktoken do what the extension has raised at, unless tiktoken would raise as well.

        Raises:
            UnicodeEncodeError, KeyError: `error`, which says what tiktoken says.
            TypeError, OverflowError, KeyError of bytes: tiktoken's own, in the words of its release.
        """
        if isinstance(error, _REFUSALS):
            _raise_as_tiktoken_does(_REFUSALS, name, *arguments)
        if isinstance(error, UnicodeEncodeError | KeyError):
            if name == "encode_single_token":
                _raise_as_tiktoken_does((KeyError,), name, *arguments)
            raise error
        self.gate.failed(name, error)
        result = getattr(self.theirs._core_bpe, name)(*arguments)
        if began:
            self.gate.end(began, "encode", ours=False)
        return result


@functools.lru_cache(maxsize=1)
def _smallest() -> Any:
    """A core of tiktoken's that has next to no table: it refuses arguments as any other."""
    return _tiktoken.CoreBPE({bytes([value]): value for value in range(256)}, {}, r"\S+|\s+")


def _raise_as_tiktoken_does(
    refusals: tuple[type[Exception], ...], name: str, *arguments: Any
) -> None:
    """Raise what tiktoken's core raises of these arguments whatever its table is; else nothing."""
    try:
        getattr(_smallest(), name)(*arguments)
    except refusals as refusal:
        raise refusal from None
    except Exception:  # noqa: BLE001, S110  # it takes them, and its table is not what is asked
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
        self._mark = _mark_of(frozenset(self._special_tokens))
        #: The core's own method once its table is loaded.
        self._ordinary: Callable[[str], list[int]] = lambda text: self._loaded()(text)
        self._follow(all_ours=False)
        self.use(gate)

    def __reduce__(self) -> tuple[Callable[[str], core.Encoding], tuple[str]]:
        """Pickled by name, for processes without fast_litellm, too."""
        return registry.get_encoding, (self.name,)

    def __copy__(self) -> RustEncoding:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> RustEncoding:
        return self

    @property
    def tiktokens_own(self) -> core.Encoding:
        """The encoding of the same name that is tiktoken's own; made if it has not been loaded."""
        return self._core_bpe.theirs

    def use(self, gate: Gate) -> None:
        """Have another gate decide from now on."""
        self._core_bpe.gate = self._gate = gate
        gate.listeners.append(self._follow)

    def load(self) -> None:
        """Load the tables that calls need now, if they are not loaded."""
        if self._gate.mixed():
            _ = self._core_bpe.theirs
        self._loaded()

    def _loaded(self) -> Callable[[str], list[int]]:
        self._ordinary = self._core_bpe.ours.encode_ordinary
        return self._ordinary

    def _follow(self, all_ours: bool) -> None:
        """Take the extension's own methods, or those that ask the gate, for what looks a table up."""
        asked = self._core_bpe
        native = asked.ours if all_ours and asked.is_loaded else asked
        self._bytes: Callable[[Sequence[int]], bytes] = native.decode_bytes
        self._bytes_of_one: Callable[[int], bytes] = native.decode_single_token_bytes
        self._token: Callable[[bytes], int] = native.encode_single_token

    # What follows asks the gate by itself where the call is the extension's as all are: through the core
    # above, it would take a short text longer than tiktoken takes.

    def encode_ordinary(self, text: str) -> list[int]:
        """Tokens of a text, in which no special one is told."""
        timed = self._gate.due()
        try:
            if timed or monotonic() >= self._gate.all_until:
                tokens: list[int] = self._core_bpe.do(timed, "encode_ordinary", text)
                return tokens
            try:
                return self._ordinary(text)
            except FAULTS as error:
                tokens = self._core_bpe.recover(error, 0, "encode_ordinary", text)
                return tokens
        except UnicodeEncodeError:
            # What tiktoken takes for a text that is not valid Unicode.
            valid = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
            return self.encode_ordinary(valid)

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
        if (disallowed_special is _NONE_DISALLOWED and allowed_special is _NONE_ALLOWED) or (
            # Without what all special tokens begin with, it has none.
            type(text) is str
            and self._mark not in text
            and (disallowed_special is _NONE_DISALLOWED or disallowed_special == "all")
            and (allowed_special is _NONE_ALLOWED or allowed_special == "all")
        ):
            return self.encode_ordinary(text)
        return super().encode(
            text, allowed_special=allowed_special, disallowed_special=disallowed_special
        )

    # These take less time than asking the gate, which tells `_follow` how things stand instead. They have
    # to be caught here only where they are the extension's.

    def decode_bytes(self, tokens: Sequence[int]) -> bytes:
        """Bytes of tokens."""
        try:
            return self._bytes(tokens)
        except FAULTS as error:
            found: bytes = self._core_bpe.recover(error, 0, "decode_bytes", tokens)
            return found

    def decode(self, tokens: Sequence[int], errors: str = "replace") -> str:
        """Text of tokens; `errors` says what becomes of bytes that are no text, as for `bytes.decode`."""
        try:
            found: bytes = self._bytes(tokens)
        except FAULTS as error:
            found = self._core_bpe.recover(error, 0, "decode_bytes", tokens)
        return found.decode("utf-8", errors=errors)

    def decode_single_token_bytes(self, token: int) -> bytes:
        """Bytes of one token."""
        try:
            return self._bytes_of_one(token)
        except FAULTS as error:
            found: bytes = self._core_bpe.recover(error, 0, "decode_single_token_bytes", token)
            return found

    def encode_single_token(self, text_or_bytes: str | bytes) -> int:
        """The token that is this text, or these bytes."""
        if isinstance(text_or_bytes, str):
            text_or_bytes = text_or_bytes.encode("utf-8")
        try:
            return self._token(text_or_bytes)
        except FAULTS as error:
            token: int = self._core_bpe.recover(error, 0, "encode_single_token", text_or_bytes)
            return token

    def encode_ordinary_batch(self, text: list[str], *, num_threads: int = 8) -> list[list[int]]:
        """Tokens of each text as `encode_ordinary` has them, by several threads."""
        return self._batch(
            text,
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
            return self._core_bpe.ours.encode_batch(items, allowed, threads)

        special: dict[str, Any] = {"allowed_special": allowed, "disallowed_special": refused}
        return self._batch(
            text,
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
            batch,
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
            batch,
            num_threads,
            lambda items, threads: self._core_bpe.ours.decode_batch(items, threads),
            self.decode_bytes,
            lambda items: self.tiktokens_own.decode_bytes_batch(items, num_threads=num_threads),
        )

    def _batch(
        self,
        batch: Iterable[Item],
        num_threads: int | None,
        together: Callable[[list[Item], int], list[T]],
        alone: Callable[[Item], T],
        elsewhere: Callable[[list[Item]], list[T]],
    ) -> list[T]:
        """Do a batch.

        Args:
            batch: what to do.
            num_threads: as tiktoken takes it.
            together: does it by the extension, with so many threads.
            alone: does one item.
            elsewhere: has tiktoken do it.
        """
        threads = _threads(num_threads)
        items = list(batch)
        gate = self._gate
        began = gate.begin(gate.due())
        if began < 0:
            results = elsewhere(items)
        else:
            try:
                several = is_enabled("batch_token_counting")
                results = together(items, threads if several else 1)
            except _OF_AN_ITEM:
                # The first one at fault raises as it does alone; tiktoken mends surrogates.
                return [alone(item) for item in items]
            except FAULTS as error:
                gate.failed("a batch", error)
                began = -began
                results = elsewhere(items)
        if began:
            gate.end(began, "batch")
        return results

    @_WhenAsked
    def _mergeable_ranks(self) -> dict[bytes, int]:
        try:
            return self._core_bpe.ours.mergeable_ranks()
        except FAULTS as error:
            self._core_bpe.gate.failed("mergeable_ranks", error)
            return self.tiktokens_own._mergeable_ranks


def _refuse(texts: Iterable[object], disallowed: frozenset[str]) -> None:
    """Look for special tokens that are not allowed.

    Raises:
        LookupError: a text has one.
        TypeError: a text is no str, or of a class of its own.
    """
    if not disallowed:
        return
    mark = _mark_of(disallowed)
    for text in texts:
        if type(text) is not str:
            raise TypeError
        if mark in text and core._special_token_regex(disallowed).search(text):
            raise LookupError


@functools.lru_cache(maxsize=128)
def _mark_of(tokens: frozenset[str]) -> str:
    """What all of these begin with: a text without it has none of them."""
    first, last = min(tokens), max(tokens)
    same = (a == b for a, b in zip(first, last, strict=False))
    return first[: sum(itertools.takewhile(bool, same))]


def _threads(asked: int | None) -> int:
    """How many threads a batch is given.

    Raises:
        ValueError, TypeError: as Python says of a pool of so many.
    """
    if asked is None:
        asked = min(_MOST_DEFAULT_THREADS, (os.cpu_count() or 1) + 4)
    elif type(asked) is not int or asked < 1:
        ThreadPoolExecutor(asked)  # which starts none
        asked = int(asked)
    return asked
