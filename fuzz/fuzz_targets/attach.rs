//! Headers and section tables that nobody wrote: a refusal, or a region that is used without harm.
#![no_main]

#[path = "../../tests/hostile/mod.rs"]
mod hostile;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| hostile::targets::attach(bytes));
