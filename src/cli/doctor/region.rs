//! How one region is.

use super::{Check, State};
use crate::cli::output::duration;
use crate::cli::select::Chosen;
use crate::inspect::{Report, Section};
use crate::region::{Region, Vantage};
use crate::verify;

/// From this share on a table is nearly full, percent.
const NEARLY_FULL: u64 = 80;

pub(super) fn checks(chosen: &Chosen) -> Vec<Check> {
    let mut checks = match chosen.look() {
        // It has ended since it was found.
        Err(error) if error.is_gone() && chosen.pid().is_some() => Vec::new(),
        Err(error) => vec![Check::problem(
            "attach",
            error.to_string(),
            "until then nobody but its own workers can use it",
        )],
        Ok(region) => of(&region),
    };
    for check in &mut checks {
        check.region = Some(chosen.name().to_string());
    }
    checks
}

fn of(region: &Region) -> Vec<Check> {
    // Not the keys, which may be many.
    let report = Report::only(region, |section| section != Section::Limits);
    let mut checks = vec![
        Check::ok("attach", format!("layout {}, {}", report.header.layout, report.header.backing)),
        namespaces(region),
        master(&report),
        words(region),
        dead(&report),
        room("keys", report.header.keys, report.header.key_capacity, "FAST_LITELLM_SHM_KEYS"),
        room(
            "lease chunks",
            report.header.chunks,
            report.header.chunk_capacity,
            "FAST_LITELLM_SHM_LEASE_CHUNKS",
        ),
        room(
            "worker rows",
            report.workers.len() as u64,
            report.header.worker_capacity,
            "FAST_LITELLM_SHM_WORKERS",
        ),
        room(
            "deployments",
            report.deployments.len() as u64,
            region.sections().capacity().deployments,
            "FAST_LITELLM_SHM_DEPLOYMENTS",
        ),
    ];
    checks.extend(breakers(&report));
    checks.extend(counters(&report));
    checks
}

fn namespaces(region: &Region) -> Check {
    match Vantage::of(region.header()).obstacle().filter(|_| region.moment().is_none()) {
        None => Check::ok("namespaces", "its processes can be judged from here"),
        Some(obstacle) => Check::note("namespaces", obstacle.to_string(), "see the message"),
    }
}

fn master(report: &Report) -> Check {
    let header = &report.header;
    let creator = i32::try_from(header.creator_pid).ok();
    let row = report.workers.iter().find(|worker| Some(worker.pid) == creator);
    let said = format!("process {}", header.creator_pid);
    match row.map(|row| row.alive) {
        Some("dead") => Check::note(
            "creator",
            format!("{said} is dead"),
            "its workers go on with the region; the next start makes a new one, unless it is a named file",
        ),
        _ => Check::ok("creator", format!("{said}, {} ago", duration(header.age_s))),
    }
}

fn words(region: &Region) -> Check {
    let found = verify::count(region);
    match (found.damage, found.harmless) {
        (0, 0) => Check::ok("words", "all say what can have been written"),
        (0, harmless) => Check::note(
            "words",
            format!("{harmless} are odd and heal by themselves"),
            "fl-shm verify shows which",
        ),
        (damage, _) => Check::problem(
            "words",
            format!("{damage} are damaged"),
            "fl-shm verify shows which; what they say stays wrong until the region is made anew",
        ),
    }
}

fn dead(report: &Report) -> Check {
    let dead = report.workers.iter().filter(|worker| worker.alive == "dead").count();
    let held: u64 =
        report.leases.iter().filter(|lease| lease.owner == "dead").map(|lease| lease.held).sum();
    if dead == 0 && held == 0 {
        return Check::ok("dead workers", "own nothing");
    }
    Check::note(
        "dead workers",
        format!("{dead} rows and {held} slots are still theirs"),
        "the next request that needs one takes it; fl-shm reap --yes frees all now",
    )
}

fn room(check: &'static str, used: u64, capacity: u64, setting: &str) -> Check {
    let percent = used.saturating_mul(100) / capacity.max(1);
    let found = format!("{used} of {capacity} used");
    if percent < NEARLY_FULL {
        return Check::ok(check, found);
    }
    Check::note(check, found, format!("raise {setting} and restart"))
}

fn breakers(report: &Report) -> Vec<Check> {
    let of = |feature: &crate::inspect::FeatureReport| {
        let name = feature.name.unwrap_or("unknown feature");
        let open = feature.breaker == "open";
        open.then(|| {
            Check::problem(
                "breakers",
                format!("{name} is open after {} errors", feature.errors),
                format!(
                    "the workers' logs say why; fl-shm feature {name} --reset-errors --yes closes it"
                ),
            )
        })
    };
    let open: Vec<Check> = report.features.iter().filter_map(of).collect();
    if open.is_empty() { vec![Check::ok("breakers", "all are closed")] } else { open }
}

/// What should never have happened, by the counter that counts it.
const SHOULD_BE_ZERO: [(&str, State, &str); 6] = [
    (
        "table_full",
        State::Problem,
        "a table was full: raise FAST_LITELLM_SHM_KEYS, FAST_LITELLM_SHM_LEASE_CHUNKS or \
         FAST_LITELLM_SHM_WORKERS, whichever is nearly full, and restart",
    ),
    (
        "overflow_local",
        State::Problem,
        "keys without room were limited in each worker alone: raise FAST_LITELLM_SHM_KEYS and restart",
    ),
    (
        "fallbacks",
        State::Problem,
        "operations were done without the region: the workers' logs say why",
    ),
    (
        "uncounted",
        State::Note,
        "requests to deployments were not counted as in flight for want of room: raise \
         FAST_LITELLM_SHM_LEASE_CHUNKS and restart",
    ),
    (
        "contended",
        State::Note,
        "operations gave up after the bounded number of tries; their callers fell back",
    ),
    (
        "corrected",
        State::Note,
        "impossible values were met and corrected: fl-shm inspect events shows when",
    ),
];

fn counters(report: &Report) -> Vec<Check> {
    let of = |&(name, state, remedy): &(&'static str, State, &str)| {
        let count = report.stats.get(name).copied().unwrap_or(0);
        (count > 0).then(|| Check { state, ..Check::note(name, count.to_string(), remedy) })
    };
    let found: Vec<Check> = SHOULD_BE_ZERO.iter().filter_map(of).collect();
    if found.is_empty() { vec![Check::ok("counters", "nothing went wrong")] } else { found }
}
