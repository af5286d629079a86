"""Runs every example of the documentation.

A page is one program: its `python` blocks, and what `<!-- setup` comments add to them, run one after the
other in a fresh interpreter; a block with `>>>` must print what it shows. A block that follows
`<!-- file: NAME -->` is a file of its own: the test of the proxy guide puts those together. Data (`json`,
`yaml`, `ini`) must parse.
"""

from __future__ import annotations

import configparser
import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

from harness.proxy import FakeBackend, Proxy
from support import run_python

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "docs/deploy").glob("*.md")]
)
_BLOCK = re.compile(
    r"(?:<!-- file: (?P<file>\S+) -->\n+)?^```(?P<language>\w*)[^`\n]*\n(?P<text>.*?)^```$"
    r"|^<!-- setup\n(?P<setup>.*?)^-->$",
    re.MULTILINE | re.DOTALL,
)

#: Runs the blocks of a page, of which it is given (line, text) as JSON.
RUNNER = """
import doctest, json, sys
names = {"__name__": "__main__"}
runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
for line, text in json.loads(sys.stdin.read()):
    if ">>> " in text:
        test = doctest.DocTestParser().get_doctest(text, names, "page", "page", line)
        runner.run(test, clear_globs=False)
        names.update(test.globs)
    else:
        exec(compile("\\n" * line + text, "page", "exec"), names)
sys.exit(runner.failures > 0)
"""


class Block(NamedTuple):
    """A fenced block of a page, or a comment that prepares those that follow it.

    Attributes:
        line: where its text begins.
        language: of the fence; "setup" for a comment.
        file: what file it is; empty = none.
        text: what is inside.
    """

    line: int
    language: str
    file: str
    text: str


def blocks(page: Path) -> Iterator[Block]:
    """All blocks of a page, in order."""
    whole = page.read_text(encoding="utf-8")
    for found in _BLOCK.finditer(whole):
        kind = "setup" if found["setup"] is not None else "text"
        line = whole.count("\n", 0, found.start(kind))
        yield Block(line, found["language"] or "setup", found["file"] or "", found[kind])


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def test_blocks_are_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# A\n\n<!-- setup\nx = 1\n-->\n\n```python\n>>> x\n1\n```\n"
        "<!-- file: a.json -->\n```json\n{}\n```\n"
        "```console live\n$ x\n```\n"
    )
    assert list(blocks(page)) == [
        Block(3, "setup", "", "x = 1\n"),
        Block(7, "python", "", ">>> x\n1\n"),
        Block(12, "json", "a.json", "{}\n"),
        Block(15, "console", "", "$ x\n"),
    ]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_examples_run_as_they_are_shown(page: Path) -> None:
    code = [
        (block.line, block.text)
        for block in blocks(page)
        if block.language in ("python", "setup") and not block.file
    ]
    if not code:
        pytest.skip("no examples in Python")
    ran = run_python(RUNNER, check=False, input=json.dumps(code))
    assert ran.returncode == 0, f"{name_of(page)}\n{ran.stdout}\n{ran.stderr}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_files_and_data_are_well_formed(page: Path) -> None:
    for block in blocks(page):
        if block.language == "json":
            json.loads(block.text)
        elif block.language == "yaml":
            assert None not in yaml.safe_load_all(block.text)
        elif block.language == "ini":
            parser = configparser.ConfigParser(strict=False, interpolation=None)
            parser.read_string(block.text)
            assert parser.sections()
        elif block.language == "python" and block.file:
            compile(block.text, block.file, "exec")
        elif block.language == "sh":
            shell = shutil.which("bash")
            assert shell is not None
            subprocess.run([shell, "-n"], input=block.text, text=True, check=True)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{name_of(page)}: {target}"


# The proxy guide


class GuideProxy(Proxy):
    """The proxy that the guide's files make, started as it says; only the port is another."""

    def prepare(self) -> None:
        for block in blocks(ROOT / "docs/proxy.md"):
            if block.file:
                text = block.text.replace("127.0.0.1:4000", f"127.0.0.1:{self.port}")
                (self.directory / block.file).write_text(text)

    def command(self) -> list[str]:
        return ["bash", "start.sh"]

    def environment(self) -> dict[str, str]:
        return {
            **super().environment(),
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "OPENAI_API_BASE": f"{self.backend_url}/fake/v1",
            "OPENAI_API_KEY": "none",
            "LITELLM_MASTER_KEY": MASTER_KEY,
            "FAST_LITELLM_FEATURE_CONFIG": "features.json",
            # Which this test's own process has switched off.
            "FAST_LITELLM_ENABLED": "true",
        }


MASTER_KEY = "sk-9b1f47c2d05e4a7f8e6d3c5b2a190f8e"


def asked(proxy: Proxy, method: str, path: str, body: str | None = None) -> str:
    """What the proxy answers, which must be with 200."""
    headers = {"Authorization": f"Bearer {MASTER_KEY}", "Content-Type": "application/json"}
    with contextlib.closing(HTTPConnection("127.0.0.1", proxy.port, timeout=30)) as connection:
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        text = response.read().decode()
        assert response.status == 200, text
        return text


@pytest.mark.proxy
def test_the_proxy_guide_starts_a_proxy_that_answers() -> None:
    with FakeBackend() as backend, GuideProxy(backend.url, accelerate=True) as proxy:
        proxy.wait_for_boots(4)
        assert asked(proxy, "GET", "/health/liveliness") == '"I\'m alive!"'
        body = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hello"}]}
        assert "choices" in asked(proxy, "POST", "/v1/chat/completions", json.dumps(body))
        fl_shm = [str(Path(sys.executable).with_name("fl-shm")), "inspect", "--json"]
        inspected = subprocess.run(
            [*fl_shm, "--pid", str(proxy.master_pid)], capture_output=True, text=True
        )
        assert inspected.returncode == 0, inspected.stderr
        workers = json.loads(inspected.stdout)["workers"]
        assert len({worker["pid"] for worker in workers} & set(proxy.worker_pids())) == 4
        assert backend.stats()["total"] == 1
        assert "NOT shared" not in proxy.log_text()
