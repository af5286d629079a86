//! What the tests of hostile bytes share with the fuzz targets.

pub mod damage;
pub mod drive;
pub mod ground;
pub mod source;
pub mod targets;
pub mod watch;
