"""Proves what `fl-shm serve` answers, to whom, and what its page shows in a real browser."""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import json
import os
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from fl_shm import command, fl_shm
from served import Browser, Program, Serving, ask, browsing, hashes
from support import fresh_environment, until

TOKEN = "0123456789abcdef-token"
SECRET_KEY = "sk-verysecret-1234567890abcdef"
AGE = re.compile(rb"(?m)^fast_litellm_region_age_seconds (\d+)$")


@pytest.fixture(scope="module")
def program() -> Iterator[Program]:
    with Program(f"served-{os.getpid()}", FAST_LITELLM_SHM_KEYS="1024") as program:
        program.do("spend('team:a', 20, 3)")
        yield program


@pytest.fixture(scope="module")
def serving(program: Program) -> Iterator[Serving]:
    with Serving("--region", program.name) as serving:
        yield serving


def refused(*arguments: object, **env: str) -> tuple[int, str, str]:
    """Exit code, output and message of a `serve` that does not get as far as serving."""
    done = fl_shm("serve", *arguments, **env)
    return done.returncode, done.stdout, done.stderr


def raw(serving: Serving, request: bytes) -> bytes:
    """All that is answered to these bytes until the server closes the connection."""
    with socket.create_connection(("127.0.0.1", serving.port or 0), timeout=20) as connection:
        connection.sendall(request)
        answer = b""
        while part := connection.recv(65_536):
            answer += part
        return answer


class Stream:
    """A client that follows."""

    def __init__(self, serving: Serving) -> None:
        self.connection = socket.create_connection(("127.0.0.1", serving.port or 0), timeout=20)
        self.connection.sendall(b"GET /api/stream HTTP/1.1\r\nHost: localhost\r\n\r\n")
        self.file = self.connection.makefile("rb")
        self.status = int(self.file.readline().split()[1])

    def frame(self) -> dict[str, Any]:
        """The next frame."""
        for line in self.file:
            if line.startswith(b"data: "):
                frame: dict[str, Any] = json.loads(line[6:])
                return frame
        raise AssertionError("the stream has ended")

    def rest(self) -> bytes:
        """All that comes until the server closes the connection."""
        return self.file.read()

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()
        self.connection.close()


