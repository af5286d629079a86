"""What a process has in memory, as the kernel counts it."""

from __future__ import annotations

import gc
import re
from typing import NamedTuple

_HEAD = re.compile(r"^[0-9a-f]+-[0-9a-f]+ \S+ \S+ \S+ \S+ *(.*)$")


class Resident(NamedTuple):
    """Bytes of this process.

    Attributes:
        rss: pages that it has touched and that are in memory.
        pss: the same, with pages that others have mapped as well counted by their share.
        region: `rss` of shared memory that was made with memfd_create or on a tmpfs.
    """

    rss: int
    pss: int
    region: int


def resident() -> Resident:
    """Read it from `/proc/self/smaps`, after a garbage collection."""
    gc.collect()
    rss = pss = region = 0
    shared = False
    with open("/proc/self/smaps") as file:
        for line in file:
            head = _HEAD.match(line)
            if head is not None:
                shared = head[1].startswith(("/memfd:", "/dev/shm/"))
            elif line.startswith("Rss:"):
                kilobytes = int(line.split()[1])
                rss += kilobytes
                region += kilobytes if shared else 0
            elif line.startswith("Pss:"):
                pss += int(line.split()[1])
    return Resident(rss * 1024, pss * 1024, region * 1024)


class Share(NamedTuple):
    """Bytes of this process, regions included.

    Attributes:
        pss: pages in memory, those that others have mapped as well by their share.
        private: pages that no other process has.
    """

    pss: int
    private: int


def share() -> Share:
    """Read it from `/proc/self/smaps_rollup`."""
    pss = private = 0
    with open("/proc/self/smaps_rollup") as file:
        for line in file:
            name, _, rest = line.partition(":")
            if name == "Pss":
                pss = int(rest.split()[0])
            elif name.startswith("Private_") and name != "Private_Hugetlb":
                private += int(rest.split()[0])
    return Share(pss * 1024, private * 1024)
