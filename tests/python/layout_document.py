"""The tables of `shm_layout.md`, parsed: what a reader needs to find a field of a record or a word."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

PATH = Path(__file__).resolve().parents[2] / "shm_layout.md"


class Field(NamedTuple):
    """A field of a record: `count` words of one type."""

    offset: int
    type: str
    count: int
    reserved: bool


@dataclass(frozen=True)
class Record:
    """A fixed group of words."""

    size: int
    fields: dict[str, Field]


class Bits(NamedTuple):
    """A field of a word, both ends included."""

    first: int
    last: int

    @property
    def mask(self) -> int:
        """All ones, as many as the field has bits."""
        return (1 << self.last - self.first + 1) - 1

    def of(self, word: int) -> int:
        """The field's value in a word."""
        return word >> self.first & self.mask

    def low(self, value: int) -> int:
        """As many low bits of a value as the field has."""
        return value & self.mask

    def signed(self, value: int) -> int:
        """Two's complement in as many bits as the field has."""
        value &= self.mask
        return value - self.mask - 1 if value > self.mask >> 1 else value


Word = dict[str, Bits]


class SectionPlan(NamedTuple):
    """A line of the region map: which record stands in a section, and how often."""

    number: int
    record: str
    count: str


@dataclass
class LayoutDocument:
    """All tables of one document."""

    records: dict[str, Record]
    words: dict[str, Word]
    values: dict[str, dict[int, str]]
    sections: list[SectionPlan]
    version: tuple[int, int]
    fingerprint: int

    @classmethod
    def parse(cls, text: str) -> LayoutDocument:
        """Read the document.

        Raises:
            ValueError: a part that every version has is missing.
        """
        records, words = {}, {}
        for kind, name, size, body in re.findall(
            r"^### (Record|Word) `(\w+)`(?: \((\d+) bytes[^\n]*\))?\n(.*?)(?=^### |^<!-- end)",
            text,
            re.M | re.S,
        ):
            if kind == "Record":
                records[name] = Record(int(size), _fields(body))
            else:
                words[name] = _bits(body)
        history = re.findall(r"^\| (\d+)\.(\d+) \| `(0x[0-9a-f]+)` \|", text, re.M)
        if not (records and words and history):
            raise ValueError("this is not shm_layout.md: it has no records, words or versions")
        major, minor, fingerprint = history[-1]
        return cls(
            records,
            words,
            _values(text),
            _sections(text),
            (int(major), int(minor)),
            int(fingerprint, 16),
        )

    @classmethod
    def load(cls, path: Path = PATH) -> LayoutDocument:
        """Read the checkout's document."""
        return cls.parse(path.read_text(encoding="utf-8"))


def _fields(body: str) -> dict[str, Field]:
    fields = {}
    for offset, name, type_, meaning in re.findall(
        r"^\| (\d+) \| \d+ \| `(\w+)` \| `([^`]+)` \| (.*) \|$", body, re.M
    ):
        array = re.fullmatch(r"\[(\w+); (\d+)\]", type_)
        word, count = (array[1], int(array[2])) if array else (type_, 1)
        fields[name] = Field(int(offset), word, count, meaning.startswith("Reserved"))
    return fields


def _bits(body: str) -> Word:
    rows = re.findall(r"^\| (\d+)\.\.(\d+) \| `(\w+)` \|", body, re.M)
    return {name: Bits(int(first), int(last)) for first, last, name in rows}


def _values(text: str) -> dict[str, dict[int, str]]:
    _, found, rest = text.partition("\nEnumerations:\n")
    rows = re.findall(r"^\| `(\w+)` \| (\d+ .*) \|$", rest.partition("\n## ")[0], re.M)
    if not (found and rows):
        raise ValueError("the document has no enumerations")
    events = re.findall(r"^\| (\d+) ([^|]+) \|", rest.partition("\n## ")[0], re.M)
    named = {
        name: {int(value): word for value, word in re.findall(r"(\d+) ([^,]+)", values)}
        for name, values in rows
    }
    return {**named, "EventKind": {int(value): word for value, word in events}}


def _sections(text: str) -> list[SectionPlan]:
    block = re.search(r"^## 3\. Region map\n\n```\n(.*?)```", text, re.M | re.S)
    if block is None:
        raise ValueError("the document has no region map")
    rows = re.findall(r"^\S+ +(\d+) (\w+) +x (\(.*?\)|\w+)", block[1], re.M)
    return [SectionPlan(int(number), record, count) for number, record, count in rows]
