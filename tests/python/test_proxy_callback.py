"""Proves that an entry of LiteLLM's configuration applies the acceleration and slows no request."""

from __future__ import annotations

import json

import pytest

from support import run_python

pytest.importorskip("litellm")

#: LiteLLM is loaded before fast_litellm, as in a worker of its own command.
LOAD = """
import json, os, sys
import litellm
import litellm.router_utils.cooldown_cache
import litellm.router_utils.client_initalization_utils
from litellm.integrations.custom_logger import CustomLogger
from litellm.proxy.common_utils.callback_utils import initialize_callbacks_on_proxy

class Other(CustomLogger):
    pass

other = Other()
litellm.callbacks = [other]

def load(entries):
    initialize_callbacks_on_proxy(
        value=entries, premium_user=False, config_file_path="/nowhere/config.yaml", litellm_settings={}
    )

def lists():
    names = ("callbacks", "input_callback", "success_callback", "_async_success_callback")
    return [[type(one).__name__ for one in getattr(litellm, name)] for name in names]

def router():
    return litellm.Router(model_list=[
        {"model_name": "m", "litellm_params": {"model": "openai/m", "api_key": "k"}}
    ])
"""


def test_it_is_loaded_by_litellm_and_gone_with_the_router() -> None:
    done = run_python(
        f"""{LOAD}
assert "fast_litellm" not in sys.modules
os.environ["FAST_LITELLM_SHM_KEYS"] = "many"
try:
    load(["fast_litellm.proxy.callback"])
except Exception as error:
    refused = [type(error).__name__, str(error)]
del os.environ["FAST_LITELLM_SHM_KEYS"]
load(["fast_litellm.proxy.callback"])
import fast_litellm
from fast_litellm import proxy
states = {{name: seam["state"] for name, seam in fast_litellm.get_patch_status()["seams"].items()}}
loaded = lists()
same = litellm.callbacks[-1] is proxy.callback
routers = [router()]
gone = lists()
load(["fast_litellm.proxy.callback"])
again = lists()
routers.append(router())
print(json.dumps([refused, states, loaded, same, gone, again, lists()]))"""
    )
    refused, states, loaded, same, gone, again, gone_again = json.loads(
        done.stdout.splitlines()[-1]
    )
    # LiteLLM's worker stops with it.
    assert refused == ["ConfigError", "FAST_LITELLM_SHM_KEYS='many' is not a whole number"]
    # Those whose modules are there, before any Router is.
    assert states["routing.slots"] == "applied"
    assert states["rate_limiting"] in ("armed", "applied")
    assert (loaded[0][0], loaded[0][-1]) == ("Other", "FastLitellmCallback")
    assert same
    for now in (gone, gone_again):
        assert now[0] == [*loaded[0][:-1], "FastLitellmFeed"]
        assert all("FastLitellmCallback" not in names for names in now)
    assert again[0] == [*gone[0], "FastLitellmCallback"]


def test_the_module_is_light_and_has_nothing_else() -> None:
    done = run_python(
        """
        import json, sys
        import fast_litellm.proxy as proxy
        print(json.dumps(["litellm" in sys.modules, hasattr(proxy, "other")]))
        """
    )
    assert json.loads(done.stdout) == [False, False]
