//! Keyed tables of fixed size, in which a record's identity word is its key.
//!
//! A key may stand in any of the 64 places of its probe: eight groups of eight neighbours. The groups
//! lie far apart, so that a table that is two thirds full still has room for nearly every key. A slot
//! that was never used ends every search, and none becomes so again: a slot that was given up is free,
//! but does not end a search.
//!
//! **Inserting.** The key's first free slot is claimed, then all its other places are looked at again,
//! and only then the slot becomes the key's. Of two processes that insert one key at least one sees the
//! other's claim, because each looks after it has claimed; whoever sees a claim takes it away or gives
//! its own up. So a key never stands in two slots. A claim belongs to nobody: anybody may take it away
//! at any time, and a dead process's claim hinders nobody.
//!
//! **Giving up.** A record that is in its default state says as much as no record at all. Its slot is
//! marked as leaving, the record is looked at again, and only if it still is idle the slot becomes free.
//! Whoever charges a record looks at its identity *after* the charge: if the key is leaving, the charger
//! takes it back; if it is gone, the charge is made again elsewhere. Mark and charge are sequentially
//! consistent (SYNC key-leave), so that a charge is either seen by who gives up, or sees the mark. The
//! version in the word keeps a process that was stopped for long from finishing what others have undone.
//!
//! **Being late.** A process may be stopped anywhere, and find its key's record in the hands of another key
//! when it goes on. So it looks at the identity *before* each swap, too, and after the load of what it swaps
//! (SYNC key-stands): what it saw then was its key's. If that said something, the record cannot have passed
//! on while the word is unchanged; if it said nothing, the swap does away with nothing, and is undone when
//! the look after it finds another key. [`Held`] does all of this.

use crate::layout::{
    Bucket, Deployment, Endpoint, IdentityWord, Job, KeyKind, LeaseChunk, Notice, Series, SlotState,
};
use crate::primitives::{MAX_TRIES, Shared, mix};
use crate::sync::{Bits, Ordering, Word, in_total_order, stand_back};

/// Places in which a key may stand.
pub const PLACES: u64 = GROUPS * GROUP;

#[cfg(not(loom))]
const GROUPS: u64 = 8;
#[cfg(not(loom))]
const GROUP: u64 = 8;
#[cfg(loom)]
const GROUPS: u64 = 1;
#[cfg(loom)]
const GROUP: u64 = 4;

/// Makes all bits of a hash decide the high ones: 2^64 divided by the golden ratio.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// Attempts to insert a key against others who insert the same one.
const ATTEMPTS: u32 = 16;
/// From this attempt on, claims that come first in the probe are taken away too.
const PATIENCE: u32 = 2;

/// A number that no other process, and no other call in this one, gives soon.
#[cfg(not(loom))]
pub fn nonce() -> u64 {
    static NEXT: Word<u64> = Word::new(1);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    // A child goes on counting where its parent stood; its pid makes the difference.
    mix(number << 32 | u64::from(std::process::id()))
}

/// A record that stands in a keyed table.
pub trait Keyed {
    /// Its identity word.
    fn identity(&self) -> &Word<IdentityWord>;
}

macro_rules! keyed {
    ($($record:ty),*) => {$(
        impl Keyed for $record {
            #[inline]
            fn identity(&self) -> &Word<IdentityWord> {
                &self.identity
            }
        }
    )*};
}
keyed!(Bucket, LeaseChunk, Deployment, Series, Job, Notice, Endpoint);

/// Why a key was not inserted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotInserted {
    /// Its places are all taken.
    Full,
    /// Others inserted the same key under every attempt.
    Contended,
}

/// Where a key may stand.
#[derive(Debug, Clone, Copy)]
pub struct Probe {
    home: u64,
    stride: u64,
}

impl Probe {
    /// From the key's hash. All of it decides where the probe begins, so that keys whose identities are alike
    /// (51 bits) begin in different places.
    #[inline]
    pub fn of(hash: u64) -> Self {
        Self { home: hash.wrapping_mul(GOLDEN), stride: hash.rotate_left(32) | 1 }
    }

    /// The first two of the places.
    #[inline]
    fn first(self, len: usize) -> [usize; 2] {
        let group = scale(self.home, len as u64 / GROUP) * GROUP;
        std::array::from_fn(|step| {
            let place = group + (self.home.wrapping_add(step as u64) & (GROUP - 1));
            usize::try_from(place).unwrap_or(usize::MAX)
        })
    }

