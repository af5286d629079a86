//! The examples of `docs/fl-shm.md` are what the commands print.
//!
//! A block of ```` ```console ```` has commands after `$ ` and what they print, standard error included. They look at
//! `proxy.dump` (and `later.dump`) of the scene; in a block of ```` ```console live ```` at the scene's live region,
//! where numbers differ from run to run and are not compared.

use super::scene::{self, Folder, Scene};
use fast_litellm::engine::Engine;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// One block of commands.
struct Block {
    /// Number of its first line after the fence.
    begins: usize,
    lines: Vec<String>,
    live: bool,
}

fn blocks(text: &str) -> Vec<Block> {
    let mut found = Vec::new();
    let mut open: Option<Block> = None;
    for (number, line) in text.lines().enumerate() {
        match (&mut open, line.trim_end()) {
            (None, "```console") => {
                open = Some(Block { begins: number + 1, lines: Vec::new(), live: false });
            }
            (None, "```console live") => {
                open = Some(Block { begins: number + 1, lines: Vec::new(), live: true });
            }
            (Some(_), "```") => found.extend(open.take()),
            (Some(block), _) => block.lines.push(line.to_string()),
            (None, _) => {}
        }
    }
    found
}

/// A block as it would read if each of its commands were run now.
fn replayed(block: &Block, folder: &Path, file: &str) -> Vec<String> {
    let mut replayed = Vec::new();
    for command in block.lines.iter().filter_map(|line| line.strip_prefix("$ ")) {
        replayed.push(format!("$ {command}"));
        let program = PathBuf::from(env!("CARGO_BIN_EXE_fl-shm"));
        let programs = program.parent().expect("a folder").display();
        let output = Command::new("sh")
            .args(["-c", &format!("exec 2>&1; {command}")])
            .env_clear()
            .env("PATH", format!("{programs}:/usr/bin:/bin"))
            .env("FL_SHM_FILE", file)
            .current_dir(folder)
            .stdin(Stdio::null())
            .output()
            .expect("a shell");
        let text = String::from_utf8(output.stdout).expect("UTF-8");
        replayed.extend(text.lines().map(|line| line.trim_end().to_string()));
    }
    replayed
}

/// Without what differs from run to run.
fn comparable(lines: &[String], live: bool) -> Vec<String> {
    let loose = |line: &String| {
        let mut text = String::new();
        for c in line.chars() {
            let c = if c.is_ascii_digit() { '0' } else { c };
            if !(matches!(c, '0' | ' ') && text.ends_with(c)) {
                text.push(c);
            }
        }
        // What lasts for no second, or not quite for a minute, is written otherwise.
        text.replace("0m0s", "0s").replace("0s", "0")
    };
    if live { lines.iter().map(loose).collect() } else { lines.to_vec() }
}

#[test]
fn the_examples_are_what_the_commands_print() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/fl-shm.md");
    let text = std::fs::read_to_string(&path).expect("the documentation");
    let folder = Folder::new("document");
    let still = Scene::still(folder.path().join("still.region"));
    still.play();
    still.dump(&folder.path().join("proxy.dump"));
    still.go_on();
    still.dump(&folder.path().join("later.dump"));
    let live = Scene::live(folder.path().join("proxy.region"));
    live.play();
    // For `ls`, which finds regions through the processes that use them.
    let _inherited = Engine::new(scene::inherited("proxy"));
    let found = blocks(&text);
    let mut lines: Vec<String> = text.lines().map(str::to_string).collect();
    let mut differences = String::new();
    let replay = |block: &Block| {
        replayed(block, folder.path(), if block.live { "proxy.region" } else { "proxy.dump" })
    };
    let all: Vec<Vec<String>> = found.iter().map(replay).collect();
    for (block, now) in found.iter().zip(all).rev() {
        if comparable(&now, block.live) != comparable(&block.lines, block.live) {
            let (begins, now_text) = (block.begins + 1, now.join("\n"));
            let _ = writeln!(differences, "line {begins} of docs/fl-shm.md; now:\n{now_text}\n");
            lines.splice(block.begins..block.begins + block.lines.len(), now);
        }
    }
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, lines.join("\n") + "\n").expect("written");
    } else {
        assert!(found.len() > 10, "only {} examples", found.len());
        assert!(differences.is_empty(), "run with UPDATE_DOCS=1, or mend it\n{differences}");
    }
}
