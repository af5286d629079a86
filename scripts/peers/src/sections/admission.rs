//! What a proxy asks before a request: three limits and one lease, given back afterwards.

use crate::Failure;
use crate::governed::{self, CoarseClock, Keyed, coarse_ns};
use crate::measure::{Case, Expect, Plan, measure};
use crate::ours::{Ours, Places, Request};
use crate::report::{Table, latencies};
use crate::robust::Robust;
use governor::clock::{Clock, QuantaClock};
use std::collections::HashMap;
use std::hint::black_box;

const TITLE: &str = "three limits and one lease, admitted, then the lease given back";
const OURS: &str = "ours, by text";
const KEPT: &str = "ours, places kept";
const SLOTS: u64 = 1_000;
/// An API key's hash, a user and a team, as long as those of [`Request`].
const KEYS: [&str; 3] = ["0123456789abcdef0123456789abcdef", "user-000001", "team-01"];

struct Contenders {
    ours: Ours,
    request: Request,
    places: Places,
    quanta: [Keyed<&'static str, QuantaClock>; 3],
    coarse: [Keyed<&'static str, CoarseClock>; 3],
    lease: Robust,
    all: Robust,
    /// Where the one lock has the counters of a key.
    found: HashMap<&'static str, usize>,
}

fn three<C: Clock + Clone>(clock: &C) -> [Keyed<&'static str, C>; 3] {
    std::array::from_fn(|_| Keyed::new(true, clock.clone()))
}

/// governor's three checks, then a counter under the robust mutex.
fn governed<C: Clock>(limits: &[Keyed<&'static str, C>; 3], lease: &Robust) -> u64 {
    let admitted = limits.iter().zip(&KEYS).all(|(limit, key)| limit.check(black_box(key)) == 1);
    if !admitted {
        return 0;
    }
    lease.acquire(black_box(SLOTS)) + lease.release(0)
}

impl Contenders {
    fn new() -> Result<Self, Failure> {
        let (ours, request) = (Ours::new(1 << 16)?, Request::new(0));
        Ok(Self {
            places: ours.places(&request)?,
            ours,
            request,
            quanta: three(&governed::quanta()),
            coarse: three(&CoarseClock),
            lease: Robust::new()?,
            all: Robust::new()?,
            found: KEYS.into_iter().map(|key| (key, 0)).collect(),
        })
    }

    fn cases(&self) -> Vec<Case<'_>> {
        let admitted = Expect::Admitted;
        let ours = || self.ours.admission(black_box(&self.request), None);
        let kept = || self.ours.admission(black_box(&self.request), Some(black_box(&self.places)));
        let quanta = || governed(&self.quanta, &self.lease);
        let coarse = || governed(&self.coarse, &self.lease);
        let all = || {
            let now_s = coarse_ns() / 1_000_000_000;
            self.all.admission(0, now_s, black_box(u64::MAX), SLOTS) + self.all.release(0)
        };
        let find = |key: &str| self.found.get(black_box(key)).copied().unwrap_or(usize::MAX);
        let found = move || {
            let client = KEYS.iter().map(|key| find(key)).sum();
            let now_s = coarse_ns() / 1_000_000_000;
            let admitted = self.all.admission(client, now_s, black_box(u64::MAX), SLOTS);
            admitted + self.all.release(find(KEYS[0]))
        };
        vec![
            Case::new(OURS, admitted, ours),
            Case::new(KEPT, admitted, kept),
            Case::new("3 governor keyed, quanta clock; robust mutex", admitted, quanta)
                .against(OURS),
            Case::new("3 governor keyed, our coarse clock; robust mutex", admitted, coarse)
                .against(OURS),
            Case::new("one robust mutex, 4 keys found in a HashMap", admitted, found).against(OURS),
            Case::new("one robust mutex, no keys", admitted, all).against(KEPT),
        ]
    }
}

pub(crate) fn run(rounds: usize) -> Result<Vec<Table>, Failure> {
    eprintln!("measuring: {TITLE}");
    let contenders = Contenders::new()?;
    let measured = measure(super::hot::empty(), contenders.cases(), &Plan::hot(rounds))?;
    let notes = vec![
        "ours finds four keys by their text, counts across processes, knows who holds the lease and \
         frees it when the holder dies"
            .to_string(),
        "governor's limits are of one process, and its three charges are not all or nothing; a lease \
         that its holder does not give back is lost with both mutexes"
            .to_string(),
        "the one mutex reads our coarse clock; its HashMap is this process's own and never changes, as if \
         all processes had always known all keys"
            .to_string(),
    ];
    Ok(vec![latencies(TITLE, &measured, notes)])
}

/// Every case with its table's title, for counting.
pub(crate) fn each(
    mut visit: impl FnMut(&str, &mut Case<'_>) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let contenders = Contenders::new()?;
    contenders.cases().iter_mut().try_for_each(|case| visit(TITLE, case))
}
