//! The peer that one would write otherwise: plain counters behind a robust mutex in shared memory.
//!
//! A process that dies inside leaves the lock to the next one (`EOWNERDEAD`), with whatever it had
//! written; and one that is stopped inside stops everybody.

#![allow(unsafe_code, reason = "POSIX mutexes have no safe wrapper")]

use crate::Failure;
use crate::shared::{Shared, Zeroed};
use std::cell::UnsafeCell;
use std::io::Error;
use std::mem::MaybeUninit;
use std::ops::Deref;

/// A counter of a fixed window.
#[derive(Clone, Copy)]
pub(crate) struct Window {
    start_s: u64,
    count: u64,
}

impl Window {
    /// Adds 1 unless the limit is reached.
    #[inline]
    pub(crate) fn charge(&mut self, now_s: u64, size_s: u64, limit: u64) -> bool {
        if now_s.wrapping_sub(self.start_s) >= size_s {
            *self = Self { start_s: now_s, count: 0 };
        }
        let admitted = self.count < limit;
        self.count += u64::from(admitted);
        admitted
    }
}

/// Three limits and the slots held of one client.
#[derive(Clone, Copy)]
pub(crate) struct Client {
    windows: [Window; 3],
    held: u64,
}

impl Client {
    /// Charges three windows and takes a slot, all or nothing.
    #[inline]
    fn admit(&mut self, now_s: u64, limit: u64, slots: u64) -> bool {
        let before = *self;
        let free = self.held < slots;
        let admitted =
            free && self.windows.iter_mut().all(|window| window.charge(now_s, 3_600, limit));
        if !admitted {
            *self = before;
            return false;
        }
        self.held += 1;
        true
    }
}

/// Clients that one lock guards; the first counter shares the cache line of its lock.
pub(crate) type Counters = [Client; 4];

/// A lock in shared memory with its counters.
#[repr(C, align(64))]
pub(crate) struct Guarded {
    mutex: UnsafeCell<libc::pthread_mutex_t>,
    counters: UnsafeCell<Counters>,
}

// SAFETY: `counters` is reached with the lock held only.
unsafe impl Sync for Guarded {}
// SAFETY: zero counters are counters; the zeroed mutex is initialized before anybody gets at it.
unsafe impl Zeroed for Guarded {}

/// A [`Guarded`] that children inherit.
pub(crate) struct Robust(Shared<Guarded>);

impl Deref for Robust {
    type Target = Guarded;

    fn deref(&self) -> &Guarded {
        &self.0
    }
}

fn checked(code: i32) -> Result<(), Failure> {
    if code == 0 { Ok(()) } else { Err(Error::from_raw_os_error(code).into()) }
}

impl Robust {
    pub(crate) fn new() -> Result<Self, Failure> {
        let shared = Shared::<Guarded>::new()?;
        let mut attributes = MaybeUninit::uninit();
        let attributes = attributes.as_mut_ptr();
        // SAFETY: a valid place for the attributes.
        checked(unsafe { libc::pthread_mutexattr_init(attributes) })?;
        // SAFETY: initialized above.
        checked(unsafe {
            libc::pthread_mutexattr_setpshared(attributes, libc::PTHREAD_PROCESS_SHARED)
        })?;
        // SAFETY: as above.
        checked(unsafe {
            libc::pthread_mutexattr_setrobust(attributes, libc::PTHREAD_MUTEX_ROBUST)
        })?;
        // SAFETY: nobody else has seen this memory yet.
        checked(unsafe { libc::pthread_mutex_init(shared.mutex.get(), attributes) })?;
        Ok(Self(shared))
    }
}

impl Guarded {
    /// Runs `body` with the lock held; `None` = the lock is beyond repair.
    #[inline]
    pub(crate) fn with<T>(&self, body: impl FnOnce(&mut Counters) -> T) -> Option<T> {
        // SAFETY: `Robust::new` has initialized the mutex.
        match unsafe { libc::pthread_mutex_lock(self.mutex.get()) } {
            0 => {}
            // SAFETY: this thread holds the lock.
            libc::EOWNERDEAD => match unsafe { libc::pthread_mutex_consistent(self.mutex.get()) } {
                0 => {}
                _ => return None,
            },
            _ => return None,
        }
        // SAFETY: the lock is held, so nobody else has a reference.
        let result = body(unsafe { &mut *self.counters.get() });
        // SAFETY: this thread holds the lock.
        unsafe { libc::pthread_mutex_unlock(self.mutex.get()) };
        Some(result)
    }

    /// Charges the first window: 1 = admitted, 0 = refused.
    #[inline]
    pub(crate) fn check(&self, now_s: u64, limit: u64) -> u64 {
        self.with(|clients| clients[0].windows[0].charge(now_s, 3_600, limit))
            .map_or(crate::ours::FAILED, u64::from)
    }

    /// Takes one of `limit` slots of the first client: 1 = taken, 0 = all are held.
    #[inline]
    pub(crate) fn acquire(&self, limit: u64) -> u64 {
        self.with(|clients| {
            let free = clients[0].held < limit;
            clients[0].held += u64::from(free);
            free
        })
        .map_or(crate::ours::FAILED, u64::from)
    }

    /// Gives a slot of a client back.
    #[inline]
    pub(crate) fn release(&self, client: usize) -> u64 {
        self.with(|clients| clients[client].held = clients[client].held.saturating_sub(1))
            .map_or(crate::ours::FAILED, |()| 0)
    }

    /// Three limits and a slot of a client: 1 = admitted, 0 = refused.
    #[inline]
    pub(crate) fn admission(&self, client: usize, now_s: u64, limit: u64, slots: u64) -> u64 {
        self.with(|clients| clients[client].admit(now_s, limit, slots))
            .map_or(crate::ours::FAILED, u64::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shared::fork;

    #[test]
    fn a_lock_whose_holder_died_goes_on() {
        let guarded = Robust::new().unwrap();
        let die_inside = || {
            guarded.with(|clients| {
                clients[0].held = 3;
                // SAFETY: ends this child, with the lock held on purpose.
                unsafe { libc::_exit(0) }
            });
            false
        };
        fork(10, die_inside).unwrap().wait().unwrap();
        assert_eq!(guarded.with(|clients| clients[0].held), Some(3));
        assert_eq!((guarded.acquire(4), guarded.acquire(4)), (1, 0));
    }

    #[test]
    fn an_admission_takes_all_or_nothing() {
        let guarded = Robust::new().unwrap();
        assert_eq!(guarded.admission(0, 5_000, 2, 9), 1);
        assert_eq!(guarded.check(5_000, 2), 1);
        assert_eq!(guarded.admission(0, 5_000, 2, 9), 0);
        assert_eq!(guarded.admission(0, 5_000, 9, 1), 0);
        let state = guarded.with(|clients| (clients[0].windows.map(|w| w.count), clients[0].held));
        assert_eq!(state, Some(([2, 1, 1], 1)));
    }
}
