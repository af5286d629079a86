//! What is published on the board.

use super::{NoticeReport, get, key_of};
use crate::engine::board;
use crate::layout::{Notice, section};
use crate::region::Region;
use crate::tables::names;

pub(super) fn notices(region: &Region) -> Vec<NoticeReport> {
    let written = region.written(section::BOARD, region.board());
    written.filter_map(|(slot, _)| notice(region, slot)).collect()
}

/// The notice in one record; `None` = there is none.
pub(super) fn notice(region: &Region, slot: usize) -> Option<NoticeReport> {
    let record = region.board().get(slot)?;
    key_of(&record.identity)?;
    let found = board::notice_of(region, slot, record);
    let now_us = region.now().us();
    Some(NoticeReport {
        notice: notice_name(record),
        bytes: found.as_ref().map(|notice| notice.bytes.len() as u64),
        age_s: found.as_ref().map(|notice| now_us.saturating_sub(notice.published_us) / 1_000_000),
        expires_in_s: found
            .filter(|notice| notice.expires_us > 0)
            .map(|notice| notice.expires_us.saturating_sub(now_us).div_ceil(1_000_000)),
        published: get(&record.current).writes(),
    })
}

pub(super) fn notice_name(record: &Notice) -> String {
    let place = names::Place { head: &record.name_head, bytes: &record.name };
    names::read(place).unwrap_or_else(|| format!("#{:013x}", get(&record.identity).hash()))
}
