//! How many rows of the tables that can grow frontends take.

use std::ops::{AddAssign, SubAssign};

use super::plan::Planned;
use super::row::Row;
use crate::ebpf::maps::Maps;

/// Rows by table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Room {
    pub(super) frontends: u64,
    pub(super) backends: u64,
    pub(super) slots: u64,
    pub(super) maglev: u64,
}

impl Room {
    /// What a frontend takes.
    pub(super) fn of(row: &Row) -> Self {
        Self {
            frontends: 1,
            backends: row.ids.len() as u64,
            slots: row.slots_keys().count() as u64,
            maglev: row.maglev_keys().count() as u64,
        }
    }

    /// What a change takes until what it makes unused goes; `old` is the row that
    /// is there.
    pub(super) fn for_change(planned: &Planned, old: Option<&Row>) -> Self {
        let after = Self::of(&planned.row);
        let before = old.map(Self::of).unwrap_or_default();
        if !planned.in_place {
            return Self {
                frontends: after.frontends - before.frontends,
                ..after
            };
        }
        Self {
            frontends: 0,
            backends: planned.backends.len() as u64,
            slots: after.slots.saturating_sub(before.slots),
            maglev: after.maglev.saturating_sub(before.maglev),
        }
    }

    /// Whether the tables, as they are now, have so many rows.
    pub(super) fn is_in(&self, maps: &Maps) -> bool {
        self.frontends <= maps.frontends.limit()
            && self.backends <= maps.backends.limit()
            && self.slots <= maps.slots.limit()
            && self.maglev <= maps.maglev.limit()
    }
}

impl AddAssign for Room {
    fn add_assign(&mut self, other: Self) {
        self.frontends += other.frontends;
        self.backends += other.backends;
        self.slots += other.slots;
        self.maglev += other.maglev;
    }
}

impl SubAssign for Room {
    fn sub_assign(&mut self, other: Self) {
        self.frontends -= other.frontends;
        self.backends -= other.backends;
        self.slots -= other.slots;
        self.maglev -= other.maglev;
    }
}
