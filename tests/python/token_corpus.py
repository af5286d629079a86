# ruff: noqa: E501, RUF001
"""Texts to compare tokenizers on: the same ones for the same seed, with all that splitters and merges trip over.

Nothing is fetched. Code is the standard library's and this checkout's; everything else is made here.
"""

from __future__ import annotations

import base64
import itertools
import json
import random
import string
import sysconfig
import unicodedata
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from token_words import ENDS, WORDS

ROOT = Path(__file__).resolve().parents[2]

RUN = 20_000
"""Equal characters in a row."""
WHITE = [chr(c) for c in (*range(9, 14), 32, 0x85, 0xA0, 0x1680, *range(0x2000, 0x200B))]
WHITE += list("\u2028\u2029\u202f\u205f\u3000")
"""What Unicode calls white space."""
NEARLY_WHITE = list("\x1c\x1d\x1e\x1f\u180e\u200b\u200c\u200d\u2060\ufeff\x00\x7f")
"""What others take for white space."""
LINE_ENDS = ["\n", "\r", "\r\n", "\n\r", "\x0b", "\x0c", "\x85", "\u2028", "\u2029"]
FOLDING = ["ſ", "K", "İ", "ı", "ß", "ẞ", "ŉ", "ǰ", "ς", "Σ", "σ", "ﬅ", "ﬆ", "Å", "µ", "ͅ", "ι", "ᾳ"]
"""Letters whose other case is a surprise: two of them fold to the s and the k of ASCII."""
TITLE = [
    chr(c) for c in (0x1C5, 0x1C8, 0x1CB, 0x1F2, 0x1F88, 0x1F9B, 0x1FAF, 0x1FBC, 0x1FCC, 0x1FFC)
]
MODIFIERS = ["ʰ", "ˀ", "ʻ", "ꜛ", "ᵃ", "ー", "々", "ـ", "ๆ", "𞥋", "ꟸ", "ⁿ"]
MARKS = [
    "\u0301",
    "\u0308",
    "\u20dd",
    "\u0903",
    "\u093e",
    "\u064b",
    "\u0e31",
    "\ufe0f",
    "\u3099",
    "\U000e0100",
]
"""Of every kind: nonspacing, spacing, enclosing."""
NUMBERS = [
    "²",
    "½",
    "Ⅷ",
    "ⅷ",
    "①",
    "〇",
    "一",
    "٣",
    "३",
    "๓",
    "３",
    "𝟛",
    "𐄇",
    "፩",
    "㊀",
    "༳",
    "௰",
    "ↀ",
    "🄁",
]
"""Digits, letters that are numbers, others that are, and one letter that is not."""
EMOJI = [
    "👍",
    "👍🏽",
    "👩‍👩‍👧‍👦",
    "🏳️‍🌈",
    "🇩🇪",
    "🇯🇵🇺",
    "1️⃣",
    "#️⃣",
    "❤️",
    "❤",
    "🏴󠁧󠁢󠁥󠁮󠁧󠁿",
    "👨🏿‍💻",
    "☺︎",
    "🫠",
    "\U0001faf8",
]
CONTRACTIONS = [
    "s",
    "S",
    "ſ",
    "t",
    "T",
    "d",
    "D",
    "m",
    "M",
    "ll",
    "LL",
    "lL",
    "re",
    "RE",
    "rE",
    "ve",
    "VE",
    "vE",
    "l",
    "r",
    "v",
]
SPECIALS = [
    "<|endoftext|>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|endofprompt|>", "<|startoftext|>",
    "<|start|>", "<|end|>", "<|message|>", "<|channel|>", "<|return|>", "<|call|>", "<|constrain|>",
    "<|reserved_200000|>", "<|reserved_200013|>", "<|reserved_201087|>", "<|reserved_201088|>",
]  # fmt: skip
NEARLY_SPECIAL = [
    "<|endoftext|", "<|<|endoftext|>", "<|endoftext|>|>", "<|ENDOFTEXT|>", "<| endoftext |>", "<|end", "|endoftext|>",
    "<|end<|endoftext|>oftext|>", "<|fim_prefix|><|fim_suffix", "<|im_start|>", "<|", "|>", "<", "<|endoftext\u200b|>",
]  # fmt: skip

Made = Iterator[tuple[str, str]]
"""Texts with names."""


