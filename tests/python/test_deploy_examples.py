"""Proves that the examples of deploying are those that the pages show, and share as they should."""

from __future__ import annotations

import configparser
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from support import fresh_environment
from test_docs import ROOT, blocks

PAGES = ROOT / "docs/deploy"
EXAMPLES = PAGES / "examples"
GUIDE = ROOT / "docs/proxy.md"
FILES = sorted(EXAMPLES.iterdir())
USER = 10001
#: What the default region takes, with room for the file of another one that is made beside it.
ROOM = 2 * 25.3 * 2**20


def shown(*pages: Path) -> dict[str, set[str]]:
    """The files that pages show: all texts under each name."""
    found: dict[str, set[str]] = {}
    for page in pages:
        for block in blocks(page):
            if block.file:
                found.setdefault(block.file, set()).add(block.text)
    return found


def test_the_pages_show_the_files_as_they_are() -> None:
    # A page may show a variant of the proxy's own two; the guide has those that the image copies.
    files = {**shown(*PAGES.glob("*.md")), **shown(GUIDE)}
    for file in FILES:
        assert files.get(file.name) == {file.read_text()}, file.name


def test_the_front_page_shows_the_application_of_the_guide() -> None:
    assert shown(ROOT / "README.md")["app.py"] == shown(GUIDE)["app.py"]
    assert (ROOT / "scripts/demo/app.py").read_text() in shown(GUIDE)["app.py"]


def documents(name: str) -> list[Any]:
    return list(yaml.safe_load_all((EXAMPLES / name).read_text()))


def is_locked_down(service: dict[str, Any]) -> bool:
    """Whether a service of Compose has no privileges."""
    return (
        service["cap_drop"] == ["ALL"]
        and service["security_opt"] == ["no-new-privileges:true"]
        and service["read_only"]
    )


def size_of(text: str) -> int:
    number, unit = re.fullmatch(r"(\d+)(m|Mi)", text).groups()  # type: ignore[union-attr]
    assert unit
    return int(number) * 2**20


# The image


def dockerfile() -> dict[str, str]:
    """The last of each instruction."""
    whole = (EXAMPLES / "Dockerfile").read_text().replace("\\\n", "")
    return dict(line.split(maxsplit=1) for line in whole.splitlines())


def test_the_image_runs_as_a_user_that_kubernetes_can_tell_from_root() -> None:
    assert dockerfile()["USER"] == f"{USER}:{USER}"
    assert f"--uid {USER}" in dockerfile()["RUN"]


def test_the_image_starts_gunicorn_as_the_page_says() -> None:
    started = json.loads(dockerfile()["CMD"])
    assert started[:3] == ["gunicorn", "app:app", "--preload"]
    # The root may be read-only.
    assert started[started.index("--worker-tmp-dir") + 1] == "/dev/shm"
    pytest.importorskip("gunicorn")
    from gunicorn.config import Config

    parsed = Config().parser().parse_args(started[1:])
    assert (parsed.workers, parsed.bind, parsed.preload_app) == (4, ["0.0.0.0:4000"], True)


def test_the_image_has_what_it_starts() -> None:
    for copied in dockerfile()["COPY"].split()[:-1]:
        assert (EXAMPLES / copied).is_file(), copied
    home = dockerfile()["WORKDIR"]
    assert dockerfile()["ENV"] == f"CONFIG_FILE_PATH={home}/config.yaml"


# Compose


def test_the_inspector_of_compose_sees_the_proxy() -> None:
    (compose,) = documents("compose.yaml")
    proxy, inspector = compose["services"]["litellm"], compose["services"]["inspector"]
    assert inspector["pid"] == "service:litellm"
    assert proxy["user"] == inspector["user"] == f"{USER}:{USER}"
    assert is_locked_down(proxy)
    assert is_locked_down(inspector)
    assert proxy["tmpfs"] == ["/tmp"]
    # Reachable from this host only, and not without a token.
    assert inspector["ports"] == ["127.0.0.1:8765:8765"]
    assert inspector["environment"] == {"FL_SHM_TOKEN": "${FL_SHM_TOKEN:?}"}
    options_exist(inspector["command"][-1])


