"""What a request with a long prompt costs the workers of several proxies, which take turns."""

from __future__ import annotations

import asyncio
import os
import random
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import load
from .proxy import FakeBackend, Proxy
from .results import new_key
from .setups import SETUPS

#: Tokens a minute of each key: LiteLLM keeps count of a limit that nobody reaches.
TPM = 1_000_000_000


@dataclass(frozen=True)
class Case:
    """A way in which LiteLLM comes to count prompts.

    Attributes:
        setup: of the proxy.
        stream: the answer is streamed, and the provider tells no usage at its end.
        label: for tables.
    """

    setup: str
    label: str
    stream: bool = False


CASES: dict[str, Case] = {
    "tpm": Case("prompts", "key with a token limit"),
    "streamed": Case("prompts", "streamed answer without usage", stream=True),
    "checked": Case("prompts_checked", "pre-call checks"),
    "by_usage": Case("prompts_by_usage", "usage-based-routing-v2"),
}


def cpu_seconds(pids: Sequence[int]) -> float:
    """CPU time of processes and of all their threads, ended ones included; in steps of a clock tick."""
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        # User and system time are the 14th and 15th field; the first two are cut off.
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def measure(
    proxies: Mapping[str, Proxy],
    backend: FakeBackend,
    case: Case,
    prompts: Sequence[str],
    rounds: int,
    draw: random.Random,
    note: Callable[[str], None],
) -> dict[str, Any]:
    """CPU time of a request, milliseconds.

    Args:
        proxies: by variant; all of them run.
        backend: the provider behind them.
        prompts: one request of a turn each.
        rounds: turns of each proxy; their order is drawn.

    Returns:
        By variant: `ms` (median over the turns), `turns` (each of them) and `unexpected` replies.
    """
    turns: dict[str, list[float]] = {variant: [] for variant in proxies}
    unexpected: dict[str, list[str]] = {variant: [] for variant in proxies}
    for proxy in proxies.values():
        proxy.use(SETUPS[case.setup])
    backend.configure("known", usage_of_streams=not case.stream)
    for number in range(-1, rounds):
        order = list(proxies)
        draw.shuffle(order)
        for variant in order:
            proxy = proxies[variant]
            before = cpu_seconds(proxy.worker_pids())
            replies = asyncio.run(_send(proxy, case, prompts))
            taken = cpu_seconds(proxy.worker_pids()) - before
            unexpected[variant] += [
                f"{reply.status}: {reply.body[:300]}" for reply in replies if reply.status != 200
            ]
            # The first turn loads what LiteLLM loads when it is first needed.
            if number >= 0:
                turns[variant].append(taken * 1e3 / len(prompts))
    found = {
        variant: {
            "ms": statistics.median(values),
            "turns": [round(value, 2) for value in values],
            "unexpected": unexpected[variant],
        }
        for variant, values in turns.items()
    }
    shown = {variant: round(each["ms"], 2) for variant, each in found.items()}
    note(f"{case.label}: {shown}")
    return found


async def _send(proxy: Proxy, case: Case, prompts: Sequence[str]) -> list[load.Reply]:
    """One request for each prompt, as many at a time as there are workers."""
    gate = asyncio.Semaphore(proxy.workers)
    key = new_key(f"t{TPM}")
    async with load.session() as client:

        async def one(prompt: str) -> load.Reply:
            async with gate:
                return await load.complete(
                    client, proxy.base_url, key, model="known", stream=case.stream, prompt=prompt
                )

        replies = await asyncio.gather(*map(one, prompts))
    # What LiteLLM does after an answer is part of what the request costs.
    await asyncio.sleep(0.3)
    return replies
