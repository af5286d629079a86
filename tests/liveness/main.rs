//! Who is dead, proven with real processes against live regions, and nobody else is reaped.
//!
//! Each test runs in a process of its own, which forks the workers that it is about, as gunicorn's master
//! does. Those that need namespaces of their own need root; without, they say on standard error that they
//! were left out, and with `CI` set and the user root that is a failure.

#![cfg(all(target_os = "linux", feature = "cli"))]
#![allow(unsafe_code, reason = "fork, clone3, unshare, mount and ptrace have no safe form")]

mod alone;
mod command;
mod generations;
mod namespaces;
mod proof;
mod reaping;
mod system;
mod worker;
