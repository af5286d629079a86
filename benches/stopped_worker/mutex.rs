//! The peer: plain counters in shared memory behind one robust mutex, as a careful program without
//! lock-free words would have them.

#![allow(unsafe_code, reason = "a process-shared mutex is a C structure in shared memory")]

use crate::process;
use std::io::{Error, Result};

/// What lies in shared memory.
#[repr(C)]
struct State {
    mutex: libc::pthread_mutex_t,
    holder: u64,
    window_start_s: u64,
    requests: i64,
    tokens: i64,
    in_flight: i64,
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

    /// One request: a window of requests and tokens, and a slot while it is served.
    pub(crate) fn request(self, who: u64, now_s: u64, limits: [i64; 3]) -> bool {
        let admitted = self.locked(who, |state| {
            if now_s >= state.window_start_s + 60 {
                (state.window_start_s, state.requests, state.tokens) = (now_s, 0, 0);
            }
            let after = [state.requests + 1, state.tokens + 10, state.in_flight + 1];
            let fits = after.iter().zip(limits).all(|(after, limit)| *after <= limit);
            if fits {
                [state.requests, state.tokens, state.in_flight] = after;
            }
            fits
        });
        if admitted {
            self.locked(who, |state| state.in_flight -= 1);
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
