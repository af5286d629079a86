//! The index: a key never stands in two slots, and nobody waits for anybody.

use super::{Table, free, give_up, key, never_used, probe, standing, table};
use crate::layout::IdentityWord;
use crate::sync::Ordering;
use crate::tables::index;
use loom::thread;

fn insert(table: &Table, wanted: IdentityWord, nonce: u64) -> Option<usize> {
    index::insert(&table[..], probe(), wanted, || nonce).ok().map(|slot| slot.index)
}

/// Two processes insert one key, and one of them has seen the first slot taken by another key, which a third
/// process gives up meanwhile.
///
/// Mutations `index-no-second-look`, `index-unordered-claim`, `index-blind-insert`.
#[test]
fn loom_index_a_key_never_stands_twice() {
    super::run(|| {
        let table = table([key(9), never_used(), never_used(), never_used()]);
        let (a, b) = (table.clone(), table.clone());
        let a = thread::spawn(move || insert(&a, key(1), 1));
        let b = thread::spawn(move || insert(&b, key(1), 2));
        give_up(&table, key(9));
        let (a, b) = (a.join().expect("joins"), b.join().expect("joins"));
        assert_eq!(standing(&table, key(1)), 1, "{a:?} {b:?}");
        assert_eq!(a, b);
    });
}

/// One process has seen two slots taken by other keys, and inserts behind them; another gives both up, and
/// inserts at the first of them.
///
/// Mutation `index-ends-at-given-up`.
#[test]
fn loom_index_given_up_slots_end_no_search() {
    super::run(|| {
        let table = table([key(8), key(9), never_used(), never_used()]);
        let other = table.clone();
        let thread = thread::spawn(move || insert(&other, key(1), 1));
        give_up(&table, key(9));
        give_up(&table, key(8));
        let mine = insert(&table, key(1), 2);
        assert_eq!(mine, thread.join().expect("joins"));
        assert_eq!(standing(&table, key(1)), 1);
    });
}

/// The key itself is given up and inserted again, while there are free slots before the one where it stands.
///
/// Mutation `index-look-to-the-first-free`.
#[test]
fn loom_index_free_slots_do_not_hide_a_key() {
    super::run(|| {
        let table = table([key(9), free(), key(1), never_used()]);
        let (a, b) = (table.clone(), table.clone());
        let a = thread::spawn(move || {
            give_up(&a, key(9));
            insert(&a, key(1), 1)
        });
        let b = thread::spawn(move || {
            give_up(&b, key(1));
            insert(&b, key(1), 2)
        });
        let (a, b) = (a.join().expect("joins"), b.join().expect("joins"));
        assert!(a.is_some() && b.is_some());
        assert_eq!(standing(&table, key(1)), 1, "{a:?} {b:?}");
    });
}

/// A process claims a slot and stops for ever: others insert the key all the same, and the slot serves the
/// next.
///
/// Mutation `index-waits-for-claims`.
#[test]
fn loom_index_a_stopped_claim_hinders_nobody() {
    super::run(|| {
        let table = table([free(), free(), never_used(), never_used()]);
        let (stopped, b) = (table.clone(), table.clone());
        let stopped = thread::spawn(move || {
            let claimed = index::claim(key(1), free().version(), 7);
            let word = &stopped[0].identity;
            let _ = word.compare_exchange(free(), claimed, Ordering::SeqCst, Ordering::Relaxed);
        });
        let b = thread::spawn(move || insert(&b, key(1), 2));
        let a = insert(&table, key(1), 1);
        stopped.join().expect("joins");
        let b = b.join().expect("joins");
        assert!(a.is_some() && a == b, "{a:?} {b:?}");
        assert_eq!(standing(&table, key(1)), 1);
    });
}

/// Claims of processes that died fill all places: whoever needs one takes it.
///
/// Mutation `index-keeps-dead-claims`.
#[test]
fn loom_index_claims_of_the_dead_make_room() {
    super::run(|| {
        let table = table([1, 2, 3, 4].map(|number| index::claim(key(number), 0, number)));
        let other = table.clone();
        let use_room = |table: &Table, wanted, nonce| {
            (0..4).any(|_| {
                insert(table, wanted, nonce).is_some() || {
                    give_up(table, key(9));
                    false
                }
            })
        };
        let thread = thread::spawn(move || use_room(&other, key(5), 5));
        assert!(use_room(&table, key(6), 6));
        assert!(thread.join().expect("joins"));
        assert_eq!((standing(&table, key(5)), standing(&table, key(6))), (1, 1));
    });
}
