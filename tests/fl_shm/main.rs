//! `fl-shm` itself: what each command prints about a region that is the same every time, what the documentation
//! shows, and what happens when something is wrong.
//!
//! `UPDATE_DOCS=1 cargo test --test fl_shm` writes the documentation's examples anew, `INSTA_UPDATE=always` the
//! snapshots.

#![allow(unreachable_pub, reason = "the modules are this test's own")]

mod command;
mod document;
mod scene;
mod snapshots;
mod trouble;
