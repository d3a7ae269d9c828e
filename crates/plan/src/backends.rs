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

impl Backends {
    /// Whether these are not only equal but the same in memory: then what was
    /// made of one is right for the other.
    pub fn is_shared_with(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Deref for Backends {
    type Target = [Backend];

    fn deref(&self) -> &[Backend] {
        &self.0
    }
}

impl From<Vec<Backend>> for Backends {
    fn from(mut backends: Vec<Backend>) -> Self {
        backends.sort_unstable();
        backends.dedup();
        Self(backends.into())
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
    use super::*;

    #[test]
    fn they_are_sorted_and_there_once() {
        let backend = |host: u8| Backend {
            address: [10, 244, 0, host].into(),
            port: 80,
        };
        let all: Backends = [3, 1, 3, 2].map(backend).into_iter().collect();
        assert_eq!(*all, [1, 2, 3].map(backend));
        assert_eq!(all, vec![backend(2), backend(3), backend(1)].into());
        assert!(all.is_shared_with(&all.clone()));
    }
}
