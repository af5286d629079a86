//! What happens when something is wrong: a clear message on standard error, the right exit code, and not one
//! changed byte.

use super::command::{done, fl_shm, run};
use super::scene::{FIRST, Folder, Scene};
use std::ffi::OsStr;
use std::fs::{File, Permissions};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Commands that look at a region, without what says which.
const LOOKS: [&str; 14] = [
    "inspect",
    "inspect --json",
    "inspect --ndjson",
    "inspect limits --csv",
    "inspect --prom",
    "leases",
    "leases --suspect 10",
    "get user:alice sk-first",
    "get sk-first --json",
    "explain user:alice sk-first",
    "explain sk-second --json",
    "verify",
    "doctor",
    "doctor --json",
];

/// Commands that would change a region, and do not without `--yes`.
const UNSAID: [&str; 6] = [
    "reap",
    "reset sk-first",
    "reset --all",
    "cooldown clear gpt-4o-us",
    "cooldown clear --all",
    "feature rust_routing off",
];

fn words(text: &str) -> Vec<&str> {
    text.split(' ').collect()
}

/// A live region's bytes.
fn content(path: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    File::open(path).and_then(|mut file| file.read_to_end(&mut bytes)).expect("readable");
    bytes
}

/// Files that are no region, and what must be said of each.
fn no_regions(folder: &Folder) -> Vec<(PathBuf, &'static str)> {
    let scene = Scene::live(folder.path().join("whole"));
    scene.play();
    let dump = folder.path().join("dump");
    scene.dump(&dump);
    let (whole, dumped) = (content(scene.path()), content(&dump));
    let file = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).expect("written");
        std::fs::set_permissions(&path, Permissions::from_mode(0o600)).expect("mine");
        path
    };
    let future = file("future", &whole);
    File::options().write(true).open(&future).expect("mine").write_all_at(&[9], 12).expect("mine");
    let overwritten = file("overwritten", &dumped);
    let at = dumped.len() as u64 - 60;
    let writer = File::options().write(true).open(&overwritten).expect("mine");
    writer.write_all_at(b"\0\0\0\0", at).expect("mine");
    vec![
        (folder.path().join("nowhere"), "No such file"),
        (folder.path().to_path_buf(), "not a regular file"),
        (file("empty", b""), "0 bytes"),
        (file("text", &b"not a region at all\n".repeat(400)), "magic"),
        (file("short", &whole[..whole.len() / 2]), "truncated"),
        (file("cut", &dumped[..dumped.len() - 9]), "truncated"),
        (overwritten, "no whole dump"),
        (future, "restart all workers"),
        (PathBuf::from("/dev/zero"), "not a regular file"),
    ]
}

#[test]
fn what_is_no_region_is_refused_with_the_reason() {
    let folder = Folder::new("no-region");
    for (path, reason) in no_regions(&folder) {
        for look in LOOKS.iter().filter(|look| !look.starts_with("doctor")) {
            let (code, out, err) = run(Some(&path), &words(look));
            let said = format!("{look} of {}: {code} {out} {err}", path.display());
            assert!(code == 2 && out.is_empty(), "{said}");
            assert!(err.starts_with("fl-shm: ") && err.contains(reason), "{said}");
            assert!(!err.contains("panicked") && err.lines().count() == 1, "{said}");
        }
        let (code, out, _) = run(Some(&path), &["doctor"]);
        assert!(code == 1 && out.contains("PROBLEM"), "{out}");
    }
}

#[test]
fn looking_changes_nothing_and_neither_does_saying_what_would_be_done() {
    let folder = Folder::new("unchanged");
    let scene = Scene::live(folder.path().join("region"));
    scene.play();
    let before = content(scene.path());
    for look in LOOKS {
        let (code, out, err) = run(Some(scene.path()), &words(look));
        assert!(code < 2 && err.is_empty() && !out.is_empty(), "{look}: {code} {err}");
    }
    for command in UNSAID {
        let (code, _, err) = run(Some(scene.path()), &words(command));
        assert!(code == 2 && err.contains("--yes"), "{command}: {code} {err}");
    }
    let dump = folder.path().join("dump");
    let (code, ..) = run(Some(scene.path()), &["dump", &dump.to_string_lossy()]);
    assert_eq!(code, 0);
    assert!(before == content(scene.path()), "a byte of the region has changed");
}

