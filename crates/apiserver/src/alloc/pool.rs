//! Values of a range, each with at most one owner.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::ops::RangeInclusive;

use ipnet::IpNet;

use crate::storage::Key;

/// Goes round: a released value is used again as late as possible, since
/// connections to its last owner may still be open.
#[derive(Debug)]
pub(super) struct Pool<T> {
    owners: HashMap<T, Key>,
    /// Position after the last value that was given out.
    cursor: u64,
}

impl<T> Default for Pool<T> {
    fn default() -> Self {
        Self {
            owners: HashMap::new(),
            cursor: 0,
        }
    }
}

/// Values by position.
pub(super) struct Positions<F> {
    /// Positions below are given out last: people ask for those by number.
    reserved: u64,
    count: u64,
    value: F,
}

impl<T: Copy + Eq + Hash> Pool<T> {
    pub(super) fn owner(&self, value: &T) -> Option<&Key> {
        self.owners.get(value)
    }

    pub(super) fn take(&mut self, value: T, key: &Key) {
        self.owners.insert(value, key.clone());
    }

    pub(super) fn release(&mut self, value: &T, key: &Key) {
        if self.owners.get(value) == Some(key) {
            self.owners.remove(value);
        }
    }

    /// A value that nobody owns.
    pub(super) fn next<F: Fn(u64) -> T>(&mut self, positions: Positions<F>) -> Option<T> {
        let Positions {
            reserved,
            count,
            value,
        } = positions;
        let upper = count - reserved;
        for step in 0..upper {
            let position = reserved + (self.cursor + step) % upper;
            let candidate = value(position);
            if !self.owners.contains_key(&candidate) {
                self.cursor = (position - reserved + 1) % upper;
                return Some(candidate);
            }
        }
        (0..reserved)
            .map(value)
            .find(|candidate| !self.owners.contains_key(candidate))
    }
}

/// The hosts of a range; the first is position 0. At most 2^16 of them are given
/// out, as in Kubernetes.
pub(super) fn hosts(range: &IpNet) -> Positions<impl Fn(u64) -> IpAddr + use<>> {
    let bits = u32::from(range.max_prefix_len() - range.prefix_len()).min(16);
    // Without the address of the network, and in IPv4 without broadcast.
    let count = (1_u64 << bits).saturating_sub(if range.addr().is_ipv4() { 2 } else { 1 });
    let first = range.network();
    let value = move |position: u64| match first {
        IpAddr::V4(first) => {
            let offset = u32::try_from(position + 1).unwrap_or(u32::MAX);
            IpAddr::V4(u32::from(first).saturating_add(offset).into())
        }
        IpAddr::V6(first) => IpAddr::V6(
            u128::from(first)
                .saturating_add(u128::from(position) + 1)
                .into(),
        ),
    };
    Positions {
        reserved: (count / 16).clamp(16, 256).min(count / 2),
        count,
        value,
    }
}

/// Whether services may have this address of the range.
pub(super) fn is_host(range: &IpNet, address: IpAddr) -> bool {
    address != range.network() && (address.is_ipv6() || address != range.broadcast())
}

pub(super) fn ports(range: &RangeInclusive<u16>) -> Positions<impl Fn(u64) -> u16 + use<>> {
    let first = *range.start();
    let count = u64::from(range.end() - first) + 1;
    let value = move |position: u64| first + u16::try_from(position).unwrap_or(0);
    Positions {
        reserved: (count / 32).clamp(16, 128).min(count / 2),
        count,
        value,
    }
}
