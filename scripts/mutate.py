"""Break the word protocols in named ways, one at a time, and see that a loom model notices each.

    python3 scripts/mutate.py

A model that passes on broken code proves nothing. Works on a copy; the checkout is not touched.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Mutation:
    """One way to break one file, and the model that must fail.

    Attributes:
        name: as the model's comment calls it.
        file: below the root of the checkout.
        old: text that occurs in the file; its first occurrence is replaced.
        new: what replaces it.
        model: test that must fail.
    """

    name: str
    file: str
    old: str
    new: str
    model: str


MUTATIONS = (
    Mutation(
        "gcra-blind-store",
        "src/primitives/gcra.rs",
        "match word.compare_exchange(current, next, Ordering::Relaxed, Ordering::Relaxed) {",
        "word.store(next, Ordering::Relaxed);\n        match Ok::<GcraWord, GcraWord>(current) {",
        "loom_gcra_never_above_burst",
    ),
    Mutation(
        "window-blind-store",
        "src/primitives/window.rs",
        "if pair.counter.compare_exchange(seen, next, Ordering::AcqRel, Ordering::Relaxed).is_ok() {",
        "pair.counter.store(next, Ordering::Release);\n        if true {",
        "loom_window_never_above_limit",
    ),
    Mutation(
        "window-before-counter",
        "src/primitives/window.rs",
        "        let seen = pair.counter.load(Ordering::Acquire);\n"
        "        let window = load_window(pair);\n"
        "        let open_now",
        "        let window = load_window(pair);\n"
        "        let seen = pair.counter.load(Ordering::Acquire);\n"
        "        let open_now",
        "loom_window_late_charge_does_not_erase_the_new_window",
    ),
    Mutation(
        "window-relaxed-counter",
        "src/primitives/window.rs",
        "        let seen = pair.counter.load(Ordering::Acquire);\n"
        "        let window = load_window(pair);\n"
        "        let open_now",
        "        let seen = pair.counter.load(Ordering::Relaxed);\n"
        "        let window = load_window(pair);\n"
        "        let open_now",
        "loom_window_late_charge_does_not_erase_the_new_window",
    ),
)


def run_models(tree: Path) -> subprocess.CompletedProcess[str]:
    """Run all models in a tree."""
    env = {
        **os.environ,
        "RUSTFLAGS": "--cfg loom",
        "CARGO_TARGET_DIR": str(ROOT / "target" / "loom"),
    }
    command = ["cargo", "test", "--release", "--lib", "--no-default-features", "loom_"]
    return subprocess.run(command, cwd=tree, env=env, capture_output=True, text=True, check=False)


def copy_tree(target: Path) -> None:
    for name in ("Cargo.toml", "Cargo.lock", "README.md"):
        shutil.copy(ROOT / name, target / name)
    shutil.copytree(ROOT / "src", target / "src")


def survived(mutation: Mutation, tree: Path) -> str:
    """Why the mutation went unnoticed; empty = its model failed, as it must."""
    path = tree / mutation.file
    original = path.read_text()
    if mutation.old not in original:
        return "the text to replace is not there any more"
    path.write_text(original.replace(mutation.old, mutation.new, 1))
    try:
        done = run_models(tree)
    finally:
        path.write_text(original)
    if f"{mutation.model} ... FAILED" in done.stdout:
        return ""
    return (
        "the model passed" if "test result" in done.stdout else f"no result: {done.stderr[-800:]}"
    )


def main() -> int:
    failures = 0
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder)
        copy_tree(tree)
        sound = run_models(tree)
        if sound.returncode != 0:
            print(sound.stdout[-2000:], sound.stderr[-2000:])
            print("the models fail on the code as it is")
            return 1
        for mutation in MUTATIONS:
            reason = survived(mutation, tree)
            print(
                f"{mutation.name:28} {'NOT NOTICED: ' + reason if reason else 'noticed'}",
                flush=True,
            )
            failures += bool(reason)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
