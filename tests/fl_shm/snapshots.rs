//! What each command prints about the scene, in each of its forms.

use super::command::run;
use super::scene::{Folder, Scene};
use std::path::Path;

/// Commands that look at one dump.
const LOOKS: [(&str, &str); 14] = [
    ("inspect", "inspect"),
    ("inspect_json", "inspect --json"),
    ("inspect_header", "inspect header"),
    ("inspect_workers", "inspect workers"),
    ("inspect_limits", "inspect limits"),
    ("inspect_leases", "inspect leases"),
    ("inspect_leaders", "inspect leaders"),
    ("inspect_deployments", "inspect deployments"),
    ("inspect_pools", "inspect pools"),
    ("inspect_notices", "inspect notices"),
    ("inspect_events", "inspect events"),
    ("inspect_stats", "inspect stats"),
    ("verify", "verify"),
    ("verify_json", "verify --json"),
];

fn snapshot(name: &str, file: &Path, words: &str) {
    let words: Vec<&str> = words.split(' ').collect();
    let (code, out, err) = run(Some(file), &words);
    let text = format!("exit code {code}\n--- standard output\n{out}--- standard error\n{err}");
    insta::assert_snapshot!(name, text);
}

#[test]
fn every_look_at_a_dump() {
    let folder = Folder::new("looks");
    let scene = Scene::still(folder.path().join("region"));
    scene.play();
    let dump = folder.path().join("proxy.dump");
    scene.dump(&dump);
    for (name, words) in LOOKS {
        snapshot(name, &dump, words);
    }
}

#[test]
fn what_changed_between_two_dumps() {
    let folder = Folder::new("diff");
    let scene = Scene::still(folder.path().join("region"));
    scene.play();
    let [before, after] = ["before", "after"].map(|name| folder.path().join(name));
    scene.dump(&before);
    scene.go_on();
    scene.dump(&after);
    let words = |options: &str| format!("diff {} {}{options}", before.display(), after.display());
    snapshot("diff", &before, &words(""));
    snapshot("diff_json", &before, &words(" --json"));
    let same = format!("diff {} {}", before.display(), before.display());
    snapshot("diff_nothing", &before, &same);
}
