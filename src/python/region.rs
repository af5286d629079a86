//! `Region`, and the one region that a process uses by default.

use super::convert::Whole;
use super::errors::{OutOfRangeError, RegionError};
use crate::config::{Capacity, Overflow};
use crate::engine::Engine;
use crate::engine::features::{BREAKER_REST_S, resting};
use crate::inspect;
use crate::layout::FlagMode;
use crate::primitives::breaker::{Admission, Policy, Probe, State};
use crate::region::{self, BackingKind, Opening, Placement, Vantage};
use pyo3::prelude::*;
use pyo3::types::PyDict;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

fn policy(rest_s: u64) -> Policy {
    resting((rest_s > 0).then_some(rest_s))
}

static DEFAULT: OnceLock<Py<Region>> = OnceLock::new();

/// A shared region in use by this process.
///
/// Create one before forking and every child shares it. `fast_litellm` does so on import; make your own
/// only for a second, separate set of limits.
#[pyclass(frozen, module = "fast_litellm")]
pub(super) struct Region {
    engine: Arc<Engine>,
    origin: Origin,
    obstacles: Vec<String>,
    asked: Capacity,
}

/// How a process came by its region.
#[derive(Clone, Copy)]
enum Origin {
    Created,
    Joined,
    Opened,
    Replaced,
}

impl Region {
    pub(super) fn engine(&self) -> Arc<Engine> {
        self.engine.clone()
    }

    fn of(region: region::Region, origin: Origin, obstacles: Vec<String>, asked: Capacity) -> Self {
        Self { engine: Arc::new(Engine::new(region)), origin, obstacles, asked }
    }
}

fn kinds(names: Option<Vec<String>>) -> PyResult<Vec<BackingKind>> {
    let Some(names) = names else {
        return Ok(vec![BackingKind::Memfd, BackingKind::File, BackingKind::Anonymous]);
    };
    let all = [BackingKind::Memfd, BackingKind::File, BackingKind::Anonymous, BackingKind::Heap];
    let find = |name: &String| {
        all.into_iter().find(|kind| kind.name() == name).ok_or_else(|| {
            OutOfRangeError::new_err(format!(
                "FAST_LITELLM_SHM_BACKING={name} is unknown: use memfd, file or anonymous"
            ))
        })
    };
    names.iter().map(find).collect()
}

