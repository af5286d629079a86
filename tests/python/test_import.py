"""Proves what `import fast_litellm` does and what it leaves alone: on, off, and without the extension."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from support import run_python

# How a test program tells whether there is a region and whether anything waits for LiteLLM.
LOOK = """
import json, os, sys

def has_region():
    from fast_litellm import _native
    open_files = [os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")
                  if os.path.islink(f"/proc/self/fd/{fd}")]
    named = any("fl-shm:" in name for name in open_files)
    assert named == (_native.default_region() is not None)
    return named

def is_armed():
    return any(type(finder).__module__.startswith("fast_litellm") for finder in sys.meta_path)
"""

# Stands in for a platform that no wheel was built for.
WITHOUT_EXTENSION = """
import sys
sys.modules["fast_litellm._rust"] = None
"""


def results(code: str, **options: Any) -> Any:
    """What a program prints last, which is JSON."""
    return json.loads(run_python(code, **options).stdout.splitlines()[-1])


# Switched on


def test_importing_is_light() -> None:
    seen = results(
        f"""{LOOK}
before = set(sys.modules)
import fast_litellm
new = set(sys.modules) - before
print(json.dumps({{
    "litellm": sorted(name for name in new if name.partition(".")[0] in ("litellm", "gunicorn")),
    "threads": len(os.listdir("/proc/self/task")),
    "children": open(f"/proc/self/task/{{os.getpid()}}/children").read().split(),
    "region": has_region(),
    "armed": is_armed(),
}}))"""
    )
    assert seen == {"litellm": [], "threads": 1, "children": [], "region": True, "armed": True}


def test_all_public_names_exist_and_are_documented() -> None:
    undocumented = results(
        """
import json, fast_litellm
print(json.dumps([name for name in fast_litellm.__all__ if not name.startswith("__")
                  and name.upper() != name and not getattr(fast_litellm, name).__doc__]))
"""
    )
    assert undocumented == []


def test_errors_say_what_they_are() -> None:
    assert (
        results(
            """
import json
from fast_litellm import *
import fast_litellm as f
print(json.dumps([
    issubclass(f.ConfigError, f.FastLitellmError), issubclass(f.ConfigError, ValueError),
    issubclass(f.OutOfRangeError, ValueError), issubclass(f.RegionError, Exception),
    f.__version__ == __import__("importlib.metadata").metadata.version("fast-litellm"),
]))"""
        )
        == [True] * 5
    )


def test_a_hooked_module_stays_its_own(tmp_path: Path) -> None:
    """Whoever asks a module for its loader finds what it would have found without the hook."""
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "module.py").write_text(
        "seen_loader = __loader__\nseen_spec = __spec__.loader\nvalue = 1\n"
    )
    code = f"""
import sys
sys.path.insert(0, {str(tmp_path)!r})
import json, inspect, importlib.util
from importlib.machinery import SourceFileLoader
from fast_litellm._post_import import when_imported, forget, _finder
calls = []
when_imported("package.module", lambda module: calls.append(module.value))
when_imported("package.missing", lambda module: calls.append("missing"))
try:
    import package.missing
except ModuleNotFoundError as error:
    missing = error.name
spec = importlib.util.find_spec("package.module")
assert calls == []
import package.module as module
loaders = [module.seen_loader, module.seen_spec, module.__loader__, module.__spec__.loader]
again = importlib.reload(module)
when_imported("package.module", lambda module: calls.append("at once"))
forget("package.module")
forget("package.missing")
importlib.reload(module)
print(json.dumps({{
    "loaders": [type(loader) is SourceFileLoader for loader in loaders],
    "source": "seen_loader" in inspect.getsource(module),
    "missing": missing,
    "calls": calls,
    "left": _finder in sys.meta_path,
}}))
"""
    seen = results(code, env={"FAST_LITELLM_ENABLED": "false"})
    assert seen == {
        "loaders": [True] * 4,
        "source": True,
        "missing": "package.missing",
        "calls": [1, 1, "at once"],
        "left": False,
    }


def test_a_module_that_fails_to_load_can_be_tried_again(tmp_path: Path) -> None:
    (tmp_path / "flaky.py").write_text("import os\nvalue = os.environ['FLAKY']\n")
    code = f"""
import sys
sys.path.insert(0, {str(tmp_path)!r})
import json, os
from fast_litellm._post_import import when_imported
calls = []
when_imported("flaky", lambda module: calls.append(module.value))
try:
    import flaky
