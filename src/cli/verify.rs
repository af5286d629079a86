//! `fl-shm verify`: whether a region says only what can have been written.

use super::outcome::{Outcome, json, nothing_found};
use super::select::{self, Select};
use super::{NOTHING, OK, output};
use crate::inspect::SCHEMA;
use crate::verify::{self, Finding, MAX_FINDINGS, Severity};
use clap::Args;
use schemars::JsonSchema;
use serde::Serialize;
use std::io::Write;

#[derive(Debug, Args)]
pub(super) struct Verify {
    #[command(flatten)]
    select: Select,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Verdict<'a> {
    schema: &'static str,
    region: &'a str,
    /// Findings that heal or are not believed.
    harmless: usize,
    /// Findings that stay.
    damage: usize,
    findings: &'a [Finding],
}

/// `fl-shm verify`
pub(super) fn verify(arguments: &Verify, out: &mut impl Write) -> Outcome {
    let Some(chosen) = select::choose(&arguments.select)? else {
        return nothing_found();
    };
    let region = chosen.look()?;
    let findings = verify::verify(&region);
    let count = |severity| findings.iter().filter(|finding| finding.severity == severity).count();
    let (harmless, damage) = (count(Severity::Harmless), count(Severity::Damage));
    let name = chosen.name();
    if arguments.json {
        let verdict =
            Verdict { schema: SCHEMA, region: name, harmless, damage, findings: &findings };
        json(out, &verdict)?;
    } else if findings.is_empty() {
        writeln!(out, "region {name}: every record says what can have been written")?;
    } else {
        writeln!(out, "region {name}: {damage} damaged words, {harmless} that do no harm")?;
        let rows = findings.iter().map(|finding| {
            vec![
                if finding.severity == Severity::Damage { "damage" } else { "harmless" }
                    .to_string(),
                finding.section.to_string(),
                finding.index.to_string(),
                finding.field.to_string(),
                format!("{:#018x}", finding.found),
                finding.expected.to_string(),
            ]
        });
        let head = ["SEVERITY", "SECTION", "RECORD", "FIELD", "FOUND", "EXPECTED"];
        output::table(out, &head, rows)?;
        if findings.len() == MAX_FINDINGS {
            writeln!(out, "and more: only the first {MAX_FINDINGS} are shown")?;
        }
    }
    Ok(if damage == 0 { OK } else { NOTHING })
}