    /// The places in a table of `len` slots, in the order in which they are looked at. Every place is
    /// below `len`.
    #[inline]
    pub fn places(self, len: usize) -> impl Iterator<Item = usize> + Clone {
        let groups = len as u64 / GROUP;
        let home = scale(self.home, groups);
        (0..GROUPS).take_while(move |_| groups > 0).flat_map(move |number| {
            let (group, hash) = match number {
                0 => (home, self.home),
                // A table of few groups has them all looked at, in turn.
                _ if groups <= GROUPS => ((home + number) % groups, self.home),
                _ => {
                    let hash = mix(self.home.wrapping_add(number.wrapping_mul(self.stride)));
                    (scale(hash, groups), hash)
                }
            };
            (0..GROUP).map(move |step| {
                let place = group * GROUP + (hash.wrapping_add(step) & (GROUP - 1));
                usize::try_from(place).unwrap_or(usize::MAX)
            })
        })
    }
}

/// The hash as a number below `groups`.
#[inline]
fn scale(hash: u64, groups: u64) -> u64 {
    #[allow(
        clippy::cast_possible_truncation,
        reason = "the high half of the product is below groups"
    )]
    let group = ((u128::from(hash) * u128::from(groups)) >> 64) as u64;
    group
}

/// A key's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot {
    /// Position in the table.
    pub index: usize,
    /// True when this call inserted the key.
    pub inserted: bool,
}

/// Identity of a key from its keyed hash.
#[inline]
pub fn identity(kind: KeyKind, hash: u64) -> IdentityWord {
    IdentityWord::new(SlotState::Taken as u64, kind as u64, 0, hash >> 13)
}

fn with(word: IdentityWord, state: SlotState, version: u64) -> IdentityWord {
    IdentityWord::new(state as u64, word.kind(), version, word.hash())
}

/// A slot that was given up. Not zero, whatever its version.
fn free(version: u64) -> IdentityWord {
    IdentityWord::new(SlotState::Free as u64, 0, version, 1)
}

/// A claim of a slot for a key: no two claims are ever the same word.
pub(crate) fn claim(wanted: IdentityWord, version: u64, nonce: u64) -> IdentityWord {
    let hash = wanted.hash() << 32 | nonce & u64::from(u32::MAX);
    IdentityWord::new(SlotState::Claimed as u64, wanted.kind(), version, hash)
}

/// Whether a claim may be one for that key: 19 bits of its hash agree.
fn rivals(seen: IdentityWord, wanted: IdentityWord) -> bool {
    seen.state() == SlotState::Claimed as u64
        && seen.kind() == wanted.kind()
        && claim(wanted, seen.version(), seen.hash()) == seen
}

/// Whether the key stands in a slot that holds this word, leaving or not.
#[inline]
pub fn is(seen: IdentityWord, wanted: IdentityWord) -> bool {
    // Both states have the higher bit, and differ in the lower one and the version only.
    let ignored = IdentityWord::new(1, 0, u64::MAX, 0).bits();
    (seen.bits() ^ wanted.bits()) & !ignored == 0
}

/// The key of a slot without what changes while it stands there; `None` = no key stands in it.
#[inline]
pub fn key_of(seen: IdentityWord) -> Option<IdentityWord> {
    (seen.state() & 2 != 0).then(|| with(seen, SlotState::Taken, 0))
}

/// Finds the key without writing anything; `None` = it is not in the table.
#[inline]
pub fn find<T: Keyed>(table: &[T], probe: Probe, wanted: IdentityWord) -> Option<usize> {
    // Most keys stand in one of the first two places. Both are loaded before one is looked at, so that a table
    // that is larger than the caches costs one wait for memory and not two.
    let [first, second] = probe.first(table.len());
    let (one, two) = (table.get(first)?.identity(), table.get(second)?.identity());
    let (one, two) = (one.load(Ordering::Acquire), two.load(Ordering::Acquire));
    if is(one, wanted) {
        return Some(first);
    }
    if one == IdentityWord::default() {
        return None;
    }
    if is(two, wanted) {
        return Some(second);
    }
    if two == IdentityWord::default() {
        return None;
    }
    find_further(table, probe, wanted)
}

