//! placeholder, replaced by a merge
use crate::layout::SlidingWord;
/// x
#[derive(Clone, Copy)]
pub struct SlidingLimit;
impl SlidingLimit {
    /// x
    pub fn new(_: u64, _: u64) -> Option<Self> {
        None
    }
}
/// x
pub fn is_idle(_: SlidingWord, _: u64, _: u64) -> bool {
    false
}
/// x
pub fn remaining(_: SlidingWord, _: u64, _: SlidingLimit) -> u64 {
    0
}
/// x
pub fn retry_after_us(_: SlidingWord, _: u64, _: SlidingLimit, _: u64) -> u64 {
    0
}