#[test]
fn a_dump_says_what_the_region_said_and_shows_no_secret() {
    let folder = Folder::new("dumped");
    let scene = Scene::live(folder.path().join("region"));
    scene.play();
    let dump = folder.path().join("dump");
    let path = dump.to_string_lossy();
    assert_eq!(run(Some(scene.path()), &["dump", &path]).0, 0);
    let mode = std::fs::metadata(&dump).expect("there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    // Time goes on in one of them: nothing that says how long ago.
    for (section, columns) in [
        ("workers", "pid,role,alive,leases,decisions"),
        ("limits", "key,kind,tokens.used,tokens.limit,parallel.used,allowed,denied"),
        ("leases", "key,pid,owner,held"),
        ("deployments", "deployment,in_flight,cooldown_reason,failures,latency_us"),
    ] {
        let of = |file: &Path| run(Some(file), &["inspect", section, "--columns", columns]);
        let [live, dumped] = [scene.path(), &dump].map(of);
        assert_eq!((live.0, dumped.0), (0, 0));
        assert_eq!(live.1, dumped.1);
    }
    let bytes = content(&dump);
    let secret = b"what is published is not shown".as_slice();
    let holds = |bytes: &[u8], part: &[u8]| bytes.windows(part.len()).any(|window| window == part);
    assert!(holds(&content(scene.path()), secret), "this test looks for the wrong bytes");
    assert!(!holds(&bytes, secret));
    let key = FIRST.trim_matches(['{', '}']).rsplit(':').next().expect("a key");
    assert!(holds(&bytes, &key.as_bytes()[..6]) && !holds(&bytes, &key.as_bytes()[..8]));
    // A second one does not take the place of the first.
    let (code, _, err) = run(Some(scene.path()), &["dump", &path]);
    assert!(code == 2 && err.contains("exists"), "{err}");
    assert!(bytes == content(&dump));
}

#[test]
fn somebody_elses_region_is_refused() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("only root can be somebody else");
        return;
    }
    let folder = Folder::new("else");
    let scene = Scene::live(folder.path().join("region"));
    // Where everybody can start it. Another process writes it: one that is started here meanwhile would have it open
    // for writing for a moment, in which it cannot be started.
    let program = std::env::temp_dir().join(format!("fl-shm-{}", std::process::id()));
    let mut install = Command::new("install");
    install.args(["-m", "755", env!("CARGO_BIN_EXE_fl-shm")]).arg(&program);
    assert!(install.status().expect("started").success());
    let copy = std::env::temp_dir().join(format!("fl-shm-{}.region", std::process::id()));
    std::fs::copy(scene.path(), &copy).expect("copied");
    std::fs::set_permissions(&copy, Permissions::from_mode(0o600)).expect("mine");
    for look in ["inspect", "verify", "reap --yes"] {
        let mut command = Command::new(&program);
        command.args(words(look)).env_clear().env("FL_SHM_FILE", &copy).uid(65_534).gid(65_534);
        let (code, out, err) = done(&command.output().expect("started"));
        assert!(code == 2 && out.is_empty(), "{look}: {code} {out}");
        assert!(err.contains("Permission denied"), "{look}: {err}");
    }
    let _ = (std::fs::remove_file(program), std::fs::remove_file(copy));
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let folder = Folder::new("pipe");
    let scene = Scene::live(folder.path().join("region"));
    scene.play();
    for look in LOOKS.into_iter().chain(["inspect --watch 0.01", "--help"]) {
        let mut command = fl_shm(Some(scene.path()));
        command.args(words(look)).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("started");
        drop(child.stdout.take());
        let (code, _, err) = done(&child.wait_with_output().expect("ended"));
        assert!(code < 2 && err.is_empty(), "{look}: {code} {err}");
    }
    // But that nothing was done is an answer.
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let output = fl_shm(Some(scene.path())).args(["reset", "--all"]).stdout(writer).output();
    assert_eq!(done(&output.expect("started")).0, 2);
}