#[pymethods]
impl Region {
    /// Creates a region that children of this process inherit, or joins that of its family.
    ///
    /// Args:
    ///     name: shown by `fl-shm ls`.
    ///     keys: keys that surely find room, 1,000 to 16,777,216.
    ///     lease_chunks: chunks of 32 concurrency slots, 64 to 1,048,576.
    ///     workers: rows of the worker table, 4 to 1,024.
    ///     deployments: deployments whose health is kept, 64 to 65,536.
    ///     overflow: what happens to a key for which there is no room, because every place it may have
    ///         is in use: `deny` (the operation fails), `shared` (such keys share one state) or `local`
    ///         (each process decides for itself).
    ///     backing: kinds of memory to try in order (memfd, file, anonymous, heap).
    ///     directories: where a tmpfs file may be made.
    ///     family: process ids of those that started this process and its siblings, nearest first. If one of
    ///         them, or of those that they have started as workers, has a region of that name, it is joined as
    ///         it is, whatever its capacities.
    ///     marks: parts of the command lines, as `/proc/<pid>/cmdline` has them, of workers that were started as
    ///         programs: if such a one cannot be looked at, `obstacles` says so.
    ///
    /// Raises:
    ///     OutOfRangeError: a capacity or a kind is out of range.
    ///     RegionError: no kind of memory could be had.
    #[staticmethod]
    #[pyo3(
        signature = (name, *, keys = Whole(65_536), lease_chunks = Whole(8_192), workers = Whole(256), deployments = Whole(1_024), overflow = "deny", backing = None, directories = None, family = Vec::new(), marks = Vec::new()),
        text_signature = "(name, *, keys=65536, lease_chunks=8192, workers=256, deployments=1024, overflow='deny', backing=None, directories=None, family=(), marks=())",
    )]
    #[allow(clippy::too_many_arguments, reason = "settings by keyword")]
    fn create(
        py: Python<'_>,
        name: &str,
        keys: Whole,
        lease_chunks: Whole,
        workers: Whole,
        deployments: Whole,
        overflow: &str,
        backing: Option<Vec<String>>,
        directories: Option<Vec<PathBuf>>,
        family: Vec<i32>,
        marks: Vec<Vec<u8>>,
    ) -> PyResult<Self> {
        let capacity = Capacity::checked(keys.0, lease_chunks.0, workers.0)?
            .with_deployments(deployments.0)?;
        let overflow = Overflow::parse(overflow)?;
        let mut placement = Placement::inherited(name);
        if let Placement::Inherited { kinds: wanted, directories: places, .. } = &mut placement {
            *wanted = kinds(backing)?;
            if let Some(directories) = directories {
                *places = directories;
            }
        }
        let (region, kinship) = py.detach(|| {
            region::join_or_create(&family, &marks, name, &placement, capacity, overflow)
        })?;
        if kinship.joined.is_some() {
            return Ok(Self::of(region, Origin::Joined, kinship.obstacles, capacity));
        }
        Ok(Self::of(region, Origin::Created, kinship.obstacles, capacity))
    }

    /// Attaches to the region at `path`, or creates it there when nothing is, or nothing but one that is of
    /// another boot, pid namespace or version and that no process uses any more.
    ///
    /// Args:
    ///     path: a file on tmpfs.
    ///     force: accept another file system.
    ///     family: as of `create`: they may still use what was removed from there.
    ///     keys, lease_chunks, workers, deployments, overflow: as of `create`.
    ///
    /// Raises:
    ///     OutOfRangeError: a capacity is out of range.
    ///     RegionError: what is there is not usable (owner, mode, version, size, boot), or nothing can be
    ///         created there.
    #[staticmethod]
    #[pyo3(
        signature = (path, *, keys = Whole(65_536), lease_chunks = Whole(8_192), workers = Whole(256), deployments = Whole(1_024), overflow = "deny", force = false, family = Vec::new()),
        text_signature = "(path, *, keys=65536, lease_chunks=8192, workers=256, deployments=1024, overflow='deny', force=False, family=())",
    )]
    #[allow(clippy::too_many_arguments, reason = "settings by keyword")]
    fn open(
        py: Python<'_>,
        path: PathBuf,
        keys: Whole,
        lease_chunks: Whole,
        workers: Whole,
        deployments: Whole,
        overflow: &str,
        force: bool,
        family: Vec<i32>,
    ) -> PyResult<Self> {
        let capacity = Capacity::checked(keys.0, lease_chunks.0, workers.0)?
            .with_deployments(deployments.0)?;
        let overflow = Overflow::parse(overflow)?;
        let (region, opening) =
            py.detach(|| region::open_named(&path, &family, force, capacity, overflow))?;
        Ok(match opening {
            Opening::Attached => Self::of(region, Origin::Opened, Vec::new(), capacity),
            Opening::Joined(pid) => {
                let why = format!("{} was removed while process {pid} uses it", path.display());
                Self::of(region, Origin::Joined, vec![why], capacity)
            }
            Opening::Created => Self::of(region, Origin::Created, Vec::new(), capacity),
            Opening::Replaced(why) => {
                Self::of(region, Origin::Replaced, vec![why.to_string()], capacity)
            }
        })
    }

    /// Registers this process in the worker table, as every first operation does.
    ///
    /// Returns:
    ///     False when the table is full: limits work, concurrency slots do not.
    fn register(&self) -> bool {
        self.engine.me().is_some()
    }

    /// Gives this process's row and slots back. A process that dies without it is reaped.
    fn leave(&self) {
        self.engine.leave();
    }

    /// Frees the slots of workers that are proven dead. Returns how many workers were.
    fn reap(&self, py: Python<'_>) -> u64 {
        py.detach(|| self.engine.reap_dead())
    }

    /// Counts an error of feature number `feature`; returns those since its last reset, over all workers.
    fn feature_error(&self, feature: usize) -> u64 {
        self.engine.count(|row| &row.fallbacks);
        self.engine.feature_error(feature)
    }

    /// Counts an operation that was done without the region because it had no room.
    fn count_fallback(&self) {
        self.engine.count(|row| &row.fallbacks);
    }

    /// Operations done without the region, over all workers.
    fn fallback_count(&self) -> u64 {
        self.engine.total(|row| &row.fallbacks)
    }

    /// Recent errors of feature number `feature`, over all workers.
    fn feature_errors(&self, feature: usize) -> u64 {
        self.engine.feature_errors(feature)
    }

    /// How feature number `feature` stands with all workers, if its breaker rests `rest_s` seconds (0 =
    /// until it is reset).
    ///
    /// Returns:
    ///     `breaker` ("closed", "open" or "half_open"), `errors` (recent ones), `errors_total` (since the
    ///     region was created).
    #[pyo3(signature = (feature, rest_s = BREAKER_REST_S), text_signature = "($self, feature, rest_s=30)")]
    fn feature_standing<'py>(
        &self,
        py: Python<'py>,
        feature: usize,
        rest_s: u64,
    ) -> PyResult<Bound<'py, PyDict>> {
        let found = self.engine.feature_standing(feature, policy(rest_s));
        let breaker = match found.state {
            State::Closed { .. } => "closed",
            State::HalfOpen => "half_open",
            State::Open { .. } => "open",
        };
        let standing = PyDict::new(py);
        standing.set_item("breaker", breaker)?;
        standing.set_item("errors", found.errors)?;
        standing.set_item("errors_total", found.errors_total)?;
        Ok(standing)
    }

    /// Whether feature number `feature` may be used, if its breaker rests `rest_s` seconds (0 = until it is
    /// reset).
    ///
    /// Returns:
    ///     None = by all; 0 = by nobody; else by this process alone, which then tells `feature_recovered`
    ///     this number, or `feature_error`.
    #[pyo3(signature = (feature, rest_s = BREAKER_REST_S), text_signature = "($self, feature, rest_s=30)")]
    fn feature_admits(&self, feature: usize, rest_s: u64) -> Option<u64> {
        match self.engine.feature_admits(feature, policy(rest_s)) {
            Admission::Closed => None,
            Admission::Open { .. } => Some(0),
            Admission::Probe(probe) => Some(probe.bits()),
        }
    }

    /// Closes the breaker of feature number `feature` for all workers: what was tried has succeeded.
    fn feature_recovered(&self, feature: usize, probe: u64) {
        self.engine.feature_recovered(feature, Probe::from_bits(probe));
    }

    /// Forgets the errors of feature number `feature`.
    fn reset_feature(&self, feature: usize) {
        self.engine.reset_feature(feature);
    }

    /// How the switch of feature number `feature` stands for all workers: percent of what it is used for,
    /// None = each worker follows its own configuration.
    fn feature_switch(&self, feature: usize) -> Option<u64> {
        match self.engine.flag(feature) {
            (FlagMode::Own, _) => None,
            (FlagMode::Off, _) => Some(0),
            (FlagMode::On, _) => Some(100),
            (FlagMode::Percent, percent) => Some(percent),
        }
    }

    /// Moves that switch; more than 100 percent are 100.
    #[pyo3(signature = (feature, percent))]
    fn set_feature_switch(&self, feature: usize, percent: Option<u64>) {
        let mode = match percent {
            None => FlagMode::Own,
            Some(0) => FlagMode::Off,
            Some(100..) => FlagMode::On,
            Some(_) => FlagMode::Percent,
        };
        self.engine.set_flag(feature, mode, percent.unwrap_or(0));
    }

    /// Limiter statistics over all workers.
    fn limiter_stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let totals = py.detach(|| self.engine.limiter_totals(None));
        let stats = PyDict::new(py);
        stats.set_item("total_checks", totals.checks())?;
        stats.set_item("allowed_count", totals.allowed)?;
        stats.set_item("denied_count", totals.denied)?;
        stats.set_item("active_keys", totals.keys)?;
        stats.set_item("table_full", self.engine.total(|row| &row.table_full))?;
        stats.set_item("contended", self.engine.total(|row| &row.contended))?;
        Ok(stats)
    }

    /// What `fl-shm inspect --json` prints, as a JSON text.
    fn inspect(&self, py: Python<'_>) -> PyResult<String> {
        py.detach(|| {
            let report = inspect::Report::of(self.engine.region());
            serde_json::to_string(&report).map_err(|error| RegionError::new_err(error.to_string()))
        })
    }

    /// What happens to keys without room, for all processes: `deny`, `shared` or `local`.
    #[getter]
    fn overflow(&self) -> &'static str {
        self.engine.region().overflow().name()
    }

    #[setter]
    fn set_overflow(&self, policy: &str) -> PyResult<()> {
        self.engine.region().set_overflow(Overflow::parse(policy)?);
        Ok(())
    }

    /// How this process, or the one that it was forked from, came by it: `created`, `joined` (its
    /// family's), `opened` (at its path) or `replaced` (a stale one at its path).
    #[getter]
    fn origin(&self) -> &'static str {
        match self.origin {
            Origin::Created => "created",
            Origin::Joined => "joined",
            Origin::Opened => "opened",
            Origin::Replaced => "replaced",
        }
    }

    /// Why its family's regions could not be used, or why what was at its path was replaced.
    #[getter]
    fn obstacles(&self) -> Vec<String> {
        self.obstacles.clone()
    }

    /// Why this process cannot prove that another one is dead; None = it can.
    #[getter]
    fn proof_obstacle(&self) -> Option<String> {
        Vantage::of(self.engine.region().header()).obstacle().map(|obstacle| obstacle.to_string())
    }

    /// Room that it has: `keys`, `lease_chunks`, `workers`, `deployments`.
    #[getter]
    fn capacity<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        capacities(py, self.engine.region().sections().capacity())
    }

    /// Room that this process would have made, which is what it asked for, rounded up.
    #[getter]
    fn asked<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        capacities(py, self.asked)
    }

    /// Bytes of the region.
    #[getter]
    fn size(&self) -> u64 {
        self.engine.region().len()
    }

    /// Kind of memory: `memfd`, `file`, `anonymous` or `heap`.
    #[getter]
    fn backing(&self) -> &'static str {
        self.engine.region().backing().kind.name()
    }

    /// Why kinds of memory that come first were not used.
    #[getter]
    fn fallbacks(&self) -> Vec<String> {
        self.engine.region().backing().fallbacks.clone()
    }
}

fn capacities(py: Python<'_>, of: Capacity) -> PyResult<Bound<'_, PyDict>> {
    let capacity = PyDict::new(py);
    capacity.set_item("keys", of.keys)?;
    capacity.set_item("lease_chunks", of.lease_chunks)?;
    capacity.set_item("workers", of.workers)?;
    capacity.set_item("deployments", of.deployments)?;
    Ok(capacity)
}

/// Makes `region` the one that this process and its children use. The first call wins.
#[pyfunction]
pub(super) fn set_default_region(region: Py<Region>) -> bool {
    DEFAULT.set(region).is_ok()
}

/// The process's region, or None.
#[pyfunction]
pub(super) fn default_region(py: Python<'_>) -> Option<Py<Region>> {
    DEFAULT.get().map(|region| region.clone_ref(py))
}

/// The engine of the process's region, creating it if the package has not done so yet.
pub(super) fn shared_engine(py: Python<'_>) -> PyResult<Arc<Engine>> {
    if let Some(region) = DEFAULT.get() {
        return Ok(region.get().engine());
    }
    let region = py.import("fast_litellm._region")?.call_method0("process_region")?;
    Ok(region.cast::<Region>()?.get().engine())
}
