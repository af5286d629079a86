//! Dumps: a region copied into a file, to be looked at later and elsewhere.
//!
//! A dump is the region's bytes, then a [`Moment`] as JSON, then the length of that text and a mark. Words are
//! copied one after the other while others use the region, so a dump is as consistent as any other reader's
//! look; each word is whole. What stands on the board may be secret and is left out. The file has holes where
//! the region was never written.

use super::mapping::Span;
use super::{Region, Touched};
use crate::clock::StoppedClock;
use crate::error::AttachError;
use crate::layout::section;
use crate::liveness::Liveness;
use crate::sync::Ordering;
use crate::tables::names::printable;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

/// Name and version of the form of a dump.
const FORM: &str = "fl-shm-dump/1";
/// How a dump ends: eight bytes, after the length of the text before it.
const MARK: &[u8; 8] = b"flshmdmp";
/// Bytes of length and mark.
const END: usize = 16;
/// Longest text that is read: a table of workers takes a hundredth of it.
const MAX_TEXT: u64 = 1 << 24;
/// Bytes that are copied at once.
const PAGE: usize = 4096;

/// When a region was copied, and what only its host could tell then.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moment {
    /// [`FORM`].
    form: String,
    /// Name of the region.
    pub name: String,
    /// When it was copied, Unix milliseconds, as the region counts them.
    pub taken_ms: u64,
    /// The same by the region's clock, nanoseconds.
    now_ns: u64,
    /// Number of that clock.
    clock_id: u64,
    /// Which processes were alive, by the claim of their row.
    processes: BTreeMap<u64, Liveness>,
}

impl Moment {
    /// Now; `processes` = which processes live, by the claim of their row.
    pub fn now(region: &Region, name: &str, processes: BTreeMap<u64, Liveness>) -> Self {
        let now = region.now();
        Self {
            form: FORM.to_string(),
            name: name.to_string(),
            taken_ms: region.wall_s(now.s()) * 1_000 + now.us() / 1_000 % 1_000,
            now_ns: region.clock.now_ns(),
            clock_id: region.clock.id(),
            processes,
        }
    }

    /// The clock as it stood.
    pub(super) fn clock(&self) -> StoppedClock {
        StoppedClock { now_ns: self.now_ns, id: self.clock_id }
    }

    /// Whether a row's process was alive.
    pub fn liveness(&self, claim: u64) -> Liveness {
        self.processes.get(&claim).copied().unwrap_or(Liveness::Unknown)
    }
}

/// Copies a region into an empty file.
///
/// # Errors
/// What the file system says; the file is then of no use.
pub fn dump(region: &Region, moment: &Moment, file: &File) -> std::io::Result<()> {
    let lines = region.lines();
    let all = Span { offset: 0, count: lines.len() as u64 };
    let sheets = region.sections().at(section::SHEETS);
    let secret = sheets.offset..sheets.offset + std::mem::size_of_val(region.sheets()) as u64;
    let mut page = Vec::with_capacity(PAGE);
    let mut begins = 0;
    for number in Touched::of(region).records(all, 64) {
        let at = number as u64 * 64;
        if page.len() >= PAGE || at != begins + page.len() as u64 {
            write_data(file, &page, begins)?;
            page.clear();
            begins = at;
        }
        for (word, at) in lines[number].words.iter().zip((at..).step_by(8)) {
            let word = if secret.contains(&at) { 0 } else { word.load(Ordering::Relaxed) };
            page.extend_from_slice(&word.to_le_bytes());
        }
    }
    write_data(file, &page, begins)?;
    let text = serde_json::to_vec(moment)?;
    file.write_all_at(&text, region.len())?;
    let end = [&(text.len() as u64).to_le_bytes()[..], MARK].concat();
    file.write_all_at(&end, region.len() + text.len() as u64)?;
    file.sync_all()
}

/// Leaves a hole for zeroes.
fn write_data(file: &File, page: &[u8], at: u64) -> std::io::Result<()> {
    if page.iter().all(|&byte| byte == 0) { Ok(()) } else { file.write_all_at(page, at) }
}

/// What a dump says beside the region's bytes; `None` = the file is none, or cannot be read.
pub fn moment_in(path: &Path) -> Option<Moment> {
    // Opening a pipe would wait for who writes to it.
    let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path).ok()?;
    let len = file.metadata().ok().filter(std::fs::Metadata::is_file)?.len();
    Some(moment_of(&file, path, len).ok()??.0)
}

