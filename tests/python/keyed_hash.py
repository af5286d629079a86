"""Where a key stands: the hash and the probe of `shm_layout.md`, section 5, in plain Python.

SipHash as published by Aumasson and Bernstein.
"""

from __future__ import annotations

from collections.abc import Iterator

M64 = (1 << 64) - 1
GROUP = 8
"""Slots in a group, and groups in a probe."""

GOLDEN = 0x9E3779B97F4A7C15


def siphash(
    key: tuple[int, int], data: bytes, compressions: int = 1, finalizations: int = 3
) -> int:
    """SipHash-c-d."""
    k0, k1 = key
    state = [
        k0 ^ 0x736F6D6570736575,
        k1 ^ 0x646F72616E646F6D,
        k0 ^ 0x6C7967656E657261,
        k1 ^ 0x7465646279746573,
    ]
    padded = data + bytes(7 - len(data) % 8) + bytes([len(data) & 0xFF])
    for start in range(0, len(padded), 8):
        word = int.from_bytes(padded[start : start + 8], "little")
        state[3] ^= word
        _rounds(state, compressions)
        state[0] ^= word
    state[2] ^= 0xFF
    _rounds(state, finalizations)
    return state[0] ^ state[1] ^ state[2] ^ state[3]


def _rounds(state: list[int], count: int) -> None:
    v0, v1, v2, v3 = state
    for _ in range(count):
        v0 = v0 + v1 & M64
        v1 = rotate(v1, 13) ^ v0
        v0 = rotate(v0, 32)
        v2 = v2 + v3 & M64
        v3 = rotate(v3, 16) ^ v2
        v0 = v0 + v3 & M64
        v3 = rotate(v3, 21) ^ v0
        v2 = v2 + v1 & M64
        v1 = rotate(v1, 17) ^ v2
        v2 = rotate(v2, 32)
    state[:] = v0, v1, v2, v3


def rotate(word: int, by: int) -> int:
    """Rotate 64 bits to the left."""
    return (word << by | word >> 64 - by) & M64


def mix(word: int) -> int:
    """The finaliser of SplitMix64."""
    word = (word ^ word >> 30) * 0xBF58476D1CE4E5B9 & M64
    word = (word ^ word >> 27) * 0x94D049BB133111EB & M64
    return word ^ word >> 31


def places(key_hash: int, slots: int) -> Iterator[int]:
    """The places of a key in a table of `slots`, in the order of its probe."""
    groups = slots // GROUP
    home, stride = key_hash * GOLDEN & M64, rotate(key_hash, 32) | 1
    for number in range(GROUP):
        hashed = home
        group = (home * groups >> 64) + number
        if number and groups > GROUP:
            hashed = mix(home + number * stride & M64)
            group = hashed * groups >> 64
        for slot in range(GROUP):
            yield GROUP * (group % groups) + (hashed + slot) % GROUP
