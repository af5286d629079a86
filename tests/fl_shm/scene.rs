//! A small proxy's region, the same every time: four workers, one of them dead, keys at and below their
//! limits, a deployment that is cooled down.

use fast_litellm::clock::{Clock, FakeClock, MonotonicClock};
use fast_litellm::config::Capacity;
use fast_litellm::engine::Engine;
use fast_litellm::engine::health::Cause;
use fast_litellm::engine::pool::Settings;
use fast_litellm::engine::slots::SlotAsk;
use fast_litellm::engine::windows::Ask;
use fast_litellm::layout::{ClaimWord, EventKind, FailureKind, FlagMode, WorkerRow, WorkerState};
use fast_litellm::liveness::Liveness;
use fast_litellm::primitives::gcra::Quota;
use fast_litellm::primitives::sliding::SlidingLimit;
use fast_litellm::region::{Moment, Placement, Region, attach_open, create, dump};
use fast_litellm::sync::{Bits, Ordering};
use fast_litellm::tables::events::{self, Fact};
use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// What the clock says at first.
const START_NS: u64 = 1_000_000_000_000;
/// Pids that no process can have: whoever asks the kernel hears that they are dead.
const PIDS: [u64; 4] = [4_193_900, 4_193_901, 4_193_902, 4_193_903];

pub const ALICE: &str = "{user:alice}";
/// As LiteLLM names the key `sk-first`.
pub const FIRST: &str =
    "{api_key:2a19f16bb2586edf26ab5186503c69b4b6e37edcd08ab5c98c97f5320c5ed5c5}";
/// And `sk-second`.
pub const SECOND: &str =
    "{api_key:b464ce30b204dc60e335136ee46a01efe74914f4e4a6264f48448448642c9a0c}";

