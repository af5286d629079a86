//! Files that nobody wrote: refused with a reason, or used without harm. By the library and by `fl-shm`.

use super::ground::{offset_of, put, smallest};
use super::source::Source;
use super::targets;
use fast_litellm::clock::MonotonicClock;
use fast_litellm::config::Capacity;
use fast_litellm::engine::Engine;
use fast_litellm::error::AttachError;
use fast_litellm::region::{Placement, Region, attach_file, attach_read_only, create};
use std::fs::File;
use std::os::unix::fs::FileExt;
#[cfg(feature = "cli")]
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Bytes of the header.
const HEADER: u64 = 256;
/// Bytes of the header and the section table.
const TABLES: u64 = HEADER + 10 * 32;

/// A folder of its own, removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
            .join(format!("hostile-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).expect("writable");
        Self(path)
    }

    /// A region in a file of this folder.
    fn region(&self, name: &str) -> (PathBuf, Region) {
        let path = self.0.join(name);
        let placement = Placement::Named { path: path.clone(), force: true };
        let region = create(&placement, smallest(), Box::new(MonotonicClock)).expect("created");
        (path, region)
    }

    /// A file of these bytes that only this user can open.
    #[cfg(feature = "cli")]
    fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.join(name);
        let _ = std::fs::remove_file(&path);
        let made = File::options().create_new(true).write(true).mode(0o600).open(&path);
        made.expect("created").write_all_at(bytes, 0).expect("written");
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Words of the header that say nothing that could be refused.
const FREE: [&str; 12] = [
    "epoch",
    "clock_base_ns",
    "wall_base_s",
    "seed_high",
    "seed_low",
    "creator_uid",
    "creator_pid",
    "creator_start",
    "backing",
    "overflow",
    "event_head",
    "reserved",
];
/// Words that only those who use the region look at.
const FOR_USE: [&str; 2] = ["pid_namespace", "time_namespace"];

fn is_in(offset: u64, fields: &[&str]) -> bool {
    let length = |field: &str| if field == "reserved" { 40 } else { 8 };
    fields.iter().any(|field| {
        let start = offset_of("Header", field);
        (start..start + length(field)).contains(&offset)
    })
}

/// Every word of the header and the section table, changed in several ways: what the gates guard is refused,
/// by everybody who looks at it; with the rest the region is used.
#[test]
fn every_word_before_the_sections_is_guarded_or_harmless() {
    let folder = Folder::new("words");
    let (path, region) = folder.region("region");
    let file = File::options().read(true).write(true).open(&path).expect("there");
    drop(region);
    for offset in (0..TABLES).step_by(8) {
        let mut old = [0; 8];
        file.read_exact_at(&mut old, offset).expect("inside");
        let old = u64::from_le_bytes(old);
        for new in [0, 1, u64::MAX, old ^ 1, old ^ 1 << 63, old.wrapping_add(8), old << 1] {
            if new == old {
                continue;
            }
            put(&file, offset, new);
            let (used, seen) = (attach_file(&path), attach_read_only(&path));
            // As many keys as give the same number of buckets make no difference.
            let same =
                offset == offset_of("Header", "key_capacity") && buckets(new) == buckets(old);
            let free = same || offset < HEADER && is_in(offset, &FREE);
            let seen_only = offset < HEADER && is_in(offset, &FOR_USE);
            assert_eq!(used.is_ok(), free, "{offset}: {old:#x} became {new:#x}: {used:?}");
            assert_eq!(seen.is_ok(), free || seen_only, "{offset}: {old:#x} became {new:#x}");
            if let Err(refusal) = used {
                let text = refusal.to_string();
                assert!(text.starts_with("region") && text.contains(": "), "{text}");
            } else if let Ok(region) = used {
                use_it(region);
            }
            if let Ok(region) = seen {
                targets::look(&region);
            }
            put(&file, offset, old);
        }
    }
    assert!(attach_file(&path).is_ok());
}

/// A refusal names the capacity, its value, what it may be and where it comes from.
#[test]
fn a_capacity_that_cannot_be_is_named() {
    let folder = Folder::new("capacities");
    let (path, region) = folder.region("region");
    let len = region.len();
    drop(region);
    let file = File::options().read(true).write(true).open(&path).expect("there");
    let eights = |high: u64| format!("a multiple of 8 from 64 to {high}");
    let cases = [
        ("key_capacity", "key", "KEYS", [999, 1 << 60], "1000 to 16777216".to_string()),
        ("chunk_capacity", "chunk", "LEASE_CHUNKS", [65, 1 << 21], eights(1 << 20)),
        ("worker_capacity", "worker", "WORKERS", [3, 1_025], "4 to 1024".to_string()),
        ("deployment_capacity", "deployment", "DEPLOYMENTS", [0, 1 << 17], eights(1 << 16)),
    ];
    for (field, what, setting, values, allowed) in cases {
        let mut old = [0; 8];
        file.read_exact_at(&mut old, offset_of("Header", field)).expect("inside");
        for value in values {
            put(&file, offset_of("Header", field), value);
            let expected = format!(
                "region's {what} capacity (FAST_LITELLM_SHM_{setting}) is {value}, allowed is {allowed}: \
                 overwritten; remove it and start again"
            );
            for refused in [attach_file(&path), attach_read_only(&path)] {
                assert_eq!(refused.expect_err("impossible").to_string(), expected);
            }
        }
        // One that may be, of another region.
        put(&file, offset_of("Header", field), 1_024);
        let text = attach_file(&path).expect_err("another length").to_string();
        let says = [format!("has {len} bytes"), "1024 ".to_string(), "remove it".to_string()];
        assert!(says.iter().all(|part| text.contains(part.as_str())), "{text}");
        assert!(text.contains(" take ") && text.contains(what.trim_end_matches('s')), "{text}");
        put(&file, offset_of("Header", field), u64::from_le_bytes(old));
    }
    assert!(attach_file(&path).is_ok());
}

fn buckets(keys: u64) -> u64 {
    if keys < 1 << 24 { Capacity { keys, ..smallest() }.buckets() } else { 0 }
}

fn use_it(region: Region) {
    use super::drive::{Caller, KEYS, Limiters, Operation};
    let engine = Engine::new(region);
    let limiters = Limiters::of(&engine);
    let mut caller = Caller::new(&engine, &limiters);
    let mut source = Source::Seeded(3);
    for _ in 0..20 {
        caller.run(&Operation::any(&mut source, &KEYS));
    }
    engine.leave();
}

#[test]
fn files_of_other_lengths_are_refused() {
    let folder = Folder::new("lengths");
    let (path, region) = folder.region("region");
    let len = region.len();
    drop(region);
    let file = File::options().read(true).write(true).open(&path).expect("there");
    let mut head = [0; 4_096];
    file.read_exact_at(&mut head, 0).expect("inside");
    let shorter = [0, 1, 255, 256, 257, 576, 4_095, 4_096, 8_192, len / 2, len - 4_096, len - 1];
    for other in [len + 1, len + 4_096, 2 * len, 1 << 40].into_iter().chain(shorter) {
        let whole = head.len().min(usize::try_from(other).expect("64 bits"));
        file.set_len(other).expect("any length");
        file.write_all_at(&head[..whole], 0).expect("inside");
        for refused in [attach_file(&path), attach_read_only(&path)] {
            let refusal = refused.expect_err("another length");
            let expected = match other {
                0..HEADER => matches!(refusal, AttachError::TooShort { .. }),
                _ => matches!(refusal, AttachError::Length { .. }),
            };
            assert!(expected, "{other}: {refusal}");
        }
    }
    // What was cut off is zeroes now, which is an unused region.
    file.set_len(len).expect("any length");
    file.write_all_at(&head, 0).expect("inside");
    use_it(attach_file(&path).expect("the header is whole again"));
}

#[test]
fn whatever_is_no_file_is_refused_without_waiting() {
    let folder = Folder::new("kinds");
    let (path, _region) = folder.region("region");
    let link = folder.0.join("link");
    std::os::unix::fs::symlink(&path, &link).expect("linked");
    let queue = folder.0.join("queue");
    nix::unistd::mkfifo(&queue, nix::sys::stat::Mode::S_IRWXU).expect("made");
    let odd = [
        Path::new("/dev/null"),
        Path::new("/dev/zero"),
        Path::new("/proc/self/mem"),
        &queue,
        &folder.0,
    ];
    for path in odd {
        assert!(attach_file(path).is_err(), "{}", path.display());
        assert!(attach_read_only(path).is_err(), "{}", path.display());
    }
    assert!(attach_file(&link).is_err());
    assert!(attach_read_only(&link).is_ok());
    assert!(attach_file(&folder.0.join("missing")).is_err());
}

/// Files of random bytes, of a whole region with random sections, and of pieces of one.
#[cfg(feature = "cli")]
fn hostile_files(folder: &Folder) -> Vec<PathBuf> {
    let mut source = Source::Seeded(11);
    let (path, region) = folder.region("busy");
    use_it(region);
    let good = std::fs::read(&path).expect("readable");
    let mut paths = vec![path];
    let mut noise = |len: usize| -> Vec<u8> {
        (0..len.div_ceil(8)).flat_map(|_| source.word().to_le_bytes()).collect()
    };
    paths.push(folder.file("noise", &noise(70_000)));
    paths.push(folder.file("empty", &[]));
    paths.push(folder.file("header", &good[..4_096]));
    paths.push(folder.file("half", &good[..=good.len() / 2]));
    for number in 0..3 {
        let mut bytes = good[..4_096].to_vec();
        bytes.extend(noise(good.len() - 4_096));
        paths.push(folder.file(&format!("scrambled-{number}"), &bytes));
    }
    for number in 0..8 {
        let mut bytes = good.clone();
        for at in noise(200).chunks(8) {
            let at = u64::from_le_bytes(at.try_into().expect("eight bytes"));
            let place = 4_096 + usize::try_from(at >> 8).expect("64 bits") % (bytes.len() - 4_096);
            bytes[place] ^= 1 << (at % 8);
        }
        paths.push(folder.file(&format!("flipped-{number}"), &bytes));
    }
    let mut bytes = noise(4_096);
    bytes[..8].copy_from_slice(&good[..8]);
    paths.push(folder.file("magic", &bytes));
    paths
}

#[cfg(feature = "cli")]
#[test]
fn the_command_line_shows_or_refuses_them() {
    let folder = Folder::new("cli");
    let paths = hostile_files(&folder);
    // Held open as their users hold them, so that `ls` finds those that look like regions.
    let hold = |path| File::options().read(true).write(true).open(path).expect("there");
    let open: Vec<File> = paths.iter().map(hold).collect();
    let run = |arguments: &[&str]| {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_fl-shm"))
            .args(arguments)
            .output()
            .expect("the binary was built");
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        let code = output.status.code();
        assert!(matches!(code, Some(0..=2)), "{arguments:?}: {:?} {errors}", output.status);
        assert!(!errors.contains("panicked"), "{arguments:?}: {errors}");
        assert_eq!(code == Some(2), !errors.is_empty(), "{arguments:?}: {errors}");
        (code, output.stdout)
    };
    let mut shown = 0;
    for path in &paths {
        let path = path.to_str().expect("UTF-8");
        let (code, text) = run(&["inspect", "--file", path]);
        let (again, json) = run(&["inspect", "--json", "--file", path]);
        assert_eq!((code, code == Some(0)), (again, !text.is_empty()));
        if code == Some(0) {
            shown += 1;
            assert!(!text.iter().any(|&byte| byte < b' ' && byte != b'\n'));
            let report: serde_json::Value = serde_json::from_slice(&json).expect("JSON");
            assert_eq!(report["schema"], "fl-shm/1");
        }
        run(&["reap", "--dry-run", "--json", "--file", path]);
        run(&["reap", "--yes", "--json", "--file", path]);
    }
    assert_eq!(shown, 1 + 3 + 8);
    let (code, json) = run(&["ls", "--json"]);
    let listed: serde_json::Value = serde_json::from_slice(&json).expect("JSON");
    let ours = |entry: &&serde_json::Value| {
        entry["name"]
            .as_str()
            .is_some_and(|name| name.starts_with(folder.0.to_str().expect("UTF-8")))
    };
    let listed: Vec<_> = listed.as_array().expect("a list").iter().filter(ours).collect();
    assert_eq!(
        (code, listed.len()),
        (Some(0), 1 + 3 + 8 + 2),
        "header and magic are listed with a problem"
    );
    let (code, text) = run(&["ls"]);
    assert!(code == Some(0) && !text.is_empty());
    drop(open);
}
