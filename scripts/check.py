"""Sends real traffic through the demo's proxy and compares what was admitted with the limits.

The second half of `bash scripts/run --check`. Exit code 0 if every limit held, 1 if not.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import aiohttp

SCRIPTS = Path(__file__).resolve().parent
# Not the root of the checkout: its `fast_litellm` directory would hide the installed package.
sys.path.insert(0, str(SCRIPTS.parent / "tests"))
sys.path.insert(0, str(SCRIPTS / "demo"))

from harness.load import PROMPT, Burst, Reply, session  # noqa: E402
from harness.proxy import StartError  # noqa: E402
from serve import ROOT, DemoProxy, Progress, explain_failure, stop_on_signals  # noqa: E402

CONCURRENCY = 20
#: How long `demo-slow` takes (config.yaml); what must happen while it does is waited for no longer.
SLOW_S = 8.0
WINDOW_S = 60.0
FREED_WITHIN_S = 5.0


class InconclusiveError(Exception):
    """Something else went wrong than a limit."""


@dataclass
class Row:
    """One line of the table."""

    what: str
    limit: str
    admitted: str
    holds: bool
    note: str = ""


async def send(
    client: aiohttp.ClientSession,
    url: str,
    key: str,
    model: str = "demo",
    max_tokens: int | None = None,
) -> Reply:
    """Send one chat completion on a connection of its own."""
    body = {"model": model, "messages": [{"role": "user", "content": PROMPT}]}
    if max_tokens is not None:
        body["max_tokens"] = max_tokens
    headers = {"Authorization": f"Bearer {key}"}
    try:
        async with client.post(f"{url}/v1/chat/completions", json=body, headers=headers) as answer:
            return Reply(answer.status, await answer.text())
    except (aiohttp.ClientError, asyncio.TimeoutError) as error:
        return Reply(0, repr(error))


async def burst(
    url: str,
    keys: Iterable[str],
    *,
    concurrency: int = CONCURRENCY,
    model: str = "demo",
    max_tokens: int | None = None,
    within_s: float = WINDOW_S,
) -> Burst:
    """Send one request for each of the keys."""
    result = Burst()
    gate = asyncio.Semaphore(concurrency)

    async def one(client: aiohttp.ClientSession, key: str) -> None:
        async with gate:
            result.add(await send(client, url, key, model, max_tokens))

    begun = time.monotonic()
    async with session() as client:
        await asyncio.gather(*(one(client, key) for key in keys))
    result.elapsed_s = time.monotonic() - begun
    if result.unexpected:
        raise InconclusiveError(
            f"{len(result.unexpected)} odd answers: {result.unexpected[0][:300]}"
        )
    if result.elapsed_s > within_s:
        raise InconclusiveError(f"this took {result.elapsed_s:.0f} s, longer than a window")
    return result


def rate(what: str, limit: str, keys: Iterable[str], expected: range, **how: int) -> Check:
    """A check of how many requests are admitted within a minute."""

    async def run(proxy: DemoProxy) -> Row:
        sent = list(keys)
        admitted = (await burst(proxy.base_url, sent, **how)).admitted
        return Row(f"{what}, {len(sent)} sent", limit, str(admitted), admitted in expected)

    return Check(what, run)


async def parallel(proxy: DemoProxy) -> Row:
    """100 requests of 8 s at once. As many as are admitted before the first one ends were in flight."""
    what = "key, 100 at once of 8 s each"
    begun = time.monotonic()
    refused_at = 0.0
    admitted = 0

    async def one(client: aiohttp.ClientSession) -> None:
        nonlocal admitted, refused_at
        reply = await send(client, proxy.base_url, "sk-demo-parallel", "demo-slow")
        if reply.status == 200:
            admitted += 1
        elif reply.status == 429:
            refused_at = max(refused_at, time.monotonic() - begun)
        else:
            raise InconclusiveError(f"odd answer {reply.status}: {reply.body[:300]}")

    async with session() as client:
        await asyncio.gather(*(one(client) for _ in range(100)))
    if refused_at >= SLOW_S:
        raise InconclusiveError(
            f"the machine took {refused_at:.0f} s to refuse; slots were free again"
        )
    # LiteLLM gives a slot back in a callback that may run after the answer has left.
    await asyncio.sleep(1.0)
    again = (await burst(proxy.base_url, ["sk-demo-parallel"] * 5, concurrency=5)).admitted
    return Row(
        what, "5 in flight", str(admitted), admitted == 5 and again == 5, f"then {again} of 5 more"
    )


class KilledWorker:
    """A worker is killed with -9 while it holds slots; they must be usable again, and no others."""

    key = "sk-demo-parallel-killed"

    def __init__(self) -> None:
        self.inspected = ""

    async def __call__(self, proxy: DemoProxy) -> Row:
        """Fill the key, kill one of its holders, see how many get in."""
        url, boots = proxy.base_url, proxy.boots()
        async with session() as client:
            holders = [
                asyncio.ensure_future(send(client, url, self.key, "demo-slow")) for _ in range(5)
            ]
            try:
                held = await self._held_by(proxy)
                when_full = (await burst(url, [self.key] * 20)).admitted
                self.inspected = proxy.fl_shm().stdout
                victim, slots = min(held.items(), key=lambda item: item[1])
                proxy.kill_worker(victim)
                freed_s = await self._seconds_until_admitted(client, url)
                # The probe's own slot is given back by a callback.
                await asyncio.sleep(0.5)
                refill = [send(client, url, self.key, "demo-slow") for _ in range(20)]
                replies = await asyncio.gather(*refill)
                refilled = sum(reply.status == 200 for reply in replies)
            finally:
                for holder in holders:
                    holder.cancel()
                await asyncio.gather(*holders, return_exceptions=True)
        proxy.wait_for_boots(boots + 1)
        freed = f"{freed_s:.2f} s" if freed_s is not None else f"not in {FREED_WITHIN_S:.0f} s"
        return Row(
            f"kill -9 of a worker with {slots} of 5 slots",
            f"{slots} usable",
            str(refilled),
            freed_s is not None and refilled == slots and when_full == 0,
            f"after {freed}; {when_full} of 20 before the kill",
        )

    async def _held_by(self, proxy: DemoProxy) -> dict[int, int]:
        """Slots of the key by worker, once all five are held."""
        deadline = time.monotonic() + SLOW_S / 2
        while True:
            inspected = proxy.fl_shm("leases", "--json")
            if inspected.returncode != 0:
                raise InconclusiveError(inspected.stderr.strip())
            held: Counter[int] = Counter()
            for lease in json.loads(inspected.stdout)["leases"]:
                held[lease["pid"]] += lease["held"]
            if held.total() == 5:
                return dict(held)
            if time.monotonic() > deadline:
                raise InconclusiveError(f"only {held.total()} of 5 slots were taken: {dict(held)}")
            await asyncio.sleep(0.05)

    async def _seconds_until_admitted(
        self, client: aiohttp.ClientSession, url: str
    ) -> float | None:
        begun = time.monotonic()
        while time.monotonic() - begun < FREED_WITHIN_S:
            # A connection that the dead worker had accepted breaks off; that is no refusal.
            if (await send(client, url, self.key)).status == 200:
                return time.monotonic() - begun
            await asyncio.sleep(0.02)
        return None


@dataclass
class Check:
    """One thing to measure."""

    name: str
    run: Callable[[DemoProxy], Awaitable[Row]]


def checks(killed: KilledWorker) -> list[Check]:
    """Everything that is measured, in order."""
    return [
        rate("key", "20 requests/min", ["sk-demo-rpm"] * 200, range(20, 21)),
        rate(
            "user of 5 keys",
            "20 requests/min",
            [f"sk-demo-user-{i % 5}" for i in range(200)],
            range(20, 21),
        ),
        # An answer costs 30 tokens, of which 24 are reserved beforehand: until the rest of the
        # requests in flight is settled, up to two more get in.
        rate(
            "key, 30 tokens an answer",
            "900 tokens/min",
            ["sk-demo-tpm"] * 200,
            range(30, 33),
            concurrency=8,
            max_tokens=14,
        ),
        Check("parallel requests", parallel),
        Check("killed worker", killed),
        # More keys than LiteLLM's in-memory cache has room for (200 entries).
        rate(
            "150 keys",
            "3 requests/min each",
            [f"sk-demo-many-{i % 150}" for i in range(1200)],
            range(450, 451),
        ),
    ]


def measure(proxy: DemoProxy) -> bool:
    """Run all checks, a line each; true if everything holds."""
    killed = KilledWorker()
    line = "{:<38} {:<20} {:>8}  {:<5} {}"
    print()
    print(line.format("traffic", "limit", "admitted", "holds", "took"))
    good = True
    for check in checks(killed):
        progress = Progress(f"measuring: {check.name}")
        if sys.stdout.isatty():
            progress.show("sending")
        begun = time.monotonic()
        try:
            row = asyncio.run(check.run(proxy))
        except (InconclusiveError, StartError) as error:
            row = Row(check.name, "", "?", holds=False, note=str(error)[:600])
        good = good and row.holds
        mark = "yes" if row.holds else "NO"
        note = f"{time.monotonic() - begun:4.1f} s  {row.note}".rstrip()
        clear = "\r\033[K" if sys.stdout.isatty() else ""
        print(clear + line.format(row.what, row.limit, row.admitted, mark, note), flush=True)
    if killed.inspected:
        print(f"\nfl-shm inspect, just before the kill:\n\n{killed.inspected.rstrip()}")
    return good


def main() -> int:
    """Start, measure, stop."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int)
    parser.add_argument("--workers", type=int, required=True)
    arguments = parser.parse_args()
    stop_on_signals()
    log = ROOT / ".cache" / "logs" / "proxy-check.log"
    try:
        with DemoProxy(workers=arguments.workers, log=log, port=arguments.port) as proxy:
            # The first request of each worker is slow.
            asyncio.run(burst(proxy.base_url, ["sk-demo-free"] * (12 * arguments.workers)))
            good = measure(proxy)
    except (StartError, InconclusiveError) as error:
        explain_failure(str(error).splitlines()[0], log)
        return 1
    print("\nevery limit held" if good else f"\nNOT every limit held; proxy log: {log}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
