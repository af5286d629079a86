"""Proves that token ids are tiktoken's: on a large corpus, on every code point, on what hypothesis makes.

With `FAST_LITELLM_TEST_TOKENS=long` it reads thirty times as much, some ten minutes long.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import itertools
import json
import os
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import pytest
import tiktoken
import tiktoken_ext.openai_public
import token_corpus
from hypothesis import given, settings
from hypothesis import strategies as st

from fast_litellm._rust import CoreBPE

TIMES = 30 if os.environ.get("FAST_LITELLM_TEST_TOKENS") == "long" else 1
NAMES = tuple(tiktoken_ext.openai_public.ENCODING_CONSTRUCTORS)
#: One for each vocabulary: the others differ from these in their special tokens only.
VOCABULARIES = ("cl100k_base", "o200k_base", "p50k_base", "r50k_base")
#: One for each splitter.
SPLITTERS = ("cl100k_base", "o200k_base", "r50k_base")


class Pair(NamedTuple):
    """An encoding, twice."""

    name: str
    ours: CoreBPE
    theirs: tiktoken.Encoding


@functools.cache
def pair(name: str) -> Pair:
    """Ours, and tiktoken's own with its own splitter and special tokens.

    Its merges come from our ranks, which must give its published file, to the byte: nothing is fetched.
    """
    ours = CoreBPE(name)
    ranks = ours.mergeable_ranks()

    def published(_url: str, expected_hash: str) -> dict[bytes, int]:
        assert hashlib.sha256(as_published(ranks)).hexdigest() == expected_hash, name
        return ranks

    def published_for_gpt2(
        vocab_bpe_hash: str, encoder_json_hash: str, **_urls: str
    ) -> dict[bytes, int]:
        merges, numbers = as_published_for_gpt2(ranks)
        assert hashlib.sha256(merges).hexdigest() == vocab_bpe_hash
        assert hashlib.sha256(numbers).hexdigest() == encoder_json_hash
        return ranks

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiktoken_ext.openai_public, "load_tiktoken_bpe", published)
        patch.setattr(
            tiktoken_ext.openai_public, "data_gym_to_mergeable_bpe_ranks", published_for_gpt2
        )
        made = tiktoken_ext.openai_public.ENCODING_CONSTRUCTORS[name]()
    theirs = tiktoken.Encoding(**made)
    assert type(theirs._core_bpe).__module__ != type(ours).__module__, "compared with itself"
    return Pair(name, ours, theirs)


def as_published(ranks: Mapping[bytes, int]) -> bytes:
    """The file that tiktoken reads ranks from."""
    lines = (
        base64.b64encode(token) + b" %d\n" % ranks[token]
        for token in sorted(ranks, key=ranks.__getitem__)
    )
    return b"".join(lines)


def as_published_for_gpt2(ranks: Mapping[bytes, int]) -> tuple[bytes, bytes]:
    """The two files of GPT-2: its merges in their order, and its tokens' numbers."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(0x100) if byte not in plain]
    written = {byte: chr(byte) for byte in plain} | {
        b: chr(0x100 + n) for n, b in enumerate(others)
    }
    tokens = sorted(ranks, key=ranks.__getitem__)
    spelled = {token: "".join(map(written.__getitem__, token)) for token in tokens}
    merges = ["#version: 0.2"]
    for token in tokens:
        if len(token) > 1:
            left, right = merged(token, ranks, below=ranks[token])
            merges.append(f"{spelled[left]} {spelled[right]}")
    numbers = {spelled[token]: rank for token, rank in ranks.items()} | {"<|endoftext|>": 50256}
    in_order = dict(sorted(numbers.items(), key=lambda item: item[1]))
    return ("\n".join(merges) + "\n").encode(), json.dumps(in_order).encode()


