//! A region in a known state that can be brought back, with a clock that stands still for everybody.

use super::checks::Before;
use super::operations::{Effect, Home, Operation, SPEND, Step};
use super::process::Child;
use super::tracee::Range;
use fast_litellm::clock::{Clock, MonotonicClock};
use fast_litellm::config::Capacity;
use fast_litellm::engine::Engine;
use fast_litellm::engine::admission::Receipt;
use fast_litellm::engine::health::Flight;
use fast_litellm::engine::leader::Term;
use fast_litellm::engine::pool::Connection;
use fast_litellm::engine::quota::{Limiter, Place};
use fast_litellm::engine::sliding::SlidingLimiter;
use fast_litellm::layout::{KeyKind, section};
use fast_litellm::primitives::breaker::Probe;
use fast_litellm::primitives::gcra::Quota;
use fast_litellm::primitives::sliding::SlidingLimit;
use fast_litellm::region::{Placement, Region, create};
use fast_litellm::sync::{Ordering, Word};
use fast_litellm::tables::index;
use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous};
use std::cell::{Cell, RefCell};
use std::fs::File;
use std::num::NonZeroUsize;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Requests that the limiter admits at one instant.
pub(crate) const BURST: u32 = 6;
/// Requests that the sliding limiter admits in one window.
pub(crate) const WINDOW_LIMIT: u32 = 12;
/// Length of its window, seconds.
pub(crate) const WINDOW_S: u64 = 30;
/// Bytes of a page.
pub(crate) const PAGE: usize = 4096;
const START_NS: u64 = 1_000_000_000_000;
/// After so long a process looks for the dead again.
const REST_NS: u64 = 60_000_000;

