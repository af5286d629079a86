//! `fl-shm schema`: what the JSON of each command looks like, what columns there are, and how the region is laid out.

use super::columns::Columns;
use super::outcome::{Failure, Outcome};
use super::{OK, cooldown, diff, doctor, leases, ls, output, reap, reset, verify};
use crate::inspect::explain::Explanation;
use crate::inspect::known::Known;
use crate::inspect::live::Frame;
use crate::inspect::{Report, SCHEMA, Section};
use crate::layout::render;
use clap::Args;
use clap::builder::PossibleValuesParser;
use schemars::generate::SchemaSettings;
use schemars::transform::{RecursiveTransform, Transform};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::{Map, Value};
use std::io::Write;

#[derive(Debug, Args)]
pub(super) struct Schemas {
    /// The command whose JSON is meant.
    #[arg(value_parser = PossibleValuesParser::new(COMMANDS.map(|(name, _)| name)), default_value = "inspect")]
    command: String,
    /// Print the columns that inspect's --filter, --sort, --columns and --csv know, section by section.
    #[arg(long, conflicts_with_all = ["command", "layout"])]
    columns: bool,
    /// Print where every field of every record in the region is, as Markdown.
    #[arg(long, conflicts_with = "command")]
    layout: bool,
}

type Describe = fn(SchemaGenerator) -> Schema;

/// Every command that prints JSON, and what it prints.
pub(super) const COMMANDS: [(&str, Describe); 12] = [
    ("inspect", |generator| sections_are_optional(described::<Report>(generator))),
    ("leases", described::<leases::Printed>),
    ("ls", described::<Vec<ls::Listed>>),
    ("verify", described::<verify::Verdict<'static>>),
    ("doctor", described::<doctor::Diagnosis<'static>>),
    ("diff", described::<diff::Differences>),
    ("get", described::<Known>),
    ("explain", described::<Explanation>),
    ("reap", described::<reap::Plan<'static>>),
    ("reset", described::<reset::Plan<'static>>),
    ("cooldown", described::<cooldown::Plan<'static>>),
    // What it sends as frames, and `top` shows.
    ("serve", described::<Frame>),
];

fn described<T: JsonSchema>(generator: SchemaGenerator) -> Schema {
    generator.into_root_schema_for::<T>()
}

/// Only the chosen sections are printed.
fn sections_are_optional(mut schema: Schema) -> Schema {
    schema.insert("required".into(), vec!["schema"].into());
    schema
}

/// The schema of a command's JSON.
fn schema(name: &str, describe: Describe) -> Schema {
    let settings = SchemaSettings::draft2020_12().for_serialize();
    let mut schema = describe(settings.into_generator());
    RecursiveTransform(|schema: &mut Schema| {
        if let Some(object) = schema.as_object().cloned() {
            *schema = without_nulls(object).into();
        }
    })
    .transform(&mut schema);
    schema.insert("title".into(), format!("fl-shm {name} --json").into());
    let version = schema.pointer_mut("/properties/schema").and_then(Value::as_object_mut);
    if let Some(version) = version {
        version.insert("description".into(), "Name and version of this form.".into());
        version.insert("const".into(), SCHEMA.into());
    }
    schema
}

/// Fields that may be absent are never null.
fn without_nulls(mut object: Map<String, Value>) -> Map<String, Value> {
    let required: Vec<Value> =
        object.get("required").and_then(Value::as_array).cloned().unwrap_or_default();
    let fields = object.get_mut("properties").and_then(Value::as_object_mut);
    for (name, field) in fields.into_iter().flatten() {
        let Some(field) =
            field.as_object_mut().filter(|_| !required.contains(&Value::from(name.as_str())))
        else {
            continue;
        };
        if let Some(kinds) = field.get_mut("type").and_then(Value::as_array_mut) {
            kinds.retain(|kind| kind != "null");
            if let [only] = &kinds[..] {
                let only = only.clone();
                field.insert("type".into(), only);
            }
        }
        if let Some(choices) = field.get_mut("anyOf").and_then(Value::as_array_mut) {
            choices.retain(|choice| choice.get("type").is_none_or(|kind| kind != "null"));
            if let [Value::Object(only)] = &choices[..] {
                let only = only.clone();
                field.remove("anyOf");
                only.into_iter().for_each(|(key, value)| {
                    field.entry(key).or_insert(value);
                });
            }
        }
    }
    object
}

/// `fl-shm schema`
pub(super) fn schemas(arguments: &Schemas, out: &mut impl Write) -> Outcome {
    if arguments.layout {
        writeln!(out, "{}\n\n{}", render::version_line(), render::tables().trim_end())?;
        return Ok(OK);
    }
    if arguments.columns {
        return columns(out);
    }
    let found = COMMANDS.iter().find(|(name, _)| *name == arguments.command);
    let Some((name, describe)) = found else {
        return Err(Failure::Message(format!("{:?} prints no JSON", arguments.command)));
    };
    serde_json::to_writer_pretty(&mut *out, &schema(name, *describe))
        .map_err(std::io::Error::from)?;
    writeln!(out)?;
    Ok(OK)
}

fn columns(out: &mut impl Write) -> Outcome {
    let rows = Section::ALL.into_iter().flat_map(|section| {
        let columns = Columns::of_section(section);
        let rows = columns.iter().map(|column| {
            vec![
                section.name().to_string(),
                column.name.clone(),
                column.kind.name().to_string(),
                column.unit.name().to_string(),
                column.about.clone(),
            ]
        });
        rows.collect::<Vec<_>>()
    });
    output::table(out, &["SECTION", "COLUMN", "TYPE", "UNIT", "MEANING"], rows)?;
    Ok(OK)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Arguments;
    use clap::CommandFactory;

    #[test]
    fn every_command_that_prints_json_has_a_schema() {
        let command = Arguments::command();
        let takes = |command: &clap::Command| {
            command.get_arguments().any(|argument| argument.get_long() == Some("json"))
        };
        let prints =
            |command: &&clap::Command| takes(command) || command.get_subcommands().any(takes);
        let mut printing: Vec<&str> =
            command.get_subcommands().filter(prints).map(clap::Command::get_name).collect();
        printing.push("serve");
        let mut known = COMMANDS.map(|(name, _)| name).to_vec();
        printing.sort_unstable();
        known.sort_unstable();
        assert_eq!(printing, known);
    }

    #[test]
    fn every_field_of_a_report_is_a_section() {
        let (name, describe) = COMMANDS[0];
        let schema = schema(name, describe);
        let fields = schema.get("properties").and_then(Value::as_object).unwrap();
        let mut fields: Vec<&str> = fields.keys().map(String::as_str).collect();
        let mut known: Vec<&str> = Section::ALL.iter().map(|section| section.field()).collect();
        known.extend(["schema", "stats_per_s"]);
        fields.sort_unstable();
        known.sort_unstable();
        assert_eq!(fields, known);
        let mut names: Vec<&str> = Section::ALL.iter().map(|section| section.name()).collect();
        names.dedup();
        assert_eq!(names.len(), <Section as clap::ValueEnum>::value_variants().len());
    }

    #[test]
    fn fields_that_may_be_absent_are_never_null_and_all_are_described() {
        for (name, describe) in COMMANDS {
            let text = serde_json::to_string(&schema(name, describe)).unwrap();
            assert!(!text.contains("\"null\""), "{name}: {text}");
        }
        for section in Section::ALL {
            for column in Columns::of_section(section).iter() {
                assert!(!column.about.is_empty(), "{}: {}", section.name(), column.name);
            }
        }
    }
}
