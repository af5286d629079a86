"""Proves that whatever is wrong with a region's file, place or settings is refused and told."""

from __future__ import annotations

import contextlib
import fcntl
import gc
import os
import re
import shutil
import struct
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fast_litellm._rust import OutOfRangeError, Region, RegionError, SimpleRateLimiter
from layout_document import LayoutDocument
from support import WAIT_S, Forked, run_python

LAYOUT = LayoutDocument.load()
MAJOR, MINOR = LAYOUT.version
THIS = rf"reads {MAJOR}\.{MINOR}"
# The section table follows the header.
SECTIONS = LAYOUT.records["Header"].size // 8
# Words of a row of the section table.
ID, OFFSET, STRIDE, COUNT = range(4)

SMALL = {"keys": 1024, "lease_chunks": 64, "workers": 8, "deployments": 64}


def header(name: str) -> int:
    """Number of a 64-bit word of the header."""
    return LAYOUT.records["Header"].fields[name].offset // 8


def section(row: int, word: int) -> int:
    """Number of a word of the section table."""
    return SECTIONS + 4 * row + word


def capacity(what: str, setting: str, found: int, allowed: str) -> list[str]:
    """What is said about a capacity that no creator writes."""
    return [
        rf"{what} capacity \(FAST_LITELLM_SHM_{setting}\) is {found},",
        rf"allowed is {allowed}:",
        "remove it and start again",
    ]


root_only = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


