"""The LiteLLM proxy as its own command starts it, with no application of the user's."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from . import proxy
from .proxy import Proxy

TELLING = '''

_authenticate = authenticate


async def authenticate(request, api_key):
    """Leaves what fast_litellm has patched in this worker behind, with its first request."""
    import json, os, pathlib, sys

    path = pathlib.Path(__file__).with_name(f"patched-{os.getpid()}.json")
    if "fast_litellm" in sys.modules and not path.exists():
        path.write_text(json.dumps(sys.modules["fast_litellm"].get_patch_status()))
    return await _authenticate(request, api_key)
'''


# LiteLLM's command starts a thread right before gunicorn forks, and that thread's first step imports this
# codec: a worker that is forked in that instant waits for the import for ever.
CODEC = "import encodings.ascii\n"


class CommandProxy(Proxy):
    """The proxy started by `litellm --config F --num_workers N`, which may be wrapped.

    Args:
        command: the console scripts to start it with, and what else LiteLLM's command is told.
    """

    def __init__(self, backend_url: str, command: Sequence[str], **options: Any) -> None:
        python = options.get("python", sys.executable)
        super().__init__(backend_url, **options)
        self._scripts = Path(python).parent
        self._start = list(command)

    def prepare(self) -> None:
        super().prepare()
        (self.directory / "app.py").unlink()
        (self.directory / "sitecustomize.py").write_text(CODEC)
        with (self.directory / "harness_auth.py").open("a") as file:
            file.write(TELLING)

    def command(self) -> list[str]:
        program, *arguments = self._start
        return [
            *(str(self._scripts / program), *arguments),
            *("--config", "config.yaml", "--host", "127.0.0.1", "--port", str(self.port)),
            *("--num_workers", str(self.workers)),
            # By default uvicorn kills a worker that has not imported LiteLLM within 5 s, again and again.
            *("--timeout_worker_healthcheck", "120"),
        ]

    def environment(self) -> dict[str, str]:
        found = super().environment()
        del found["CONFIG_FILE_PATH"]
        # Else LiteLLM's command has uvicorn say nothing when a worker is ready.
        found["LITELLM_LOG"] = "INFO"
        return {**found, "PYTHONPATH": str(self.directory), **self._extra_env}

    def worker_pids(self) -> list[int]:
        """The process ids of the workers alive now, without multiprocessing's helper."""
        return [
            pid
            for pid in super().worker_pids()
            if b"resource_tracker" not in proxy.command_line(pid)
        ]

    def patched(self) -> dict[int, dict[str, Any]]:
        """What `get_patch_status` says in each worker that has had a request, by pid."""
        found = self.directory.glob("patched-*.json")
        return {int(path.stem.partition("-")[2]): json.loads(path.read_text()) for path in found}
