//! A process may be killed, or stopped and resumed, at any instruction of any operation.
//!
//! What the tests prove, for one process (the victim) in each of the operations in
//! `common/crash/operations/`:
//!
//! * **Killed.** The victim is single-stepped through the operation. A process that is killed leaves two
//!   things behind: the bytes of the region, and that it is dead. So all instruction boundaries between two
//!   changes of the region are one case, and whoever has seen every state of the bytes has seen every
//!   boundary. The page tables stop the victim at each instruction that writes to the region, so none is
//!   missed, and the bytes are kept after each. The victim is then killed, and each state is put back and
//!   found by another process. That process reaps, finishes the same work, and checks (`checks.rs`): no slot
//!   is lost or given twice; no limit is exceeded; at most the killed request was charged without having been
//!   served, and nothing that was granted is forgotten; no key is twice in the table, and every key gets its
//!   name; every worker row is free again; statistics have not gone back; other keys are untouched, and
//!   unused ones in their default state; the report can be made; [`fast_litellm::verify`] finds no damage in
//!   any state, and in the end nothing at all.
//! * **Really killed.** For some operations victims are killed for good: one at each instruction if they are
//!   few, else at each of those around the writes and at some of the others. The bytes that each leaves must
//!   be the state that the first test has put in its place. There the victim is a zombie, here its pid is
//!   gone.
//! * **Stopped and resumed.** The victim is stopped before an access to shared memory, loads included;
//!   somebody else charges, acquires, releases, reaps, forgets, takes the place of an idle key, or lets time
//!   pass; the victim goes on. What both were told must add up to what is taken, and nobody may have touched
//!   what the other holds. Then the victim dies after all. Every order of the two is covered in which the
//!   other's step comes at once: stops that are left out differ only by loads of words that the other does
//!   not change.
//! * **Creating and attaching.** A creator of a named region is killed at each of its system calls and
//!   writes: under the final name there is a complete region or nothing. Attaching is one of the operations.
//!
//! Not covered: several stops of one victim in one operation, several victims at a time, weakly ordered
//! memory (the loom models are for that), and death inside a system call, none of which touches the region.
//! Of what a process has in its own memory only its answers count: keys without room that it decides itself
//! are gone with it.
//! A stretch of many instructions without a write is run and not stepped (`+` behind the number); the page
//! tables still stop the victim at the next write.
//!
//! A line for each operation is printed with `cargo test --test crash_points -- --nocapture`.
//! `CRASH_POINTS_ONLY=admit` leaves out those without that in their name, in the first test and the third. With
//! `CRASH_POINTS=full` and `--release` every instruction is stepped, and in the second test every one is
//! somebody's last.

#![allow(unsafe_code, reason = "fork, and memory shared between the forked processes")]
#![allow(clippy::print_stdout, reason = "the figures are part of the result")]

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
#[path = "common/crash/mod.rs"]
mod crash;

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod tests {
    use super::crash::{created, harness::ready, killed, kills, resumed};

    #[test]
    fn every_instruction_may_be_the_last() {
        if ready() {
            killed::test();
        }
    }

    #[test]
    fn a_real_kill_leaves_what_was_put_in_its_place() {
        if ready() {
            kills::test();
        }
    }

    #[test]
    fn whoever_was_stopped_may_go_on() {
        if ready() {
            resumed::test();
        }
    }

    #[test]
    fn a_killed_creator_leaves_a_complete_region_or_none() {
        if ready() {
            created::test();
        }
    }
}

/// Tracing needs the registers of a processor that it knows.
#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
#[test]
fn skipped_here() {
    use std::io::Write;
    let text = "SKIPPED: crash_points: processes are traced on x86-64 Linux only\n";
    // Not through the harness, which shows nothing of a test that passes.
    let _ = std::io::stderr().write_all(text.as_bytes());
}