def documents(seed: int = 0, times: int = 1) -> Made:
    """The corpus without the parts that need a vocabulary: about 3 million characters, or so many times as much."""
    for part in (code, prose, traps, markup, noise):
        for at in range(times):
            rng = random.Random(f"{part.__name__} {seed} {at}")
            yield from ((f"{part.__name__}/{name}", text) for name, text in part(rng))
    yield from runs(times)


def code(rng: random.Random) -> Made:
    """Source code of the standard library and of this checkout."""
    library = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    ours = [path for ending in ("rs", "toml", "md") for path in _checkout(ending)]
    for path in rng.sample(library, 20) + rng.sample(ours, min(16, len(ours))):
        text = path.read_text("utf-8", "replace")[:40_000]
        yield path.name, text
        if rng.random() < 0.1:
            yield f"{path.name} with CRLF", text.replace("\n", "\r\n")
        if rng.random() < 0.1:
            yield f"{path.name} with tabs", text.replace("    ", "\t")


def _checkout(ending: str) -> list[Path]:
    places = ("src", "docs", "tests", ".")
    found = [ROOT.joinpath(place).glob("*." + ending) for place in places]
    return sorted(itertools.chain(*found, ROOT.glob("src/*/*." + ending)))


def prose(rng: random.Random) -> Made:
    """Sentences in many scripts, composed and decomposed, in several cases, with blanks of several kinds."""
    for language, words in WORDS.items():
        text = "".join(_sentence(rng, language, words.split()) for _ in range(60))
        yield language, text
        yield f"{language}, decomposed", unicodedata.normalize("NFD", text[:2_000])
        yield f"{language}, composed", unicodedata.normalize("NFC", text[:1_000])
        yield f"{language}, compatible", unicodedata.normalize("NFKD", text[:1_000])
        yield f"{language}, upper", text[:2_000].upper()
        yield f"{language}, swapped", text[:2_000].swapcase().title()
    mixed = list(WORDS)
    yield (
        "mixed",
        "".join(_sentence(rng, name, WORDS[name].split()) for name in rng.choices(mixed, k=400)),
    )


def _sentence(rng: random.Random, language: str, words: Sequence[str]) -> str:
    blank = "" if language in ("chinese", "japanese", "thai") and rng.random() < 0.8 else " "
    chosen = rng.choices(words, k=rng.randint(1, 14))
    chosen = [
        f"{rng.randint(0, 10 ** rng.randint(1, 7))}" if rng.random() < 0.05 else w for w in chosen
    ]
    chosen = [
        rng.choice(["{},", "({})", '"{}"', "{}:", "«{}»", "{}…"]).format(w)
        if rng.random() < 0.1
        else w
        for w in chosen
    ]
    after = rng.choice([" ", " ", "  ", "\n", "\n\n", "\r\n", " \n", "\n  "])
    return blank.join(chosen) + ENDS.get(language, rng.choice([".", "!", "?", "...", "?!"])) + after


def traps(rng: random.Random) -> Made:
    """Pieces that splitters know as cases of their own, put beside each other at random."""
    letters = [
        *"aAbZéÉжЖ中あ한",
        "ab",
        "Ab",
        "AB",
        "HTML",
        "camelCase",
        *FOLDING,
        *TITLE,
        *MODIFIERS,
    ]
    apostrophes = ["'", "'", "'", "’", "ʼ", "''", " '"]
    alphabets: dict[str, Sequence[str]] = {
        "white space": [*WHITE, *NEARLY_WHITE, *" \n\r\t", *"  \n\n", "a", ".", "/"],
        "line ends": [*LINE_ENDS, *"\n\r", " ", "  ", "\t", "a", "1", ".", "//", "\n/"],
        "contractions": [*apostrophes, *apostrophes, *CONTRACTIONS, *FOLDING[:2], *"aAǅ中1 .\u0301"],
        "cases": [*letters, *letters, *"'  .\u0301", *MARKS],
        "marks": [*MARKS, *MARKS, *"aA1 '.\n", *EMOJI[:3], *MODIFIERS[:4]],
        "numbers": [*NUMBERS, *"0123456789", *"  ,.aA-\n"],
        "emoji": [*EMOJI, *EMOJI, *" a\n1\u200d\ufe0f"],
        "punctuation": [*string.punctuation, *"/\n\r/ ", *"。、「」…—«»¿§¶†", " ", "\n", "\r\n", "a"],
        "special": [*SPECIALS, *NEARLY_SPECIAL, *" \nab'"],
        "identifiers": ["get", "Value", "HTTP", "XML", "_", "2", "fooBar", "HTMLParser", "SCREAMING_CASE", "'s", "iOS", "x"],
        "control": [*map(chr, range(32)), "\x7f", *map(chr, range(0x80, 0xA1)), "a", "\ufffe", "\uffff", "\ufffd", "\xad"],
        "everything": [*WHITE, *LINE_ENDS, *letters, *MARKS, *NUMBERS, *EMOJI, *CONTRACTIONS, *apostrophes, *SPECIALS[:2], *".-/"],
    }  # fmt: skip
    for name, alphabet in alphabets.items():
        yield name, "".join(rng.choices(alphabet, k=12_000))
        for at in range(60):
            yield f"{name} {at}", "".join(rng.choices(alphabet, k=rng.randint(1, 40)))
    for end in [*WHITE, *LINE_ENDS, *NEARLY_WHITE]:
        for before, after in itertools.product(("", " ", "  ", "\n", " \n", "\t "), repeat=2):
            yield f"ends with {end!r}", f"x{before}{end}{after}"