class TestAnswers:
    """What is answered to those who may ask."""

    def test_a_frame_is_what_is_going_on(self, serving: Serving, program: Program) -> None:
        answer = serving.ask("/api/frame")
        frame = answer.json()
        assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
        assert (frame["schema"], frame["region"]) == ("fl-shm/1", program.name)
        [key] = [key for key in frame["hottest"] if key["key"] == "team:a"]
        assert key["requests"] == {"used": 3, "limit": 20}
        assert frame["header"]["creator_pid"] == program.pid

    def test_a_report_is_everything(self, serving: Serving, program: Program) -> None:
        report = serving.ask("/api/report").json()
        shown = subprocess.run(
            command("inspect", "--json", "--region", program.name),
            capture_output=True,
            check=True,
        )
        inspected = json.loads(shown.stdout)
        assert report.pop("region") == program.name
        assert report.keys() == inspected.keys()
        assert report["stats"] == inspected["stats"]

    def test_metrics_are_those_of_inspect(self, serving: Serving, program: Program) -> None:
        def shown() -> bytes:
            shown = command("inspect", "--prom", "--region", program.name)
            return subprocess.run(shown, capture_output=True, check=True).stdout

        before, answer, after = shown(), serving.ask("/metrics"), shown()
        assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
        assert answer.status == 200
        # All but the region's age.
        texts = [AGE.split(text) for text in (before, answer.body, after)]
        assert [len(parts) for parts in texts] == [3, 3, 3]
        assert texts[0][::2] == texts[1][::2] == texts[2][::2]
        ages = [int(parts[1]) for parts in texts]
        assert ages == sorted(ages)

    def test_a_stream_goes_on(self, serving: Serving, program: Program) -> None:
        with Stream(serving) as stream:
            assert stream.status == 200
            charged = [stream.frame()["stats"]["window_charged"] for _ in range(2)]
            program.do("spend('team:stream', 1000, 5)")
            until(
                lambda: stream.frame()["stats"]["window_charged"] == charged[-1] + 5,
                "show what has been charged",
            )

    def test_the_page_is_that_of_the_package(self, serving: Serving) -> None:
        answer = serving.ask("/")
        page = files("fast_litellm").joinpath("inspector.html").read_bytes()
        assert (answer.status, answer.body) == (200, page)
        assert answer.headers["content-type"] == "text/html; charset=utf-8"
        policy = answer.headers["content-security-policy"]
        assert hashes(page, policy)
        assert "frame-ancestors 'none'" in policy

    @pytest.mark.parametrize(
        "path", ["/", "/api/frame", "/api/report", "/api/stream", "/metrics", "/else"]
    )
    def test_nothing_is_kept_or_guessed_or_lent(self, serving: Serving, path: str) -> None:
        get = None if path == "/api/stream" else serving.ask(path)
        head = serving.ask(path, "HEAD")
        assert head.body == b""
        for answer in filter(None, (get, head)):
            assert answer.status == (404 if path == "/else" else 200)
            assert answer.headers["cache-control"] == "no-store"
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert not any(name.startswith("access-control") for name in answer.headers)

    @pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "get"])
    def test_nothing_can_be_changed(self, serving: Serving, method: str) -> None:
        for path in ("/", "/api/frame", "/api/stream", "/api/report", "/metrics"):
            answer = serving.ask(path, method)
            assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD")

    def test_not_a_byte_of_the_region_changes(self, program: Program, serving: Serving) -> None:
        before = hashlib.sha256(program.content()).hexdigest()
        with Stream(serving) as stream:
            stream.frame()
            stream.frame()
        serving.ask("/api/report")
        assert hashlib.sha256(program.content()).hexdigest() == before

    def test_names_are_redacted(self, serving: Serving, program: Program) -> None:
        program.do(f"fast_litellm.SimpleRateLimiter(60).check({SECRET_KEY!r})")
        # The report of the test before is kept for an interval.
        until(lambda: b"sk-ve" in serving.ask("/api/report").body, "report the key")
        assert b"1234567890" not in serving.ask("/api/report").body


class TestLooks:
    """One look for all, and none for nobody."""

    def test_all_who_ask_share_one(self, program: Program) -> None:
        with Serving("--region", program.name, interval=60) as serving:
            first = serving.ask("/api/frame").body
            program.do("spend('team:unseen', 5)")
            assert serving.ask("/api/frame").body == first
            with Stream(serving) as one, Stream(serving) as other:
                assert one.frame() == other.frame() == json.loads(first)
            report = serving.ask("/api/report").body
            program.do("spend('team:unseen', 5)")
            assert serving.ask("/api/report").body == report

    def test_nobody_looks_for_nobody(self, serving: Serving) -> None:
        with Stream(serving) as stream:
            stream.frame()
        # As long as it takes the server to notice that the client has gone, and five looks more.
        time.sleep(0.2)
        serving.frame()
        time.sleep(0.5)
        assert serving.frame()["since_s"] >= 0.45

    def test_clients_beyond_a_number_are_sent_away(self, serving: Serving) -> None:
        with contextlib.ExitStack() as stack:
            streams = [stack.enter_context(Stream(serving)) for _ in range(33)]
            assert [stream.status for stream in streams] == [200] * 32 + [503]
            assert serving.frame()["region"]
        # Those who have left make room.
        until(lambda: serving.ask("/api/stream", "HEAD").status == 200, "answer")
        with Stream(serving) as stream:
            until(lambda: stream.status == 200, "let another one follow")

    def test_connections_beyond_a_number_are_closed(self, serving: Serving) -> None:
        with contextlib.ExitStack() as stack:
            for _ in range(128):
                place = ("127.0.0.1", serving.port or 0)
                stack.enter_context(socket.create_connection(place, timeout=20))
            last = stack.enter_context(socket.create_connection(place, timeout=20))
            # Sooner than a silent one would be.
            last.settimeout(5)
            assert last.recv(1) == b""
        until(lambda: succeeds(serving), "answer again")


def succeeds(serving: Serving) -> bool:
    try:
        return serving.ask("/api/frame").status == 200
    except OSError:
        return False