def options_exist(script: str) -> None:
    """Whether `fl-shm serve` takes the options that a script gives it."""
    arguments = script.rpartition("exec fl-shm ")[2].split()
    assert arguments[0] == "serve"
    # Without a token it refuses, but only after it has understood them.
    done = subprocess.run(
        [sys.executable, "-m", "fast_litellm", *arguments],
        cwd="/",
        env=fresh_environment(),
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert (done.returncode, "set FL_SHM_TOKEN" in done.stderr) == (2, True), done.stderr


def test_proxies_of_compose_share_file_pids_and_user() -> None:
    (compose,) = documents("shared.compose.yaml")
    services = compose["services"]
    blue, green = services["blue"], services["green"]
    for proxy in (blue, green):
        assert proxy["pid"] == "service:pids"
        assert proxy["user"] == f"{USER}:{USER}"
        assert is_locked_down(proxy)
    path = blue["environment"]["FAST_LITELLM_SHM"]
    assert green["environment"]["FAST_LITELLM_SHM"] == path
    assert blue["volumes"] == green["volumes"] == [f"region:{Path(path).parent}"]
    # Orphans of either are waited for.
    assert services["pids"]["init"]
    assert is_locked_down(services["pids"])
    options = compose["volumes"]["region"]["driver_opts"]
    assert options["type"] == options["device"] == "tmpfs"
    mount = dict(option.split("=") for option in options["o"].split(","))
    assert (mount["uid"], mount["gid"], mount["mode"]) == (str(USER), str(USER), "0700")
    assert size_of(mount["size"]) >= ROOM


# Kubernetes


def pod() -> dict[str, Any]:
    deployment = documents("kubernetes.yaml")[0]
    assert deployment["kind"] == "Deployment"
    # A second pod would admit the whole limit again, also one that is about to end.
    assert deployment["spec"]["replicas"] == 1
    assert deployment["spec"]["strategy"] == {"type": "Recreate"}
    found: dict[str, Any] = deployment["spec"]["template"]
    assert deployment["spec"]["selector"]["matchLabels"] == found["metadata"]["labels"]
    return dict(found["spec"])


def container(name: str) -> dict[str, Any]:
    (found,) = (each for each in pod()["containers"] if each["name"] == name)
    return dict(found)


def test_the_sidecar_sees_the_proxy() -> None:
    assert pod()["shareProcessNamespace"] is True
    assert pod()["securityContext"]["runAsUser"] == USER
    assert pod()["securityContext"]["runAsNonRoot"] is True
    for name in ("litellm", "inspector"):
        # One user for both: neither says otherwise.
        assert container(name)["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
    assert container("inspector")["image"] == container("litellm")["image"]
    options_exist(container("inspector")["command"][-1])
    (token,) = container("inspector")["env"]
    assert token["name"] == "FL_SHM_TOKEN"
    assert "secretKeyRef" in token["valueFrom"]


def test_the_region_of_a_pod_outlives_its_container() -> None:
    (setting,) = container("litellm")["env"]
    assert setting["name"] == "FAST_LITELLM_SHM"
    mounts = {each["mountPath"]: each["name"] for each in container("litellm")["volumeMounts"]}
    volumes = {each["name"]: each["emptyDir"] for each in pod()["volumes"]}
    region = volumes[mounts[str(Path(setting["value"]).parent)]]
    assert region["medium"] == "Memory"
    assert size_of(region["sizeLimit"]) >= ROOM
    assert "/tmp" in mounts


def test_probes_ask_where_the_proxy_answers() -> None:
    ports = {port["name"] for each in pod()["containers"] for port in each["ports"]}
    for each in pod()["containers"]:
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            if probe in each:
                assert each[probe]["httpGet"]["port"] in ports
    assert container("litellm")["startupProbe"]["httpGet"]["path"] == "/health/liveliness"
    service = documents("kubernetes.yaml")[1]
    assert service["spec"]["ports"][0]["targetPort"] in ports


# systemd


def test_the_unit_keeps_its_region_over_a_restart() -> None:
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read_string((EXAMPLES / "litellm.service").read_text())
    service = parser["Service"]
    assert service["RuntimeDirectory"] == "litellm"
    assert service["RuntimeDirectoryPreserve"] == "restart"
    assert service["RuntimeDirectoryMode"] == "0700"
    assert "--preload" in service["ExecStart"]
    assert service["CapabilityBoundingSet"] == ""
    # By default systemd ends the whole service when the kernel kills one worker for want of memory.
    assert service["OOMPolicy"] == "continue"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze")
def test_the_unit_is_one_that_systemd_takes(tmp_path: Path) -> None:
    unit = tmp_path / "litellm.service"
    text = (EXAMPLES / "litellm.service").read_text()
    # What it starts is not there.
    unit.write_text(re.sub(r"(?m)^ExecStart=.*$", "ExecStart=/bin/true", text))
    done = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True)
    # Each setting that it does not know, or cannot read, is a line that names the file.
    assert unit.name not in done.stderr
    assert "Unknown" not in done.stderr


# A pool


@pytest.mark.parametrize("method", ["spawn", "forkserver", "fork"])
def test_the_pool_shares_its_limit(method: str, tmp_path: Path) -> None:
    script = tmp_path / "pool.py"
    script.write_text((EXAMPLES / "pool.py").read_text().replace('"spawn"', repr(method)))
    done = subprocess.run(
        [sys.executable, script],
        cwd=tmp_path,
        env=fresh_environment(),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.stdout, done.stderr) == ("20\n", "")
