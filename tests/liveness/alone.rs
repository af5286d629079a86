//! A process for each test: forking is safe only where no other test's threads hold a lock.

use crate::system;
use std::io::Write;
use std::process::Command;

const INSIDE: &str = "FAST_LITELLM_LIVENESS_INSIDE";
/// A test that takes longer hangs, and is killed by the kernel.
const DEADLINE_S: u32 = 60;

/// Runs `body` in a process of its own: this executable again, with only the test that calls.
pub(crate) fn alone<F: FnOnce()>(body: F) {
    if std::env::var_os(INSIDE).is_some() {
        system::alarm(DEADLINE_S);
        return body();
    }
    let name = std::any::type_name::<F>();
    let name = name.split_once("::").expect("a crate").1.trim_end_matches("::{{closure}}");
    let done = Command::new(std::env::current_exe().expect("a path"))
        .args([name, "--exact", "--nocapture", "--test-threads=1"])
        .env(INSIDE, name)
        .output()
        .expect("starts");
    let (out, err) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    loudly(&err.lines().filter(|line| line.starts_with("SKIPPED")).collect::<Vec<_>>().join("\n"));
    assert!(done.status.success(), "{name}: {}\n{out}\n{err}", done.status);
    assert!(out.contains("1 passed"), "{name} did not run:\n{out}");
}

/// As [`alone`], for tests that need privileges: `allowed` tries, in a process of its own, what they need.
pub(crate) fn alone_if<F: FnOnce()>(allowed: fn() -> std::io::Result<()>, body: F) {
    let refused = std::env::var_os(INSIDE).and_then(|_| system::in_child(allowed).err());
    let Some(error) = refused else {
        return alone(body);
    };
    let root = nix::unistd::geteuid().is_root();
    assert!(!(root && std::env::var_os("CI").is_some()), "not possible here: {error}");
    let name = std::env::var(INSIDE).unwrap_or_default();
    loudly(&format!("SKIPPED {name}: the kernel refuses what it needs: {error}"));
}

/// Past the test harness, which shows what passing tests print to nobody.
fn loudly(text: &str) {
    if !text.is_empty() {
        let _ = writeln!(std::io::stderr().lock(), "{text}");
    }
}