/// A clock in shared memory: whoever moves it moves it for all processes.
#[derive(Clone, Copy)]
pub(crate) struct SharedClock(&'static Word<u64>);

impl SharedClock {
    fn new() -> Result<Self, String> {
        let page = NonZeroUsize::new(PAGE).ok_or("no page")?;
        let (access, kind) = (ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, MapFlags::MAP_SHARED);
        // SAFETY: a fresh anonymous mapping at an address of the kernel's choice overlaps nothing.
        let start = unsafe { mmap_anonymous(None, page, access, kind) };
        let start = start.map_err(|error| format!("mmap: {error}"))?;
        // SAFETY: a zeroed page, aligned, never unmapped, and only ever seen as this atomic word.
        let clock = Self(unsafe { start.cast::<Word<u64>>().as_ref() });
        clock.set(START_NS);
        Ok(clock)
    }

    fn set(self, ns: u64) {
        self.0.store(ns, Ordering::SeqCst);
    }

    /// Moves time, back too if need be.
    pub(crate) fn advance_s(self, seconds: i64) {
        self.set(self.now_ns().saturating_add_signed(seconds * 1_000_000_000));
    }
}

impl Clock for SharedClock {
    fn now_ns(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }

    fn id(&self) -> u64 {
        u64::MAX
    }
}

/// Everything an operation runs on. Children inherit it.
pub(crate) struct Stage {
    pub(crate) engine: Engine,
    pub(crate) clock: SharedClock,
    pub(crate) limiter: Limiter,
    /// Gives back one request a minute: tests are faster.
    pub(crate) slow: Limiter,
    /// Gives [`WINDOW_LIMIT`] in [`WINDOW_S`] seconds.
    pub(crate) sliding: SlidingLimiter,
    /// A counter that wants the same place in the key table as [`SPEND`].
    pub(crate) rival: String,
    /// Path of the region if it has a name, else of nothing yet.
    pub(crate) path: PathBuf,
    pub(crate) before: Before,
    /// Start of the window that a process's refund is for.
    pub(crate) window_start: Cell<Option<u64>>,
    /// What a process was granted, for what it does with it afterwards.
    pub(crate) granted: Cell<Option<Granted>>,
    /// A flight of a process, for its arrival.
    pub(crate) flight: Cell<Option<Flight>>,
    /// A term of a process, for its resignation.
    pub(crate) term: Cell<Option<Term>>,
    /// A connection of a process, for its end.
    pub(crate) connection: Cell<Option<Connection>>,
    /// A probe of a process, for its report.
    pub(crate) probe: Cell<Option<Probe>>,
    /// Where the key is that a process resets.
    pub(crate) place: Cell<Option<Place>>,
    /// The idle key that gives its place to the operation's.
    pub(crate) doomed: RefCell<String>,
    /// Another key that wants that place.
    pub(crate) usurper: RefCell<String>,
    dead: RefCell<Vec<Child>>,
    image: Vec<u8>,
    now_ns: u64,
}

impl Stage {
    /// Builds the operation's scene.
    pub(crate) fn of(operation: &Operation) -> Result<Self, String> {
        let clock = SharedClock::new()?;
        let path = region_path();
        let engine = Engine::new(region(operation.home, &path, clock)?);
        let limiter = |per_minute| {
            let quota = Quota::new(per_minute, BURST).ok_or("a valid quota")?;
            Ok::<_, String>(engine.limiter("", quota))
        };
        let (limiter, slow) = (limiter(60)?, limiter(1)?);
        let limit = SlidingLimit::new(u64::from(WINDOW_LIMIT), WINDOW_S).ok_or("a valid limit")?;
        let sliding = engine.sliding_limiter("", limit);
        let rival = rival(engine.region());
        let mut stage = Self {
            engine,
            clock,
            limiter,
            slow,
            sliding,
            rival,
            path,
            before: Before::default(),
            window_start: Cell::default(),
            granted: Cell::default(),
            flight: Cell::default(),
            term: Cell::default(),
            connection: Cell::default(),
            probe: Cell::default(),
            place: Cell::default(),
            doomed: RefCell::default(),
            usurper: RefCell::default(),
            dead: RefCell::default(),
            image: Vec::new(),
            now_ns: 0,
        };
        Before::invite_bystanders(&stage)?;
        (operation.scene)(&stage);
        // A process looks for the dead once in a while only, and so does a child for its parent.
        clock.set(clock.now_ns() + REST_NS);
        stage.now_ns = clock.now_ns();
        stage.image = stage.bytes()?;
        stage.before = Before::of(&stage, operation)?;
        stage.reset()?;
        Ok(stage)
    }

    pub(crate) fn region(&self) -> &Region {
        self.engine.region()
    }

    /// A worker that does `last` and is dead; its pid stays taken.
    pub(crate) fn somebody_dies(&self, last: Step) {
        let mut child = Child::fork(|channel| {
            channel.send_effect(last(self))?;
            channel.receive().map(drop)
        })
        .expect("forks");
        child.channel.receive_effect().expect("does its last");
        child.kill().expect("dies");
        self.dead.borrow_mut().push(child);
    }

    /// A worker that does `step` and leaves in order.
    pub(crate) fn somebody_visits(&self, step: Step) -> Result<Effect, String> {
        self.visited_by(step)
    }

    fn visited_by(&self, step: impl Fn(&Self) -> Effect) -> Result<Effect, String> {
        let mut child = Child::fork(|channel| {
            let effect = step(self);
            self.engine.leave();
            channel.send_effect(effect)
        })?;
        child.channel.receive_effect()
    }

    /// What `step` says in a process that comes and goes, after which everything is as before. For scenes.
    pub(crate) fn tried(&self, step: impl Fn(&Self) -> Effect) -> Effect {
        let image = self.bytes().expect("reads");
        let effect = self.visited_by(step).expect("visits");
        self.write(&image).expect("writes");
        effect
    }

    /// Reads something as of the instant of the scene.
    pub(crate) fn at_first<T>(&self, read: impl FnOnce(&Self) -> T) -> T {
        let now_ns = self.clock.now_ns();
        self.clock.set(self.now_ns);
        let value = read(self);
        self.clock.set(now_ns);
        value
    }

    fn file(&self) -> Result<&File, String> {
        self.region().backing().file.as_ref().ok_or_else(|| "the region has no file".to_string())
    }

    /// The memory that all processes share: the region, and behind it the clock.
    pub(crate) fn shared(&self) -> Vec<Range> {
        let address = |place: *const ()| place.addr() as u64;
        let region = address(std::ptr::from_ref(self.region().header()).cast());
        let clock = address(std::ptr::from_ref(self.clock.0).cast());
        let len = self.region().len();
        vec![
            Range { start: region, len, offset: 0 },
            Range { start: clock, len: PAGE as u64, offset: len },
        ]
    }

    /// All of the region that operations here write to, and where it begins: of the sheets of notices, which are
    /// most of its bytes, a page each.
    fn parts(&self) -> Vec<(std::ops::Range<usize>, u64)> {
        let sections = self.region().sections();
        let sheets = sections.iter().find(|found| found.id == section::SHEETS).expect("a section");
        let page = PAGE as u64;
        let begins = (0..sheets.span.count).map(|sheet| sheets.span.offset + sheet * sheets.stride);
        let behind = sheets.span.offset + sheets.stride * sheets.span.count;
        let parts = [(0, sheets.span.offset), (behind, self.region().len())];
        let parts = parts.into_iter().chain(begins.map(|at| (at, at + page)));
        let place = |at: u64| usize::try_from(at).expect("64 bits");
        parts.map(|(start, end)| (place(start)..place(end), start)).collect()
    }

    /// All bytes of the region.
    pub(crate) fn bytes(&self) -> Result<Vec<u8>, String> {
        let mut bytes = vec![0; usize::try_from(self.region().len()).map_err(|_| "too long")?];
        for (part, offset) in self.parts() {
            let bytes = bytes.get_mut(part).ok_or("too short")?;
            self.file()?.read_exact_at(bytes, offset).map_err(|error| format!("read: {error}"))?;
        }
        Ok(bytes)
    }

    /// Puts these bytes into the region, at the instant of the scene.
    pub(crate) fn load(&self, bytes: &[u8]) -> Result<(), String> {
        self.clock.set(self.now_ns);
        self.write(bytes)
    }

    fn write(&self, bytes: &[u8]) -> Result<(), String> {
        for (part, offset) in self.parts() {
            let bytes = bytes.get(part).ok_or("too short")?;
            self.file()?.write_all_at(bytes, offset).map_err(|error| format!("write: {error}"))?;
        }
        Ok(())
    }

    /// Puts the scene back.
    pub(crate) fn reset(&self) -> Result<(), String> {
        self.load(&self.image)
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Where the keys of an admission are, and what its demands were given.
pub(crate) type Granted = [(Option<Place>, Receipt); 4];

pub(crate) fn capacity() -> Result<Capacity, String> {
    let capacity = Capacity::checked(1024, 64, 8).and_then(|sizes| sizes.with_deployments(64));
    capacity.map_err(|error| error.to_string())
}

pub(crate) fn named(path: &Path) -> Placement {
    Placement::Named { path: path.to_path_buf(), force: true }
}

fn region(home: Home, path: &Path, clock: SharedClock) -> Result<Region, String> {
    // Who attaches by name brings the kernel's clock.
    let (placement, clock): (_, Box<dyn Clock>) = match home {
        Home::Named => (named(path), Box::new(MonotonicClock)),
        Home::Inherited | Home::Small => (Placement::inherited("crash"), Box::new(clock)),
    };
    let capacity = match home {
        // Smaller than anybody gets by asking: all buckets are places of every key.
        Home::Small => Capacity { keys: 40, ..capacity()? },
        Home::Named | Home::Inherited => capacity()?,
    };
    create(&placement, capacity, clock).map_err(|error| error.to_string())
}

fn rival(region: &Region) -> String {
    let (buckets, _) = region.key_buckets();
    let place = |key: &str| {
        let hash = region.hash(KeyKind::Counter as u64, key.as_bytes());
        index::Probe::of(hash).places(buckets.len()).next()
    };
    let mut names = (0..).map(|n: u64| format!("rival:{n}"));
    names.find(|name| place(name) == place(SPEND)).unwrap_or_default()
}

/// A path that nobody else uses.
fn region_path() -> PathBuf {
    static NEXT: Word<u64> = Word::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let folder = Path::new("/dev/shm");
    let folder = if folder.is_dir() { folder.to_path_buf() } else { std::env::temp_dir() };
    folder.join(format!("fl-crash-points-{}-{number}", std::process::id()))
}
