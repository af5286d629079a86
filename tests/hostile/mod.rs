//! What the tests of hostile bytes share with the fuzz targets.

pub mod damage;
pub mod drive;
#[cfg(test)]
mod files;
pub mod ground;
#[cfg(test)]
mod healing;
pub mod source;
pub mod steps;
pub mod targets;
#[cfg(test)]
mod verdicts;
pub mod watch;
#[cfg(test)]
mod worst;
