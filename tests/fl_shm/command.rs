//! Running the command.

use std::path::Path;
use std::process::{Command, Output, Stdio};

/// `fl-shm` as a stranger would start it, looking at this file.
pub fn fl_shm(file: Option<&Path>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fl-shm"));
    command.env_clear().env("PATH", "/usr/bin:/bin").current_dir("/").stdin(Stdio::null());
    if let Some(path) = file {
        command.env("FL_SHM_FILE", path);
    }
    command
}

/// What it did: exit code, standard output, standard error.
pub fn done(output: &Output) -> (i32, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("UTF-8");
    (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
}

/// Runs it with these words.
pub fn run(file: Option<&Path>, words: &[&str]) -> (i32, String, String) {
    done(&fl_shm(file).args(words).output().expect("started"))
}
