"""The inspector's page in LiteLLM's proxy, for those whom LiteLLM takes for its admins.

In the proxy's `app.py`::

    import fast_litellm
    from fast_litellm.integrations.litellm import inspector
    from litellm.proxy.proxy_server import app

    inspector.mount(app)
"""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

from fast_litellm import asgi
from fast_litellm.integrations.litellm import _compat

#: Where the page is, unless it is told otherwise. Not below `/fast-litellm`, where the metrics may be:
#: what is mounted first has all that is below it.
PATH = "/fast-litellm-inspector"


def mount(app: Any, path: str = PATH, *, interval_s: float = 1.0) -> None:
    """Mount the page at `path` in LiteLLM's proxy.

    Everybody can load the page, which says nothing. What it shows is for proxy admins: the key that it
    asks for is the master key, or one to which LiteLLM's own authentication gives the role `proxy_admin`.

    Args:
        app: the proxy's application.
        path: where to mount it.
        interval_s: seconds between two looks, 0.1 to 60.

    Raises:
        ValueError: the interval is out of range.
    """
    app.mount(path, asgi.inspector(authorize=admits, interval_s=interval_s))


async def admits(scope: MutableMapping[str, Any]) -> bool | tuple[int, str]:
    """Whether LiteLLM takes whoever sends this request for a proxy admin.

    Returns:
        True; or a status and a reason: 401 = LiteLLM does not accept the key, 403 = it is not an admin's,
        503 = LiteLLM cannot be asked.
    """
    reason = _compat.probe_admin()
    if reason:
        return 503, f"LiteLLM cannot be asked who is its admin: {reason}"
    return await _compat.ask_for_admin(scope)
