//! `fl-shm man`: manual pages.

use super::outcome::{Failure, Outcome};
use super::{Arguments, OK};
use clap::{Args, Command, CommandFactory};
use clap_mangen::Man;
use std::io::Write;
use std::path::PathBuf;

/// What the sections are that clap does not know of.
const EXIT_STATUS: &str = r#".SH "EXIT STATUS"
.TP
0
Done, or the answer is yes.
.TP
1
The answer is no: there is no region, no such key, or something was found.
.TP
2
An error, or the command was refused; the reason and the remedy are on standard error.
"#;

#[derive(Debug, Args)]
pub(super) struct Manual {
    /// Write a page for each command into this directory, which is made if need be.
    #[arg(long, value_name = "DIR")]
    pub(super) dir: Option<PathBuf>,
}

/// `fl-shm man`
pub(super) fn man(arguments: &Manual, out: &mut impl Write) -> Outcome {
    let mut command = Arguments::command().disable_help_subcommand(true);
    // Names of commands and their pages are built, too.
    command.build();
    let Some(directory) = &arguments.dir else {
        out.write_all(&page(&command, &pages(&command))?)?;
        return Ok(OK);
    };
    let failed = |path: &std::path::Path, error: &std::io::Error| {
        Failure::Message(format!("cannot write {}: {error}; choose another --dir", path.display()))
    };
    std::fs::create_dir_all(directory).map_err(|error| failed(directory, &error))?;
    let pages = pages(&command);
    for command in all(&command) {
        let path = directory.join(format!("{}.1", name(command)));
        let text = page(command, &pages)?;
        std::fs::write(&path, text).map_err(|error| failed(&path, &error))?;
        writeln!(out, "{}", path.display())?;
    }
    Ok(OK)
}

/// A command and those below it.
fn all(command: &Command) -> Vec<&Command> {
    let below = command.get_subcommands().filter(|below| !below.is_hide_set()).flat_map(all);
    std::iter::once(command).chain(below).collect()
}

/// A page's name: `fl-shm-ls` is that of `fl-shm ls`.
fn name(command: &Command) -> String {
    command.get_display_name().unwrap_or_else(|| command.get_name()).to_string()
}

fn pages(command: &Command) -> Vec<String> {
    all(command).into_iter().map(name).collect()
}

fn page(command: &Command, pages: &[String]) -> Result<Vec<u8>, Failure> {
    let own = name(command);
    let man = Man::new(command.clone().disable_help_subcommand(true));
    let mut text = Vec::new();
    // Without a date: the same sources make the same page.
    let (title, version) = (own.to_uppercase(), env!("CARGO_PKG_VERSION"));
    writeln!(text, ".TH \"{title}\" \"1\" \"\" \"fast_litellm {version}\" \"fast_litellm\"")?;
    man.render_name_section(&mut text)?;
    man.render_synopsis_section(&mut text)?;
    man.render_description_section(&mut text)?;
    man.render_options_section(&mut text)?;
    if command.has_subcommands() {
        man.render_subcommands_section(&mut text)?;
    }
    text.extend_from_slice(EXIT_STATUS.as_bytes());
    let others = pages.iter().filter(|page| **page != own);
    let others: Vec<String> =
        others.map(|page| format!(".BR {} (1)", page.replace('-', "\\-"))).collect();
    write!(text, ".SH \"SEE ALSO\"\n{}\n", others.join(",\n"))?;
    Ok(text)
}