#[cold]
#[inline(never)]
fn find_further<T: Keyed>(table: &[T], probe: Probe, wanted: IdentityWord) -> Option<usize> {
    for place in probe.places(table.len()) {
        // SYNC key-insert: Acquire pairs with the Release of `insert`.
        let seen = table.get(place)?.identity().load(Ordering::Acquire);
        if is(seen, wanted) {
            return Some(place);
        }
        if seen == IdentityWord::default() {
            return None;
        }
    }
    None
}

/// To be called after a charge: whether the record still is the key's, so that the charge counts. A key
/// that is leaving is taken back.
#[inline]
pub fn holds(word: &Word<IdentityWord>, wanted: IdentityWord) -> bool {
    in_total_order();
    // SYNC key-leave: SeqCst, after the SeqCst swap of the charge.
    let seen = word.load(Ordering::SeqCst);
    is(seen, wanted) && (seen.state() == SlotState::Taken as u64 || take_back(word, seen, wanted))
}

#[cold]
fn take_back(word: &Word<IdentityWord>, seen: IdentityWord, wanted: IdentityWord) -> bool {
    let mut seen = seen;
    // Others may take it back, and still others mark it again, meanwhile.
    for _ in 0..MAX_TRIES {
        let taken = with(seen, SlotState::Taken, seen.version());
        match word.compare_exchange(seen, taken, Ordering::SeqCst, Ordering::SeqCst) {
            Ok(_) => return true,
            Err(now) if !is(now, wanted) => return false,
            Err(now) if now.state() == SlotState::Taken as u64 => return true,
            Err(now) => seen = now,
        }
    }
    false
}

/// A word of a key's record, which may pass to another key between any two instructions.
pub struct Held<'a, T> {
    word: &'a Word<T>,
    identity: &'a Word<IdentityWord>,
    key: IdentityWord,
    undo: bool,
}

impl<T> Clone for Held<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Held<'_, T> {}

impl<'a, T: Bits> Held<'a, T> {
    /// A word of the record with that identity word, for a key that was found there.
    #[inline]
    pub fn new(word: &'a Word<T>, identity: &'a Word<IdentityWord>, key: IdentityWord) -> Self {
        Self { word, identity, key, undo: true }
    }

    /// The same for a word that others rely on as soon as it is written, so that a swap must not be undone.
    #[inline]
    #[must_use]
    pub fn for_good(self) -> Self {
        Self { undo: false, ..self }
    }
}

/// A swap fails when the record is not the key's. That looks like a word that keeps changing: whoever ran
/// out of tries asks [`holds`].
impl<T: Bits> Shared for Held<'_, T> {
    type Value = T;

    #[inline]
    fn load(self, _: Ordering) -> T {
        // SYNC key-stands: Acquire pairs with the swap below, whatever the rule of the word asks for. Whoever
        // sees what was charged for another key then also sees that key in the identity.
        self.word.load(Ordering::Acquire)
    }

    #[inline]
    fn compare_exchange(self, current: T, new: T, _: Ordering, _: Ordering) -> Result<T, T> {
        if !is(self.identity.load(Ordering::Acquire), self.key) {
            return Err(self.word.load(Ordering::Acquire));
        }
        // SYNC key-leave: SeqCst, before the identity is looked at again.
        if self.word.compare_exchange(current, new, Ordering::SeqCst, Ordering::Acquire).is_err() {
            stand_back();
            return Err(self.word.load(Ordering::Acquire));
        }
        if holds(self.identity, self.key) {
            return Ok(current);
        }
        if self.undo {
            let _ = self.word.compare_exchange(new, current, Ordering::SeqCst, Ordering::Relaxed);
        }
        Err(current)
    }
}

/// What a look at all places of a key shows.
enum Sight {
    Here(usize),
    Free(usize, IdentityWord),
    Full,
}

fn look<T: Keyed>(table: &[T], probe: Probe, wanted: IdentityWord) -> Sight {
    let mut room = None;
    for place in probe.places(table.len()) {
        let Some(word) = table.get(place).map(Keyed::identity) else { break };
        let seen = word.load(Ordering::SeqCst);
        if is(seen, wanted) && holds(word, wanted) {
            return Sight::Here(place);
        }
        if seen.state() == SlotState::Free as u64 {
            room = room.or(Some((place, seen)));
        }
        if seen == IdentityWord::default() {
            break;
        }
    }
    room.map_or(Sight::Full, |(place, seen)| Sight::Free(place, seen))
}