/// The moment of a dump, and the bytes of the region in it; `None` = the file does not end as a dump does.
pub(super) fn moment_of(
    file: &File,
    path: &Path,
    len: u64,
) -> Result<Option<(Moment, u64)>, AttachError> {
    let mut end = [0; END];
    let Some(text_end) = len.checked_sub(END as u64) else { return Ok(None) };
    if file.read_exact_at(&mut end, text_end).is_err() || !end.ends_with(MARK) {
        return Ok(None);
    }
    let refused = |why: String| AttachError::Dump { path: path.to_path_buf(), why };
    let text_len = u64::from_le_bytes(*end.first_chunk().unwrap_or(&[0; 8]));
    let text_at = text_end.checked_sub(text_len).filter(|_| text_len <= MAX_TEXT);
    let Some(region_len) = text_at else {
        return Err(refused(format!("its last part has {text_len} bytes")));
    };
    let mut text = vec![0; usize::try_from(text_len).unwrap_or(0)];
    file.read_exact_at(&mut text, region_len).map_err(|error| refused(error.to_string()))?;
    let mut moment: Moment =
        serde_json::from_slice(&text).map_err(|error| refused(error.to_string()))?;
    if moment.form != FORM {
        return Err(refused(format!("it is of the form {:?}, known is {FORM:?}", moment.form)));
    }
    moment.name = printable(&moment.name).into_owned();
    Ok(Some((moment, region_len)))
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use super::*;
    use crate::clock::FakeClock;
    use crate::config::Capacity;
    use crate::engine::Engine;
    use crate::inspect::{self, Report};
    use crate::region::{Placement, attach_read_only, create};
    use proptest::prelude::*;
    use std::os::fd::AsRawFd;

    /// A region in which something happened, and a dump of it.
    fn dumped() -> (Engine, FakeClock, File) {
        let clock = FakeClock::at(9_000_000_000);
        let capacity = Capacity::checked(1_000, 64, 4).unwrap();
        let made = create(&Placement::inherited("dump"), capacity, Box::new(clock.clone()));
        let engine = Engine::new(made.unwrap());
        engine.hit_all(&[("{user:u}:window", "{user:u}:requests")], 60).unwrap();
        engine.publish("notice", b"secret enough", 0).unwrap();
        let file = memory_file();
        let moment = inspect::moment(engine.region(), "dump");
        dump(engine.region(), &moment, &file).unwrap();
        (engine, clock, file)
    }

    fn memory_file() -> File {
        nix::sys::memfd::memfd_create("dump", nix::sys::memfd::MFdFlags::empty()).unwrap().into()
    }

    fn path(file: &File) -> std::path::PathBuf {
        format!("/proc/self/fd/{}", file.as_raw_fd()).into()
    }

    fn bytes(file: &File) -> Vec<u8> {
        let mut bytes = vec![0; usize::try_from(file.metadata().unwrap().len()).unwrap()];
        file.read_exact_at(&mut bytes, 0).unwrap();
        bytes
    }

    #[test]
    fn time_stands_still_in_a_dump_and_it_says_who_lived() {
        let (engine, clock, file) = dumped();
        let before = Report::of(engine.region());
        clock.advance_s(1_000);
        let again = attach_read_only(&path(&file)).unwrap();
        assert_eq!(again.moment().map(|moment| moment.name.as_str()), Some("dump"));
        let then = Report::of(&again);
        assert_eq!(then.limits[0].resets_in_s, before.limits[0].resets_in_s);
        assert_eq!((then.workers[0].alive, then.workers[0].age_s), ("alive", 0));
        assert!(then.header.dumped_at.is_some() && then.header.same_pid_namespace);
        assert_eq!(crate::verify::count(&again).all(), 0);
        assert_eq!((before.notices[0].bytes, then.notices[0].bytes), (Some(13), None));
        assert!(!bytes(&file).windows(6).any(|window| window == b"secret"));
    }

    #[test]
    fn pages_that_were_never_written_are_holes() {
        use std::os::unix::fs::MetadataExt;
        let (engine, _, file) = dumped();
        let meta = file.metadata().unwrap();
        assert!(meta.blocks() * 512 < engine.region().len() / 4, "{}", meta.blocks());
        assert!(meta.len() > engine.region().len());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        /// Whatever the end of a dump says, it is refused or read.
        #[test]
        fn a_damaged_end_harms_nobody(
            flips in proptest::collection::vec((0_usize..400, any::<u8>()), 0..8),
            cut in 0_usize..300,
        ) {
            let (_, _, file) = dumped();
            let mut bytes = bytes(&file);
            bytes.truncate(bytes.len() - cut);
            let len = bytes.len();
            for (back, value) in flips {
                bytes[len - 1 - back] = value;
            }
            let damaged = memory_file();
            damaged.write_all_at(&bytes, 0).unwrap();
            if let Ok(region) = attach_read_only(&path(&damaged)) {
                let _ = Report::of(&region);
            }
        }
    }
}