#[test]
fn a_file_that_is_cut_while_it_is_read_is_an_error() {
    let folder = Folder::new("cut");
    let scene = Scene::live(folder.path().join("region"));
    scene.play();
    let path = folder.path().join("copy");
    std::fs::copy(scene.path(), &path).expect("copied");
    let mut command = fl_shm(Some(&path));
    command.args(["inspect", "limits", "--watch", "0.01", "--count", "3000"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("started");
    let mut first = [0];
    child.stdout.as_mut().expect("piped").read_exact(&mut first).expect("it looks");
    File::options().write(true).open(&path).and_then(|file| file.set_len(4096)).expect("mine");
    let (code, _, err) = done(&child.wait_with_output().expect("ended"));
    assert!(code == 2 && err.contains("was cut") && err.lines().count() == 1, "{code} {err}");
}

#[test]
fn what_is_no_text_is_a_file_s_name_or_refused() {
    let folder = Folder::new("bytes");
    let scene = Scene::live(folder.path().join("region"));
    let name = OsStr::from_bytes(b"no\xfftext");
    let path = folder.path().join(name);
    std::fs::copy(scene.path(), &path).expect("copied");
    let (code, out, err) = run(Some(&path), &["inspect", "header"]);
    assert!(code == 0 && out.contains("layout") && err.is_empty(), "{code} {err}");
    let typed = |command: &mut Command| done(&command.output().expect("started"));
    let (code, out, err) = typed(fl_shm(None).args(["inspect", "header", "--file"]).arg(&path));
    assert!(code == 0 && out.contains("layout") && err.is_empty(), "{code} {err}");
    let (code, out, err) = typed(fl_shm(Some(&path)).arg("get").arg(name));
    assert!(code == 2 && out.is_empty() && err.contains("UTF-8"), "{code} {err}");
}

/// Whether somebody reads the messages makes no difference to the answer.
#[test]
fn an_answer_does_not_depend_on_who_reads_the_messages() {
    let folder = Folder::new("unread");
    let scene = Scene::live(folder.path().join("region"));
    scene.play();
    for words in [
        &["get", "nobody"][..],
        &["explain", "nobody"],
        &["reset", "nobody", "--yes"],
        &["cooldown", "clear", "nobody", "--yes"],
    ] {
        let mut command = fl_shm(Some(scene.path()));
        let (reader, writer) = std::io::pipe().expect("a pipe");
        let unread = command.args(words).stderr(writer);
        drop(reader);
        assert_eq!(done(&unread.output().expect("started")).0, 1, "{words:?}");
        let full = File::options().write(true).open("/dev/full").expect("Linux");
        let mut command = fl_shm(Some(scene.path()));
        let unread = command.args(words).stderr(full).output().expect("started");
        assert_eq!(done(&unread).0, 1, "{words:?}");
    }
}

/// A terminal obeys what is written to it; whoever made a region, or a dump, chose its name.
#[test]
fn names_of_others_do_not_reach_the_terminal_as_they_are() {
    let folder = Folder::new("names");
    let scene = Scene::live(folder.path().join("region"));
    scene.play();
    let name = "a\u{1b}[2J\nPROBLEM\u{9b}31m";
    let live = folder.path().join(name);
    std::fs::copy(scene.path(), &live).expect("copied");
    let dump = folder.path().join("dump");
    scene.dump(&dump);
    let hostile = folder.path().join("hostile");
    rename_in_dump(&dump, &hostile, name);
    let inherited = super::scene::inherited(name);
    let pid = std::process::id().to_string();
    for file in [&live, &hostile, &folder.path().join(format!("{name}-is-not-there"))] {
        for look in ["inspect header", "leases", "verify", "doctor", "reap --dry-run", "get nobody"]
        {
            let (_, out, err) = run(Some(file), &words(look));
            let shown = format!("{out}{err}");
            assert!(!shown.contains(|c: char| c.is_control() && c != '\n'), "{look}: {shown:?}");
            assert!(!shown.lines().any(|line| line.starts_with("PROBLEM?")), "{look}: {shown:?}");
        }
    }
    for words in [&["ls"][..], &["inspect", "header", "--pid", &pid], &["verify", "--pid", &pid]] {
        let (_, out, err) = run(None, words);
        let shown = format!("{out}{err}");
        assert!(shown.contains("a?[2J?PROBLEM?31m"), "{words:?}: {shown:?}");
        assert!(!shown.contains(|c: char| c.is_control() && c != '\n'), "{words:?}: {shown:?}");
    }
    drop(inherited);
}

/// A dump with another name of its region.
fn rename_in_dump(dump: &Path, to: &Path, name: &str) {
    let bytes = content(dump);
    let end = bytes.len() - 16;
    let len = u64::from_le_bytes(bytes[end..end + 8].try_into().expect("eight"));
    let begin = end - usize::try_from(len).expect("small");
    let text = std::str::from_utf8(&bytes[begin..end]).expect("JSON");
    let name = serde_json::to_string(name).expect("text");
    let text = text.replace("\"proxy\"", &name);
    let len = (text.len() as u64).to_le_bytes();
    let all = [&bytes[..begin], text.as_bytes(), &len, &bytes[end + 8..]].concat();
    std::fs::write(to, all).expect("written");
}

#[test]
fn what_cannot_be_typed_is_refused() {
    for typed in ["", "nonsense", "inspect nonsense", "inspect --watch 0", "diff", "dump"] {
        let typed: Vec<&str> = typed.split_ascii_whitespace().collect();
        let (code, out, err) = run(None, &typed);
        assert!(code == 2 && out.is_empty() && !err.is_empty(), "{typed:?}: {code} {out}");
    }
}