/// Finds or inserts the key. `nonce` gives a number that no other process gives for this table soon.
///
/// Linearization point of the insert: the swap that makes the claim the key. Lock-free, bounded.
pub fn insert<T: Keyed>(
    table: &[T],
    probe: Probe,
    wanted: IdentityWord,
    mut nonce: impl FnMut() -> u64,
) -> Result<Slot, NotInserted> {
    for attempt in 0..ATTEMPTS {
        let (place, seen) = match look(table, probe, wanted) {
            Sight::Here(index) => return Ok(Slot { index, inserted: false }),
            Sight::Free(place, seen) => (place, seen),
            Sight::Full => return Err(NotInserted::Full),
        };
        let Some(record) = table.get(place) else { break };
        let word = record.identity();
        let claimed = claim(wanted, seen.version(), nonce());
        if word.compare_exchange(seen, claimed, Ordering::SeqCst, Ordering::Relaxed).is_err() {
            continue;
        }
        if is_only_claim(table, probe, wanted, place, attempt >= PATIENCE) {
            let taken = with(wanted, SlotState::Taken, seen.version().wrapping_add(1));
            // SYNC key-insert: Release, so that whoever finds the key finds the record as it was left.
            if word.compare_exchange(claimed, taken, Ordering::SeqCst, Ordering::Relaxed).is_ok() {
                return Ok(Slot { index: place, inserted: true });
            }
        } else {
            let given_up = free(seen.version());
            let _ = word.compare_exchange(claimed, given_up, Ordering::SeqCst, Ordering::Relaxed);
        }
    }
    Err(NotInserted::Contended)
}

/// Whether the key stands in no other place, after taking away other claims for it: those behind `mine`,
/// and with `all` those before it too. Without `all`, a claim before `mine` makes it false.
fn is_only_claim<T: Keyed>(
    table: &[T],
    probe: Probe,
    wanted: IdentityWord,
    mine: usize,
    all: bool,
) -> bool {
    in_total_order();
    let mut behind = false;
    for place in probe.places(table.len()) {
        if place == mine {
            behind = true;
            continue;
        }
        let Some(word) = table.get(place).map(Keyed::identity) else { break };
        let seen = word.load(Ordering::SeqCst);
        if seen == IdentityWord::default() {
            break;
        }
        if is(seen, wanted) {
            return false;
        }
        if rivals(seen, wanted) {
            let given_up = free(seen.version());
            let removed = (behind || all)
                && word
                    .compare_exchange(seen, given_up, Ordering::SeqCst, Ordering::Relaxed)
                    .is_ok();
            if !removed {
                return false;
            }
        }
    }
    true
}

/// Whether [`insert`] finds a free place, or [`make_room`] makes one, for a key that stands in none of them.
/// Reads only.
pub fn has_room<T: Keyed>(
    table: &[T],
    probe: Probe,
    is_idle: impl Fn(IdentityWord, &T) -> bool,
) -> bool {
    probe.places(table.len()).filter_map(|place| table.get(place)).any(|record| {
        let seen = record.identity().load(Ordering::SeqCst);
        key_of(seen).is_none_or(|key| is_idle(key, record))
    })
}

