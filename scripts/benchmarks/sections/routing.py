"""Choosing among deployments."""

from __future__ import annotations

from typing import Any

from benchmarks.deployments import in_flight, models_of, uneven_models
from benchmarks.sections import Sample, Subject, Verdict
from benchmarks.timing import SINGLES, Calls, batch_size

TITLE = "Routing: one choice among deployments"
UNIT = "ns"
STRATEGIES = ("simple_shuffle", "least_busy")
COUNTS = (3, 30, 300)
CASES = tuple(f"{strategy}, {count}" for strategy in STRATEGIES for count in COUNTS)
CONTENDERS = ("ours", "published", "litellm", "python", "python_reference")


def subject(contender: Any, case: str) -> Subject:
    """A contender ready for a case."""
    strategy, count = case.split(", ")
    return _Choices(contender.router(strategy, int(count)).choose, strategy, int(count))


class _Choices:
    def __init__(self, choose: Any, strategy: str, count: int) -> None:
        self._choose = choose
        self._strategy = strategy
        self._models = models_of(count)
        self._calls = Calls(choose)
        self._size = batch_size(self._calls, lambda size: [self._models] * size)

    def sample(self, count: int) -> Sample:
        means, singles, odd = [], [], 0
        for _ in range(count):
            taken, last = self._calls.many([self._models] * self._size)
            odd += last is None
            means.append(taken / self._size)
            singles += map(float, self._calls.each([self._models] * SINGLES))
        return Sample(means, singles, odd)

    def check(self) -> Verdict:
        if self._strategy == "simple_shuffle":
            models = uneven_models()
            first = sum(self._choose(models) is models[0] for _ in range(2_000))
            says = "of quotas 9 to 1, the first {value:.0f} of 2000 times; about 1800 are right"
            # Far beyond what chance does.
            right = first if 1_700 <= first <= 1_900 else 1_800
            return Verdict(first, right, says)
        idle = {
            model["model_info"]["id"] for n, model in enumerate(self._models) if not in_flight(n)
        }
        found = sum(self._choose(self._models)["model_info"]["id"] in idle for _ in range(100))
        return Verdict(found, 100, "the least busy {value:.0f} of {right:.0f} times")
