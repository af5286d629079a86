//! Figures of the core beside what one would use otherwise: `governor`, and a robust mutex in shared
//! memory. Nothing is asserted; where a peer is faster, the table says `we lose`.

mod governed;
mod machine;
mod measure;
mod options;
mod ours;
mod report;
mod robust;
mod sections;
mod shared;
mod ticks;

use machine::Machine;
use options::{Options, Task};
use report::Table;
use sections::{admission, hot, instructions, keys, memory, processes};
use std::process::ExitCode;

/// Why a measurement could not be made.
pub(crate) type Failure = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    let done = options::parse(std::env::args().skip(1)).and_then(|task| match task {
        Task::Report(options) => report(&options),
        Task::Memory(what) => memory::child(&what),
        Task::Count(number, operations) => instructions::child(number, operations),
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn report(options: &Options) -> Result<(), Failure> {
    let machine = Machine::look();
    let tables = tables(options)?;
    let after = machine::load_average();
    println!("{}, after: {after}; {} rounds", machine.text(), options.rounds);
    if machine.was_busy() {
        println!("the machine was busy with something else: throughput of processes says little");
    }
    tables.iter().for_each(Table::print);
    if let Some(path) = &options.json {
        let report = serde_json::json!({
            "machine": machine,
            "load_average_after": after,
            "rounds": options.rounds,
            "tables": tables.iter().map(Table::json).collect::<Vec<_>>(),
        });
        std::fs::write(path, serde_json::to_string_pretty(&report)? + "\n")
            .map_err(|error| format!("{}: {error}", path.display()))?;
    }
    Ok(())
}

fn tables(options: &Options) -> Result<Vec<Table>, Failure> {
    let rounds = options.rounds;
    let mut tables = Vec::new();
    for section in options::SECTIONS.into_iter().filter(|name| options.wants(name)) {
        tables.extend(match section {
            "hot" => hot::run(rounds)?,
            "admission" => admission::run(rounds)?,
            "keys" => keys::run(rounds)?,
            "memory" => memory::run()?,
            // A round of these takes seconds.
            _ => processes::run(rounds.div_ceil(4) | 1)?,
        });
    }
    if options.instructions {
        tables.extend(instructions::run()?);
    }
    Ok(tables)
}
