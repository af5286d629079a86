//! Counts of keys that are given up: each is handed over once.

use super::{key, table};
use crate::sync::{Ordering, add_one};
use crate::tables::buckets;
use loom::thread;

/// Two processes give the same key up while a third one counts. What had been counted before is handed over, by
/// one of them; what is counted meanwhile is handed over or left.
///
/// Mutations `tally-one-try`, `tally-lost-count`, `tally-blind-take`, `tally-found-late`.
#[test]
fn loom_tally_is_handed_over_once() {
    const BEFORE: u64 = 7;
    super::run(|| {
        let table = table([key(1), key(2), key(3), key(4)]);
        table[0].allowed.store(BEFORE, Ordering::Relaxed);
        let give_up = || {
            let table = table.clone();
            thread::spawn(move || buckets::hand_over(key(1), &table[0], || Some(&table[1])))
        };
        let both = [give_up(), give_up()];
        add_one(&table[0].allowed);
        assert!(both.map(|one| one.join().expect("joins")).iter().all(|&done| done));
        let (kept, left) = (&table[1].allowed, table[0].allowed.load(Ordering::Relaxed));
        assert_eq!(kept.load(Ordering::Relaxed) + left, BEFORE + 1);
        assert!(left <= 1, "{left} would be another key's");
    });
}
