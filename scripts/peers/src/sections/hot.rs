//! One check of one key that everybody has in the cache.

use crate::Failure;
use crate::governed::{self, CoarseClock, Direct, Keyed, coarse_ns};
use crate::measure::{Case, Expect, Plan, measure};
use crate::ours::{At, Bare, Ours, Rate};
use crate::report::{Table, latencies};
use crate::robust::Robust;
use crate::ticks::{ns_per_tick, step};
use governor::clock::{Clock, FakeRelativeClock, MonotonicClock, QuantaClock};
use std::hint::black_box;

const SHORT: [u8; 16] = *b"user-00000000042";
const LONG: [u8; 64] = *b"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
/// Names of ours, which peers are compared with.
const AT: &str = "ours, by place";
const BY_16: &str = "ours, 16-byte key";
const BY_64: &str = "ours, 64-byte key";

/// The contenders of one answer (admitted or refused), set up.
struct Contenders {
    open: bool,
    ours: Ours,
    ours_frozen: Ours,
    bare: Bare,
    quanta: Governed<QuantaClock>,
    standard: Governed<MonotonicClock>,
    coarse: Governed<CoarseClock>,
    frozen: Governed<FakeRelativeClock>,
    robust: Robust,
}

/// governor with one clock.
struct Governed<C: Clock> {
    direct: Direct<C>,
    by_16: Keyed<[u8; 16], C>,
    by_64: Keyed<[u8; 64], C>,
}

impl<C: Clock + Clone> Governed<C> {
    fn new(open: bool, clock: &C) -> Self {
        Self {
            direct: Direct::new(open, clock.clone()),
            by_16: Keyed::new(open, clock.clone()),
            by_64: Keyed::new(open, clock.clone()),
        }
    }

    fn cases<'a>(&'a self, clock: &str, expect: Expect) -> Vec<Case<'a>> {
        let name = |how: &str| format!("governor {how}, {clock}");
        vec![
            Case::new(name("direct"), expect, || black_box(&self.direct).check()).against(AT),
            Case::new(name("16-byte key"), expect, || self.by_16.check(black_box(&SHORT)))
                .against(BY_16),
            Case::new(name("64-byte key"), expect, || self.by_64.check(black_box(&LONG)))
                .against(BY_64),
        ]
    }
}

impl Contenders {
    fn new(open: bool) -> Result<Self, Failure> {
        Ok(Self {
            open,
            ours: Ours::new(1 << 16)?,
            ours_frozen: Ours::frozen(1 << 16)?,
            bare: Bare::new(open)?,
            quanta: Governed::new(open, &governed::quanta()),
            standard: Governed::new(open, &governed::std_clock()),
            coarse: Governed::new(open, &CoarseClock),
            frozen: Governed::new(open, &governed::frozen()),
            robust: Robust::new()?,
        })
    }

    fn expect(&self) -> Expect {
        if self.open { Expect::Admitted } else { Expect::Refused }
    }

    /// What the robust mutex lets through.
    fn limit(&self) -> u64 {
        if self.open { u64::MAX } else { 1 }
    }

    fn rate(&self, ours: &Ours) -> Result<Rate, Failure> {
        if self.open { ours.open() } else { ours.shut() }
    }

    fn timed(&self) -> Result<Vec<Case<'_>>, Failure> {
        let expect = self.expect();
        let mut cases = by_place_and_key(&self.ours, self.rate(&self.ours)?, expect)?;
        cases.extend(self.quanta.cases("quanta clock", expect));
        cases.extend(self.standard.cases("std clock", expect));
        cases.extend(self.coarse.cases("our coarse clock", expect));
        let robust = || {
            let now_s = coarse_ns() / 1_000_000_000;
            self.robust.check(now_s, black_box(self.limit()))
        };
        cases.push(Case::new("robust mutex, our coarse clock", expect, robust).against(AT));
        Ok(cases)
    }

    fn untimed(&self) -> Result<Vec<Case<'_>>, Failure> {
        let expect = self.expect();
        let bare = || self.bare.charge(black_box(1_000_000));
        let mut cases = vec![Case::new("ours, the decision alone", expect, bare)];
        let rate = self.rate(&self.ours_frozen)?;
        cases.extend(by_place_and_key(&self.ours_frozen, rate, expect)?);
        cases.extend(self.frozen.cases("frozen clock", expect));
        let robust = || self.robust.check(black_box(1_000), black_box(self.limit()));
        cases.push(Case::new("robust mutex, no clock", expect, robust).against(AT));
        Ok(cases)
    }
}

fn by_place_and_key(ours: &Ours, rate: Rate, expect: Expect) -> Result<Vec<Case<'_>>, Failure> {
    let rate = std::rc::Rc::new(rate);
    let at: At = ours.place(&rate, &SHORT)?;
    let (rate_16, rate_64) = (rate.clone(), rate.clone());
    Ok(vec![
        Case::new(AT, expect, move || ours.check_at(&rate, *black_box(&at))),
        Case::new(BY_16, expect, move || ours.check(&rate_16, black_box(&SHORT))),
        Case::new(BY_64, expect, move || ours.check(&rate_64, black_box(&LONG))),
    ])
}

/// A loop around nothing.
pub(crate) fn empty() -> Case<'static> {
    Case::new("loop", Expect::Admitted, || black_box(1))
}

/// Calls `each` with the title and the cases of every table.
fn tables(mut each: impl FnMut(&str, Vec<Case<'_>>) -> Result<(), Failure>) -> Result<(), Failure> {
    for open in [true, false] {
        let contenders = Contenders::new(open)?;
        let answer = if open { "admitted" } else { "refused" };
        each(&format!("one hot key, {answer}, with its clock"), contenders.timed()?)?;
        each(&format!("one hot key, {answer}, time standing still"), contenders.untimed()?)?;
    }
    Ok(())
}

/// The width of what a single operation's figure may be off by.
#[allow(clippy::cast_precision_loss, reason = "a few ticks")]
fn step_ns() -> f64 {
    step() as f64 * ns_per_tick()
}

pub(crate) fn run(rounds: usize) -> Result<Vec<Table>, Failure> {
    let mut done = Vec::new();
    tables(|title, cases| {
        eprintln!("measuring: {title}");
        let measured = measure(empty(), cases, &Plan::hot(rounds))?;
        done.push(latencies(title, &measured, Vec::new()));
        Ok(())
    })?;
    if let Some(first) = done.first_mut() {
        first.notes = vec![
            format!(
                "p50 and p99 are of averages over 64 operations; `rounds` is the range of the rounds' \
                 p50; `1:` are single operations, which nothing overlaps, in steps of {:.1} ns, the \
                 timer's",
                step_ns()
            ),
            "the empty loop with its two timer readings is subtracted everywhere".to_string(),
            "`/ ours`: governor direct and the mutex against ours by place, governor with a key against \
             ours with that key"
                .to_string(),
            "the mutex guards one fixed-window counter at a known address: no key, no smooth refill"
                .to_string(),
        ];
    }
    Ok(done)
}

/// Every case with its table's title, for counting.
pub(crate) fn each(
    mut visit: impl FnMut(&str, &mut Case<'_>) -> Result<(), Failure>,
) -> Result<(), Failure> {
    tables(|title, cases| cases.into_iter().try_for_each(|mut case| visit(title, &mut case)))
}
