//! Frontends and their backends in the kernel.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use ripstop_abi::{Backend, BackendKey, Frontend, ServiceAddress};

use super::maps::Maps;
use crate::Error;

/// Where a frontend should lead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) backends: Vec<Backend>,
    pub(crate) flags: u16,
}

/// A frontend as it is in the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Row {
    service: u32,
    /// As many as the row says; a backend without a row makes them more than
    /// there are backends.
    slots: u16,
    wanted: Wanted,
}

impl Row {
    fn is(&self, wanted: &Wanted) -> bool {
        usize::from(self.slots) == self.wanted.backends.len() && self.wanted == *wanted
    }

    fn keys(&self) -> impl Iterator<Item = BackendKey> {
        let service = self.service;
        (0..u32::from(self.slots)).map(move |slot| BackendKey { service, slot })
    }
}

/// What is in the tables `frontends` and `backends`.
#[derive(Debug, Default)]
pub(crate) struct Frontends {
    rows: BTreeMap<ServiceAddress, Row>,
    last_service: u32,
    wrapped: bool,
}

impl Frontends {
    /// Reads the kernel. Backends that no frontend leads to are removed.
    pub(crate) fn read(maps: &Maps) -> Result<Self, Error> {
        let mut backends: BTreeMap<BackendKey, Backend> =
            maps.backends.rows()?.into_iter().collect();
        let mut read = Self::default();
        for (address, frontend) in maps.frontends.rows()? {
            let service = frontend.service();
            let wanted = Wanted {
                backends: Vec::new(),
                flags: frontend.flags(),
            };
            let mut row = Row {
                service,
                slots: frontend.count(),
                wanted,
            };
            row.wanted.backends = row.keys().filter_map(|key| backends.remove(&key)).collect();
            read.last_service = read.last_service.max(service);
            read.rows.insert(address, row);
        }
        for left in backends.keys() {
            maps.backends.remove(left)?;
        }
        Ok(read)
    }

    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(crate) fn backend_count(&self) -> usize {
        self.rows
            .values()
            .map(|row| row.wanted.backends.len())
            .sum()
    }

    /// Addresses of the rows with, or without, that flag.
    pub(crate) fn with_flag(&self, flag: u16, set: bool) -> impl Iterator<Item = ServiceAddress> {
        self.rows
            .iter()
            .filter(move |(_, row)| (row.wanted.flags & flag != 0) == set)
            .map(|(address, _)| *address)
    }

    /// Makes the kernel have these rows; `None` removes one. In this order: new
    /// backends, under a service number that nobody knows yet; frontends, each
    /// in one step; what is no longer used.
    ///
    /// Gives what was written or removed. After an error all other rows are in
    /// place.
    pub(crate) fn write(
        &mut self,
        maps: &Maps,
        wanted: impl IntoIterator<Item = (ServiceAddress, Option<Wanted>)>,
    ) -> (Vec<String>, Result<(), Error>) {
        let mut result = Ok(());
        let mut keep_first = |outcome: Result<(), Error>| {
            let failed = outcome.is_err();
            if result.is_ok() {
                result = outcome;
            }
            failed
        };
        let mut removed = Vec::new();
        let mut written = Vec::new();
        for (address, wanted) in wanted {
            let Some(mut wanted) = wanted else {
                removed.extend(self.rows.contains_key(&address).then_some(address));
                continue;
            };
            // More than fit into a row are more than anybody has.
            wanted.backends.truncate(u16::MAX.into());
            if self.rows.get(&address).is_some_and(|row| row.is(&wanted)) {
                continue;
            }
            let slots = wanted.backends.len() as u16;
            let row = Row {
                service: self.fresh_service(),
                slots,
                wanted,
            };
            if keep_first(put_backends(maps, &address, &row)) {
                remove_backends(maps, &row);
            } else {
                written.push((address, row));
            }
        }
        let mut done = Vec::new();
        let mut unused = Vec::new();
        for (address, row) in written {
            let frontend = Frontend::new(row.service, row.slots, row.wanted.flags);
            if keep_first(maps.frontends.put(&address, &frontend, || show(&address))) {
                unused.push(row);
                continue;
            }
            done.push(format!("frontend {}", show(&address)));
            unused.extend(self.rows.insert(address, row));
        }
        for address in removed {
            if keep_first(maps.frontends.remove(&address)) {
                continue;
            }
            done.push(format!("frontend {} (removed)", show(&address)));
            unused.extend(self.rows.remove(&address));
        }
        for row in &unused {
            remove_backends(maps, row);
        }
        (done, result)
    }

    /// A number that no row has.
    fn fresh_service(&mut self) -> u32 {
        loop {
            let (next, wrapped) = self.last_service.overflowing_add(1);
            self.wrapped |= wrapped;
            self.last_service = next;
            // After four billion changes numbers come again.
            if !self.wrapped || !self.rows.values().any(|row| row.service == next) {
                return next;
            }
        }
    }
}

fn put_backends(maps: &Maps, address: &ServiceAddress, row: &Row) -> Result<(), Error> {
    row.keys()
        .zip(&row.wanted.backends)
        .try_for_each(|(key, backend)| {
            maps.backends.put(&key, backend, || {
                let to = SocketAddr::new(backend.address.into(), backend.port.host());
                format!("{} -> {to}", show(address))
            })
        })
}

/// What cannot be removed is found when the tables are read next.
fn remove_backends(maps: &Maps, row: &Row) {
    for key in row.keys() {
        if let Err(error) = maps.backends.remove(&key) {
            tracing::warn!(%error, "a backend that is no longer used stays");
        }
    }
}

/// A frontend as people write it.
pub(crate) fn show(address: &ServiceAddress) -> String {
    let socket = SocketAddr::new(IpAddr::from(address.address), address.port.host());
    match address.protocol {
        6 => format!("{socket}/TCP"),
        17 => format!("{socket}/UDP"),
        132 => format!("{socket}/SCTP"),
        other => format!("{socket}/{other}"),
    }
}
