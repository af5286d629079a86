"""Proves that shells complete `fl-shm`, and that its manual pages can be read."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from fl_shm import command
from support import fresh_environment


def printed(*arguments: str) -> str:
    done = subprocess.run(
        [*command(), *arguments],
        cwd="/",
        env=fresh_environment(),
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    )
    assert done.stderr == ""
    return done.stdout


def commands() -> list[str]:
    """All commands, by the help."""
    text = printed("--help").partition("Commands:\n")[2].partition("\n\n")[0]
    return [line.split()[0] for line in text.splitlines() if re.match(r"  \w", line)]


def completed(script: Path, *words: str) -> set[str]:
    """What bash offers in place of the last word."""
    quoted = " ".join(f"'{word}'" for word in words)
    program = f"""
        source {script}
        complete -p fl-shm
        COMP_WORDS=(fl-shm {quoted}) COMP_CWORD={len(words)} COMPREPLY=()
        function=$(complete -p fl-shm | sed -n 's/.* -F \\([^ ]*\\) .*/\\1/p')
        before={len(words) - 1}
        "$function" fl-shm '{words[-1]}' "${{COMP_WORDS[before]}}"
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    done = subprocess.run(
        ["bash", "--norc", "-c", program], capture_output=True, text=True, timeout=20, check=True
    )
    assert done.stderr == ""
    first, *offered = done.stdout.splitlines()
    assert first.endswith(" fl-shm")
    return set(offered)


def test_bash_completes(tmp_path: Path) -> None:
    script = tmp_path / "fl-shm.bash"
    script.write_text(printed("completions", "bash"))
    assert completed(script, "ins") == {"inspect"}
    assert set(commands()) - {"help"} <= completed(script, "")
    assert completed(script, "top", "--inter") == {"--interval"}
    assert completed(script, "completions", "z") == {"zsh"}


@pytest.mark.parametrize("shell", ["zsh", "fish", "elvish", "powershell"])
def test_other_shells_have_a_script(shell: str, tmp_path: Path) -> None:
    text = printed("completions", shell)
    for name in commands():
        assert re.search(rf"\b{name}\b", text)
    script = tmp_path / "script"
    script.write_text(text)
    if shell in ("zsh", "fish") and shutil.which(shell):
        subprocess.run([shell, "-n", str(script)], check=True, timeout=20)


def test_a_shell_that_is_not_known_is_refused() -> None:
    done = subprocess.run(
        [*command(), "completions", "tcsh"], capture_output=True, text=True, timeout=20
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "bash, elvish, fish, powershell, zsh" in done.stderr


def rendered(page: Path) -> str:
    """As a reader sees it; skips the test where nothing can render it."""
    if shutil.which("groff"):
        command = ["groff", "-man", "-Tascii", "-ww", "-P-cbou", str(page)]
    elif shutil.which("mandoc"):
        command = ["mandoc", "-Tascii", "-Wwarning,stop", str(page)]
    else:
        pytest.skip("neither groff nor mandoc is installed")
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    assert done.stderr == ""
    return re.sub(r".\x08", "", done.stdout)


def test_there_is_a_page_for_every_command(tmp_path: Path) -> None:
    directory = tmp_path / "new" / "man1"
    written = printed("man", "--dir", str(directory)).split()
    assert [Path(path) for path in written] == [directory / Path(path).name for path in written]
    pages = {path.name: path.read_text() for path in directory.iterdir()}
    assert set(pages) == {Path(path).name for path in written}
    expected = {f"fl-shm-{command}.1" for command in commands() if command != "help"}
    assert expected | {"fl-shm.1"} <= set(pages)
    for name, text in pages.items():
        title = name.removesuffix(".1").upper()
        assert text.startswith(f'.TH "{title}" "1" ""')
        heads = re.findall(r'^\.SH "?([A-Z ]+)"?$', text, re.MULTILINE)
        assert heads[:4] == ["NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS"]
        assert heads[-2:] == ["EXIT STATUS", "SEE ALSO"]
        # What a page refers to is there.
        for other in re.findall(r"^\.BR (\S+) \(1\)", text, re.MULTILINE):
            assert other.replace("\\-", "-") + ".1" in pages
    assert printed("man") == pages["fl-shm.1"]
    assert "SUBCOMMANDS" in pages["fl-shm.1"]


def test_pages_can_be_read(tmp_path: Path) -> None:
    printed("man", "--dir", str(tmp_path))
    text = rendered(tmp_path / "fl-shm.1")
    assert "fl-shm-top(1)" in text
    assert "FL-SHM(1)" in text
    assert "--interval" in rendered(tmp_path / "fl-shm-top.1")


def test_a_directory_that_cannot_be_made_is_told() -> None:
    done = subprocess.run(
        [*command(), "man", "--dir", "/dev/null/x"], capture_output=True, text=True, timeout=20
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("fl-shm: cannot write /dev/null/x")


def test_a_reader_that_leaves_early_is_no_error() -> None:
    for arguments in (["completions", "bash"], ["man"]):
        process = subprocess.Popen(
            [*command(), *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        with process.stderr as errors:
            assert errors.read() == ""
        assert process.wait(timeout=20) == 0