def merged(piece: bytes, ranks: Mapping[bytes, int], below: int = 1 << 32) -> list[bytes]:
    """Byte pair encoding by its definition: the pair of lowest rank first, of equals the leftmost."""
    parts = [piece[at : at + 1] for at in range(len(piece))]
    while len(parts) > 1:
        rank, at = min(
            (ranks.get(a + b, below), at) for at, (a, b) in enumerate(itertools.pairwise(parts))
        )
        if rank >= below:
            break
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    return parts


# Comparing, and telling what differs


def differing(of: Pair, text: str) -> str | None:
    """What is not as in tiktoken, or None."""
    ids = of.theirs.encode_ordinary(text)
    if of.ours.encode_ordinary(text) != ids:
        return "ids"
    if of.ours.count_ordinary(text) != len(ids):
        return "count"
    if of.ours.encode(text, set()) != ids:
        return "ids without special tokens"
    if of.ours.decode_bytes(ids) != text.encode():
        return "decoded"
    return None


def shrunk(text: str, is_wrong: Callable[[str], bool], tries: int = 3_000) -> str:
    """A short part of a text that is still wrong."""
    part = len(text) // 2
    while part and tries:
        at = 0
        while at < len(text) and tries:
            tries -= 1
            shorter = text[:at] + text[at + part :]
            if is_wrong(shorter):
                text = shorter
            else:
                at += part
        part //= 2
    return text


def fail(of: Pair, where: str, text: str, what: str) -> None:
    """Fail with the shortest text found that is wrong."""
    short = shrunk(text, lambda part: differing(of, part) is not None)
    theirs, ours = of.theirs.encode_ordinary(short), of.ours.encode_ordinary(short)
    both = zip(theirs, ours, strict=False)
    at = next((n for n, (a, b) in enumerate(both) if a != b), min(len(theirs), len(ours)))

    def shown(ids: list[int]) -> list[tuple[int, bytes]]:
        return [(t, of.theirs.decode_single_token_bytes(t)) for t in ids[max(0, at - 3) : at + 12]]

    points = " ".join(f"U+{ord(c):04X}" for c in short[:100])
    pytest.fail(
        f"{of.name}, {where}: {what} of {short[:200]!r} differ ({len(short)} of {len(text)}: "
        f"{points})\nfrom token {at} of {len(theirs)} on\n"
        f"tiktoken {shown(theirs)}\nours     {shown(ours)}"
    )


def check(of: Pair, texts: Iterable[tuple[str, str]]) -> int:
    """Compare, and return how many characters were compared."""
    characters = 0
    for where, text in texts:
        what = differing(of, text)
        if what is not None:
            fail(of, where, text, what)
        characters += len(text)
    return characters


def check_batch(of: Pair, where: str, texts: Sequence[str], threads: int) -> None:
    """Compare a batch with what tiktoken does one by one."""
    expected = [of.theirs.encode_ordinary(text) for text in texts]
    encoded = of.ours.encode_batch(list(texts), set(), threads)
    for text, ids, theirs in zip(texts, encoded, expected, strict=True):
        if ids != theirs:
            fail(of, where, text, "ids in a batch")
            pytest.fail(f"{of.name}, {where}: {text!r} differs in a batch only")
    assert of.ours.count_batch(list(texts), threads) == [len(ids) for ids in expected]
    assert of.ours.decode_batch(expected, threads) == [text.encode() for text in texts]


@functools.cache
def corpus() -> tuple[tuple[str, str], ...]:
    return tuple(token_corpus.documents(times=TIMES))


# The tables


@pytest.mark.parametrize("name", NAMES)
def test_the_tables_are_the_published_ones(name: str) -> None:
    ours, theirs = pair(name).ours, pair(name).theirs
    assert ours.name == name
    assert dict(ours.special_tokens) == theirs._special_tokens
    assert ours.token_byte_values() == theirs.token_byte_values()
    assert theirs.n_vocab > max(ours.mergeable_ranks().values())


def test_an_unknown_encoding_is_refused() -> None:
    for name in ("", "cl100k", "CL100K_BASE", "claude", "o200k_base "):
        with pytest.raises(ValueError, match="cl100k"):
            CoreBPE(name)


