//! The board: named notices that any process publishes and all read.

use super::Engine;
use super::keys::identify;
use crate::error::OpError;
use crate::layout::{IdentityWord, KeyKind, Notice, SHEET_BYTES};
use crate::region::Region;
use crate::sync::Ordering;
use crate::tables::board::{self, Place, Sheet};
use crate::tables::index::{self, Probe};
use crate::tables::names;

/// Hash domain of notices.
pub(crate) const NOTICES: u64 = 0x6e6f_7465;

impl Engine {
    fn identify_notice(&self, name: &str) -> (IdentityWord, Probe) {
        identify(&self.region, KeyKind::Named, NOTICES, name.as_bytes())
    }

    /// Publishes bytes under a name, in place of what was published there before. After `ttl_s` seconds they are
    /// no longer shown; 0 = always. Names are never given up.
    ///
    /// # Errors
    /// `TooLarge` for more than 131,072 bytes; `TableFull` when there are 16 other names; `Contended` when others
    /// published at every try.
    pub fn publish(&self, name: &str, bytes: &[u8], ttl_s: u64) -> Result<(), OpError> {
        if bytes.len() > SHEET_BYTES {
            return Err(OpError::TooLarge);
        }
        let (identity, probe) = self.identify_notice(name);
        let table = self.region.board();
        let slot = index::insert(table, probe, identity, index::nonce)
            .map_err(|error| self.counted(error.into()))?;
        let record = &table[slot.index];
        let label = names::Place { head: &record.name_head, bytes: &record.name };
        self.look_after_name(label, || names::redact(name), || true);
        let place = place_of(&self.region, slot.index, identity).ok_or(OpError::TableFull)?;
        let now_us = self.now().us();
        let lasts_us = ttl_s.saturating_mul(1_000_000);
        let expires_us = if ttl_s == 0 { 0 } else { now_us.saturating_add(lasts_us) };
        place.publish(bytes, now_us, expires_us).map_err(|_| self.counted(OpError::Contended))
    }

    /// What was published last under a name and is not over; `None` = nothing.
    pub fn notice(&self, name: &str) -> Option<Vec<u8>> {
        let (identity, probe) = self.identify_notice(name);
        let slot = index::find(self.region.board(), probe, identity)?;
        let notice = place_of(&self.region, slot, identity)?.read()?;
        notice.is_shown(self.now().us()).then_some(notice.bytes)
    }
}

/// The notice in a record, with its sheets.
pub fn place_of(region: &Region, slot: usize, identity: IdentityWord) -> Option<Place<'_>> {
    let record = region.board().get(slot)?;
    let first = slot.checked_mul(2)?;
    let sheet = |number: usize| {
        Some(Sheet {
            length: &record.lengths[number],
            published_us: &record.published_us[number],
            expires_us: &record.expires_us[number],
            check: &record.checks[number],
            words: &region.sheets().get(first.checked_add(number)?)?.words,
        })
    };
    Some(Place { identity, current: &record.current, sheets: [sheet(0)?, sheet(1)?] })
}

/// The notice in a record, if one stands there: what [`Engine::notice`] reads, shown or not.
pub fn notice_of(region: &Region, slot: usize, record: &Notice) -> Option<board::Notice> {
    let identity = index::key_of(record.identity.load(Ordering::Acquire))?;
    place_of(region, slot, identity)?.read()
}

#[cfg(test)]
mod tests {
    use super::super::tests::engine;
    use super::*;

    #[test]
    fn notices_are_read_by_name_until_they_are_over() {
        let (engine, clock) = engine();
        assert_eq!(engine.notice("models"), None);
        engine.publish("models", b"one", 0).unwrap();
        engine.publish("prices", b"another", 10).unwrap();
        engine.publish("models", b"two", 0).unwrap();
        assert_eq!(engine.notice("models").unwrap(), b"two");
        clock.advance_s(9);
        assert_eq!(engine.notice("prices").unwrap(), b"another");
        clock.advance_s(1);
        assert_eq!((engine.notice("prices"), engine.notice("models").is_some()), (None, true));
    }

    #[test]
    fn as_much_as_a_sheet_holds_and_no_more() {
        let (engine, _) = engine();
        let bytes: Vec<u8> = (0..SHEET_BYTES).map(|n| u8::try_from(n % 251).unwrap()).collect();
        engine.publish("models", &bytes, 0).unwrap();
        assert_eq!(engine.notice("models").as_ref(), Some(&bytes));
        let error = engine.publish("models", &[&bytes[..], &[1]].concat(), 0).unwrap_err();
        assert!(error.to_string().contains("131,072"), "{error}");
        assert_eq!(engine.notice("models"), Some(bytes));
    }

    #[test]
    fn too_many_names_are_an_error() {
        let (engine, _) = engine();
        let made = (0..40).filter(|n| engine.publish(&format!("n {n}"), b"x", 0).is_ok()).count();
        assert_eq!(made, engine.region().board().len());
        assert!((0..40).filter(|n| engine.notice(&format!("n {n}")).is_some()).count() == made);
    }
}