def markup(rng: random.Random) -> Made:
    """URLs, JSON, encoded bytes, tables."""
    word = lambda: rng.choice(rng.choice(list(WORDS.values())).split())  # noqa: E731
    hosts = ["example.com", "www.παράδειγμα.ελ", "localhost:4000", "[::1]:80"]
    urls = [
        f"https://{rng.choice(hosts)}/{word()}/{rng.randint(0, 99999)}?q={word()}&x=%20%C3%A9#{word()}"
        for _ in range(150)
    ]
    yield "URLs", " ".join(urls) + "\n" + "\n".join(urls)
    rows = [
        {word(): [rng.random(), rng.getrandbits(70), word(), None], "nested": {word(): word()}}
        for _ in range(120)
    ]
    yield "JSON", json.dumps(rows, ensure_ascii=False)
    yield "JSON, escaped and indented", json.dumps(rows, indent=4)
    raw = rng.randbytes(9_000)
    yield "base64", base64.b64encode(raw).decode()
    yield "base64 in lines", base64.encodebytes(raw).decode()
    yield "hexadecimal", raw.hex() + raw.hex(" ").upper()
    table = "".join(
        f"| {word()} | `{word()}` |{'-' * rng.randint(0, 90)}| **{rng.randint(0, 9999):,}** |\n"
        for _ in range(200)
    )
    yield "table", table
    yield "HTML", "".join(f'<div class="{word()}">&nbsp;{word()}</div>\n\t' for _ in range(300))
    yield (
        "diff",
        "".join(f"{rng.choice('+- ')}{' ' * rng.randint(0, 80)}{word()}();\n" for _ in range(300)),
    )
    yield "log", "".join(f"2024-0{rng.randint(1, 9)}-{rng.randint(10, 28)}T12:00:{rng.random():.6f}Z [{word()}] {word()}={rng.getrandbits(64):#x}\n" for _ in range(200))  # fmt: skip


def noise(rng: random.Random) -> Made:
    """Random characters of several kinds, in pieces short and long."""
    yield "bytes", rng.randbytes(20_000).decode("latin-1")
    yield "bytes as UTF-8", rng.randbytes(20_000).decode("utf-8", "replace")
    yield "letters", "".join(rng.choices(string.ascii_lowercase, k=20_000))
    yield "letters of both cases", "".join(rng.choices(string.ascii_letters, k=20_000))
    yield "letters and blanks", "".join(rng.choices(string.ascii_letters + "   \n'", k=20_000))
    yield "few letters", "".join(rng.choices("ab", k=20_000))
    yield "ideographs", "".join(chr(rng.randint(0x4E00, 0x9FFF)) for _ in range(10_000))
    yield "syllables", "".join(chr(rng.randint(0xAC00, 0xD7A3)) for _ in range(10_000))
    yield (
        "jamo",
        unicodedata.normalize(
            "NFD", "".join(chr(rng.randint(0xAC00, 0xD7A3)) for _ in range(5_000))
        ),
    )
    yield "code points", "".join(_anything(rng) for _ in range(10_000))
    yield (
        "code points and letters",
        "".join(rng.choice([_anything(rng), " ", "a", "A"]) for _ in range(10_000)),
    )
    yield "neighbours", "".join(_neighbours(rng, block) for block in range(0, 0x20000, 0x80))
    yield "low code points", "".join(chr(rng.randint(0, 0x24F)) for _ in range(20_000))
    yield "punctuation", "".join(rng.choices(string.punctuation, k=20_000))
    yield "blanks", "".join(rng.choices(" \t\n\r\u3000", k=20_000))


