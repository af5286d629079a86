//! What each command prints about the scene, in each of its forms.

use super::command::run;
use super::scene::{Folder, Scene};
use std::path::Path;

/// Commands that look at one dump.
const LOOKS: [(&str, &str); 40] = [
    ("inspect", "inspect"),
    ("inspect_json", "inspect --json"),
    ("inspect_ndjson", "inspect --ndjson"),
    ("inspect_prom", "inspect --prom"),
    ("inspect_header", "inspect header"),
    ("inspect_workers", "inspect workers"),
    ("inspect_limits", "inspect limits"),
    ("inspect_limits_csv", "inspect limits --csv"),
    ("inspect_limits_all", "inspect limits --columns all"),
    ("inspect_limits_chosen", "inspect limits --filter used_pct>10 --sort -used_pct --top 2"),
    ("inspect_limits_since_start", "inspect limits --since-start"),
    ("inspect_leases", "inspect leases"),
    ("inspect_leaders", "inspect leaders"),
    ("inspect_deployments", "inspect deployments"),
    ("inspect_deployments_csv", "inspect deployments --csv"),
    ("inspect_pools", "inspect pools"),
    ("inspect_breakers", "inspect breakers"),
    ("inspect_notices", "inspect notices"),
    ("inspect_events", "inspect events"),
    ("inspect_stats", "inspect stats"),
    ("inspect_series", "inspect series"),
    ("leases", "leases"),
    ("leases_json", "leases --json"),
    ("leases_by_worker", "leases --by worker"),
    ("leases_by_key", "leases --by key"),
    ("leases_suspect", "leases --suspect 10"),
    ("get_key", "get user:alice"),
    ("get_json", "get user:alice gpt-4o-us openai price-sync models --json"),
    ("get_several", "get sk-first uploads/team-blue gpt-4o-us openai price-sync models"),
    ("get_nothing", "get nobody"),
    ("explain_admitted", "explain sk-first user:alice"),
    ("explain_refused", "explain sk-second sk-first"),
    ("explain_json", "explain sk-second uploads/team-blue pages/crawler gpt-4o-us --cost 2 --json"),
    ("explain_cost", "explain pages/crawler uploads/team-blue --cost 61"),
    ("explain_nothing", "explain nobody"),
    ("schema", "schema"),
    ("schema_columns", "schema --columns"),
    ("schema_explain", "schema leases"),
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
