"""The keys of the demo, with their limits; LiteLLM calls `authenticate` for every request.

A key may be followed by `-` and anything (`sk-demo-rpm-2`): that is another key with the same limits.
"""

from typing import Any

from fastapi import HTTPException, Request
from litellm.proxy._types import UserAPIKeyAuth

KEYS: dict[str, dict[str, Any]] = {
    "sk-demo-rpm": {"rpm_limit": 20},
    "sk-demo-tpm": {"tpm_limit": 900},
    "sk-demo-parallel": {"max_parallel_requests": 5},
    # All keys of this name belong to one user, and the limit is the user's.
    "sk-demo-user": {"user_id": "demo", "user_rpm_limit": 20},
    "sk-demo-many": {"rpm_limit": 3},
    "sk-demo-free": {},
}


async def authenticate(request: Request, api_key: str) -> UserAPIKeyAuth:
    """Give a key its limits; an unknown one is refused."""
    for name, limits in KEYS.items():
        if api_key == name or api_key.startswith(f"{name}-"):
            # LiteLLM replaces what begins with `sk-` by its hash, and `fl-shm inspect` shows six
            # characters of a key: this way they tell something.
            return UserAPIKeyAuth(api_key=api_key.removeprefix("sk-demo-"), **limits)
    raise HTTPException(401, f"the demo has no such key; it has {', '.join(KEYS)}")