@pytest.mark.parametrize("name", NAMES)
def test_every_token_is_itself(name: str) -> None:
    ours, theirs = pair(name).ours, pair(name).theirs
    for token, rank in ours.mergeable_ranks().items():
        assert ours.encode_single_piece(token) == [rank], token
        assert ours.encode_single_token(token) == rank, token
        assert ours.decode_single_token_bytes(rank) == token, rank
    for text, rank in theirs._special_tokens.items():
        assert ours.encode_single_token(text.encode()) == rank
        # Not always the text: o200k_harmony has two for one number.
        decoded = theirs.decode_single_token_bytes(rank)
        assert ours.decode_single_token_bytes(rank) == ours.decode_bytes([rank]) == decoded
    last = theirs.max_token_value
    gaps = set(range(last + 3)) - {
        *ours.mergeable_ranks().values(),
        *theirs._special_tokens.values(),
    }
    for missing in (*gaps, 1 << 31, (1 << 32) - 1):
        with pytest.raises(KeyError):
            ours.decode_single_token_bytes(missing)
        with pytest.raises(KeyError):
            ours.decode_bytes([0, missing])
        with pytest.raises(KeyError):
            ours.decode_batch([[0], [missing]], 2)
    for missing in (-1, 1 << 32):
        with pytest.raises(OverflowError):
            theirs._core_bpe.decode_bytes([missing])
        with pytest.raises(OverflowError):
            ours.decode_bytes([missing])
    for nothing in (b"", b"no such token", b"<|endoftext|", b"\xff\xfe"):
        with pytest.raises(KeyError):
            ours.encode_single_token(nothing)


# The corpus


@pytest.mark.parametrize("name", VOCABULARIES)
def test_the_corpus(name: str) -> None:
    assert check(pair(name), corpus()) > 2_500_000


@pytest.mark.parametrize("name", NAMES)
def test_texts_of_the_vocabularys_own_tokens(name: str) -> None:
    of = pair(name)
    size = 3_000 if name in VOCABULARIES else 300
    for at in range(TIMES):
        rng = random.Random(f"vocabulary {at}")
        made = token_corpus.of_vocabulary(of.ours.mergeable_ranks(), rng, size)
        assert check(of, made) > 20 * size


@pytest.mark.parametrize("name", VOCABULARIES)
def test_splices_of_the_corpus(name: str) -> None:
    of = pair(name)
    rng = random.Random("splices")
    own = token_corpus.of_vocabulary(of.ours.mergeable_ranks(), rng, 300)
    texts = [text for _, text in (*corpus(), *own)]
    check(of, (("splice", text) for text in token_corpus.splices(texts, rng, 10_000 * TIMES)))


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_is_its_texts(name: str) -> None:
    of = pair(name)
    texts = [text for _, text in corpus()[::10]]
    for threads in (1, 2, 5):
        check_batch(of, f"{threads} threads", texts, threads)
    check_batch(of, "nothing", [], 2)
    check_batch(of, "one", [texts[0]], 4)
    check_batch(of, "empty ones", ["", "a", ""], 2)


# Everything that is short


@pytest.mark.parametrize("name", VOCABULARIES)
@pytest.mark.parametrize(
    ("alphabet", "longest"),
    [(token_corpus.BLANK_ALPHABET, 5), (token_corpus.LETTER_ALPHABET, 4)],
    ids=["blanks", "letters"],
)
def test_every_short_string(name: str, alphabet: Sequence[str], longest: int) -> None:
    """Each with an end of its own, where white space is split otherwise than before more text."""
    longest += TIMES > 1
    check_batch(pair(name), "short", list(token_corpus.short_strings(alphabet, longest)), 1)


@pytest.mark.parametrize("name", SPLITTERS)
def test_short_strings_anywhere(name: str) -> None:
    check_batch(pair(name), "shifted", list(token_corpus.shifted(2 + (TIMES > 1))), 1)


