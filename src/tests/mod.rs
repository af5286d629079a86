//! Models for the checker: each explores every interleaving of two or three threads over a few
//! operations. `scripts/mutate.py` breaks the code in the named ways and expects the model to fail.

mod loom_gcra;
mod loom_window;
mod loom_workers;

/// Runs a model with the bound that keeps it within seconds.
fn run(model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(model);
}
