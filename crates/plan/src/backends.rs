//! The backends of a frontend.

use std::fmt;
use std::net::IpAddr;
use std::ops::Deref;
use std::sync::Arc;

/// An address and port behind a frontend; the protocol is the frontend's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Backend {
    pub address: IpAddr,
    pub port: u16,
}

/// Backends, sorted and without duplicates.
///
/// A service of ten thousand endpoints has the same ones at each of its
/// addresses: copies share them, and are equal at a glance while they do.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Backends(Arc<[Backend]>);

impl Deref for Backends {
    type Target = [Backend];

    fn deref(&self) -> &[Backend] {
        &self.0
    }
}

impl From<Vec<Backend>> for Backends {
    fn from(mut backends: Vec<Backend>) -> Self {
        // A tenth of the time of comparing addresses, and most are of this family.
        let numbers: Option<Vec<u64>> = backends.iter().map(number).collect();
        if let Some(mut numbers) = numbers {
            numbers.sort_unstable();
            numbers.dedup();
            return Self(numbers.into_iter().map(numbered).collect());
        }
        backends.sort_unstable();
        backends.dedup();
        Self(backends.into())
    }
}

/// A number for each backend of IPv4, in their order.
fn number(backend: &Backend) -> Option<u64> {
    match backend.address {
        IpAddr::V4(v4) => Some(u64::from(v4.to_bits()) << 16 | u64::from(backend.port)),
        IpAddr::V6(_) => None,
    }
}

/// The reverse of [`number`].
fn numbered(number: u64) -> Backend {
    let [_, _, a, b, c, d, port @ ..] = number.to_be_bytes();
    Backend {
        address: [a, b, c, d].into(),
        port: u16::from_be_bytes(port),
    }
}

impl FromIterator<Backend> for Backends {
    fn from_iter<I: IntoIterator<Item = Backend>>(backends: I) -> Self {
        backends.into_iter().collect::<Vec<_>>().into()
    }
}

impl<'a> IntoIterator for &'a Backends {
    type Item = &'a Backend;
    type IntoIter = std::slice::Iter<'a, Backend>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

impl fmt::Debug for Backends {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self).finish()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn they_are_in_their_order(
            mut backends in prop::collection::vec((any::<IpAddr>(), any::<u16>()), 0..20),
            only_v4: bool,
        ) {
            backends.retain(|(address, _)| address.is_ipv4() || !only_v4);
            let backends = backends.into_iter();
            let mut all: Vec<_> = backends.map(|(address, port)| Backend { address, port }).collect();
            let made = Backends::from([&all[..], &all].concat());
            all.sort();
            all.dedup();
            prop_assert_eq!(&*made, all);
        }
    }

    #[test]
    fn they_are_sorted_and_there_once() {
        let backend = |host: u8| Backend {
            address: [10, 244, 0, host].into(),
            port: 80,
        };
        let all: Backends = [3, 1, 3, 2].map(backend).into_iter().collect();
        assert_eq!(*all, [1, 2, 3].map(backend));
        assert_eq!(all, vec![backend(2), backend(3), backend(1)].into());
    }
}