def _anything(rng: random.Random) -> str:
    """A code point of any plane, low ones more often."""
    while (
        0xD800
        <= (point := rng.randrange(1 << rng.randint(7, 20)) + rng.choice((0, 0, 0x10000)))
        < 0xE000
    ):
        pass
    return chr(point)


def _neighbours(rng: random.Random, block: int) -> str:
    """Characters of one script, in words."""
    points = [point for point in range(block, block + 0x80) if not 0xD800 <= point < 0xE000]
    return "".join(rng.choices([*map(chr, points), " "], k=60)) if points else ""


def runs(times: int = 1) -> Made:
    """Equal characters and short patterns, over and over."""
    length = RUN * min(times, 4)
    for character in [
        *"aAzé \n\t\r=-_.1０'/\x00",
        "\u3000",
        "\u2028",
        "\x85",
        "中",
        "あ",
        "👍",
        "\u0301",
        "ſ",
        "ǅ",
        "ʰ",
        "ß",
        "한",
        "𐐔",
        "\u200d",
        "ก",
    ]:
        run = character * length
        yield f"runs/{length} of {character!r}", run
        for around in ("x{}", "{}x", " {} ", "{}\n", "'{}'s", "{}'ll"):
            yield f"runs/{around!r} around 300 of {character!r}", around.format(character * 300)
    for pattern in (
        "ab",
        " a",
        "a ",
        "\r\n",
        " \n",
        "\n ",
        "'s",
        "a'",
        "Aa",
        "aA",
        "1a",
        "12 ",
        "./",
        "/\n",
        ". ",
        "e\u0301",
        "你好",
        "<|endoftext|>",
        "  \t",
        "=-",
    ):
        yield f"runs/{pattern!r} over and over", pattern * (length // 4)
    for first, second in itertools.permutations([" ", "\n", "a", "=", "中", "\u0301"], 2):
        yield f"runs/runs of {first!r} and {second!r}", first * 1_500 + second * 1_500
    for name, (start, rules) in {
        "Fibonacci": ("a", {"a": "ab", "b": "a"}),
        "Thue-Morse": ("a", {"a": "ab", "b": "ba"}),
    }.items():
        text = start
        while len(text) < RUN:
            text = "".join(rules[letter] for letter in text)
        yield f"runs/{name}", text[:RUN]


def of_vocabulary(ranks: Mapping[bytes, int], rng: random.Random, size: int) -> Made:
    """Texts made of a vocabulary's own tokens: joined, cut, and such that the longest token must be given up.

    Args:
        ranks: tokens with their ranks.
        rng: what chooses among them.
        size: how many tokens each text takes, about.
    """
    tokens = sorted(ranks)
    readable = [text for token in tokens if (text := _text(token)) is not None]
    words = [text for text in readable if text.isalpha() and len(text) > 2]
    punctuation = [text for text in readable if not any(c.isalnum() or c.isspace() for c in text)]
    blanks = [text for text in readable if text.isspace()]
    yield "tokens", "".join(rng.choices(readable, k=size))
    yield "tokens, their bytes", b"".join(rng.choices(tokens, k=size)).decode("utf-8", "replace")
    yield "words without blanks", "".join(rng.choices(words, k=size))
    yield "punctuation without blanks", "".join(rng.choices(punctuation, k=size))
    yield "blanks", "".join(rng.choices(blanks, k=size))
    yield "parts of tokens", "".join(_part(rng, rng.choice(readable)) for _ in range(size))
    yield "parts of words", "".join(_part(rng, rng.choice(words)) for _ in range(size))
    overlaps = list(itertools.islice(_overlaps(ranks, tokens, words, rng), size))
    yield "overlaps", "".join(overlaps)
    yield "overlaps, one by one", " ".join(overlaps)
    yield "chains", "".join(_chain(tokens, words, rng) for _ in range(size // 40))
    for at in range(4):
        few = rng.sample(words, 3)
        yield (
            f"few tokens {at}",
            "".join(rng.choices([*few, *(_part(rng, word) for word in few)], k=size)),
        )


def _text(token: bytes) -> str | None:
    try:
        return token.decode()
    except UnicodeDecodeError:
        return None


def _part(rng: random.Random, text: str) -> str:
    start = rng.randrange(len(text))
    return text[start : start + rng.randint(1, len(text))]


def _longer(tokens: Sequence[bytes], prefix: bytes, rng: random.Random) -> bytes | None:
    """A token that goes on after a prefix."""
    first = bisect_left(tokens, prefix)
    last = bisect_left(tokens, prefix + b"\xff", first)
    return tokens[rng.randrange(first, last)] if first < last else None


def _overlaps(
    ranks: Mapping[bytes, int], tokens: Sequence[bytes], words: Sequence[str], rng: random.Random
) -> Iterator[str]:
    """Two tokens that share the middle: the left one taken whole leaves a rest that is not a token, or a poor one."""
    while True:
        left = rng.choice(words).encode()
        cut = rng.randint(1, len(left) - 1)
        right = _longer(tokens, left[cut:], rng)
        if right is not None and right != left[cut:]:
            text = _text(left[:cut] + right)
            if text is not None and text.isalpha() and left[:cut] in ranks:
                yield text


def _chain(tokens: Sequence[bytes], words: Sequence[str], rng: random.Random) -> str:
    """Tokens each of which begins with the end of the one before."""
    text = rng.choice(words).encode()
    for _ in range(40):
        following = _longer(tokens, text[-rng.randint(1, 3) :], rng)
        if following is None:
            break
        text += following[1:]
    return text.decode("utf-8", "replace")


def splices(texts: Sequence[str], rng: random.Random, count: int) -> Iterator[str]:
    """Texts that are parts of others, cut and joined anywhere, with parts doubled, turned round and left out."""
    for _ in range(count):
        parts = []
        for _ in range(rng.randint(1, 6)):
            text = rng.choice(texts)
            start = rng.randrange(len(text) or 1)
            part = text[start : start + rng.choice((1, 3, 10, 30, 100))]
            parts.append(rng.choice((part, part, part, part * 2, part[::-1], part.swapcase())))
        yield rng.choice(("", "", "", " ", "\n", "'")).join(parts)


def short_strings(alphabet: Sequence[str], longest: int) -> Iterator[str]:
    """Every string over an alphabet, up to a length: each is a text with an end of its own."""
    for length in range(longest + 1):
        yield from map("".join, itertools.product(alphabet, repeat=length))


BLANK_ALPHABET = (" ", "\n", "\r", "\t", "\u3000", "a", ".", "/", "\u0301")
LETTER_ALPHABET = ("'", "s", "ſ", "L", "l", "A", "e", "R", "ǅ", "ʰ", "\u0301", "中", " ", "1", "\n")

WINDOW_ALPHABET = (*"'sSlaAeé\u00c9ſǅ中\u0301 \n\r\t\u3000", "1", "²", ".", "/", "👍")


def shifted(longest: int) -> Iterator[str]:
    """Short strings behind rows of many lengths, at the text's end and before more: splitters look at 16 bytes at once."""
    for short in short_strings(WINDOW_ALPHABET, longest):
        for filler, length in itertools.product("aA .1\n", range(8, 19)):
            yield filler * length + short
            yield filler * length + short + "plain words, and so on"


CONTEXTS: dict[str, Callable[[str], str]] = {
    # Splits that ASCII shows, whatever merges the code point has: letter or not, number or not, blank or not.
    "telling its kind": lambda c: f"{c}'s 1{c}2345  {c}  b",
    "alone": lambda c: c,
    "after a letter": lambda c: f"a{c}",
    "before a letter": lambda c: f"{c}a",
    "between blanks": lambda c: f" {c} ",
    "twice, before a digit": lambda c: f"{c}{c}1",
    "after an apostrophe": lambda c: f"x'{c}",
    "between its other case": lambda c: f"{c.swapcase()}{c}{c.swapcase()}",
}
"""Where a code point can stand; the first one tells the most."""


def code_points(every: int = 1) -> Iterator[str]:
    """Code points but for surrogates.

    Args:
        every: of the planes that have no letters, only every so manyth, beside their ends.
    """
    for point in itertools.chain(range(0xD800), range(0xE000, 0x110000)):
        plane, within = divmod(point, 0x10000)
        if (
            plane in (0, 1, 2, 3)
            or within in (0, 0xFFFF)
            or (plane == 14 and within < 0x200)
            or point % every == 0
        ):
            yield chr(point)


def joined(pieces: Iterator[str], length: int) -> Iterator[str]:
    """Short texts as longer ones, in lines, of about so many characters each."""
    held: list[str] = []
    characters = 0
    for piece in pieces:
        held.append(piece)
        characters += len(piece) + 1
        if characters >= length:
            yield "\n".join(held)
            held, characters = [], 0
    if held:
        yield "\n".join(held)
