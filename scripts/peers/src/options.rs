//! What was asked for on the command line. `scripts/engine_bench --help` describes it.

use crate::Failure;
use std::path::PathBuf;

/// Sections that can be asked for one by one.
pub(crate) const SECTIONS: [&str; 5] = ["hot", "admission", "keys", "memory", "processes"];

/// What to do.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Task {
    /// Measure and report.
    Report(Options),
    /// As a child: measure one contender's memory.
    Memory(String),
    /// As a child: run so many operations of one case.
    Count(usize, u64),
}

/// How to report.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Options {
    pub(crate) rounds: usize,
    pub(crate) only: Vec<String>,
    pub(crate) instructions: bool,
    pub(crate) json: Option<PathBuf>,
}

impl Options {
    pub(crate) fn wants(&self, section: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|name| name == section)
    }
}

/// Reads the arguments that follow the program's name.
pub(crate) fn parse(arguments: impl Iterator<Item = String>) -> Result<Task, Failure> {
    let mut options = Options { rounds: 21, only: Vec::new(), instructions: false, json: None };
    let (mut memory, mut count, mut operations) = (None, None, 1);
    let mut arguments = arguments;
    while let Some(option) = arguments.next() {
        let mut value = || arguments.next().ok_or(format!("{option} needs a value"));
        match option.as_str() {
            "--rounds" => options.rounds = rounds(&value()?)?,
            "--only" => options.only = sections(&value()?)?,
            "--json" => options.json = Some(value()?.into()),
            "--instructions" => options.instructions = true,
            "--memory" => memory = Some(value()?),
            "--count" => count = Some(value()?.parse()?),
            "--operations" => operations = value()?.parse()?,
            _ => return Err(format!("unknown option '{option}'; see --help").into()),
        }
    }
    Ok(match (memory, count) {
        (Some(what), _) => Task::Memory(what),
        (None, Some(number)) => Task::Count(number, operations),
        (None, None) => Task::Report(options),
    })
}

fn rounds(value: &str) -> Result<usize, Failure> {
    let valid = value.parse().ok().filter(|number| (1..=999).contains(number) && number % 2 == 1);
    valid.ok_or(format!("--rounds needs an odd number from 1 to 999, not '{value}'").into())
}

fn sections(value: &str) -> Result<Vec<String>, Failure> {
    let names: Vec<String> = value.split(',').map(str::to_string).collect();
    match names.iter().find(|name| !SECTIONS.contains(&name.as_str())) {
        Some(name) => {
            let known = SECTIONS.join(", ");
            Err(format!("--only knows {known}, not '{name}'").into())
        }
        None => Ok(names),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Task, String> {
        parse(line.split_whitespace().map(str::to_string)).map_err(|error| error.to_string())
    }

    #[test]
    fn options_are_read_and_checked() {
        let Ok(Task::Report(options)) = parsed("--rounds 3 --only hot,keys --json out") else {
            panic!("valid options were refused");
        };
        assert_eq!((options.rounds, options.json), (3, Some("out".into())));
        assert!(
            ["--rounds 4", "--rounds x", "--rounds", "--only hot,cold", "--what"]
                .iter()
                .all(|line| parsed(line).is_err())
        );
        assert_eq!(parsed("--count 7 --operations 9"), Ok(Task::Count(7, 9)));
    }
}