class TestAccess:
    """Who is answered."""

    @pytest.mark.parametrize("host", ["example.org", "example.org:80", "0.0.0.0", "10.0.0.1", ""])
    def test_a_name_of_somebody_else_is_not_answered(self, serving: Serving, host: str) -> None:
        for path in ("/", "/api/frame", "/else"):
            answer = serving.ask(path, host=host)
            assert answer.status == 421
            assert b"schema" not in answer.body

    def test_requests_of_another_site_are_not_answered(self, serving: Serving) -> None:
        assert serving.ask("/api/frame", sec_fetch_site="cross-site").status == 403
        assert serving.ask("/api/frame", sec_fetch_site="same-origin").status == 200

    def test_what_is_no_request_ends_its_connection_only(self, serving: Serving) -> None:
        long = b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 40_000 + b"\r\n\r\n"
        assert raw(serving, long).startswith(b"HTTP/1.1 431 ")
        many = b"".join(b"X-%d: x\r\n" % n for n in range(200))
        assert raw(serving, b"GET / HTTP/1.1\r\n" + many + b"\r\n").startswith(b"HTTP/1.1 431 ")
        for nonsense in (
            b"\x16\x03\x01\x02\x00\x01\r\n\r\n",
            b"GET\r\n\r\n",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        ):
            assert not raw(serving, nonsense).startswith(b"HTTP/1.1 200 ")
        assert serving.ask("/api/frame").status == 200

    def test_a_token_is_asked_for(self, program: Program) -> None:
        with Serving("--region", program.name, "--host", "0.0.0.0", token=TOKEN) as serving:
            url = f"http://127.0.0.1:{serving.port}"
            for path in ("/api/frame", "/api/report", "/api/stream", "/metrics", "/else"):
                for headers in ({}, {"authorization": f"Bearer {TOKEN}x"}):
                    answer = ask(url + path, headers=headers)
                    assert (answer.status, answer.headers["www-authenticate"]) == (401, "Bearer")
                    assert b"schema" not in answer.body
            assert ask(url + "/").status == 200
            known = {"authorization": f"Bearer {TOKEN}", "host": "inspector.example.org"}
            assert ask(url + "/api/frame", headers=known).json()["region"] == program.name
            # Every process of the machine can read the arguments of another.
            assert TOKEN not in Path(f"/proc/{serving.pid}/cmdline").read_text()

    @pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "::"])
    def test_nobody_else_reaches_it_by_accident(self, program: Program, host: str) -> None:
        code, out, message = refused("--region", program.name, "--host", host)
        assert (code, out) == (2, "")
        assert message.startswith(
            f"fl-shm: {host} can be reached from other machines: set FL_SHM_TOKEN"
        )

    def test_a_token_that_could_be_guessed_is_refused(self, program: Program) -> None:
        code, out, message = refused("--region", program.name, FL_SHM_TOKEN="too-short-a-one")
        assert (code, out) == (2, "")
        assert message.startswith("fl-shm: FL_SHM_TOKEN is no token")
        assert "too-short" not in message


