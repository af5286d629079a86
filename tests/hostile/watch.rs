//! Catches operations that never return. The bounds themselves are in [`super::steps`]; this only turns an
//! endless loop that takes no step, or is in a build that counts none, into a failure with a name.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

/// Far longer than any operation takes on any machine.
const PATIENCE: Duration = Duration::from_secs(120);

#[derive(Default)]
struct State {
    steps: u64,
    doing: String,
    done: bool,
}

/// Ends the process when nothing has been begun for two minutes.
pub struct Watch {
    shared: Arc<(Mutex<State>, Condvar)>,
}

impl Watch {
    pub fn new() -> Self {
        let shared: Arc<(Mutex<State>, Condvar)> = Arc::default();
        let watched = shared.clone();
        std::thread::spawn(move || watch(&watched));
        Self { shared }
    }

    /// Something begins.
    pub fn begin(&self, doing: impl FnOnce() -> String) {
        let mut state = self.shared.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.steps += 1;
        state.doing = doing();
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.shared.0.lock().unwrap_or_else(PoisonError::into_inner).done = true;
        self.shared.1.notify_all();
    }
}

fn watch((state, changed): &(Mutex<State>, Condvar)) {
    let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
    while !state.done {
        let before = state.steps;
        let waited = changed.wait_timeout(state, PATIENCE).unwrap_or_else(PoisonError::into_inner);
        state = waited.0;
        if waited.1.timed_out() && state.steps == before && !state.done {
            eprintln!("no end of: {}", state.doing);
            std::process::abort();
        }
    }
}