/// A folder of its own, removed at the end.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new(name: &str) -> Self {
        let name = format!("fl-shm-{name}-{}", std::process::id());
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).expect("writable");
        Self(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The region in use.
pub struct Scene {
    engines: [Engine; 4],
    clock: Option<FakeClock>,
    path: PathBuf,
}

impl Scene {
    /// In a file, at a time that stands still.
    pub fn still(path: PathBuf) -> Self {
        let clock = FakeClock::at(START_NS);
        let scene = Self::new(path, Box::new(clock.clone()), || Box::new(clock.clone()));
        Self { clock: Some(clock), ..scene }
    }

    /// In a file, by the clock of this machine, so that commands may use it.
    pub fn live(path: PathBuf) -> Self {
        Self::new(path, Box::new(MonotonicClock), || Box::new(MonotonicClock))
    }

    fn new(path: PathBuf, clock: Box<dyn Clock>, clocks: impl Fn() -> Box<dyn Clock>) -> Self {
        let placement = Placement::Named { path: path.clone(), force: true };
        let capacity = Capacity::checked(1_000, 64, 16).and_then(|size| size.with_deployments(64));
        let still = clock.id() == u64::MAX;
        let made = create(&placement, capacity.expect("valid"), clock).expect("created");
        let header = made.header();
        header.seed_high.store(0x1234_5678_9abc_def0, Ordering::Relaxed);
        header.seed_low.store(42, Ordering::Relaxed);
        header.creator_pid.store(PIDS[0], Ordering::Relaxed);
        if still {
            header.clock_base_ns.store(START_NS - 2_000_000_000, Ordering::Relaxed);
            header.wall_base_s.store(1_700_000_000, Ordering::Relaxed);
        }
        drop(made);
        let file = || File::options().read(true).write(true).open(&path).expect("open");
        let region = || attach_open(file(), clocks()).expect("nothing is wrong with it");
        let engines = [(); 4].map(|()| Engine::new(region()));
        let scene = Self { engines, clock: None, path };
        scene.region().header().epoch.store(0, Ordering::Relaxed);
        scene
    }

    pub fn region(&self) -> &Region {
        self.engines[0].region()
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn engine(&self) -> &Engine {
        &self.engines[1]
    }

    fn pass(&self, seconds: u64) {
        if let Some(clock) = &self.clock {
            clock.advance_s(seconds);
        }
    }

    /// Half an hour of a proxy's life.
    pub fn play(&self) {
        let [_, one, two, dead] = &self.engines;
        self.pass(1_700);
        limits(one);
        deployments(one, two);
        slots(one, two, dead);
        others(one, two);
        self.pass(17);
        self.baptize(3);
    }

    /// Half a minute more.
    pub fn go_on(&self) {
        self.pass(30);
        request(self.engine(), FIRST, 2, 500);
        let _ = self.engine().end_cooldown("gpt-4o-us");
        self.engine().reap_all();
        self.pass(2);
    }

    /// Gives some of the workers pids that are the same every time; what they were.
    fn baptize(&self, from: usize) -> Vec<(&WorkerRow, ClaimWord, u64)> {
        let rows = self.region().workers().iter();
        let live = rows.map(|row| (row, row.claim.load(Ordering::Relaxed)));
        let live = live.filter(|(_, claim)| claim.pid() > 0).zip(PIDS).skip(from);
        live.map(|((row, claim), pid)| {
            let known = ClaimWord::new(WorkerState::Live as u64, pid, 7, claim.generation());
            row.claim.store(known, Ordering::Relaxed);
            (row, claim, row.start_ticks.swap(7, Ordering::Relaxed))
        })
        .collect()
    }

    /// What was recorded has the pids of this process in it: the same again with others.
    fn record_events(&self) {
        let region = self.region();
        let latest: Vec<_> = self.engines[0].recent_events(50).collect();
        for event in region.events() {
            for word in [&event.sequence, &event.check, &event.owner] {
                word.store(0, Ordering::Relaxed);
            }
        }
        region.header().event_head.store(0, Ordering::Relaxed);
        for entry in latest.into_iter().rev() {
            let Some(kind) = entry.known_kind() else { continue };
            let b = if kind == EventKind::LeaderBegan { PIDS[2] } else { entry.b };
            let a = if kind == EventKind::WorkerReaped { PIDS[3] } else { entry.a };
            let (at_us, owner, subject) = (entry.at_us, entry.owner, entry.subject);
            let fact = Fact { at_us, kind, owner, subject, a, b };
            events::record(region.events(), &region.header().event_head, &fact);
        }
    }

    /// Copies it; all workers but the last live.
    pub fn dump(&self, path: &Path) {
        self.record_events();
        let own = self.baptize(0);
        let rows = self.region().workers().iter().map(|row| row.claim.load(Ordering::Relaxed));
        let liveness = |claim: &ClaimWord| match claim.pid() {
            pid if pid == PIDS[3] => Liveness::Dead,
            _ => Liveness::Alive,
        };
        let processes: BTreeMap<u64, Liveness> =
            rows.filter(|claim| claim.pid() > 0).map(|c| (c.bits(), liveness(&c))).collect();
        let moment = Moment::now(self.region(), "proxy", processes);
        let file = File::options().create_new(true).write(true).mode(0o600).open(path);
        dump(self.region(), &moment, &file.expect("created")).expect("written");
        for (row, claim, start_ticks) in own {
            row.claim.store(claim, Ordering::Relaxed);
            row.start_ticks.store(start_ticks, Ordering::Relaxed);
        }
    }
}

/// A region of that name that nothing has happened in.
pub fn inherited(name: &str) -> Region {
    let capacity = Capacity::checked(1_000, 64, 16).expect("valid");
    create(&Placement::inherited(name), capacity, Box::new(MonotonicClock)).expect("created")
}

/// One request of a key with both limits.
fn request(engine: &Engine, subject: &str, requests: i64, tokens: i64) -> bool {
    let key = |part: &str| format!("{subject}:{part}");
    let (window, counters) = (key("window"), [key("requests"), key("tokens")]);
    let ask = |counter: usize, limit, amount| Ask {
        window: &window,
        counter: &counters[counter],
        limit,
        amount,
        size_s: 60,
    };
    let verdict = engine.admit_all(&[ask(0, 20, requests), ask(1, 9_000, tokens)]);
    let verdict = verdict.expect("there is room");
    matches!(verdict, fast_litellm::engine::windows::Verdict::Admitted(_))
}

fn limits(engine: &Engine) {
    for _ in 0..3 {
        assert!(request(engine, FIRST, 1, 400));
    }
    let admitted = (0..27).filter(|_| request(engine, SECOND, 1, 100)).count();
    assert_eq!(admitted, 20);
    let uploads = engine.limiter("uploads", Quota::new(60, 6).expect("valid"));
    for _ in 0..5 {
        engine.check(&uploads, b"team-blue").expect("room");
    }
    let pages = engine.sliding_limiter("pages", SlidingLimit::new(100, 60).expect("valid"));
    for _ in 0..40 {
        engine.check_sliding(&pages, b"crawler", 1).expect("room");
    }
    let _ = engine.spend("spend:team-blue", 1.25, 86_400);
}

fn slots(one: &Engine, two: &Engine, dead: &Engine) {
    let key = format!("{ALICE}:max_parallel_requests");
    for (engine, slot_id) in [(one, "a"), (two, "b"), (dead, "c"), (dead, "d")] {
        let ask = SlotAsk { key: &key, limit: 5, ttl_s: 3_600, slot_id };
        engine.acquire_all(&[ask]).expect("room");
    }
}

fn deployments(one: &Engine, two: &Engine) {
    for (latency_us, first_us) in [(812_000, 95_000), (790_000, 90_000)] {
        let _ = one.deployment_succeeded("gpt-4o-eu", 60, Some(latency_us), Some(first_us));
    }
    let _ = one.depart("gpt-4o-eu", None);
    let _ = two.depart("gpt-4o-eu", None);
    for _ in 0..3 {
        let _ = two.deployment_failed("gpt-4o-us", 60, FailureKind::RateLimited, 429);
    }
    let cause =
        Cause { kind: FailureKind::RateLimited, status: 429, text: "tokens per minute exceeded" };
    let _ = two.cool_down("gpt-4o-us", 60_000, &cause);
}

fn others(one: &Engine, two: &Engine) {
    let settings = Settings { max_per_endpoint: 10, ..Settings::default() };
    let pool = one.pool("openai", settings).expect("room");
    let _ = one.connect(&pool, "https://api.example.com");
    let _ = two.lead("price-sync", 3_600);
    let _ = one.publish("models", b"what is published is not shown", 600);
    one.feature_error(0);
    one.set_flag(1, FlagMode::Percent, 25);
    if let Ok(series) = one.series("routing") {
        for ns in [4_000, 5_000, 9_000] {
            one.measure(series, ns);
        }
    }
}
