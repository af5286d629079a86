"""Break the word protocols in named ways, one at a time, and see that a loom model notices each.

    python3 scripts/mutate.py            # all of them
    python3 scripts/mutate.py NAME...    # these

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
        "src/primitives/mod.rs",
        "Word::compare_exchange(self, current, new, success, failure)",
        "let _ = failure;\n        Word::store(self, new, success);\n        Ok(current)",
        "loom_gcra_never_above_burst",
    ),
    Mutation(
        "window-blind-store",
        "src/primitives/mod.rs",
        "Word::compare_exchange(self, current, new, success, failure)",
        "let _ = failure;\n        Word::store(self, new, success);\n        Ok(current)",
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
        "sliding-blind-store",
        "src/primitives/mod.rs",
        "Word::compare_exchange(self, current, new, success, failure)",
        "let _ = failure;\n        Word::store(self, new, success);\n        Ok(current)",
        "loom_sliding_never_above_limit",
    ),
    Mutation(
        "sliding-future-is-idle",
        "src/primitives/sliding.rs",
        "            2..FUTURE => at(0, 0),\n",
        "            2.. => at(0, 0),\n",
        "loom_sliding_late_charge_does_not_erase_the_new_window",
    ),
    Mutation(
        "sliding-refund-ignores-window",
        "src/primitives/sliding.rs",
        "match number.wrapping_sub(window) & NUMBER_MASK {",
        "match 0 {",
        "loom_sliding_refund_follows_its_window",
    ),
    Mutation(
        "cooldown-blind-store",
        "src/primitives/mod.rs",
        "Word::compare_exchange(self, current, new, success, failure)",
        "let _ = failure;\n        Word::store(self, new, success);\n        Ok(current)",
        "loom_cooldown_has_one_beginner",
    ),
    Mutation(
        "cooldown-clear-forgets",
        "src/primitives/cooldown.rs",
        "CooldownWord::new(0, FailureKind::None as u64, seen.trips())",
        "CooldownWord::default()",
        "loom_cooldown_counts_every_beginning",
    ),
    Mutation(
        "cause-without-check",
        "src/tables/causes.rs",
        "let whole = len > 0 && check(subject, cause, len, words.iter().copied()) == head.check();",
        "let whole = len > 0;",
        "loom_causes_no_mixture_is_read",
    ),
    Mutation(
        "cause-without-mark",
        "src/tables/causes.rs",
        "if cause.mark() != mark(subject) {",
        "if cause.mark() == 0 {",
        "loom_causes_no_mixture_is_read",
    ),
    Mutation(
        "lease-renew-blind",
        "src/tables/leases.rs",
        "if holder.compare_exchange(seen, word, Ordering::SeqCst, Ordering::Relaxed).is_ok() {\n"
        "                return Some(Claim { word, ..claim });\n"
        "            }",
        "holder.store(word, Ordering::SeqCst);\n            return Some(Claim { word, ..claim });",
        "loom_leader_a_lease_is_renewed_or_lost",
    ),
    Mutation(
        "term-blind-store",
        "src/primitives/term.rs",
        "if word.compare_exchange(seen, next, Ordering::SeqCst, Ordering::Relaxed).is_ok() {",
        "word.store(next, Ordering::SeqCst);\n        if true {",
        "loom_leader_the_later_term_has_the_larger_number",
    ),
    Mutation(
        "term-without-look",
        "src/primitives/term.rs",
        "        if !holds() {\n            return Ok(None);\n        }\n",
        "",
        "loom_leader_the_later_term_has_the_larger_number",
    ),
    Mutation(
        "notice-without-check",
        "src/tables/board.rs",
        "(mix(hash) == check).then_some(",
        "(check != 0).then_some(",
        "loom_board_no_mixture_is_read",
    ),
    Mutation(
        "notice-blind-store",
        "src/tables/board.rs",
        "if swap.is_ok() {",
        "self.current.store(next, Ordering::Release);\n            if swap.is_ok() || true {",
        "loom_board_of_two_that_publish_one_is_left",
    ),
    Mutation(
        "notice-over-the-current",
        "src/tables/board.rs",
        "if readable { seen.sheet() ^ 1 } else { seen.sheet() }",
        "if readable { seen.sheet() } else { seen.sheet() ^ 1 }",
        "loom_board_the_old_notice_can_be_read_until_the_new_one_can",
    ),
    Mutation(
        "ewma-blind-store",
        "src/primitives/mod.rs",
        "Word::compare_exchange(self, current, new, success, failure)",
        "let _ = failure;\n        Word::store(self, new, success);\n        Ok(current)",
        "loom_ewma_has_every_sample",
    ),
    Mutation(
        "breaker-blind-error",
        "src/primitives/breaker.rs",
        "match word.compare_exchange(seen, next, Ordering::Relaxed, Ordering::Relaxed) {",
        "word.store(next, Ordering::Relaxed);\n"
        "        match Ok::<BreakerWord, BreakerWord>(seen) {",
        "loom_breaker_has_one_opener",
    ),
    Mutation(
        "breaker-blind-probe",
        "src/primitives/breaker.rs",
        "match word.compare_exchange(seen, probe, Ordering::Relaxed, Ordering::Relaxed) {",
        "word.store(probe, Ordering::Relaxed);\n"
        "        match Ok::<BreakerWord, BreakerWord>(seen) {",
        "loom_breaker_has_one_probe",
    ),
    Mutation(
        "breaker-blind-success",
        "src/primitives/breaker.rs",
        "word.compare_exchange(taken, closed, Ordering::Relaxed, Ordering::Relaxed).is_ok()",
        "word.store(closed, Ordering::Relaxed);\n    true",
        "loom_breaker_success_forgets_no_later_error",
    ),
    Mutation(
        "event-unchecked",
        "src/tables/events.rs",
        "if event.check.load(Ordering::Relaxed) != check_of(sequence, values) {",
        "if false {",
        "loom_event_of_two_writers_is_whole_or_not_shown",
    ),
    Mutation(
        "event-unchecked-read",
        "src/tables/events.rs",
        "if event.check.load(Ordering::Relaxed) != check_of(sequence, values) {",
        "if false {",
        "loom_event_read_while_written_is_whole_or_not_shown",
    ),
    Mutation(
        "event-relaxed-number",
        "src/tables/events.rs",
        "event.sequence.store(sequence, Ordering::Release);",
        "event.sequence.store(sequence, Ordering::Relaxed);",
        "loom_event_is_complete_when_its_number_stands",
    ),
    Mutation(
        "index-no-second-look",
        "src/tables/index.rs",
        "if is_only_claim(table, probe, wanted, place, attempt >= PATIENCE) {",
        "if true {",
        "loom_index_a_key_never_stands_twice",
    ),
    Mutation(
        "index-unordered-claim",
        "src/tables/index.rs",
        "    in_total_order();\n    let mut behind = false;",
        "    let mut behind = false;",
        "loom_index_a_key_never_stands_twice",
    ),
    Mutation(
        "index-blind-insert",
        "src/tables/index.rs",
        "if word.compare_exchange(claimed, taken, Ordering::SeqCst, Ordering::Relaxed).is_ok() {",
        "word.store(taken, Ordering::SeqCst);\n            if true {",
        "loom_index_a_key_never_stands_twice",
    ),
    Mutation(
        "index-look-to-the-first-free",
        "src/tables/index.rs",
        "        if seen == IdentityWord::default() {\n            break;\n        }\n    }\n    room.map_or",
        "        if room.is_some() {\n            break;\n        }\n    }\n    room.map_or",
        "loom_index_free_slots_do_not_hide_a_key",
    ),
    Mutation(
        "index-ends-at-given-up",
        "src/tables/index.rs",
        "        if seen == IdentityWord::default() {\n            break;\n        }\n        if is(seen, wanted) {",
        "        if seen.state() == 0 {\n            break;\n        }\n        if is(seen, wanted) {",
        "loom_index_given_up_slots_end_no_search",
    ),
    Mutation(
        "index-waits-for-claims",
        "src/tables/index.rs",
        "is_only_claim(table, probe, wanted, place, attempt >= PATIENCE)",
        "is_only_claim(table, probe, wanted, place, attempt > ATTEMPTS)",
        "loom_index_a_stopped_claim_hinders_nobody",
    ),
    Mutation(
        "index-keeps-dead-claims",
        "src/tables/index.rs",
        "                if swap(seen, free(seen.version())) {\n                    return Ok(None);",
        "                if seen.state() == 0 {\n                    return Ok(None);",
        "loom_index_claims_of_the_dead_make_room",
    ),
    Mutation(
        "charge-without-second-look",
        "src/tables/index.rs",
        "        if holds(self.identity, self.key) {\n            return Ok(current);",
        "        if true {\n            return Ok(current);",
        "loom_charge_is_not_lost_to_a_reclaim",
    ),
    Mutation(
        "reclaim-blind-free",
        "src/tables/index.rs",
        "                    if swap(leaving, free(leaving.version())) {",
        "                    word.store(free(leaving.version()), Ordering::SeqCst);\n                    if true {",
        "loom_charge_is_not_lost_to_a_reclaim",
    ),
    Mutation(
        "reclaim-blind-clear",
        "src/tables/buckets.rs",
        "        && word.compare_exchange(seen, T::from_bits(0), Ordering::SeqCst, Ordering::Relaxed).is_ok()",
        "        && { let _ = seen; word.store(T::from_bits(0), Ordering::SeqCst); true }",
        "loom_charge_is_not_lost_to_a_reclaim",
    ),
    Mutation(
        "reclaim-marks-alike",
        "src/tables/index.rs",
        "let leaving = with(seen, SlotState::Leaving, seen.version().wrapping_add(1));\n                    if",
        "let leaving = with(seen, SlotState::Leaving, seen.version());\n                    if",
        "loom_charge_is_not_lost_to_a_late_reclaim",
    ),
    Mutation(
        "charge-without-first-look",
        "src/tables/index.rs",
        "        if !is(self.identity.load(Ordering::Acquire), self.key) {",
        "        if false {",
        "loom_charge_harms_no_other_key",
    ),
    Mutation(
        "charge-stays-with-another",
        "src/tables/index.rs",
        "        if self.undo {",
        "        if false {",
        "loom_charge_is_taken_back_from_another_key",
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
    Mutation(
        "lease-blind-claim",
        "src/tables/leases.rs",
        "if holder.compare_exchange(free, word, Ordering::SeqCst, Ordering::Relaxed).is_ok()\n                {",
        "holder.store(word, Ordering::SeqCst);\n                if free != word {",
        "loom_leases_never_above_the_limit",
    ),
    Mutation(
        "connection-blind-take",
        "src/tables/connections.rs",
        "holder.compare_exchange(from, to, Ordering::SeqCst, Ordering::Relaxed).is_ok()",
        "holder.store(to, Ordering::SeqCst);\n        from != to",
        "loom_connections_taken_over_or_used_again",
    ),
    Mutation(
        "connection-half-suffices",
        "src/tables/connections.rs",
        "if !is_idle_of(seen, owner) || !there.take(&self.pool, seen, word) {\n            return None;\n        }",
        "let _ = is_idle_of(seen, owner) && there.take(&self.pool, seen, word);",
        "loom_connections_evicted_or_used_again",
    ),
    Mutation(
        "connection-keeps-its-half",
        "src/tables/connections.rs",
        "            self.endpoint.release(here.claim(mine));\n            return Reuse::Gone;",
        "            return Reuse::Gone;",
        "loom_connections_evicted_or_used_again",
    ),
    Mutation(
        "connection-takes-what-is-used",
        "src/tables/connections.rs",
        "if word.idle() == 1\n                && let",
        "if word != LeaseWord::default()\n                && let",
        "loom_connections_given_back_or_taken_over",
    ),
    Mutation(
        "connection-use-stands-still",
        "src/tables/connections.rs",
        "let next = TagWord::new(seen.writes().wrapping_add(1), seen.hash());",
        "let next = seen;",
        "loom_connections_a_use_ends_once",
    ),
    Mutation(
        "lease-blind-release",
        "src/tables/leases.rs",
        "    let swap =\n        holder.compare_exchange(word, LeaseWord::default(), Ordering::SeqCst, Ordering::Relaxed);\n    if swap.is_ok() {\n        forget_hint(chunk, slot);\n    }\n    swap.is_ok()",
        "    holder.store(LeaseWord::default(), Ordering::SeqCst);\n    true",
        "loom_leases_a_late_release_frees_nobody_else",
    ),
    Mutation(
        "lease-blind-tag",
        "src/tables/leases.rs",
        "            && word.compare_exchange(tag, next, Ordering::AcqRel, Ordering::Relaxed).is_ok()\n",
        "            && word.load(Ordering::Acquire) == tag\n            && next != tag\n",
        "loom_leases_a_second_release_frees_nobody_else",
    ),
    Mutation(
        "lease-tag-stands-still",
        "src/tables/leases.rs",
        "        let next = freed(tag);\n        // Whoever",
        "        let next = tag;\n        // Whoever",
        "loom_leases_a_second_release_frees_nobody_else",
    ),
    Mutation(
        "lease-claim-without-tag",
        "src/tables/leases.rs",
        "            write_tag(part.chunk, slot, word, tag.map_or(0, hash_in));\n",
        "            tag.map(|tag| write_tag(part.chunk, slot, word, hash_in(tag)));\n",
        "loom_leases_who_is_late_with_a_free_slot_takes_nobodys_tag",
    ),
    Mutation(
        "lease-ignore-overhang",
        "src/tables/leases.rs",
        "if self.high_water() > limit && self.count() > limit {",
        "if self.high_water() > limit && false {",
        "loom_leases_a_lowered_limit_is_not_passed",
    ),
    Mutation(
        "lease-unordered",
        "src/tables/index.rs",
        "    in_total_order();\n    // SYNC key-leave: SeqCst, after",
        "    // SYNC key-leave: SeqCst, after",
        "loom_leases_a_lowered_limit_is_not_passed",
    ),
    Mutation(
        "charge-unordered",
        "src/tables/index.rs",
        "    in_total_order();\n    // SYNC key-leave: SeqCst, after",
        "    // SYNC key-leave: SeqCst, after",
        "loom_leases_a_chunk_in_use_is_not_given_up",
    ),
    Mutation(
        "reclaim-without-second-look",
        "src/tables/index.rs",
        "if is_idle(key, record) && clear(place, key, record) {",
        "if clear(place, key, record) {",
        "loom_leases_a_chunk_in_use_is_not_given_up",
    ),
    Mutation(
        "reclaim-unordered",
        "src/tables/index.rs",
        "                in_total_order();\n                // SYNC key-leave: what",
        "                // SYNC key-leave: what",
        "loom_leases_a_chunk_in_use_is_not_given_up",
    ),
    Mutation(
        "chunk-without-look",
        "src/tables/leases.rs",
        "            if part.holds() && self.raise",
        "            if self.raise",
        "loom_leases_a_chunk_in_use_is_not_given_up",
    ),
    Mutation(
        "lease-without-second-look",
        "src/tables/leases.rs",
        "            if part.holds() && self.raise_high_water(ordinal * SLOTS + slot as u64 + 1) {",
        "            if part.holds() {",
        "loom_leases_high_water_covers_what_is_held",
    ),
    Mutation(
        "lease-lower-without-count",
        "src/tables/leases.rs",
        "        if self.count() == 0 {\n            return swap",
        "        if true {\n            return swap",
        "loom_leases_high_water_covers_what_is_held",
    ),
    Mutation(
        "lease-lower-unordered",
        "src/tables/leases.rs",
        "        in_total_order();\n        if self.count() == 0 {",
        "        if self.count() == 0 {",
        "loom_leases_high_water_covers_what_is_held",
    ),
    Mutation(
        "lease-marks-alike",
        "src/tables/leases.rs",
        "let attempts = seen.attempts().wrapping_add(1);",
        "let attempts = seen.attempts();",
        "loom_leases_a_late_lowering_does_nothing",
    ),
    Mutation(
        "charge-without-take-back",
        "src/tables/index.rs",
        "(seen.state() == SlotState::Taken as u64 || take_back(word, seen, wanted))",
        "(seen.state() == SlotState::Taken as u64 || seen.state() & 2 != 0)",
        "loom_leases_a_record_in_use_is_not_given_up",
    ),
    Mutation(
        "tally-one-try",
        "src/tables/buckets.rs",
        "            return Some(seen);\n        }\n",
        "            return Some(seen);\n        }\n        return Some(0);\n",
        "loom_tally_is_handed_over_once",
    ),
    Mutation(
        "tally-lost-count",
        "src/sync.rs",
        "        stand_back();\n        word.fetch_add(1, Ordering::Relaxed);\n",
        "        stand_back();\n",
        "loom_tally_is_handed_over_once",
    ),
    Mutation(
        "tally-blind-take",
        "src/tables/buckets.rs",
        "        let seen = counter.load(Ordering::Acquire);\n",
        "        let seen = counter.load(Ordering::Acquire);\n"
        "        counter.store(0, Ordering::SeqCst);\n",
        "loom_tally_is_handed_over_once",
    ),
    Mutation(
        "tally-found-late",
        "src/tables/buckets.rs",
        "        let tally = tally();\n",
        "        let none = counter(bucket).load(Ordering::Relaxed) == 0;\n"
        "        let tally = tally().filter(|_| !none);\n",
        "loom_tally_is_handed_over_once",
    ),
    Mutation(
        "name-without-check",
        "src/tables/names.rs",
        "    if check(words.iter().copied(), len) != head.check() {",
        "    if false {",
        "loom_names_no_mixture_is_read",
    ),
    Mutation(
        "name-blind-complete",
        "src/tables/names.rs",
        "    swap(claim, complete, Ordering::Release);",
        "    record.head.store(complete, Ordering::Release);",
        "loom_names_a_claim_that_was_taken_away_is_not_completed",
    ),
    Mutation(
        "name-without-second-look",
        "src/tables/names.rs",
        "    if !stands() {",
        "    if false {",
        "loom_names_a_key_that_is_gone_has_none",
    ),
)


def run_models(tree: Path, name: str = "loom_") -> subprocess.CompletedProcess[str]:
    """Run the models in a tree whose names contain `name`; all of them if none is given."""
    env = {
        **os.environ,
        "RUSTFLAGS": "--cfg loom",
        "CARGO_TARGET_DIR": str(ROOT / "target" / "loom"),
        # The shipped profile takes longer to link than all models to run.
        "CARGO_PROFILE_RELEASE_LTO": "off",
        "CARGO_PROFILE_RELEASE_CODEGEN_UNITS": "16",
    }
    command = ["cargo", "test", "--release", "--lib", "--no-default-features", name]
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
        done = run_models(tree, mutation.model)
    finally:
        path.write_text(original)
    # A panic in a thread of a model may end the process before the result is printed.
    died = done.returncode < 0 or "signal:" in done.stderr
    if f"{mutation.model} ... FAILED" in done.stdout or (
        died and f"{mutation.model}' " in done.stderr and "panicked" in done.stderr
    ):
        return ""
    return (
        "the model passed" if "test result" in done.stdout else f"no result: {done.stderr[-800:]}"
    )


def main(names: list[str]) -> int:
    chosen = [mutation for mutation in MUTATIONS if not names or mutation.name in names]
    unknown = set(names) - {mutation.name for mutation in chosen}
    if unknown:
        print(f"no mutation is called {', '.join(sorted(unknown))}; see MUTATIONS in this file")
        return 2
    failures = 0
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder)
        copy_tree(tree)
        sound = run_models(tree)
        if sound.returncode != 0:
            print(sound.stdout[-2000:], sound.stderr[-2000:])
            print("the models fail on the code as it is")
            return 1
        for mutation in chosen:
            reason = survived(mutation, tree)
            print(
                f"{mutation.name:30} {'NOT NOTICED: ' + reason if reason else 'noticed'}",
                flush=True,
            )
            failures += bool(reason)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
