//! What the figures were taken on.

use serde::Serialize;
use std::fs::read_to_string;

/// Facts for the head of the report.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Machine {
    cpu: String,
    cores: usize,
    kernel: String,
    clock_source: String,
    /// Of governor and DashMap.
    peers: String,
    load_average: String,
}

impl Machine {
    pub(crate) fn look() -> Self {
        let cpuinfo = read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name"));
        let cpu = model.map_or("unknown processor", |text| text.trim_matches([':', '\t', ' ']));
        let clock_source = "/sys/devices/system/clocksource/clocksource0/current_clocksource";
        Self {
            cpu: cpu.to_string(),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            kernel: line("/proc/sys/kernel/osrelease"),
            clock_source: line(clock_source),
            peers: format!("governor {}, dashmap {}", version("governor"), version("dashmap")),
            load_average: load_average(),
        }
    }

    /// Whether others kept more than half a core busy, so that figures of several processes say little.
    pub(crate) fn was_busy(&self) -> bool {
        let minute = self.load_average.split(' ').next().and_then(|text| text.parse().ok());
        minute.is_some_and(|load: f64| load > 0.5)
    }

    /// The head line.
    pub(crate) fn text(&self) -> String {
        let Self { cpu, cores, kernel, clock_source, peers, load_average } = self;
        format!(
            "{cpu}, {cores} cores, Linux {kernel}, clock source {clock_source}; {peers}; \
             load average before: {load_average}"
        )
    }
}

/// One, five and fifteen minutes.
pub(crate) fn load_average() -> String {
    line("/proc/loadavg").split(' ').take(3).collect::<Vec<_>>().join(" ")
}

fn line(path: &str) -> String {
    read_to_string(path).map_or_else(|_| "unknown".to_string(), |text| text.trim().to_string())
}

/// The version of a package that this program was built with.
fn version(package: &str) -> &'static str {
    let lock = include_str!("../Cargo.lock");
    let after = lock.split_once(&format!("name = \"{package}\"\nversion = \""));
    after.and_then(|(_, rest)| rest.split('"').next()).unwrap_or("unknown")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_those_of_the_lock_file() {
        assert!(version("governor").starts_with("0.10."));
        assert_eq!(version("no-such-package"), "unknown");
    }
}
