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
    Mutation(
        "register-blind-store",
        "src/tables/workers.rs",
        "        if swap(row, seen, claim) {",
        "        row.claim.store(claim, Ordering::Release);\n        if true {",
        "loom_workers_no_tag_is_given_twice",
    ),
    Mutation(
        "reap-blind-mark",
        "src/tables/workers.rs",
        "                swap(row, claim, dead)\n",
        "                row.claim.store(dead, Ordering::Release);\n                true\n",
        "loom_workers_two_reapers_and_a_newcomer",
    ),
    Mutation(
        "reap-blind-free",
        "src/tables/workers.rs",
        "            reaped += u64::from(swap(row, dead, with_state(dead, WorkerState::Free)));",
        "            row.claim.store(with_state(dead, WorkerState::Free), Ordering::Release);\n"
        "            reaped += 1;",
        "loom_workers_a_stopped_reaper_frees_only_the_dead",
    ),
    Mutation(
        "reap-frees-late",
        "src/tables/workers.rs",
        "            free(owner);\n"
        "            forget_start(row, dead);\n"
        "            reaped += u64::from(swap(row, dead, with_state(dead, WorkerState::Free)));",
        "            forget_start(row, dead);\n"
        "            reaped += u64::from(swap(row, dead, with_state(dead, WorkerState::Free)));\n"
        "            free(owner);",
        "loom_workers_a_stopped_reaper_frees_only_the_dead",
    ),
    Mutation(
        "forget-blind-store",
        "src/tables/workers.rs",
        "    if start != 0 && row.claim.load(Ordering::Acquire) == claim {\n"
        "        let _ = row.start_ticks.compare_exchange(start, 0, Ordering::AcqRel, Ordering::Relaxed);",
        "    if start != 0 && row.claim.load(Ordering::Acquire) == claim {\n"
        "        row.start_ticks.store(0, Ordering::Release);",
        "loom_workers_a_stopped_reaper_frees_only_the_dead",
    ),
    Mutation(
        "forget-never",
        "src/tables/workers.rs",
        "    if start != 0 && row.claim.load(Ordering::Acquire) == claim {",
        "    if false {",
        "loom_workers_a_newcomer_is_never_taken_for_its_predecessor",
    ),
    Mutation(
        "claim-relaxed",
        "src/tables/workers.rs",
        "    row.claim.compare_exchange(from, to, Ordering::AcqRel, Ordering::Relaxed).is_ok()",
        "    row.claim.compare_exchange(from, to, Ordering::Relaxed, Ordering::Relaxed).is_ok()",
        "loom_workers_a_stopped_reaper_frees_only_the_dead",
    ),
    Mutation(
        "leave-blind-store",
        "src/tables/workers.rs",
        "        swap(row, claim, with_state(claim, WorkerState::Free));",
        "        row.claim.store(with_state(claim, WorkerState::Free), Ordering::Release);",
        "loom_workers_leaving_twice_harms_nobody",
    ),
    Mutation(
        "is-gone-any-generation",
        "src/tables/workers.rs",
        "    claim.generation() != owner.generation() || state_of(claim) != WorkerState::Live",
        "    state_of(claim) != WorkerState::Live",
        "loom_workers_leaving_and_reaping_agree",
    ),
    Mutation(
        "holder-relaxed",
        "src/tests/loom_workers.rs",
        "        OwnerTag::from_raw(self.slot.load(Ordering::Acquire).owner())",
        "        OwnerTag::from_raw(self.slot.load(Ordering::Relaxed).owner())",
        "loom_workers_the_holder_of_a_slot_is_seen_registered",
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
