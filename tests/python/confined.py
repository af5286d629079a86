"""Commands under the conditions of containers and hardened services, made with namespaces."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

NOBODY = 65534


def as_user(user: int) -> tuple[str, ...]:
    """What runs a command as that user, who can gain nothing."""
    return (
        *("setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"),
        *("--no-new-privs", "--bounding-set=-all", "--inh-caps=-all"),
    )


AS_NOBODY = as_user(NOBODY)

# Of what a container engine gives /dev, as much as Python and we open; no shm among it.
_BARE_DEV = """
    mount -t tmpfs none /mnt && mkdir /mnt/dev && mount -t tmpfs -o mode=755 none /mnt/dev
    for name in null zero urandom random; do
        touch /mnt/dev/$name && mount --bind /dev/$name /mnt/dev/$name
    done
    mount --rbind /mnt/dev /dev && mount -o remount,bind,ro /dev
"""

SHM = "mount -t tmpfs -o size={},mode=1777 none /dev/shm"
READ_ONLY_ROOT = "mount -o remount,bind,ro /"


class Place(NamedTuple):
    """Where a command runs.

    Attributes:
        mounts: what a shell does first, in a mount namespace of its own.
        pids: whether in a pid namespace of its own.
        user: what the command is given to, to run it as somebody else.
    """

    mounts: str = "true"
    pids: bool = False
    user: Sequence[str] = ()

    def command(self, *command: object) -> list[str]:
        """The command line that runs another one there."""
        pids = ["--pid", "--fork", "--kill-child"] if self.pids else []
        return [
            *("unshare", "--mount", "--ipc", *pids),
            *("sh", "-euc", f'{_opened()}\n{self.mounts}\ncd / && exec "$@"', "sh"),
            *self.user,
            *map(str, command),
        ]

    def obstacle(self) -> str:
        """Why nothing can be run there on this machine; empty = it can."""
        if os.geteuid() != 0:
            return "making namespaces needs root"
        for tool in ("unshare", "setpriv", "mount"):
            if shutil.which(tool) is None:
                return f"there is no {tool}"
        return _obstacle(self.mounts, self.pids, tuple(self.user))


@functools.cache
def _opened() -> str:
    """Shell commands that let every user reach the interpreter, if it is below a private directory."""
    closed: dict[Path, list[Path]] = {}
    for place in sorted({Path(p).resolve() for p in (sys.prefix, sys.base_prefix, *sys.path) if p}):
        above = [each for each in reversed(place.parents) if not each.stat().st_mode & 0o001]
        if above and place.is_dir():
            closed.setdefault(above[0], []).append(place)
    lines = ["mount -t tmpfs none /mnt" if closed else ""]
    for number, (private, places) in enumerate(closed.items()):
        kept = [place for place in places if not any(up in places for up in place.parents)]
        names = {place: f"/mnt/{number}-{n}" for n, place in enumerate(kept)}
        lines += [f"mkdir {name} && mount --rbind {place} {name}" for place, name in names.items()]
        lines.append(f"mount -t tmpfs -o mode=755 none {private}")
        lines += [
            f"mkdir -p {place} && mount --rbind {name} {place}" for place, name in names.items()
        ]
    return "\n".join(lines)


@functools.cache
def _obstacle(mounts: str, pids: bool, user: tuple[str, ...]) -> str:
    # Whoever is somebody else when it starts must be able to start it again, as gunicorn does.
    again = (
        "import fast_litellm._rust, subprocess, sys; subprocess.check_call([sys.executable, '-V'])"
    )
    command = Place(mounts, pids, user).command(sys.executable, "-c", again)
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    return done.stderr.strip()[-300:] if done.returncode else ""


PLACES = {
    "tiny-shm": Place(SHM.format("64k")),
    "shm-of-64m": Place(SHM.format("64m")),
    "no-shm": Place(_BARE_DEV),
    "read-only": Place(f"{READ_ONLY_ROOT} && mount -t tmpfs -o ro none /dev/shm"),
    "nobody": Place(user=AS_NOBODY),
    "hidden-pids": Place("mount -t proc -o hidepid=2 none /proc", user=AS_NOBODY),
    "unseen-pids": Place("mount -t proc -o hidepid=4 none /proc", user=AS_NOBODY),
    "pids-only": Place("mount -t proc -o subset=pid none /proc"),
    "own-pids": Place("mount -t proc none /proc", pids=True),
    "foreign-proc": Place(pids=True),
    "no-proc": Place("mount -t tmpfs -o ro none /proc"),
    # As a container with a read-only root and without privileges.
    "container": Place(
        f"""
        mount -t proc -o hidepid=2 none /proc
        {SHM.format("64m")}
        {READ_ONLY_ROOT}
        """,
        pids=True,
        user=AS_NOBODY,
    ),
}
