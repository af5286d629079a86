//! What is published on the board.

use super::{NoticeReport, get, key_of};
use crate::engine::board;
use crate::region::Region;
use crate::tables::names;

pub(super) fn notices(region: &Region) -> Vec<NoticeReport> {
    let now_us = region.now().us();
    let report = |(slot, record): (usize, &crate::layout::Notice)| {
        key_of(&record.identity)?;
        let found = board::notice_of(region, slot, record);
        let place = names::Place { head: &record.name_head, bytes: &record.name };
        let name = names::read(place);
        Some(NoticeReport {
            notice: name.unwrap_or_else(|| format!("#{:013x}", get(&record.identity).hash())),
            bytes: found.as_ref().map(|notice| notice.bytes.len() as u64),
            age_s: found
                .as_ref()
                .map(|notice| now_us.saturating_sub(notice.published_us) / 1_000_000),
            expires_in_s: found
                .filter(|notice| notice.expires_us > 0)
                .map(|notice| notice.expires_us.saturating_sub(now_us).div_ceil(1_000_000)),
            published: get(&record.current).writes(),
        })
    };
    region.board().iter().enumerate().filter_map(report).collect()
}