/// Makes one of the key's places free: a claim, or a record that says nothing. `is_idle` tells whether a
/// record is in its default state; `clear` brings an idle one to all zeroes, each word by a swap from an
/// idle value, and answers false if one of them was charged meanwhile. Returns the key that was given up
/// (`None` for a claim), or `Err` when every place holds a live record.
///
/// Linearization point: the swap to free. Bounded by the key's places.
pub fn make_room<T: Keyed>(
    table: &[T],
    probe: Probe,
    is_idle: impl Fn(IdentityWord, &T) -> bool,
    clear: impl Fn(usize, IdentityWord, &T) -> bool,
) -> Result<Option<IdentityWord>, NotInserted> {
    for place in probe.places(table.len()) {
        let Some(record) = table.get(place) else { break };
        let word = record.identity();
        let seen = word.load(Ordering::SeqCst);
        let swap =
            |from, to| word.compare_exchange(from, to, Ordering::SeqCst, Ordering::Relaxed).is_ok();
        match SlotState::from_raw(seen.state()) {
            SlotState::Free => return Ok(None),
            SlotState::Claimed => {
                // Whoever claimed it claims again.
                if swap(seen, free(seen.version())) {
                    return Ok(None);
                }
            }
            SlotState::Taken | SlotState::Leaving => {
                let key = with(seen, SlotState::Taken, 0);
                if !is_idle(key, record) {
                    continue;
                }
                let leaving = if seen.state() == SlotState::Leaving as u64 {
                    seen
                } else {
                    let leaving = with(seen, SlotState::Leaving, seen.version().wrapping_add(1));
                    if !swap(seen, leaving) {
                        continue;
                    }
                    leaving
                };
                in_total_order();
                // SYNC key-leave: what was charged before the mark is seen now; what is charged after it
                // sees the mark and takes the key back, and the last swap fails.
                if is_idle(key, record) && clear(place, key, record) {
                    if swap(leaving, free(leaving.version())) {
                        return Ok(Some(key));
                    }
                } else {
                    swap(leaving, with(leaving, SlotState::Taken, leaving.version()));
                }
            }
        }
    }
    Err(NotInserted::Full)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    fn table(len: usize) -> Vec<Bucket> {
        (0..len).map(|_| Bucket::zeroed()).collect()
    }

    fn probe(key: u64) -> Probe {
        Probe::of(mix(key))
    }

    fn key(number: u64) -> IdentityWord {
        identity(KeyKind::Gcra, (number + 1) << 13)
    }

    fn counter() -> impl FnMut() -> u64 {
        let mut number = 0;
        move || {
            number += 1;
            number
        }
    }

    fn put(table: &[Bucket], at: u64, wanted: IdentityWord) -> Result<Slot, NotInserted> {
        insert(table, probe(at), wanted, counter())
    }

    #[test]
    fn the_places_are_distinct_and_in_bounds() {
        for len in [8, 64, 100, 1_000, 100_000] {
            for at in 0..200 {
                let places: Vec<usize> = probe(at).places(len).collect();
                assert!(places.iter().all(|&place| place < len));
                assert_eq!(places.len() as u64, PLACES);
            }
        }
        for len in [8, 100, 100_000] {
            assert!(
                (0..200).all(|at| {
                    probe(at).first(len).into_iter().eq(probe(at).places(len).take(2))
                })
            );
        }
        let all: std::collections::HashSet<usize> = probe(7).places(64).collect();
        assert_eq!(all.len(), 64);
        assert_eq!(probe(7).places(7).count(), 0);
    }

    #[test]
    fn the_places_fill_and_then_refuse() {
        let table = table(1024);
        // Of some hashes two groups are one and the same.
        let places = |hash| probe(hash).places(1024).collect::<std::collections::HashSet<_>>();
        let hash = (0..1_000).find(|&hash| places(hash).len() as u64 == PLACES).unwrap();
        for number in 0..PLACES {
            let slot = put(&table, hash, key(number)).unwrap();
            assert!(slot.inserted);
        }
        assert_eq!(put(&table, hash, key(999)), Err(NotInserted::Full));
        assert_eq!(put(&table, hash, key(5)).map(|slot| slot.inserted), Ok(false));
    }

    #[test]
    fn kinds_never_share_a_record() {
        let table = table(64);
        let a = put(&table, 3, identity(KeyKind::Gcra, 1 << 13)).unwrap();
        let b = put(&table, 3, identity(KeyKind::Window, 1 << 13)).unwrap();
        assert_ne!(a.index, b.index);
    }

    #[test]
    fn a_table_holds_the_keys_it_promises() {
        let keys = if cfg!(miri) { 1_000 } else { 100_000 };
        let capacity = crate::config::Capacity::checked(keys.into(), 64, 4).unwrap();
        let table = table(usize::try_from(capacity.buckets()).unwrap());
        for number in 0..keys {
            assert!(put(&table, number + 1, key(number)).is_ok(), "key {number}");
        }
    }

    #[test]
    fn a_dead_claim_hinders_nobody() {
        let table = table(64);
        let first = probe(9).places(64).next().unwrap();
        table[first].identity.store(claim(key(1), 0, 99), Ordering::Relaxed);
        let slot = put(&table, 9, key(1)).unwrap();
        assert_ne!(slot.index, first);
        // The claim is gone, and its slot serves the next key.
        assert_eq!(put(&table, 9, key(2)).map(|slot| slot.index), Ok(first));
        assert_eq!(find(&table, probe(9), key(1)), Some(slot.index));
    }

    fn idle(_: IdentityWord, bucket: &Bucket) -> bool {
        bucket.denied.load(Ordering::SeqCst) == 0
    }

    #[test]
    fn only_idle_records_are_given_up() {
        let table = table(64);
        for number in 0..64 {
            let slot = put(&table, 9, key(number)).unwrap();
            table[slot.index].denied.store(u64::from(number != 40), Ordering::Relaxed);
        }
        let given_up = make_room(&table, probe(9), idle, |_, _, _| true);
        assert_eq!(given_up, Ok(Some(key(40))));
        assert_eq!(find(&table, probe(9), key(40)), None);
        assert!((0..64).filter(|&n| n != 40).all(|n| find(&table, probe(9), key(n)).is_some()));
        let slot = put(&table, 9, key(64)).unwrap();
        table[slot.index].denied.store(1, Ordering::Relaxed);
        assert_eq!(make_room(&table, probe(9), idle, |_, _, _| true), Err(NotInserted::Full));
    }

    #[test]
    fn a_charge_takes_a_leaving_key_back() {
        let table = table(64);
        let slot = put(&table, 9, key(1)).unwrap();
        let record = &table[slot.index];
        let charged_meanwhile = |_, _, record: &Bucket| {
            record.denied.store(1, Ordering::SeqCst);
            assert!(holds(&record.identity, key(1)));
            true
        };
        for number in 2..65 {
            let other = put(&table, 9, key(number)).unwrap();
            table[other.index].denied.store(1, Ordering::Relaxed);
        }
        let failed = make_room(&table, probe(9), idle, |place, key, record| {
            charged_meanwhile(place, key, record)
        });
        assert_eq!(failed, Err(NotInserted::Full));
        assert_eq!(find(&table, probe(9), key(1)), Some(slot.index));
        assert!(holds(&record.identity, key(1)));
    }

    /// A process that is stopped before its last swap must not give up what others use by then.
    #[test]
    fn a_late_give_up_does_nothing() {
        let table = table(64);
        let slot = put(&table, 9, key(1)).unwrap();
        let record = &table[slot.index];
        let while_stopped = |_, _, _: &Bucket| {
            assert!(holds(&record.identity, key(1)));
            let seen = record.identity.load(Ordering::SeqCst);
            let leaving = with(seen, SlotState::Leaving, seen.version().wrapping_add(1));
            record.identity.store(leaving, Ordering::SeqCst);
            true
        };
        assert_eq!(
            make_room(&table, probe(9), idle, while_stopped),
            // The other places are free.
            Ok(None)
        );
        assert_eq!(find(&table, probe(9), key(1)), Some(slot.index));
    }

    proptest! {
        #[test]
        fn agrees_with_a_map(
            ops in prop::collection::vec((0_u8..3, 1_u64..40), 1..300), crowd in 1_u64..9,
        ) {
            let table = table(64);
            let mut model: HashMap<u64, usize> = HashMap::new();
            for (op, number) in ops {
                let wanted = key(number);
                match op {
                    0 => {
                        let slot = put(&table, number % crowd, wanted).expect("fewer than 64 keys");
                        prop_assert_eq!(slot.inserted, !model.contains_key(&number));
                        prop_assert_eq!(*model.entry(number).or_insert(slot.index), slot.index);
                    }
                    1 => prop_assert_eq!(
                        find(&table, probe(number % crowd), wanted), model.get(&number).copied()
                    ),
                    _ => {
                        let this = |seen: IdentityWord, _: &Bucket| is(seen, wanted);
                        let full = table.iter().all(|slot| {
                            key_of(slot.identity.load(Ordering::Relaxed)).is_some()
                        });
                        let gone = make_room(&table, probe(number % crowd), this, |_, _, _| true);
                        if full || gone == Ok(Some(wanted)) {
                            prop_assert_eq!(gone.is_ok(), model.remove(&number).is_some());
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn threads_that_insert_and_give_up_the_same_keys_never_have_one_twice() {
        let table = table(64);
        let worker = |thread: u64| {
            for round in 0..if cfg!(miri) { 6 } else { 3_000 } {
                let wanted = key((round * 7 + thread) % 9);
                let _ = insert(&table, probe(1), wanted, nonce);
                if round % 3 == 0 {
                    let this = |seen: IdentityWord, _: &Bucket| is(seen, wanted);
                    let _ = make_room(&table, probe(1), this, |_, _, _| true);
                }
            }
        };
        std::thread::scope(|scope| {
            for thread in 0..4 {
                scope.spawn(move || worker(thread));
            }
        });
        for number in 0..9 {
            let standing = table
                .iter()
                .filter(|slot| is(slot.identity.load(Ordering::SeqCst), key(number)))
                .count();
            assert!(standing <= 1, "key {number} stands in {standing} slots");
        }
    }
}
