//! The plan's rows of services as rows of the kernel.

use std::collections::HashMap;
use std::marker::PhantomData;
use std::sync::Arc;

use ripstop_abi::{Backend, FLAG_HOST_ONLY, FLAG_MAGLEV, Port, RouteKey, ServiceAddress};
use ripstop_plan::{Backends, Frontend, FrontendKind, FrontendRow, Outside};

use super::frontends::Wanted;
use super::route_key;

/// Translates rows. Backends that several of them share, as a service's
/// addresses do, are translated once and shared again.
#[derive(Debug, Default)]
pub(crate) struct Translation<'a> {
    /// By where the plan's are in memory, which stay there meanwhile.
    known: HashMap<*const [ripstop_plan::Backend], Arc<[Backend]>>,
    of: PhantomData<&'a FrontendRow>,
}

impl<'a> Translation<'a> {
    /// `frontend` says whose loopback it is.
    pub(crate) fn row(&mut self, frontend: &Frontend, row: &'a FrontendRow) -> Wanted {
        let mut sources: Vec<RouteKey> = row.source_ranges.iter().map(route_key).collect();
        sources.sort_unstable();
        let backends = self.backends(&row.backends);
        let outside = match &row.outside {
            Outside::Cluster => None,
            Outside::Local(backends) => Some(self.backends(backends)),
        };
        let kind = match row.kind {
            _ if frontend.address.is_loopback() => FLAG_HOST_ONLY,
            FrontendKind::ClusterIp if outside.as_ref().is_none_or(|own| *own == backends) => 0,
            _ => FLAG_MAGLEV,
        };
        Wanted {
            backends,
            outside,
            affinity: row.affinity.unwrap_or(0),
            sources,
            kind,
        }
    }

    fn backends(&mut self, backends: &'a Backends) -> Arc<[Backend]> {
        let translated = self.known.entry(&raw const **backends);
        translated.or_insert_with(|| sorted(backends)).clone()
    }
}

/// By address as the tables have it, which is not the plan's order.
fn sorted(backends: &Backends) -> Arc<[Backend]> {
    let backend =
        |b: &ripstop_plan::Backend| Backend::new(b.address.into(), Port::from_host(b.port));
    let mut backends: Vec<Backend> = backends.iter().map(backend).collect();
    // Most have all but the end of their addresses in common: the rest is a number.
    let beginning = |backend: &Backend| {
        let [a, b, c, _] = backend.address.words();
        [a, b, c]
    };
    let alike = |pair: &[Backend]| beginning(&pair[0]) == beginning(&pair[1]);
    if backends.windows(2).all(alike) {
        backends.sort_unstable_by_key(|backend| {
            let [.., last] = backend.address.words();
            u64::from(last) << 16 | u64::from(backend.port.network())
        });
    } else {
        backends.sort_unstable();
    }
    backends.dedup();
    // More than fit into a row are more than anybody has.
    backends.truncate(u16::MAX.into());
    backends.into()
}

pub(crate) fn key(frontend: &Frontend) -> ServiceAddress {
    let port = Port::from_host(frontend.port);
    ServiceAddress::new(frontend.address.into(), port, frontend.protocol as u8)
}