def file_system(path: Path) -> str:
    """Type of the file system that holds a path."""
    done = subprocess.run(
        ["stat", "-f", "-c", "%T", path], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A directory on tmpfs."""
    shm = Path("/dev/shm")
    if not os.access(shm, os.W_OK) or file_system(shm) != "tmpfs":
        pytest.skip("there is no tmpfs at /dev/shm")
    made = shm / f"fast-litellm-test-{os.getpid()}"
    made.mkdir()
    yield made
    shutil.rmtree(made)


@pytest.fixture
def path(folder: Path) -> Path:
    """A region that somebody made and nobody uses."""
    path = folder / "region"
    open_region(path)
    return path


def open_region(path: Path, *, force: bool = False) -> Region:
    return Region.open(path, **SMALL, force=force)


def word(path: Path, number: int) -> int:
    with path.open("rb") as file:
        file.seek(8 * number)
        return int(struct.unpack("<Q", file.read(8))[0])


def set_word(path: Path, number: int, value: int) -> None:
    with path.open("r+b") as file:
        file.seek(8 * number)
        file.write(struct.pack("<Q", value))


def refused(path: Path, *expected: str) -> str:
    """Opening is refused with a message that matches every pattern, and changes nothing."""
    before = snapshot(path)
    with pytest.raises(RegionError) as raised:
        open_region(path)
    message = str(raised.value)
    for pattern in expected:
        assert re.search(pattern, message), f"no {pattern!r} in {message!r}"
    assert snapshot(path) == before
    return message


def snapshot(path: Path) -> object:
    """All that opening a region could spoil: what is at the path, and what is beside it."""
    stat = path.lstat()
    content = path.read_bytes() if path.is_file() else None
    return stat.st_ino, stat.st_mode, stat.st_uid, content, sorted(path.parent.iterdir())


# What is in the file


def test_a_region_of_another_process_is_used(path: Path) -> None:
    limiter = SimpleRateLimiter(1, burst=3, region=open_region(path))
    assert [limiter.is_allowed("k") for _ in range(2)] == [True, True]
    again = SimpleRateLimiter(1, burst=3, region=open_region(path))
    assert [again.is_allowed("k") for _ in range(2)] == [True, False]
    assert path.stat().st_mode & 0o7777 == 0o600
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(
    ("number", "value", "expected"),
    [
        (
            header("magic"),
            0x1122334455667788,
            ["magic 0x1122334455667788", "expected 0x[0-9a-f]{16}"],
        ),
        (
            header("version"),
            (MAJOR + 1) << 32,
            [rf"layout {MAJOR + 1}\.0", THIS, "restart all workers"],
        ),
        (
            header("version"),
            (MAJOR - 1) << 32,
            [rf"layout {MAJOR - 1}\.0", THIS, "restart all workers"],
        ),
        (
            header("version"),
            MAJOR << 32 | 99,
            [rf"layout {MAJOR}\.99", THIS, "restart all workers"],
        ),
        (header("version"), 0, [r"layout 0\.0", THIS, "restart all workers"]),
        (
            header("fingerprint"),
            0xABC,
            ["0x0000000000000abc", "this build has 0x", "restart all workers"],
        ),
        (
            header("byte_order"),
            0x040302010D0C0B0A,
            ["byte order", "0x040302010d0c0b0a", "reads 0x0a0b0c0d"],
        ),
        (header("total_len"), 1 << 40, ["says 1099511627776", "remove"]),
        (header("total_len"), 0, ["says 0", "remove"]),
        (header("state"), 0, ["state 0", "died", "remove it"]),
        (header("state"), 7, ["state 7", "remove it"]),
        (header("boot_id_high"), 1, ["another boot", "0000000000000001", "remove it"]),
        (header("pid_namespace"), 12345, ["another pid namespace", "12345"]),
        (header("time_namespace"), 12345, ["another time namespace", "12345"]),
        (header("clock_id"), 99, ["clock 99", r"clock \d"]),
        (header("key_capacity"), 999, capacity("key", "KEYS", 999, "1000 to 16777216")),
        (header("key_capacity"), 1 << 60, capacity("key", "KEYS", 1 << 60, "1000 to 16777216")),
        (
            header("chunk_capacity"),
            65,
            capacity("chunk", "LEASE_CHUNKS", 65, "a multiple of 8 from 64 to 1048576"),
        ),
        (header("worker_capacity"), 3, capacity("worker", "WORKERS", 3, "4 to 1024")),
        (
            header("deployment_capacity"),
            1 << 17,
            capacity("deployment", "DEPLOYMENTS", 1 << 17, "a multiple of 8 from 64 to 65536"),
        ),
        (header("key_capacity"), 4000, [r"has \d+ bytes, its 4000 keys", r"take \d+", "remove it"]),
        (header("worker_capacity"), 500, ["500 workers", r"take \d+", "remove it"]),
        (header("section_count"), 6, ["section count is 6", f"expected {len(LAYOUT.sections)}"]),
        (section(0, ID), 2, ["section number is 2", "expected 1"]),
        (section(0, OFFSET), 0, ["section offset is 0", "expected 4096"]),
        (section(1, OFFSET), 1 << 50, ["section offset is 1125899906842624", "expected"]),
        (section(0, STRIDE), 1, ["section stride is 1", "expected", "remove it"]),
        (section(0, COUNT), 1 << 62, ["section record count", "expected 8", "remove it"]),
        (section(9, OFFSET), 4096, ["section offset is 4096", "expected", "remove it"]),
    ],
)
def test_a_foreign_header_is_refused(
    path: Path, number: int, value: int, expected: list[str]
) -> None:
    set_word(path, number, value)
    with held(path):
        refused(path, re.escape(str(path)), *expected)


STALE = [
    pytest.param(header("version"), (MAJOR - 1) << 32, rf"layout {MAJOR - 1}\.0", id="version"),
    pytest.param(header("fingerprint"), 0xABC, "fingerprint 0x0000000000000abc", id="build"),
    pytest.param(header("boot_id_high"), 1, "another boot", id="boot"),
    pytest.param(header("pid_namespace"), 12345, "another pid namespace", id="container"),
]


@pytest.mark.parametrize(("number", "value", "why"), STALE)
def test_what_is_stale_and_used_by_nobody_is_made_anew(
    path: Path, number: int, value: int, why: str
) -> None:
    use_up(path)
    set_word(path, number, value)
    region = open_region(path)
    assert region.origin == "replaced"
    assert re.search(why, *region.obstacles)
    assert SimpleRateLimiter(1, burst=1, region=region).is_allowed("k")
    assert list(path.parent.iterdir()) == [path]
    again = open_region(path)
    assert (again.origin, again.obstacles) == ("opened", [])
    assert not SimpleRateLimiter(1, burst=1, region=again).is_allowed("k")


@pytest.mark.parametrize(("number", "value", "why"), STALE)
def test_what_is_stale_for_this_process_but_in_use_is_refused(
    path: Path, number: int, value: int, why: str
) -> None:
    set_word(path, number, value)
    with held(path):
        refused(path, f"{path} is in use by other processes", why, "choose another path")


def test_a_region_is_held_by_whatever_its_user_has_forked(path: Path) -> None:
    region = open_region(path)
    child = Forked(lambda: time.sleep(WAIT_S))
    del region
    gc.collect()
    with path.open("rb") as file:
        with pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        child.kill()
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_what_is_damaged_is_left_to_be_looked_at(path: Path) -> None:
    """Nobody uses it, but it may tell somebody what happened."""
    set_word(path, header("total_len"), 1 << 40)
    refused(path, "truncated or overwritten; remove it")


def test_a_dump_of_another_boot_is_not_removed(path: Path, tmp_path: Path) -> None:
    use_up(path)
    dumped = path.with_name("dump")
    subprocess.run(
        [sys.executable, "-P", "-m", "fast_litellm", "dump", "--file", path, dumped], check=True
    )
    dumped.chmod(0o600)
    set_word(dumped, header("boot_id_high"), 1)
    refused(dumped, "another boot")


def use_up(path: Path) -> None:
    """Spend all that its only key may spend."""
    limiter = SimpleRateLimiter(1, burst=1, region=open_region(path))
    assert [limiter.is_allowed("k") for _ in range(2)] == [True, False]


@contextlib.contextmanager
def held(path: Path) -> Iterator[None]:
    """As by a process that uses the region."""
    with path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        yield


@pytest.mark.parametrize("number", range(SECTIONS))
def test_no_header_word_is_believed_blindly(path: Path, number: int) -> None:
    """Refused or used, but never a crash."""
    set_word(path, number, 0xFFFF_FFFF_FFFF_FFFF)
    with contextlib.suppress(RegionError):
        region = open_region(path)
        SimpleRateLimiter(60, region=region).check("k")
        region.reap()
        region.inspect()


def test_a_region_of_other_settings_is_used_as_it_is(path: Path) -> None:
    region = Region.open(
        path, keys=4096, lease_chunks=128, workers=16, deployments=512, overflow="shared"
    )
    assert region.size == path.stat().st_size
    assert region.overflow == "deny"
    region.overflow = "local"
    assert open_region(path).overflow == "local"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda size: size - 4096, ["{size} bytes", "says {full}", "remove"]),
        (lambda size: size + 4096, ["{size} bytes", "says {full}", "remove"]),
        (lambda size: 256, ["256 bytes", "says {full}", "remove"]),
        (lambda size: 255, ["255 bytes", "256", "remove"]),
        (lambda size: 0, ["0 bytes", "256", "remove"]),
    ],
    ids=["page-less", "page-more", "header-only", "less-than-header", "empty"],
)
def test_another_size_is_refused(
    path: Path, change: Callable[[int], int], expected: list[str]
) -> None:
    full = path.stat().st_size
    size = change(full)
    os.truncate(path, size)
    refused(path, *(text.format(size=size, full=full) for text in expected))


def test_any_other_file_is_refused(folder: Path) -> None:
    path = folder / "notes"
    path.write_bytes(b"shopping: milk, eggs\n" * 100)
    path.chmod(0o600)
    refused(path, "magic 0x", "not a fast_litellm region")


# What is at the path


@pytest.mark.parametrize("mode", [0o644, 0o660, 0o604, 0o666])
def test_a_file_that_others_can_reach_is_refused(path: Path, mode: int) -> None:
    path.chmod(mode)
    refused(path, f"mode 0{mode:o}", "0600", "chmod")


@root_only
def test_another_users_file_is_refused(path: Path) -> None:
    os.chown(path, 65534, 65534)
    refused(path, "user 65534", "runs as 0", "choose another path")


def test_a_symlink_is_refused(path: Path) -> None:
    link = path.with_name("link")
    link.symlink_to(path)
    refused(link, str(link), "symlink|symbolic link", "remove|another path")


def test_a_dangling_symlink_is_refused(folder: Path) -> None:
    link = folder / "link"
    link.symlink_to(folder / "nothing")
    refused(link, str(link), "symlink|symbolic link", "remove|another path")


def test_a_directory_is_refused(folder: Path) -> None:
    path = folder / "directory"
    path.mkdir()
    refused(path, str(path), "directory|regular file", "remove|another path")


def test_a_fifo_is_refused_without_waiting(folder: Path) -> None:
    path = folder / "fifo"
    os.mkfifo(path, 0o600)
    refused(path, str(path), "not a regular file", "remove it or choose another path")


# Where it is to be made


def test_a_directory_that_does_not_exist(folder: Path) -> None:
    with pytest.raises(RegionError, match="create the directory or set FAST_LITELLM_SHM"):
        open_region(folder / "nothing" / "region")


def test_a_disk_is_refused_unless_forced(tmp_path: Path) -> None:
    if file_system(tmp_path) in ("tmpfs", "ramfs"):
        pytest.skip("the temporary directory is on tmpfs")
    path = tmp_path / "region"
    with pytest.raises(RegionError, match=r"not on tmpfs.*FAST_LITELLM_SHM_FORCE=1"):
        open_region(path)
    assert list(tmp_path.iterdir()) == []
    region = open_region(path, force=True)
    assert region.backing == "file"
    assert SimpleRateLimiter(60, region=region).is_allowed("k")
    # Once it exists it is a region like any other.
    assert open_region(path).backing == "file"


@pytest.fixture
def full(tmp_path: Path) -> Iterator[Path]:
    """A tmpfs of eight megabytes: a small region fits, notices included."""
    place = tmp_path / "full"
    place.mkdir()
    mounted = (
        os.geteuid() == 0
        and not subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", place],
            capture_output=True,
            check=False,
        ).returncode
    )
    if not mounted:
        pytest.skip("cannot mount a tmpfs here")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


def test_a_full_tmpfs_is_an_error_now_and_not_a_crash_later(full: Path) -> None:
    path = full / "region"
    with pytest.raises(RegionError) as raised:
        Region.open(path, keys=65_536)
    for expected in (str(path), "No space left", "--shm-size", "FAST_LITELLM_SHM_KEYS"):
        assert expected in str(raised.value)
    assert list(full.iterdir()) == []
    assert open_region(path).size < 8 << 20


def test_a_full_tmpfs_is_passed_over_and_reported(full: Path) -> None:
    with pytest.raises(RegionError, match=f"{full}: .*No space left") as raised:
        Region.create("full", backing=["file"], directories=[str(full)])
    assert "tmpfs" in str(raised.value)
    region = Region.create("full", backing=["file", "anonymous"], directories=[str(full)])
    assert region.backing == "anonymous"
    assert any(str(full) in line and "No space left" in line for line in region.fallbacks)
    assert SimpleRateLimiter(60, region=region).is_allowed("k")
    assert list(full.iterdir()) == []


def test_without_a_tmpfs_memory_is_anonymous_and_says_so(tmp_path: Path) -> None:
    nowhere = tmp_path / "nothing"
    region = Region.create("x", backing=["file", "anonymous"], directories=[str(nowhere)], **SMALL)
    assert region.backing == "anonymous"
    assert any(str(nowhere) in line and "No such file" in line for line in region.fallbacks)
    limiter = SimpleRateLimiter(1, burst=1, region=region)
    assert Forked(lambda: limiter.is_allowed("k")).result()
    assert not limiter.is_allowed("k")


def test_a_nameless_file_leaves_no_name(folder: Path) -> None:
    region = Region.create("x", backing=["file"], directories=[str(folder)], **SMALL)
    assert (region.backing, region.fallbacks) == ("file", [])
    assert list(folder.iterdir()) == []


def test_a_fallback_is_logged_and_shown(tmp_path: Path) -> None:
    done = run_python(
        """
        import logging
        logging.basicConfig()
        import fast_litellm
        print(fast_litellm.health_check()["region"]["backing"])
        """,
        env={
            "FAST_LITELLM_SHM_BACKING": "file,anonymous",
            "FAST_LITELLM_SHM_DIR": str(tmp_path / "nothing"),
        },
    )
    assert done.stdout == "anonymous\n"
    assert "anonymous memory, because" in done.stderr


def test_no_memory_at_all_leaves_litellm_alone(tmp_path: Path) -> None:
    done = run_python(
        """
        import logging
        logging.basicConfig()
        import fast_litellm
        print(fast_litellm.get_patch_status()["applied"], fast_litellm.health_check()["status"])
        print(fast_litellm.get_patch_status()["reason"])
        """,
        env={"FAST_LITELLM_SHM_BACKING": "file", "FAST_LITELLM_SHM_DIR": str(tmp_path / "nothing")},
    )
    assert done.stdout.startswith("False degraded\nno shared region: ")
    assert str(tmp_path / "nothing") in done.stdout
    assert "NOT shared" in done.stderr


@pytest.mark.parametrize("stale", [False, True], ids=["nothing", "a-stale-one"])
def test_processes_that_open_at_once_get_one_region(folder: Path, stale: bool) -> None:
    path = folder / "region"
    if stale:
        open_region(path)
        set_word(path, header("boot_id_high"), 1)
    code = """
        import sys
        from fast_litellm._rust import Region, SimpleRateLimiter
        print("ready", flush=True)
        sys.stdin.readline()
        region = Region.open(sys.argv[1], keys=1024, lease_chunks=64, workers=16)
        limiter = SimpleRateLimiter(1, burst=20, region=region)
        print(sum(limiter.is_allowed("k") for _ in range(5)), flush=True)
        sys.stdin.readline()
    """
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(code), path],
            cwd="/",
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for _ in range(8)
    ]
    try:
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        admitted = [int(process.stdout.readline()) for process in processes if process.stdout]
        assert sum(admitted) == 20
        assert list(folder.iterdir()) == [path]
    finally:
        for process in processes:
            process.kill()
            process.communicate()


# Settings


@pytest.mark.parametrize(
    ("name", "value", "remedy"),
    [
        ("FAST_LITELLM_SHM_KEYS", "abc", "whole number"),
        ("FAST_LITELLM_SHM_KEYS", "1.5", "whole number"),
        ("FAST_LITELLM_SHM_KEYS", "-1", "use 1 to 16777216"),
        ("FAST_LITELLM_SHM_KEYS", "0", "use 1 to 16777216"),
        ("FAST_LITELLM_SHM_KEYS", "99999999999", "use 1 to 16777216"),
        ("FAST_LITELLM_SHM_KEYS", "9" * 30, "use 1 to 16777216"),
        ("FAST_LITELLM_SHM_LEASE_CHUNKS", "0", "use 1 to 1048576"),
        ("FAST_LITELLM_SHM_LEASE_CHUNKS", "x", "whole number"),
        ("FAST_LITELLM_SHM_WORKERS", "2", "use 4 to 1024"),
        ("FAST_LITELLM_SHM_WORKERS", "-5", "use 4 to 1024"),
        ("FAST_LITELLM_SHM_DEPLOYMENTS", "0", "use 1 to 65536"),
        ("FAST_LITELLM_SHM_DEPLOYMENTS", "-1", "use 1 to 65536"),
        ("FAST_LITELLM_SHM_DEPLOYMENTS", "65537", "use 1 to 65536"),
        ("FAST_LITELLM_SHM_DEPLOYMENTS", "many", "whole number"),
        ("FAST_LITELLM_SHM_OVERFLOW", "evict", "use deny, shared or local"),
        ("FAST_LITELLM_SHM_OVERFLOW", "SHARED", "use deny, shared or local"),
        ("FAST_LITELLM_SHM_BACKING", "nonsense", "use memfd, file"),
        ("FAST_LITELLM_SHM_BACKING", "heap", "use memfd, file or anonymous"),
        ("FAST_LITELLM_SHM_BACKING", "memfd,heap", "use memfd, file or anonymous"),
        # A byte that is no UTF-8.
        ("FAST_LITELLM_SHM_NAME", "n\udcff", "use UTF-8"),
        ("FAST_LITELLM_SHM_BACKING", "memfd\udcff", "use UTF-8"),
        ("FAST_LITELLM_SHM_OVERFLOW", "deny\udcff", "use UTF-8"),
        ("FAST_LITELLM_SHM_FORCE", "maybe", "use true or false"),
        ("FAST_LITELLM_ENABLED", "maybe", "use true or false"),
        ("FAST_LITELLM_RUST_RATE_LIMITING", "maybe", "use true, false, canary:10 or rollout:50"),
        ("FAST_LITELLM_BREAKER_REST_S", "86401", "use 0 to 86,400 seconds"),
    ],
)
def test_a_malformed_setting_is_named_with_its_value_and_the_remedy(
    name: str, value: str, remedy: str
) -> None:
    done = run_python("import fast_litellm", env={name: value}, check=False)
    assert done.returncode == 1
    error = done.stderr.strip().splitlines()[-1]
    assert re.match(r"fast_litellm\S*\.(ConfigError|OutOfRangeError): ", error), done.stderr
    assert name in error
    assert ascii(value)[1:-1] in error
    assert remedy in error


def test_room_for_deployments_comes_from_the_environment() -> None:
    def size(deployments: int) -> int:
        done = run_python(
            "from fast_litellm import _native; print(_native.default_region().size)",
            env={"FAST_LITELLM_SHM_DEPLOYMENTS": str(deployments)},
        )
        return int(done.stdout)

    # Rounded up to a multiple of eight.
    assert size(2041) - size(1024) == 1024 * LAYOUT.records["Deployment"].size


@pytest.mark.parametrize(
    "settings",
    [
        {"keys": -1},
        {"keys": 2**64},
        {"lease_chunks": -1},
        {"workers": 2**64},
        {"deployments": 0},
        {"deployments": 2**64},
    ],
)
def test_capacities_that_fit_no_word_are_out_of_range(settings: dict[str, int]) -> None:
    with pytest.raises(OutOfRangeError, match="use"):
        Region.create("x", **settings)


def test_no_kind_of_memory_is_an_error() -> None:
    with pytest.raises((OutOfRangeError, RegionError), match="memfd"):
        Region.create("x", backing=[], **SMALL)


def test_what_has_failed_is_not_tried_again_at_once(tmp_path: Path) -> None:
    """It may take seconds, in which an event loop stands still."""
    (tmp_path / "foreign").write_text("something else")
    run_python(
        """
        import os
        from fast_litellm import RegionError, _region

        tries, make = [], _region._make
        _region._make = lambda settings: (tries.append(settings.path), make(settings))[1]

        def fails():
            try:
                _region.process_region()
            except RegionError as error:
                return str(error)

        told = {fails() for _ in range(3)}
        assert len(told) == len(tries) == 1 and "foreign" in told.pop(), (told, tries)
        # Other settings, time, or another process.
        os.environ["FAST_LITELLM_SHM"] += "er"
        _region._FINAL_S = 0
        assert "foreigner" in fails() and "foreigner" in fails()
        assert len(tries) == 3, tries
        _region._FINAL_S = 60
        fails()
        if os.fork() == 0:
            fails()
            assert len(tries) == 5, tries
            os._exit(0)
        assert os.wait()[1] == 0
        """,
        env={"FAST_LITELLM_SHM": str(tmp_path / "foreign"), "FAST_LITELLM_ENABLED": "false"},
    )
