"""The texts that are counted: prose and code of the standard library, Chinese, and worst cases."""

from __future__ import annotations

import functools
import random
import re
import string
import sysconfig
from base64 import b64encode
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.counting.chinese import chinese

#: What people write.
KINDS = ("English", "code", "Chinese")

#: A paragraph is prose if that share of it are letters and spaces.
PROSE = 0.88
#: Docstrings, and other long strings.
_DOCUMENTATION = re.compile(r'"""(.*?)"""', re.DOTALL)
#: Fewer words are a heading, or a signature.
SENTENCE = 10


def text_of(kind: str, length: int) -> str:
    """So many characters of a kind, from the middle of a larger text; the same each time."""
    if kind == "Chinese":
        return chinese(length, length)
    whole = _prose() if kind == "English" else _code()
    # A short text from the beginning would be a heading or an import.
    start = whole.index(" ", len(whole) // 3) + 1 if length * 3 < len(whole) else 0
    turns = -(-length // (len(whole) - start))
    return (whole[start:] * turns)[:length]


def documents(kind: str, count: int, length: int) -> list[str]:
    """So many different texts of a length."""
    if kind == "Chinese":
        return [chinese(length, -1 - number) for number in range(count)]
    if kind == "random words":
        draw = random.Random(7)
        return [_random_words(draw, length) for _ in range(count)]
    whole = _prose() if kind == "English" else _code()
    # Where there is less, texts share parts.
    step = (len(whole) - length) // count
    if step < 1:
        raise ValueError(f"there are not {count} different texts of {length} characters")
    return [whole[step * number : step * number + length] for number in range(count)]


def _random_words(draw: random.Random, length: int) -> str:
    words: list[str] = []
    size = 0
    while size < length:
        words.append("".join(draw.choices(string.ascii_lowercase, k=draw.randint(3, 12))))
        size += len(words[-1]) + 1
    return " ".join(words)[:length]


def _library() -> list[Path]:
    root = Path(sysconfig.get_paths()["stdlib"])
    apart = {"site-packages", "test", "tests", "lib2to3", "__pycache__", "idlelib", "turtledemo"}
    return [
        path
        for path in sorted(root.rglob("*.py"))
        if not apart & set(path.relative_to(root).parts) and not path.name.startswith("_sysconfig")
    ]


@functools.cache
def _code() -> str:
    files = [path for path in _library() if "pydoc_data" not in path.parts]
    random.Random(3).shuffle(files)
    return "\n".join(path.read_text(encoding="utf-8", errors="ignore") for path in files)


@functools.cache
def _prose() -> str:
    paragraphs = dict.fromkeys(
        paragraph for source in _sources() for paragraph in _paragraphs(source)
    )
    shuffled = list(paragraphs)
    random.Random(5).shuffle(shuffled)
    return "\n\n".join(shuffled)


def _sources() -> Iterator[str]:
    from pydoc_data.topics import topics

    yield from topics.values()
    for path in _library():
        yield from _DOCUMENTATION.findall(path.read_text(encoding="utf-8", errors="ignore"))


def _paragraphs(source: str) -> Iterator[str]:
    for part in re.split(r"\n\s*\n", source):
        words = part.split()
        paragraph = " ".join(words)
        letters = sum(character.isalpha() or character == " " for character in paragraph)
        if len(words) >= SENTENCE and letters >= PROSE * len(paragraph):
            yield paragraph


def _drawn(alphabet: str) -> Callable[[int, int], str]:
    return lambda length, seed: "".join(random.Random(seed).choices(alphabet, k=length))


def _repeated(unit: str) -> Callable[[int, int], str]:
    # Another length is another text: who remembers pieces has not met it.
    return lambda length, seed: (unit * (length // len(unit) + 1))[: length - seed]


def _base64(length: int, seed: int) -> str:
    return b64encode(random.Random(seed).randbytes(length)).decode()[:length]


def _marks(length: int, seed: int) -> str:
    draw = random.Random(seed)
    return "".join(
        draw.choice(string.ascii_letters)
        if draw.random() < 0.2
        else chr(draw.randint(0x300, 0x36F))
        for _ in range(length)
    )


#: Texts that somebody is slow at, by what they are made of: from about how many characters there should
#: be, and a small number, with which each text is another one.
WORST: dict[str, Callable[[int, int], str]] = {
    "one letter": _repeated("a"),
    "spaces": _repeated(" "),
    "=": _repeated("="),
    "newlines": _repeated("\n"),
    "digits": _repeated("0123456789"),
    "two letters in turn": _repeated("ab"),
    "random letters": _drawn(string.ascii_lowercase),
    "random base64": _base64,
    "random CJK": _drawn("".join(map(chr, range(0x4E00, 0x9FA6)))),
    "emoji": _drawn("".join(map(chr, range(0x1F300, 0x1F650)))),
    "one mark": _repeated("\u0301"),
    "letters with marks": _marks,
    "random punctuation": _drawn(string.punctuation),
    "random white space": _drawn(" \t\n\r\u00a0\u3000"),
}

#: What splitters and lookups get wrong. Counts of all of these have to be right as well.
TRAPS = (
    "",
    "a <|endoftext|> b <|endofprompt|><|fim_prefix|>",
    "it's IT'S we'LL I'd x\u01c5'\u017f'SW don\u2019t \u212aelvin'\u017f ma\u00dfe",
    "\t\r\n \u3000\u00a0x  y\u2028z\n\n\n  \r\n",
    "\u00e9 e\u0301 \U0001f468\u200d\U0001f469\u200d\U0001f467\U0001f3fd "
    "\u0e01\u0e33 \u0928\u092e\u0938\u094d\u0924\u0947 \ud55c\uad6d\uc5b4 "
    "\u0627\u0644\u0633\u0644\u0627\u0645",
    "1234567890 \u0661\u0662\u0663 \u2167 \u00bd 3.14159e-10 0xDEADBEEF",
    "\x00\x01\x7f\ufeff\ufffe\U0010ffff",
)
