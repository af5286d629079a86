//! The peer: a table of plain counters in shared memory behind one robust mutex, as a careful program
//! without lock-free words would have it.

#![allow(unsafe_code, reason = "a process-shared mutex is a C structure in shared memory")]

use crate::process;
use fast_litellm::region::Region;
use std::io::{Error, Result};

/// Counters of the table, a power of two.
const COUNTERS: usize = 64;

/// What lies in shared memory.
#[repr(C)]
struct State {
    mutex: libc::pthread_mutex_t,
    holder: u64,
    window_start_s: u64,
    counters: [Counter; COUNTERS],
}

/// One counter with the hash of its key; 0 = nobody's.
#[repr(C)]
struct Counter {
    key: u64,
    count: i64,
}

impl State {
    /// The counter of a key, which is given its place at first use.
    fn counter(&mut self, region: &Region, key: &str) -> &mut i64 {
        let hash = region.hash(0, key.as_bytes());
        let mut place = usize::try_from(hash).unwrap_or(0) % COUNTERS;
        while self.counters[place].key != 0 && self.counters[place].key != hash {
            place = (place + 1) % COUNTERS;
        }
        self.counters[place].key = hash;
        &mut self.counters[place].count
    }
}

/// The mutex and its counters, for this process and its later children.
#[derive(Clone, Copy)]
pub(crate) struct Guarded {
    state: *mut State,
}

impl Guarded {
    /// New counters. Never unmapped.
    pub(crate) fn new() -> Result<Self> {
        let words = process::shared_words(size_of::<State>().div_ceil(size_of::<u64>()))?;
        let state = words.as_ptr().cast_mut().cast::<State>();
        let guarded = Self { state };
        let mut kind = std::mem::MaybeUninit::<libc::pthread_mutexattr_t>::uninit();
        // SAFETY: `kind` is writable; it is initialised by this call.
        unsafe { libc::pthread_mutexattr_init(kind.as_mut_ptr()) };
        // SAFETY: `kind` was initialised.
        unsafe {
            libc::pthread_mutexattr_setpshared(kind.as_mut_ptr(), libc::PTHREAD_PROCESS_SHARED)
        };
        // SAFETY: `kind` was initialised.
        unsafe { libc::pthread_mutexattr_setrobust(kind.as_mut_ptr(), libc::PTHREAD_MUTEX_ROBUST) };
        // SAFETY: the memory is zeroed, aligned and large enough, and nobody else knows it yet.
        let failed = unsafe { libc::pthread_mutex_init(guarded.mutex(), kind.as_ptr()) };
        if failed == 0 { Ok(guarded) } else { Err(Error::from_raw_os_error(failed)) }
    }

    /// The first field.
    fn mutex(self) -> *mut libc::pthread_mutex_t {
        self.state.cast()
    }

    /// Runs `change` under the mutex. A holder that died leaves counters that may be half changed; that
    /// is accepted here, as it costs nothing.
    fn locked<T>(self, who: u64, change: impl FnOnce(&mut State) -> T) -> T {
        // SAFETY: the mutex was initialised and its memory is never unmapped.
        if unsafe { libc::pthread_mutex_lock(self.mutex()) } == libc::EOWNERDEAD {
            // SAFETY: this process holds the mutex.
            unsafe { libc::pthread_mutex_consistent(self.mutex()) };
        }
        // SAFETY: the mutex is held, so nobody else touches the counters.
        let state = unsafe { &mut *self.state };
        let holder = &raw mut state.holder;
        // SAFETY: a field of `state`. Volatile, or the compiler would leave out what is overwritten.
        unsafe { holder.write_volatile(who) };
        let changed = change(state);
        // SAFETY: as before.
        unsafe { holder.write_volatile(0) };
        // SAFETY: this process holds the mutex.
        unsafe { libc::pthread_mutex_unlock(self.mutex()) };
        changed
    }

    /// One request: a window of requests and tokens, and a slot while it is served. `charges` are the
    /// counters by key with what is added and the limit; the last one is the slot.
    pub(crate) fn request(self, who: u64, region: &Region, charges: &[(&str, i64, i64)]) -> bool {
        let now_s = region.now().s();
        let admitted = self.locked(who, |state| {
            if now_s >= state.window_start_s + 60 {
                state.window_start_s = now_s;
                for (key, _, _) in charges.iter().rev().skip(1) {
                    *state.counter(region, key) = 0;
                }
            }
            let fits = |&(key, amount, limit): &(&str, i64, i64)| {
                *state.counter(region, key) + amount <= limit
            };
            let admitted = charges.iter().all(fits);
            for (key, amount, _) in charges.iter().filter(|_| admitted) {
                *state.counter(region, key) += amount;
            }
            admitted
        });
        if let (true, Some((slots, held, _))) = (admitted, charges.last()) {
            self.locked(who, |state| *state.counter(region, slots) -= held);
        }
        admitted
    }

    /// Who holds the mutex; 0 = nobody. Reliable only about a holder that is stopped.
    pub(crate) fn holder(self) -> u64 {
        let holder =
            self.state.wrapping_byte_add(std::mem::offset_of!(State, holder)).cast::<u64>();
        // SAFETY: an aligned word of memory that is never unmapped; every value is a number.
        unsafe { holder.read_volatile() }
    }
}