@pytest.mark.parametrize("name", SPLITTERS)
@pytest.mark.parametrize("context", token_corpus.CONTEXTS)
def test_every_code_point(name: str, context: str) -> None:
    """All of them where their kind shows most; in the other contexts all where there may be letters."""
    of = pair(name)
    tells = (name, context) == ("o200k_base", "telling its kind")
    every = 1 if tells or TIMES > 1 else 64
    placed = map(token_corpus.CONTEXTS[context], token_corpus.code_points(every))
    count = 0
    for text in token_corpus.joined(placed, 20_000):
        count += text.count("\n")
        theirs = of.theirs.encode_ordinary(text)
        if of.ours.encode_ordinary(text) != theirs:
            wrong = [line for line in text.split("\n") if differing(of, line)]
            fail(of, f"{context}, {len(wrong)} of them", wrong[0] if wrong else text, "ids")
    assert count > (1_100_000 if every == 1 else 260_000)


# Whatever hypothesis makes

#: Letters of all kinds, what stands around them, and any character.
TRAPS = st.one_of(
    st.sampled_from([*token_corpus.BLANK_ALPHABET, *token_corpus.LETTER_ALPHABET]),
    st.sampled_from([*token_corpus.WHITE, *token_corpus.LINE_ENDS]),
    st.sampled_from([*token_corpus.FOLDING, *token_corpus.TITLE, *token_corpus.MODIFIERS]),
    st.sampled_from([*token_corpus.MARKS, *token_corpus.NUMBERS, *token_corpus.EMOJI]),
    st.sampled_from([f"'{letters}" for letters in token_corpus.CONTRACTIONS]),
    st.sampled_from([*token_corpus.SPECIALS[:5], *token_corpus.NEARLY_SPECIAL]),
    st.characters(codec="utf-8"),
    st.text(st.characters(codec="ascii"), min_size=1, max_size=8),
)


@pytest.mark.parametrize("name", VOCABULARIES)
def test_any_text(name: str) -> None:
    of = pair(name)

    @settings(max_examples=600 * TIMES)
    @given(st.lists(TRAPS, max_size=40).map("".join))
    def holds(text: str) -> None:
        check(of, [("hypothesis", text)])

    holds()


@pytest.mark.parametrize("name", VOCABULARIES)
def test_any_bytes_are_a_piece(name: str) -> None:
    """Also those that are no UTF-8, and those that the splitter would divide."""
    of = pair(name)
    ranks = of.ours.mergeable_ranks()
    tokens = sorted(ranks)
    rng = random.Random("pieces")
    pieces = [rng.randbytes(rng.randint(1, 40)) for _ in range(1_000 * TIMES)]
    pieces += [b"".join(rng.choices(tokens, k=rng.randint(2, 6))) for _ in range(1_000 * TIMES)]
    pieces += [bytes([a, b]) for a in range(256) for b in range(256)]
    pieces += [text.encode() for _, text in token_corpus.runs()][: 30 * TIMES]
    for piece in pieces:
        assert of.ours.encode_single_piece(piece) == of.theirs._core_bpe.encode_single_piece(
            piece
        ), piece[:200]
    for piece in pieces[:2_000:20]:
        assert of.ours.encode_single_piece(piece) == [
            ranks[part] for part in merged(piece, ranks)
        ], piece


@pytest.mark.parametrize("name", ["cl100k_base", "o200k_harmony", "gpt2"])
def test_a_lone_surrogate_is_refused(name: str) -> None:
    ours = pair(name).ours
    for text in ("\ud800", "a\udfffb", "\ude00\ud83d", "x" * 5_000 + "\ud800"):
        for refuses in (
            ours.encode_ordinary,
            ours.count_ordinary,
            lambda text: ours.encode(text, set()),
            lambda text: ours.encode_to_tiktoken_buffer(text, set()),
            lambda text: ours.encode_batch(["a", text], set(), 1),
            lambda text: ours.count_batch(["a", text], 2),
        ):
            with pytest.raises(UnicodeEncodeError):
                refuses(text)