except KeyError:
    calls.append("failed")
os.environ["FLAKY"] = "works"
import flaky
print(json.dumps([calls, type(flaky.__loader__).__name__]))
"""
    seen = results(code, env={"FAST_LITELLM_ENABLED": "false"})
    assert seen == [["failed", "works"], "SourceFileLoader"]


# Switched off


@pytest.mark.parametrize("value", ["false", "0", "No", " off "])
def test_switched_off_it_does_nothing(value: str) -> None:
    seen = results(
        f"""{LOOK}
import fast_litellm
print(json.dumps([has_region(), is_armed(), fast_litellm.apply_acceleration(),
                  fast_litellm.get_patch_status(), fast_litellm.health_check()]))""",
        env={"FAST_LITELLM_ENABLED": value},
    )
    region, armed, applied, status, health = seen
    assert (region, armed, applied) == (False, False, False)
    assert status == {
        "applied": False,
        "components": [],
        "seams": {},
        "reason": "FAST_LITELLM_ENABLED is false",
    }
    assert health == {
        "status": "ok",
        "rust_available": True,
        "components": ["tokens", "connection_pool", "rate_limiter", "router"],
    }


def test_switched_off_the_limiter_still_works() -> None:
    assert results(
        """
import json, fast_litellm
limiter = fast_litellm.SimpleRateLimiter(60, burst=2)
print(json.dumps([limiter.is_allowed("k") for _ in range(3)]))""",
        env={"FAST_LITELLM_ENABLED": "false"},
    ) == [True, True, False]


def test_one_seam_can_be_switched_off() -> None:
    seams = results(
        """
import json, fast_litellm
print(json.dumps(fast_litellm.get_patch_status()["seams"]))""",
        env={"FAST_LITELLM_RUST_RATE_LIMITING": "false"},
    )
    assert seams["rate_limiting"]["state"] == "not_applied"
    assert "FAST_LITELLM_RUST_RATE_LIMITING" in seams["rate_limiting"]["reason"]


# Without the extension


def test_without_the_extension_everything_imports_with_a_warning() -> None:
    done = run_python(
        f"""{WITHOUT_EXTENSION}
import json, importlib, pkgutil, warnings
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    import fast_litellm
told = [(w.category.__name__, str(w.message), w.filename) for w in caught]
modules = [m.name for m in pkgutil.walk_packages(fast_litellm.__path__, "fast_litellm.")
           if m.name not in ("fast_litellm._rust", "fast_litellm.__main__")]
for name in modules:
    importlib.import_module(name)
print(json.dumps([told, fast_litellm.RUST_ACCELERATION_AVAILABLE, fast_litellm.apply_acceleration(),
                  fast_litellm.get_patch_status(), fast_litellm.health_check(), len(modules)]))
fast_litellm.remove_acceleration()
"""
    )
    told, available, applied, status, health, modules = json.loads(done.stdout.splitlines()[-1])
    (category, message, filename), *more = told
    assert (category, more) == ("RuntimeWarning", [])
    assert "one process only" in message
    assert "install a wheel" in message
    assert filename == "<string>", "the warning should point at whoever imports the package"
    assert (available, applied) == (False, False)
    assert status["applied"] is False
    assert "extension" in status["reason"]
    assert health["status"] == "degraded"
    assert health["rust_available"] is False
    assert modules > 10


def test_without_the_extension_litellm_is_left_alone() -> None:
    assert (
        results(
            f"""{WITHOUT_EXTENSION}{LOOK}
import warnings
warnings.simplefilter("ignore")
import fast_litellm
print(json.dumps(is_armed()))"""
        )
        is False
    )


@pytest.mark.parametrize(
    "name", ["Region.create('x')", "Region.open('/dev/shm/x')", "LimiterScripts(None)"]
)
def test_without_the_extension_a_region_is_an_error(name: str) -> None:
    assert "extension" in results(
        f"""{WITHOUT_EXTENSION}
import json, warnings
warnings.simplefilter("ignore")
from fast_litellm import _native
try:
    _native.{name}
except _native.RegionError as error:
    print(json.dumps(str(error)))"""
    )


def test_without_the_extension_the_command_says_so() -> None:
    done = run_python(
        f"""{WITHOUT_EXTENSION}
