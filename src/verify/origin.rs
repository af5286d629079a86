//! The header and the section table: what its creator wrote, once.

use super::{Walk, get};
use crate::config::Overflow;
use crate::layout::{self, BYTE_ORDER, MAGIC, State};

/// Pids fit into so much.
const MAX_PID: u64 = 1 << 22;

impl Walk<'_> {
    pub(super) fn origin(&mut self) {
        self.header();
        self.section_table();
    }

    fn header(&mut self) {
        let region = self.region;
        let header = region.header();
        let capacity = region.sections().capacity();
        let version = u64::from(layout::VERSION_MAJOR) << 32 | u64::from(layout::VERSION_MINOR);
        let fixed = [
            ("magic", &header.magic, MAGIC),
            ("version", &header.version, version),
            ("fingerprint", &header.fingerprint, layout::fingerprint()),
            ("byte_order", &header.byte_order, BYTE_ORDER),
            ("total_len", &header.total_len, region.len()),
            ("state", &header.state, State::Ready as u64),
            ("worker_capacity", &header.worker_capacity, capacity.workers),
            ("key_capacity", &header.key_capacity, capacity.keys),
            ("chunk_capacity", &header.chunk_capacity, capacity.lease_chunks),
            ("deployment_capacity", &header.deployment_capacity, capacity.deployments),
            ("section_count", &header.section_count, region.sections().iter().count() as u64),
        ];
        self.twice("header", 0, |now, notes| {
            for (field, word, expected) in fixed {
                if get(word) != expected {
                    notes.damage(field, get(word), "what the region was attached with");
                }
            }
            for (field, found) in region.changed_origin() {
                notes.damage(field, found, "what the region was attached with");
            }
            if !(1..=MAX_PID).contains(&get(&header.creator_pid)) {
                notes.harmless("creator_pid", get(&header.creator_pid), "a pid");
            }
            if !(1..=4).contains(&get(&header.backing)) {
                notes.harmless("backing", get(&header.backing), "1 to 4");
            }
            if get(&header.overflow) > Overflow::Local as u64 {
                notes.harmless("overflow", get(&header.overflow), "0 to 2; denies");
            }
            if get(&header.clock_base_ns) > 0 && now().us() == 0 {
                notes.damage("clock_base_ns", get(&header.clock_base_ns), "the past");
            }
            notes.zeroes("reserved", &header.reserved);
        });
    }

    fn section_table(&mut self) {
        let region = self.region;
        for (index, (row, section)) in
            region.section_rows().iter().zip(region.sections().iter()).enumerate()
        {
            self.twice("section table", index, |_, notes| {
                for (field, word, expected) in [
                    ("id", &row.id, section.id),
                    ("offset", &row.offset, section.span.offset),
                    ("stride", &row.stride, section.stride),
                    ("count", &row.count, section.span.count),
                ] {
                    if get(word) != expected {
                        notes.damage(field, get(word), "what follows from the capacities");
                    }
                }
            });
        }
    }
}
