//! Looks at the table of connections, in a thread of its own, and says to the
//! rules who is to begin no more.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use ripstop_netlink::conntrack::Conntrack;
use ripstop_netlink::nftables::{Batch, Element, Nftables, SetSpec};
use tracing::{debug, info, warn};

use super::super::sets::{FAMILIES, Set};
use super::super::{TABLE, keys, refused, unsupported};
use super::gauge::{Gauge, Marks, Step};
use super::{HELD, PATIENCE, PRESSED, link};
use crate::engine::Error;
use crate::regular::Regular;

/// After an error, or while there is no limit.
const LATER: Duration = Duration::from_secs(1);

struct Valve {
    conntrack: Conntrack,
    nftables: Nftables,
    gauge: Gauge,
    /// Connections that there is room for, if not as many as the kernel says.
    limit: Option<u64>,
}

/// Begins to look; ends with what it returns. `limit`:
/// [`super::super::Config::connections`].
///
/// # Errors
/// [`Error::Unsupported`] without sockets, or a thread.
pub(in super::super) fn start(limit: Option<u64>) -> Result<Regular, Error> {
    let mut valve = Valve {
        conntrack: Conntrack::new().map_err(unsupported)?,
        nftables: Nftables::new().map_err(unsupported)?,
        gauge: Gauge::new(),
        limit,
    };
    let work = move || {
        valve.work().unwrap_or_else(|error| {
            // There may be no table at this moment, or another version's.
            debug!(%error, "connections of pods are not looked at");
            LATER
        })
    };
    let started = Regular::start("pressure", Duration::ZERO, work);
    started.map_err(|source| Error::Unsupported {
        reason: format!("thread: {source}"),
    })
}

impl Valve {
    /// Looks once; how long not to look again.
    fn work(&mut self) -> Result<Duration, Error> {
        let Some((connections, marks)) = self.size()? else {
            return Ok(LATER);
        };
        match self.gauge.look(connections, &marks, Instant::now()) {
            Step::Nothing => return Ok(self.gauge.pause(connections, &marks)),
            Step::Release => {
                self.put(&BTreeSet::new(), &BTreeSet::new())?;
                if !self.gauge.held().is_empty() {
                    info!(connections, "all pods begin connections again");
                }
                self.gauge.released();
            }
            Step::Count { slowly } => self.count(slowly)?,
        }
        Ok(Duration::ZERO)
    }

    fn size(&mut self) -> Result<Option<(u64, Marks)>, Error> {
        let size = self.conntrack.size().map_err(refused)?;
        // Without a limit of the kernel's, nothing is ever forgotten.
        let limit = self.limit.or(size.limit).filter(|limit| *limit > 0);
        Ok(limit.map(|limit| (size.connections, Marks::of(limit))))
    }

    fn count(&mut self, slowly: bool) -> Result<(), Error> {
        let started = Instant::now();
        let held = self.gauge.held().clone();
        let pods = self.pods()?;
        if slowly {
            let all: BTreeSet<u32> = pods.values().copied().collect();
            self.put(&all, &held)?;
        }
        let Some((connections, marks)) = self.size()? else {
            return Ok(());
        };
        let of = self.connections_of(&pods, marks.is_brink(connections))?;
        let now_held = self.gauge.over_share(&of, &marks);
        self.put(&now_held, &now_held)?;
        for link in now_held.difference(&held) {
            let addresses: Vec<_> = pods.iter().filter(|(_, of)| *of == link).collect();
            let addresses: Vec<_> = addresses.into_iter().map(|(ip, _)| ip).collect();
            warn!(
                ?addresses,
                has = of[link],
                connections,
                "a pod has too many of the node's connections: it begins no more until it has less"
            );
        }
        let took = started.elapsed();
        debug!(
            connections,
            ?of,
            ?took,
            "counted whose connections there are"
        );
        let Some((connections, _)) = self.size()? else {
            return Ok(());
        };
        self.gauge
            .counted(now_held, connections, took, Instant::now());
        Ok(())
    }

    /// Pods' addresses, and the links by which they send from them: the table says.
    fn pods(&mut self) -> Result<HashMap<IpAddr, u32>, Error> {
        let mut pods = HashMap::new();
        for family in FAMILIES {
            let set = Set::PodSources.name(family);
            let elements = self.nftables.elements(TABLE, set).map_err(refused)?;
            pods.extend(elements.iter().filter_map(|element| {
                let address = keys::read_address(element.key.get(4..)?)?;
                Some((address, link(&element.key)?))
            }));
        }
        Ok(pods)
    }

    /// How many connections each pod has begun that are there; `closing`: also those
    /// of which a side has closed.
    fn connections_of(
        &mut self,
        pods: &HashMap<IpAddr, u32>,
        closing: bool,
    ) -> Result<BTreeMap<u32, u64>, Error> {
        let of: RefCell<BTreeMap<u32, u64>> = RefCell::default();
        let counted = self.conntrack.list_all(|connection| {
            let client = connection.original.source.ip();
            if (closing || !connection.is_closing)
                && let Some(link) = pods.get(&client)
            {
                *of.borrow_mut().entry(*link).or_default() += 1;
            }
            false
        });
        counted.map_err(refused)?;
        Ok(of.into_inner())
    }

    /// Tells the rules, in one transaction.
    fn put(&mut self, pressed: &BTreeSet<u32>, held: &BTreeSet<u32>) -> Result<(), Error> {
        let mut batch = Batch::new(TABLE);
        let mut set = |set: &SetSpec, links: &BTreeSet<u32>| {
            let elements = links.iter().map(|link| Element {
                timeout_ms: PATIENCE,
                ..Element::key(link.to_ne_bytes().into())
            });
            batch.flush_set(set.name);
            batch.add_elements(set.name, &elements.collect::<Vec<_>>());
        };
        set(&PRESSED, pressed);
        set(&HELD, held);
        self.nftables.commit(&batch).map_err(refused)
    }
}
