"""Finds traces of a secret in bytes, however they are written down."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator

#: Characters of a key or of its hash that may be stored: README.md, "Look inside".
SHOWN = 6


def traces(data: bytes, secret: str) -> list[str]:
    """The forms of a secret that are found, of more of it than may be shown."""
    lower = data.lower()
    return [
        name
        for name, form in _forms(secret)
        if (form in data if name.startswith("base64") else form.lower() in lower)
    ]


def _forms(secret: str) -> Iterator[tuple[str, bytes]]:
    # A part of it will do; the first characters of keys are the same for all.
    part = secret[: max(SHOWN + 6, len(secret) // 2)]
    rest = secret[-12:]
    for where, text in (("begin", part), ("end", rest)):
        raw = text.encode()
        yield f"plain, {where}", raw
        yield f"hex, {where}", raw.hex().encode()
        yield f"UTF-16, {where}", text.encode("utf-16-le")
        yield f"UTF-16 of the other order, {where}", text.encode("utf-16-be")
        for shift in range(3):
            # What stands before it moves it against groups of three bytes; whole groups of it stay.
            whole = raw[(3 - shift) % 3 :]
            encoded = base64.b64encode(whole[: len(whole) // 3 * 3])
            yield f"base64, {where}, shifted by {shift}", encoded
            yield (
                f"base64 for URLs, {where}, shifted by {shift}",
                encoded.translate(bytes.maketrans(b"+/", b"-_")),
            )
    for name in ("sha256", "sha1", "md5"):
        digest = hashlib.new(name, secret.encode())
        yield name, digest.hexdigest()[: SHOWN + 1].encode()
        yield f"{name} as bytes", digest.digest()[:8]
