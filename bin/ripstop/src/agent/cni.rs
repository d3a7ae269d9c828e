//! The agent's side of CNI: what runtimes ask for through `ripstop-cni`.
//!
//! A thread per request: the work is a handful of system calls, and requests
//! for different containers go on beside each other.

mod add;
mod attachments;
mod call;
mod connection;
mod del;
mod ports;
mod reaper;
mod takeover;
#[cfg(test)]
mod tests;
mod verify;

use std::collections::HashMap;
use std::net::IpAddr;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use ipnet::IpNet;
use ripstop_datapath::Datapath;
use ripstop_host::ipam::Allocator;
use ripstop_host::pod::{self, PodLink};
use ripstop_host::records::{Record, Records};
use ripstop_model::LocalPod;
use ripstop_netlink::link::Link;
use ripstop_netlink::netns::Netns;
use ripstop_netlink::{Netlink, link};

use super::local_pods::{PodInput, PodTeller};
use super::names::Names;
use attachments::{Attachments, key_of};
pub(crate) use connection::check_peer;
use reaper::Reaper;
pub(crate) use takeover::{Foreign, TakingOver};

/// The engine, shared with the rest of the agent.
pub(crate) type SharedDatapath = Arc<Mutex<dyn Datapath>>;

/// What the server must be told.
#[derive(Clone, Debug)]
pub(crate) struct CniConfig {
    /// Pod records are kept in its folder `pods`.
    pub(crate) run_dir: PathBuf,
    /// The node's pod ranges, at most one per family.
    pub(crate) pod_cidrs: Vec<IpNet>,
    /// Of pods' interfaces: the uplink's, bytes.
    pub(crate) mtu: u32,
}

/// Makes and undoes pods' attachments.
pub(crate) struct CniServer {
    attachments: Arc<Attachments>,
    reaper: Reaper,
    datapath: SharedDatapath,
    node: Netns,
    sockets: Sockets,
    mtu: u32,
    names: OnceLock<Names>,
    plan: OnceLock<PodTeller>,
}

impl CniServer {
    /// Takes over what an earlier agent left: attachments that are whole are
    /// kept, with their addresses; the others are undone. To be called in the
    /// node's network namespace, before the datapath's first audit.
    ///
    /// # Errors
    /// If another agent has the records, or the kernel cannot be asked.
    pub(crate) fn open(config: CniConfig, datapath: SharedDatapath) -> anyhow::Result<Arc<Self>> {
        let records = Records::open(config.run_dir.join("pods"))?;
        let mut allocator = Allocator::new(&config.pod_cidrs)?;
        let mut netlink = Netlink::new()?;
        let restored = restore(&records, &mut allocator, &mut netlink)?;
        let attachments = Arc::new(Attachments::new(records, allocator, restored));
        let sockets = Sockets::default();
        sockets.put(netlink);
        Ok(Arc::new(Self {
            reaper: Reaper::start(Arc::clone(&attachments))?,
            attachments,
            datapath,
            node: Netns::current()?,
            sockets,
            mtu: config.mtu,
            names: OnceLock::new(),
            plan: OnceLock::new(),
        }))
    }

    /// The pods that the datapath shall have. Audits must hold the datapath's
    /// lock from this call to the end: pods come and go under it.
    pub(crate) fn pods(&self) -> Vec<LocalPod> {
        self.attachments.pods()
    }

    /// From here on, `names` knows pods' search lists. To be called once.
    pub(crate) fn follow_searches(&self, names: &Names) {
        let _ = self.names.set(names.clone());
        for record in self.attachments.attached_records() {
            self.tell_names(&record, true);
        }
    }

    /// From here on, the plan knows pods. To be called once; returns those that
    /// there are.
    pub(crate) fn tell_plan(&self, plan: PodTeller) -> Vec<PodInput> {
        let _ = self.plan.set(plan);
        let records = self.attachments.attached_records();
        let adopted = records.into_iter().map(|record| PodInput::Added {
            at: key_of(&record),
            pod: record.pod,
            planned: None,
        });
        adopted.collect()
    }

    fn tell_names(&self, record: &Record, there: bool) {
        if let Some(names) = self.names.get() {
            let search = there.then_some(record.search.as_slice());
            names.set_search(&record.pod.addresses, search);
        }
    }