class TestBeginningAndEnd:
    """Ports, regions that come and go, and being told to end."""

    def test_a_port_that_is_taken_is_said(self, program: Program, serving: Serving) -> None:
        code, out, message = refused("--region", program.name, "--port", serving.port)
        assert (code, out) == (2, "")
        place = f"127.0.0.1:{serving.port}"
        assert message.startswith(f"fl-shm: cannot listen on {place}: Address already in use")

    @pytest.mark.parametrize(
        "arguments",
        [("--port", "65536"), ("--host", "example.org"), ("--interval", "0"), ("--interval", "61")],
    )
    def test_what_cannot_be_is_refused(self, program: Program, arguments: tuple[str, str]) -> None:
        code, out, message = refused("--region", program.name, *arguments)
        assert (code, out) == (2, "")
        assert "invalid value" in message

    def test_without_a_region_there_is_nothing_to_serve(self) -> None:
        code, out, message = refused("--region", "there-is-none")
        assert (code in (1, 2), out) == (True, "")
        assert "there-is-none" in message

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_it_ends_when_it_is_told_to(self, program: Program, number: int) -> None:
        with Serving("--region", program.name) as serving, Stream(serving) as stream:
            stream.frame()
            assert serving.end(number) == (0, "")
            # Those who follow see the end of their connection.
            stream.rest()

    def test_nobody_who_reads_its_address_is_no_error(self, program: Program) -> None:
        read, write = os.pipe()
        os.close(read)
        done = subprocess.run(
            command("serve", "--region", program.name),
            env=fresh_environment(),
            stdout=write,
            stderr=subprocess.PIPE,
            timeout=30,
        )
        os.close(write)
        assert (done.returncode, done.stderr) == (0, b"")

    def test_a_region_may_go_and_come_back(self) -> None:
        name = f"fleeting-{os.getpid()}"
        with Program(name) as first, Serving("--region", name) as serving:
            first.do("spend('team:first', 20)")
            assert serving.frame()["header"]["creator_pid"] == first.pid
            with Stream(serving) as stream:
                first.end()
                until(lambda: "problem" in stream.frame(), "notice that the region is gone")
                answer = serving.ask("/api/frame")
                assert answer.status == serving.ask("/api/report").status == 503
                assert serving.ask("/metrics").status == 503
                problem = {
                    "schema": "fl-shm/1",
                    "region": name,
                    "problem": f'no process uses the region "{name}" any more',
                }
                assert answer.json() == problem
                # Who looks is not one who uses it.
                listed = subprocess.run(command("ls", "--json"), capture_output=True, check=False)
                assert name.encode() not in listed.stdout
                with Program(name) as second:
                    until(lambda: "problem" not in stream.frame(), "find the next region")
                    frame = serving.frame()
                    assert frame["header"]["creator_pid"] == second.pid
                    assert frame["hottest"] == []
                    with Program(name):
                        # The one that was there first stays the one.
                        assert serving.frame()["header"]["creator_pid"] == second.pid

    @pytest.mark.parametrize("way", ["--file", "--region"])
    def test_a_file_that_is_overwritten_cut_or_removed_is_not_read(self, way: str) -> None:
        path = Path("/dev/shm") / f"fl-serve-{os.getpid()}"
        with (
            contextlib.ExitStack() as stack,
            Program(str(path), FAST_LITELLM_SHM=str(path)) as program,
            Serving(way, path) as serving,
        ):
            stack.callback(path.unlink, missing_ok=True)
            program.do("spend('team:a', 20)")
            assert serving.frame()["header"]["creator_pid"] == program.pid
            whole = path.read_bytes()
            for byte in (whole[16] ^ 0xFF, whole[16]):
                with path.open("r+b") as file:
                    file.seek(16)
                    file.write(bytes([byte]))
                healthy = byte == whole[16]
                until(lambda: ("header" in serving.frame()) == healthy, "see it")  # noqa: B023
            # What was removed is there as long as somebody has it open.
            path.rename(path.with_suffix(".old"))
            stack.callback(path.with_suffix(".old").unlink, missing_ok=True)
            time.sleep(0.2)
            assert serving.frame()["header"]["creator_pid"] == program.pid
            os.truncate(path.with_suffix(".old"), 4096)
            until(lambda: "problem" in serving.frame(), "see that it was cut")
            for asked in ("/api/frame", "/api/report", "/metrics"):
                assert serving.ask(asked).status == 503
            assert serving.end() == (0, "")

    def test_a_region_outlives_the_process_that_it_was_found_through(self) -> None:
        name = f"outlived-{os.getpid()}"
        with Program(name) as program, Serving("--region", name) as serving:
            program.do("child(1)")
            assert serving.frame()["leases_held"] == 1
            os.kill(program.pid, signal.SIGKILL)
            until(
                lambda: (
                    "dead" in {worker["alive"] for worker in serving.frame().get("workers", [])}
                ),
                "see the process dead",
            )
            assert serving.frame()["leases_held"] == 1


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browsing(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture
def page(browser: Browser, serving: Serving) -> Iterator[Browser]:
    """The page, live; it has asked nobody else and said nothing to the console in the end."""
    browser.open(serving.url)
    browser.until_it_says("Live")
    yield browser
    browser.check_clean(serving.url)


class TestPage:
    """The page in a real browser."""

    def test_rows_appear_and_change_under_load(self, page: Browser, program: Program) -> None:
        program.do("spend('team:busy', 1000, 7)")
        page.until(lambda: "7 / 1,000" in page.rows("keys").get("team:busy", []), "show a new key")
        page.until(lambda: page.text("#region") == program.name, "say which region it is")

        def seen() -> bool:
            program.do("spend('team:busy', 1000, 2)")
            [admitted] = page.run("return [document.querySelector('#tiles dd span').textContent]")
            cells = page.rows("keys")["team:busy"]
            return "7 / 1,000" not in cells and admitted not in ("0", "…")

        page.until(seen, "show the use and the rate of now")
        path = "return document.querySelector('#plot-admitted .line').getAttribute('d')"
        page.until(lambda: page.run(path).count("L") > 2, "plot it")

    def test_a_key_that_is_refused_shows(self, page: Browser, program: Program) -> None:
        def seen() -> bool:
            program.do("spend('team:over', 2, 3)")
            hot = page.run(
                "return [...document.querySelectorAll('#keys td.hot')].map(cell => cell.textContent)"
            )
            return "100 %" in hot and any(re.match(r"\d", each) for each in hot if "%" not in each)

        page.until(seen, "show that a key is refused")
        assert next(iter(page.rows("keys"))) == "team:over"
        assert "2 / 2" in page.rows("keys")["team:over"]

    def test_a_cooldown_shows_why_and_for_how_long(self, page: Browser, program: Program) -> None:
        program.do("deployments.introduce('d1', 'azure/gpt')")
        program.do("deployments.cool_down('d1', 90, 429, 'try later', 'rate_limited')")
        said = r"cooling down, (1m)?\d\ds leftrate limited · HTTP 429 · try later"

        def seen() -> bool:
            return bool(re.fullmatch(said, page.rows("deployments").get("azure/gpt", [""])[0]))

        page.until(seen, "show the deployment")
        state = page.rows("deployments")["azure/gpt"][0]
        page.until(lambda: page.rows("deployments")["azure/gpt"][0] != state, "count down")
        assert "1 deployment is cooling down: azure/gpt." in page.text("#health")
        assert page.rows("events")["cooldown begun"][0] == "azure/gpt"
        program.do("deployments.end_cooldown('d1')")
        page.until(lambda: page.rows("deployments")["azure/gpt"][0] == "available", "see it end")

    def test_a_worker_that_dies_shows(self, page: Browser, program: Program) -> None:
        pid = program.do("child(3)")
        # It is there before it holds all of them.
        page.until(lambda: page.rows("workers").get(pid, [""] * 3)[2] == "3", "show the worker")
        assert page.rows("workers")[pid][0] == "alive"
        os.kill(int(pid), signal.SIGKILL)
        page.until(lambda: page.rows("workers")[pid][0] == "dead", "show that it is dead")
        assert "1 worker has died and is not reaped yet, holding 3 slots." in page.text("#health")
        program.do("region.reap()")
        page.until(lambda: pid not in page.rows("workers"), "forget it")

    def test_keys_can_be_filtered_and_sorted(self, page: Browser, program: Program) -> None:
        program.do("[spend(f'sorted:{n}', 100, n) for n in (2, 3, 1)]")
        page.until(lambda: "sorted:3" in page.rows("keys"), "show the keys")
        page.run("document.querySelector('#filter').focus()")
        page.key("SORTED:")
        page.until(lambda: len(page.rows("keys")) == 3, "show those that match")
        assert "match" in page.text("#keys-count")
        button = "#keys thead th:nth-child(4) button"
        for way, first in (("descending", "sorted:3"), ("ascending", "sorted:1")):
            page.run("document.querySelector(arguments[0]).focus()", button)
            page.key("\n")
            sort = "return document.querySelector(arguments[0]).parentNode.ariaSort"
            # Frames that come meanwhile keep the order.
            assert page.run(sort, button) == way
            page.until(lambda first=first: next(iter(page.rows("keys"))) == first, "sort")
        page.run("document.querySelector('#filter').select()")
        page.key("nothing has this name")
        page.until(
            lambda: "None of the hottest keys matches the filter." in page.rows("keys"),
            "say that nothing matches",
        )

    def test_it_can_be_paused_with_the_keyboard(self, page: Browser, program: Program) -> None:
        page.run("document.querySelector('#pause').focus()")
        page.key(" ")
        page.until_it_says("Paused")
        assert page.run("return document.querySelector('#pause').ariaPressed") == "true"
        shown = page.text("#when")
        received = "return latest.at_ms"
        before = page.run(received)
        program.do("spend('team:paused', 10)")
        page.until(lambda: page.run(received) > before + 300, "receive more")
        assert "team:paused" not in page.rows("keys")
        assert page.text("#when").startswith(shown.split(",")[0])
        page.key(" ")
        page.until(lambda: "team:paused" in page.rows("keys"), "go on")
        assert page.text("#state") == "Live"

    def test_it_can_be_read_without_eyes(self, page: Browser) -> None:
        page.until(lambda: page.text("#facts"), "show everything")
        unnamed = page.run("""
            const wrong = [];
            for (const table of document.querySelectorAll("table")) {
                if (!table.caption?.textContent) wrong.push("caption of " + table.id);
                for (const head of table.querySelectorAll("th"))
                    if (!head.scope) wrong.push("scope in " + table.id);
            }
            for (const part of document.querySelectorAll("section, [role=group]")) {
                const label = document.getElementById(part.getAttribute("aria-labelledby"));
                if (!label?.textContent) wrong.push("label of " + part.innerText);
            }
            for (const image of document.querySelectorAll("svg[role=img]"))
                if (!image.getAttribute("aria-label")) wrong.push("label of " + image.parentNode.id);
            for (const button of document.querySelectorAll("button"))
                if (!button.textContent && !button.closest("[hidden]")) wrong.push("button " + button.id);
            if (document.querySelectorAll("h1").length !== 1) wrong.push("h1");
            if (!document.documentElement.lang) wrong.push("lang");
            return wrong;
        """)
        assert unnamed == []
        assert page.text("#said") == "Live"

    @pytest.mark.parametrize("width", [360, 768, 1600])
    def test_it_fits(self, page: Browser, width: int) -> None:
        size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500}
        page.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        try:
            page.until(lambda: page.text("#facts"), "show everything")
            most = "return [document.documentElement.scrollWidth, document.documentElement.clientWidth]"
            wide, room = page.run(most)
            assert wide == room <= width
        finally:
            page.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})

    def test_it_asks_for_a_token_and_keeps_it_in_the_tab(
        self, browser: Browser, program: Program
    ) -> None:
        with Serving("--region", program.name, "--host", "0.0.0.0", token=TOKEN) as serving:
            browser.open(f"http://127.0.0.1:{serving.port}/")
            browser.until(lambda: browser.run("return document.querySelector('#ask').open"), "ask")
            assert program.name not in browser.run("return document.body.textContent")
            browser.key("not the token", "\n")
            browser.until(lambda: "not accepted" in browser.text("#ask-error"), "refuse it")
            browser.key(TOKEN, "\n")
            browser.until_it_says("Live")
            kept = "return [Object.values(sessionStorage), localStorage.length, document.cookie]"
            assert browser.run(kept) == [[TOKEN], 0, ""]
            assert TOKEN not in browser.run("return document.documentElement.outerHTML")
            browser.driver.refresh()
            browser.until_it_says("Live")

    def test_it_says_when_the_region_or_the_server_is_gone(self, browser: Browser) -> None:
        name = f"reborn-{os.getpid()}"
        with contextlib.ExitStack() as stack:
            first = stack.enter_context(Program(name))
            serving = stack.enter_context(Serving("--region", name))
            browser.open(serving.url)
            browser.until_it_says("Live")
            first.end()
            browser.until_it_says("Region gone")
            assert f'no process uses the region "{name}" any more' in browser.text("#problem")
            second = stack.enter_context(Program(name))
            browser.until_it_says("Live")
            second.do("spend('team:reborn', 10)")
            browser.until(lambda: "team:reborn" in browser.rows("keys"), "show the next region")
            browser.check_clean(serving.url)
            assert serving.end() == (0, "")
            browser.until_it_says("Reconnecting")
            # What was seen stays, and is said to be old.
            assert "team:reborn" in browser.rows("keys")
            assert browser.text("#when").startswith("as of ")
            stack.enter_context(Serving("--region", name, "--port", serving.port))
            browser.run("document.querySelector('#retry').click()")
            browser.until_it_says("Live")

    def test_a_stream_that_begins_anew_does_not_show(
        self, browser: Browser, serving: Serving
    ) -> None:
        frame = serving.frame()
        frame["rates"]["admitted_per_s"] = 12345.0
        # Each stream is of a worker that has nothing to compare its first look with.
        first = {**frame, "since_s": 0.0, "rates": dict.fromkeys(frame["rates"], 0.0)}
        with Imitation(first, {**frame, "since_s": 1.0}, ends=True) as url:
            browser.open(url)
            browser.until(lambda: "12,345" in browser.text("#tiles"), "know the rates")
            browser.run("""
                window.seen = new Set();
                const note = () => seen.add(byId("state").textContent + byId("tiles").textContent);
                new MutationObserver(note).observe(document, { subtree: true, childList: true });
                byId("filter").placeholder = "";
            """)
            browser.logs()
            streams: list[str] = []

            def have_begun() -> bool:
                streams.extend(browser.requests())
                return len(streams) >= 3

            browser.until(have_begun, "begin a stream after the other")
            assert all(
                "Live" in each and "12,345" in each for each in browser.run("return [...seen]")
            )
            assert "12,345" in browser.text("#tiles")

    def test_names_never_become_markup(self, browser: Browser, serving: Serving) -> None:
        hostile = "<img src=x onerror='window.harmed=1'><script>window.harmed=1</script>"
        frame = serving.frame()
        frame["pools"] = [
            {
                **{
                    "pool": "",
                    "connections": 1,
                    "idle": 0,
                    "created": 1,
                    "reused": 0,
                    "refused": 0,
                },
                "endpoints": [
                    {"endpoint": "", "connections": 1, "idle": 0, "healthy": False}
                    | {"failures_in_a_row": 3, "failures_total": 3, "last_failure": ""}
                ],
            }
        ]
        frame["leaders"] = [
            {"job": "", "row": 1, "pid": 1, "owner": "", "held_s": 1, "renewed_s": 1}
        ]
        frame["features"] = [
            {"feature": 1, "name": "", "breaker": "", "errors": 1, "errors_total": 1, "last_s": 1}
            | {"switch": ""}
        ]
        frame["stats"][hostile] = 1
        with Imitation(soiled(frame, hostile)) as url:
            browser.open(url)
            browser.until_it_says("Live")
            for table in (
                "keys",
                "deployments",
                "workers",
                "pools",
                "leaders",
                "features",
                "events",
            ):
                shown = browser.rows(table)
                cells = (cell for row in shown.values() for cell in row)
                assert hostile in "".join([*shown, *cells]), table
            assert browser.text("#region") == hostile
            assert browser.run("return window.harmed ?? null") is None
            assert browser.run("return document.querySelectorAll('img, #all script').length") == 0
            browser.check_clean(url)


def soiled(value: Any, text: str) -> Any:
    """The same with this text in place of every other."""
    if isinstance(value, dict):
        return {name: soiled(part, text) for name, part in value.items()}
    if isinstance(value, list):
        return [soiled(part, text) for part in value]
    return text if isinstance(value, str) else value


class Imitation:
    """A server that answers with the page, without its policy, and with frames of its own."""

    def __init__(self, *frames: dict[str, Any], ends: bool = False) -> None:
        page = files("fast_litellm").joinpath("inspector.html").read_bytes()
        events = [f"data: {json.dumps(frame)}\n\n".encode() for frame in frames]

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                stream = self.path.endswith("/api/stream")
                self.send_response(200)
                self.send_header("content-type", "text/event-stream" if stream else "text/html")
                self.end_headers()
                for part in events if stream else [page]:
                    self.wfile.write(part)
                    self.wfile.flush()
                    # Each is to be seen.
                    ended.wait(0.1)
                if stream and not ends:
                    ended.wait()

            def log_message(self, *_: object) -> None:
                pass

        ended = self._ended = threading.Event()
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    def __enter__(self) -> str:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{self._server.server_port}/"

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._server.shutdown()
        self._server.server_close()
