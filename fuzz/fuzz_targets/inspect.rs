//! Bytes in any section: the report is a report, and the verdict a verdict.
#![no_main]

#[path = "../../tests/hostile/mod.rs"]
mod hostile;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| hostile::targets::inspect(bytes));
