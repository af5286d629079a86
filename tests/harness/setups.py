"""Setups: what the proxy's configuration has for some scenarios beyond what it always has.

A proxy has one routing strategy and one policy of failures, so scenarios that need different ones need
different setups. Each time a setup is written into a configuration its deployments get new ids: nothing
that LiteLLM, Redis or a region remembers of a deployment is carried over.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Settings = Mapping[str, Any]

RPM = 40
PARALLEL = 8
ALLOWED_FAILS = 4
GLOBAL_PARALLEL = 10
CONNECTIONS = 8
HEALTH_INTERVAL_S = 3
QUICK = tuple(f"quick-{number}" for number in range(1, 6))

PROVIDER_KEY = "sk-Pr0v1der8TzQ4mW9xK2yLs7dUvB3"
"""What the proxy shows to the provider, which takes any."""

COOLDOWN_S = 60
"""Longer than a scenario takes: a deployment that comes back in the middle of one is hit again."""


@dataclass(frozen=True)
class Deployment:
    """A deployment of the fake provider, which counts under the same name.

    Attributes:
        name: what the provider calls it.
        group: the model that callers ask for; by default the name.
        params: limits and the like.
        probed: whether background health checks look at it.
    """

    name: str
    group: str = ""
    params: Settings = field(default_factory=dict)
    probed: bool = False

    def entry(self, backend_url: str) -> dict[str, Any]:
        """The deployment as `model_list` has it."""
        info: dict[str, Any] = {"id": f"{self.name}-{uuid.uuid4().hex[:12]}"}
        if not self.probed:
            info["disable_background_health_check"] = True
        return {
            "model_name": self.group or self.name,
            "litellm_params": {
                "model": "openai/fake",
                "api_base": f"{backend_url}/{self.name}/v1",
                "api_key": PROVIDER_KEY,
                **self.params,
            },
            "model_info": info,
        }


@dataclass(frozen=True)
class Setup:
    """Deployments besides `fake`, and what goes into `router_settings` and `general_settings`."""

    deployments: tuple[Deployment, ...] = ()
    router: Settings = field(default_factory=dict)
    general: Settings = field(default_factory=dict)

    def model_list(self, backend_url: str) -> list[dict[str, Any]]:
        """All deployments, with ids that no other configuration has."""
        return [each.entry(backend_url) for each in (Deployment("fake"), *self.deployments)]


def _group(group: str, *names: str) -> tuple[Deployment, ...]:
    return tuple(Deployment(f"{group}-{name}", group) for name in names)


# LiteLLM knows how many tokens this model takes, so that pre-call checks have something to compare with.
_KNOWN = (Deployment("known", params={"model": "openai/gpt-4o"}),)

SETUPS: dict[str, Setup] = {
    "keys": Setup(),
    "prompts": Setup(_KNOWN),
    "prompts_checked": Setup(_KNOWN, router={"enable_pre_call_checks": True}),
    "prompts_by_usage": Setup(_KNOWN, router={"routing_strategy": "usage-based-routing-v2"}),
    "deployments": Setup(
        (
            Deployment("limited", params={"rpm": RPM}),
            Deployment("narrow", params={"max_parallel_requests": PARALLEL}),
            *_group("cooldown", "good", "bad"),
            *_group("failing", "good", "bad"),
        ),
        router={
            "optional_pre_call_checks": ["enforce_model_rate_limits"],
            "disable_cooldowns": False,
            "cooldown_time": COOLDOWN_S,
        },
    ),
    "allowed_fails": Setup(
        _group("failing", "good", "bad"),
        router={
            "disable_cooldowns": False,
            "cooldown_time": COOLDOWN_S,
            "allowed_fails": ALLOWED_FAILS,
        },
    ),
    "least_busy": Setup(_group("busy", "slow", *QUICK), router={"routing_strategy": "least-busy"}),
    "latency": Setup(
        _group("latency", "slow", *QUICK),
        router={"routing_strategy": "latency-based-routing"},
    ),
    "usage_v2": Setup(
        (Deployment("limited", params={"rpm": RPM}),),
        router={"routing_strategy": "usage-based-routing-v2"},
    ),
    "general": Setup(
        (
            Deployment("sound", probed=True),
            # Else its client asks it again, and a round of checks takes as long as its longest.
            Deployment("sick", params={"max_retries": 0}, probed=True),
        ),
        general={
            "background_health_checks": True,
            "health_check_interval": HEALTH_INTERVAL_S,
            "global_max_parallel_requests": GLOBAL_PARALLEL,
        },
    ),
}
