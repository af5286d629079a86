//! The specification is the code's: its tables are generated, and its history knows every layout.
//!
//! `UPDATE_SPEC=1 cargo test --test layout_spec` rewrites the tables.

use fast_litellm::layout::render::{BEGIN, END, tables, version_line};

fn path() -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("shm_layout.md")
}

#[test]
fn tables_are_generated_from_the_declarations() {
    let text = std::fs::read_to_string(path()).expect("shm_layout.md exists");
    let (before, rest) = text.split_once(BEGIN).expect("the begin mark");
    let (present, after) = rest.split_once(END).expect("the end mark");
    let wanted = format!("\n\n{}", tables());
    if std::env::var_os("UPDATE_SPEC").is_some() {
        std::fs::write(path(), format!("{before}{BEGIN}{wanted}{END}{after}")).expect("writable");
    } else {
        assert!(present == wanted, "stale tables: run UPDATE_SPEC=1 cargo test --test layout_spec");
    }
}

/// A changed layout has another fingerprint; the history must then have gained a version for it.
#[test]
fn the_history_ends_with_this_layout() {
    let text = std::fs::read_to_string(path()).expect("shm_layout.md exists");
    let (_, history) = text.split_once("## 11. Version history").expect("the history");
    let is_version = |line: &&str| {
        line.strip_prefix("| ").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    };
    let rows: Vec<&str> = history.lines().filter(is_version).collect();
    let last = rows.last().copied().unwrap_or_default();
    let wanted = version_line();
    assert!(
        last.starts_with(&wanted),
        "the layout changed: raise VERSION_MAJOR or VERSION_MINOR and append {wanted} with what changed"
    );
    let versions: Vec<&str> = rows.iter().filter_map(|row| row.split('|').nth(1)).collect();
    let mut unique = versions.clone();
    unique.dedup();
    assert_eq!(versions, unique, "one row for each version");
}
