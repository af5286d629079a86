//! Instructions per operation under callgrind: unlike time, the same in every run, so a change shows.

use crate::Failure;
use crate::measure::{Case, counted_operations};
use crate::report::Table;
use crate::sections::{admission, hot};
use serde_json::{Value, json};
use std::io::ErrorKind;
use std::process::Command;

const OPERATIONS: u64 = 4_000;

/// Where the child begins to count.
const TOGGLE: &str = "*counted_operations*";

pub(crate) fn run() -> Result<Vec<Table>, Failure> {
    match Command::new("valgrind").arg("--version").output() {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            eprintln!("valgrind is not on the path: instructions are left out");
            return Ok(Vec::new());
        }
        found => found?,
    };
    let names = names()?;
    let mut tables: Vec<(String, Vec<(String, f64)>)> = Vec::new();
    for (number, (title, name)) in names.iter().enumerate() {
        eprintln!("counting {} of {}: {title}: {name}", number + 1, names.len());
        let once = count(number, OPERATIONS)?;
        let twice = count(number, 2 * OPERATIONS)?;
        #[allow(clippy::cast_precision_loss, reason = "instructions of a second")]
        let each = (twice.saturating_sub(once)) as f64 / OPERATIONS as f64;
        match tables.last_mut() {
            Some((last, rows)) if last == title => rows.push((name.clone(), each)),
            _ => tables.push((title.clone(), vec![(name.clone(), each)])),
        }
    }
    let mut done: Vec<Table> =
        tables.into_iter().map(|(title, rows)| table(&title, &rows)).collect();
    if let Some(last) = done.last_mut() {
        last.notes = vec![
            format!(
                "the difference between {} and {OPERATIONS} operations, divided by the latter; with \
                 the loop around them",
                2 * OPERATIONS
            ),
            "valgrind has no vDSO, so that reading a kernel clock is a system call, which counts as one \
             instruction plus the C library's"
                .to_string(),
        ];
    }
    Ok(done)
}

fn table(title: &str, rows: &[(String, f64)]) -> Table {
    let figures = rows.iter().map(|(name, each)| json!({ "name": name, "instructions": each }));
    Table {
        title: format!("instructions: {title}"),
        notes: Vec::new(),
        columns: vec!["", "per operation"],
        figures: Value::Array(figures.collect()),
        rows: rows.iter().map(|(name, each)| vec![name.clone(), format!("{each:.1}")]).collect(),
    }
}

/// Titles and names of everything that is counted.
fn names() -> Result<Vec<(String, String)>, Failure> {
    let mut names = Vec::new();
    each(|title, case| {
        names.push((title.to_string(), case.name.clone()));
        Ok(())
    })?;
    Ok(names)
}

fn each(mut visit: impl FnMut(&str, &mut Case<'_>) -> Result<(), Failure>) -> Result<(), Failure> {
    hot::each(&mut visit)?;
    admission::each(&mut visit)
}

/// Instructions of `operations` operations of the case of that number, in a child under callgrind.
fn count(number: usize, operations: u64) -> Result<u64, Failure> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(format!("--toggle-collect={TOGGLE}"))
        .arg(std::env::current_exe()?)
        .args(["--count", &number.to_string(), "--operations", &operations.to_string()])
        .output()?;
    let text = String::from_utf8_lossy(&output.stderr);
    let collected = text.lines().find_map(|line| line.split_once("Collected :")).map(|(_, n)| n);
    let counted =
        collected.and_then(|text| text.trim().parse().ok()).filter(|&count: &u64| count > 0);
    match counted {
        Some(count) if output.status.success() => Ok(count),
        _ => Err(format!("counting under valgrind failed: {text}").into()),
    }
}

/// The child: runs the operations once, to get everything into its place, then where they are counted.
pub(crate) fn child(number: usize, operations: u64) -> Result<(), Failure> {
    let mut position = 0;
    each(|_, case| {
        if position == number {
            counted_operations(case, operations);
        }
        position += 1;
        Ok(())
    })
}
