//! The cluster domain and the names below it, shared with the planner.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use ripstop_model::ObjectKey;
use ripstop_plan::{Names, ServiceNames};

use crate::query::Query;

/// A cluster domain that no question could name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cluster domain {domain:?}: {problem} (right would be: cluster.local)")]
pub struct DomainError {
    domain: String,
    problem: &'static str,
}

/// The names of the cluster. Updates lock out questions only while they touch
/// the table, name by name.
#[derive(Debug)]
pub struct Zone {
    /// Labels of the domain in lower case, from left to right.
    domain: Vec<Box<[u8]>>,
    names: RwLock<Names>,
    complete: AtomicBool,
    serial: AtomicU32,
}

/// Where a question's name is.
#[derive(Debug)]
pub(crate) enum Place {
    Outside,
    Inside {
        /// Below the domain, in lower case; `None` for labels that no
        /// Kubernetes name can have.
        name: Option<String>,
        /// Offset of the domain in the packet.
        domain: usize,
    },
}

impl Zone {
    /// A zone that does not know its names yet, and says so to who asks.
    ///
    /// # Errors
    /// If `domain` is no domain name.
    pub fn new(domain: &str) -> Result<Self, DomainError> {
        let error = |problem| DomainError {
            domain: domain.to_owned(),
            problem,
        };
        let trimmed = domain.strip_suffix('.').unwrap_or(domain);
        // Names of services and hosts must still fit before it.
        if trimmed.len() > 100 {
            return Err(error("longer than 100 characters"));
        }
        let mut labels = Vec::new();
        for label in trimmed.split('.') {
            if label.is_empty() || label.len() > 63 {
                return Err(error("a label must have 1 to 63 characters"));
            }
            let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
            if !label.bytes().all(allowed) {
                return Err(error("a label has letters, digits and hyphens only"));
            }
            labels.push(label.to_ascii_lowercase().into_bytes().into_boxed_slice());
        }
        Ok(Self {
            domain: labels,
            names: RwLock::default(),
            complete: AtomicBool::new(false),
            serial: AtomicU32::new(1),
        })
    }

    /// Takes over changed names of services; `None` removes them.
    pub fn update(&self, changes: impl IntoIterator<Item = (ObjectKey, Option<ServiceNames>)>) {
        for (service, names) in changes {
            self.names
                .write()
                .unwrap_or_else(PoisonError::into_inner)
                .set(&service, names);
        }
        self.serial.fetch_add(1, Ordering::Relaxed);
    }

    /// From here on, a name that is not known does not exist.
    pub fn set_complete(&self) {
        self.complete.store(true, Ordering::Release);
    }

    pub fn is_complete(&self) -> bool {
        self.complete.load(Ordering::Acquire)
    }

    /// Number of services with a name.
    pub fn len(&self) -> usize {
        self.names().len()
    }

    pub fn is_empty(&self) -> bool {
        self.names().is_empty()
    }

    pub(crate) fn names(&self) -> RwLockReadGuard<'_, Names> {
        self.names.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn serial(&self) -> u32 {
        self.serial.load(Ordering::Relaxed)
    }

    pub(crate) fn place(&self, query: &Query<'_>) -> Place {
        let count = query.labels().count();
        let Some(below) = count.checked_sub(self.domain.len()) else {
            return Place::Outside;
        };
        let mut domain = query.labels().skip(below);
        let start = domain.next().map_or(0, |(at, _)| at);
        let same = query
            .labels()
            .skip(below)
            .zip(&self.domain)
            .all(|((_, label), ours)| label.eq_ignore_ascii_case(ours));
        if !same {
            return Place::Outside;
        }
        Place::Inside {
            name: relative(query.labels().take(below)),
            domain: start,
        }
    }
}

/// Labels joined by dots, in lower case.
fn relative<'a>(labels: impl Iterator<Item = (usize, &'a [u8])>) -> Option<String> {
    let mut name = String::new();
    for (i, (_, label)) in labels.enumerate() {
        if i > 0 {
            name.push('.');
        }
        for byte in label {
            if !byte.is_ascii_graphic() || *byte == b'.' {
                return None;
            }
            name.push(char::from(byte.to_ascii_lowercase()));
        }
    }
    Some(name)
}