import warnings
warnings.simplefilter("ignore")
from fast_litellm.__main__ import main
sys.argv = ["fl-shm", "ls"]
sys.exit(main())""",
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("fl-shm: ")
    assert "extension" in done.stderr


# Programs that must behave alike with the extension and without.
SCENARIOS: Sequence[tuple[str, str]] = [
    ("burst", "limiter(60, burst=3); [l.is_allowed('k') for _ in range(5)]"),
    (
        "default burst",
        "limiter(600); [l.burst, l.requests_per_minute, sum(l.is_allowed() for _ in range(99))]",
    ),
    (
        "small rate",
        "limiter(3); [l.burst, sum(l.is_allowed('a') for _ in range(9)), l.get_remaining('a')]",
    ),
    ("answers", "limiter(60, burst=2); [rounded(l.check('k')) for _ in range(3)]"),
    (
        "remaining",
        "limiter(60, burst=4); [l.get_remaining('k'), l.is_allowed('k'), l.get_remaining('k')]",
    ),
    (
        "keys",
        "limiter(60, burst=1); [l.is_allowed(k) for k in ('a', '', '\\0', '\\ud800', 'a', '\\ud800')]",
    ),
    (
        "default key",
        "limiter(60, burst=2); [l.is_allowed(), l.is_allowed(None), l.is_allowed('default')]",
    ),
    (
        "shared",
        "limiter(60, burst=2); [SimpleRateLimiter(60, burst=2).is_allowed('k') for _ in range(3)]",
    ),
    (
        "by name",
        "limiter(60, burst=1); [SimpleRateLimiter(60, burst=1, name=n).is_allowed('k') for n in 'aba']",
    ),
    ("stats", "limiter(60, burst=2); [[l.is_allowed(k) for k in 'aaab'], l.get_stats()]"),
    (
        "type error",
        "limiter(60); [error(l.is_allowed, 5), error(l.check, b'x'), error(l.get_remaining, [])]",
    ),
    ("rate 0", "[error(SimpleRateLimiter, 0), error(SimpleRateLimiter, -5)]"),
    ("rate huge", "[error(SimpleRateLimiter, 60_000_001), error(SimpleRateLimiter, 2**63)]"),
    ("rate type", "[error(SimpleRateLimiter, 1.5)[0], error(SimpleRateLimiter, '60')[0]]"),
    ("burst", "[error(SimpleRateLimiter, 60, burst=0), error(SimpleRateLimiter, 60, burst=-1)]"),
    ("burst of years", "[error(SimpleRateLimiter, 1, burst=525_601)]"),
    ("keyword only", "[error(SimpleRateLimiter, 60, 5)[0]]"),
    (
        "module",
        "[check_rate_limit('m')['allowed'] for _ in range(7)] + [error(check_rate_limit, 5)]",
    ),
    ("module stats", "limiter(60, burst=1); [l.is_allowed('k'), l.is_allowed('k'), stats()]"),
    (
        "refill",
        "limiter(600, burst=1); [l.is_allowed('k'), l.is_allowed('k'), wait(0.15), l.is_allowed('k')]",
    ),
    ("subclass", "[type('Mine', (SimpleRateLimiter,), {})(60, burst=1).is_allowed('k')]"),
]

PLAY = """
import json, time, warnings
warnings.simplefilter("ignore")
import fast_litellm
from fast_litellm import SimpleRateLimiter, check_rate_limit

def limiter(*args, **kwargs):
    global l
    l = SimpleRateLimiter(*args, **kwargs)

def error(call, *args, **kwargs):
    try:
        call(*args, **kwargs)
    except Exception as error:
        # Texts of TypeErrors of the interpreter differ from those of the extension's arguments.
        return [type(error).__name__, str(error)]
    return ["none", ""]

def rounded(answer):
    wait_ms = answer["retry_after_ms"]
    return {**answer, "retry_after_ms": wait_ms and round(wait_ms, -2)}

def stats():
    names = ("total_checks", "allowed_count", "denied_count", "active_keys")
    return {name: fast_litellm.get_rate_limit_stats()[name] for name in names}

def wait(seconds):
    time.sleep(seconds)

*setup, last = SCENARIO.split("; ")
for line in setup:
    exec(line)
print(json.dumps(eval(last)))
"""


@pytest.mark.parametrize(("name", "scenario"), SCENARIOS, ids=[name for name, _ in SCENARIOS])
def test_with_and_without_the_extension_the_limiter_behaves_alike(name: str, scenario: str) -> None:
    program = f"SCENARIO = {scenario!r}\n{PLAY}"
    assert results(WITHOUT_EXTENSION + program) == results(program)