# Special tokens


def with_specials(names: Sequence[str], rng: random.Random) -> Iterator[str]:
    """Texts that have special tokens in them, with every kind of white space on either side."""
    around = [
        "",
        " ",
        "  ",
        "\n",
        " \n ",
        "\n\n",
        "\r",
        "\t\t",
        "\u2028 ",
        "a",
        "'s",
        "1",
        "\u0301",
        "\u017f",
        "x  ",
        "  x",
    ]
    others = [*token_corpus.NEARLY_SPECIAL, "<|endoftext|>", "Hello, world!"]
    for special in names[:3]:
        yield from (f"{before}{special}{after}" for before in around for after in around)
        yield from (f"{special[:cut]}{special}{special[cut:]}" for cut in range(len(special)))
        yield special * 300
    for _ in range(300 * TIMES):
        yield "".join(
            rng.choices([*names[:40], *names[:5], *around, *around, *others], k=rng.randint(1, 30))
        )


def subsets(names: Sequence[str], rng: random.Random) -> Iterator[set[str]]:
    """Every subset of a few names, some of many."""
    if len(names) <= 5:
        for size in range(len(names) + 1):
            yield from map(set, itertools.combinations(names, size))
    else:
        yield from ({name} for name in names[:12])
        yield from (set(rng.sample(names, rng.randint(2, 40))) for _ in range(20))
        yield from (set(), set(names))


@pytest.mark.parametrize("name", NAMES)
def test_special_tokens_that_are_allowed(name: str) -> None:
    of = pair(name)
    rng = random.Random(f"special {name}")
    names = sorted(of.theirs._special_tokens, key=lambda text: ("reserved" in text, text))
    texts = list(with_specials(names, rng))
    for allowed in subsets(names, rng):
        expected = [of.theirs._core_bpe.encode(text, allowed) for text in texts]
        for text, ids in zip(texts, expected, strict=True):
            assert of.ours.encode(text, allowed) == ids, (text, allowed)
        assert of.ours.encode_batch(texts, allowed, 2) == expected
    everything = set(names)
    for text in texts:
        ids = of.ours.encode_to_tiktoken_buffer(text, everything)
        assert bytes(ids) == bytes(of.theirs._core_bpe.encode_to_tiktoken_buffer(text, everything))
        decoded = of.theirs.decode_bytes(of.theirs.encode(text, allowed_special="all"))
        assert of.ours.decode_bytes(of.ours.encode(text, everything)) == decoded


def test_arguments_of_other_types_are_refused() -> None:
    of = pair("cl100k_base")
    for calls in (
        lambda core: core.encode_ordinary(b"a"),
        lambda core: core.encode("a", ["<|endoftext|>"]),
        lambda core: core.encode("a", {1}),
        lambda core: core.encode_single_piece("a"),
        lambda core: core.encode_single_token("a"),
        lambda core: core.decode_bytes("a"),
        lambda core: core.decode_bytes([1.5]),
        lambda core: core.decode_single_token_bytes("a"),
    ):
        for core in (of.theirs._core_bpe, of.ours):
            with pytest.raises(TypeError):
                calls(core)
    for core in (of.theirs._core_bpe, of.ours):
        assert core.encode("a<|endoftext|>", frozenset(["<|endoftext|>"])) == [64, 100257]
        assert core.decode_bytes((64, 100257)) == b"a<|endoftext|>"


def test_what_is_no_special_token_cannot_be_allowed() -> None:
    of = pair("cl100k_base")
    text = "Hello<|endoftext|><|start|> world"
    for allowed in ({"Hello"}, {"<|start|>"}, {""}, {"<|start|>", "<|endoftext|>"}):
        assert of.ours.encode(text, allowed) == of.theirs._core_bpe.encode(text, allowed), allowed