    /// Gives these addresses to no pod: somebody else's has them.
    pub(crate) fn keep_free(&self, addresses: &[IpAddr]) {
        self.attachments.keep_free(addresses);
    }

    /// The node's network namespace.
    pub(crate) fn node(&self) -> &Netns {
        &self.node
    }

    /// Nobody has them any more.
    pub(crate) fn give_back(&self, addresses: &[IpAddr]) {
        self.attachments.give_back(addresses);
    }

    /// Addresses in use by pod range: range, used, available.
    pub(crate) fn usage(&self) -> Vec<(IpNet, usize, usize)> {
        self.attachments.usage()
    }

    /// Makes the socket that the plugin connects to; only root may. An old
    /// socket file in its place is removed.
    ///
    /// # Errors
    /// If the path cannot be bound.
    pub(crate) fn listen(path: &Path) -> std::io::Result<UnixListener> {
        connection::listen(path)
    }

    /// Answers requests; give it a thread of its own.
    pub(crate) fn run(self: Arc<Self>, listener: &UnixListener) -> ! {
        connection::serve(&self, listener)
    }

    fn datapath(&self) -> MutexGuard<'_, dyn Datapath + 'static> {
        self.datapath.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Netlink sockets in the node's namespace that are not in use just now.
#[derive(Default)]
struct Sockets(Mutex<Vec<Netlink>>);

impl Sockets {
    fn take(&self) -> Result<Netlink, ripstop_netlink::Error> {
        let idle = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        idle.map_or_else(Netlink::new, Ok)
    }

    fn put(&self, netlink: Netlink) {
        /// More than ever work at the same time on a machine of common size.
        const KEPT: usize = 8;
        let mut idle = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < KEPT {
            idle.push(netlink);
        }
    }
}

/// The link that belongs to a record.
fn link_of(record: &Record) -> PodLink {
    PodLink {
        host_ifname: record.pod.host_ifname.clone(),
        pod_ifname: record.ifname.clone(),
        mac: record.pod.mac,
        addresses: record.pod.addresses.clone(),
        mtu: record.mtu,
        remark: describe(&record.pod),
    }
}

/// How people know a pod.
fn describe(pod: &LocalPod) -> String {
    if pod.pod.name.is_empty() {
        format!("container {}", pod.container_id)
    } else {
        format!("{}/{}", pod.pod.namespace, pod.pod.name)
    }
}

/// Compares records and links: keeps what is whole, removes the rest. A takeover
/// goes on once the link has our name; before, the pod has all of the other plugin's,
/// and just the record goes.
fn restore(
    records: &Records,
    allocator: &mut Allocator,
    netlink: &mut Netlink,
) -> anyhow::Result<Vec<Record>> {
    let mut links: HashMap<String, Link> = netlink
        .links()?
        .into_iter()
        .filter(|link| pod::is_host_end(&link.name))
        .map(|link| (link.name.clone(), link))
        .collect();
    let mut kept = Vec::new();
    let mut undone = Vec::new();
    for mut record in records.load()? {
        let found = links.remove(&record.pod.host_ifname);
        let ours = |link: &Link| pod::is_finished(link) || record.taken_from.is_some();
        match found.filter(ours) {
            Some(link) => {
                if !pod::is_finished(&link) {
                    takeover::resume(&record, netlink);
                }
                record.pod.host_ifindex = link.index;
                pod::ignore_routers(&link.name)?;
                link_of(&record).restore(netlink, link.index)?;
                for &address in &record.pod.addresses {
                    allocator.claim(address)?;
                }
                kept.push(record);
            }
            None => {
                tracing::info!(
                    pod = describe(&record.pod),
                    "undoing an unfinished attachment"
                );
                undone.push(record);
            }
        }
    }
    // Unfinished ones, and links whose record is lost.
    let stale = undone.iter().map(|record| record.pod.host_ifname.as_str());
    let requests = link::delete_together(stale.chain(links.keys().map(String::as_str)));
    netlink.execute(requests)?;
    for record in &undone {
        records.remove(record)?;
    }
    Ok(kept)
}
