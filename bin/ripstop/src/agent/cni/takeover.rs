//! Pods that another plugin attached become ours while they run.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ripstop_host::pod::{derive_names, ignore_routers};
use ripstop_host::records::Record;
use ripstop_host::takeover::{Failure, Found};
use ripstop_model::LocalPod;
use ripstop_netlink::Netlink;
use ripstop_netlink::netns::Netns;
use ripstop_plan::Change;
use ripstop_plan::policy::PodPolicies;

use super::attachments::{Busy, key_of};
use super::{CniServer, PodInput, describe, link_of};

/// A pod of another plugin: who it is, and its link as that plugin made it.
#[derive(Debug)]
pub(crate) struct Foreign {
    record: Record,
    netns: Netns,
    found: Found,
}

/// One that is being taken over: no request works on its container meanwhile.
pub(crate) struct TakingOver<'a> {
    server: &'a CniServer,
    _busy: Busy<'a>,
    foreign: &'a Foreign,
}

impl Foreign {
    /// `network`: the other plugin's. `pod` needs no name of an interface and no MAC.
    /// `None` if the pod's end has no MAC.
    pub(crate) fn new(
        mut pod: LocalPod,
        ifname: &str,
        network: &str,
        netns: Netns,
        found: Found,
    ) -> Option<Self> {
        (pod.host_ifname, _) = derive_names(&pod.container_id, ifname);
        pod.mac = found.mac()?;
        pod.host_ifindex = found.host().index;
        let record = Record {
            pod,
            ifname: ifname.to_owned(),
            netns: netns.path().to_owned(),
            mtu: found.mtu(),
            network: network.to_owned(),
            search: Vec::new(),
            taken_from: Some(found.host().name.clone()),
        };
        Some(Self {
            record,
            netns,
            found,
        })
    }

    pub(crate) fn found(&self) -> &Found {
        &self.found
    }
}

impl CniServer {
    /// Notes that a pod is going to be ours; nothing is changed yet. Its addresses
    /// must be [kept free](CniServer::keep_free).
    ///
    /// # Errors
    /// If its container is known already, or the record cannot be written.
    pub(crate) fn begin_takeover<'a>(
        &'a self,
        foreign: &'a Foreign,
    ) -> Result<TakingOver<'a>, String> {
        let busy = self.attachments.lock(&foreign.record.pod.container_id);
        self.attachments.begin_takeover(&foreign.record)?;
        Ok(TakingOver {
            server: self,
            _busy: busy,
            foreign,
        })
    }

    /// Pods that were another plugin's: record by record.
    pub(crate) fn taken_over(&self) -> Vec<Record> {
        let mut records = self.attachments.attached_records();
        records.retain(|record| record.taken_from.is_some());
        records
    }

    /// Forgets pods that were another plugin's and whose link is gone: that plugin
    /// may have been told of their end instead of ours.
    pub(crate) fn forget_gone(&self) {
        for record in self.taken_over() {
            let name = &record.pod.host_ifname;
            if !matches!(self.with_netlink(|netlink| netlink.link(name)), Ok(None)) {
                continue;
            }
            tracing::info!(
                pod = describe(&record.pod),
                "its link is gone: it is forgotten"
            );
            if let Err(error) = self.del(&key_of(&record)) {
                tracing::warn!(pod = describe(&record.pod), %error, "forgetting it");
            }
        }
    }
}

impl TakingOver<'_> {
    /// For the plan, which is to know it before [`TakingOver::finish`].
    pub(crate) fn for_plan(&self) -> PodInput {
        let record = &self.foreign.record;
        PodInput::Added {
            at: key_of(record),
            pod: record.pod.clone(),
            planned: None,
        }
    }

    /// For the plan, after [`TakingOver::finish`] failed.
    pub(crate) fn not_for_plan(&self) -> PodInput {
        PodInput::Removed(key_of(&self.foreign.record))
    }

    /// Changes the link. From the first step on it is known as ours, so that an agent
    /// that comes after this one goes on; for some milliseconds packets may be lost.
    /// `plan`: what is in force on pods by address; one of which it does not know is
    /// closed.
    ///
    /// # Errors
    /// What was refused; the pod has what it had then.
    pub(crate) fn finish(&self, plan: &BTreeMap<IpAddr, PodPolicies>) -> Result<(), String> {
        let Self {
            server, foreign, ..
        } = self;
        let record = &foreign.record;
        let link = link_of(record);
        let taken = || -> Result<(), String> {
            let begun = server.with_netlink(|netlink| foreign.found.begin(&link, netlink));
            begun.map_err(|error| error.to_string())?;
            ignore_routers(&record.pod.host_ifname).map_err(|error| error.to_string())?;
            let mut datapath = server.datapath();
            let added = datapath.add_pod(&record.pod);
            added.map_err(|error| error.to_string())?;
            // One that comes is closed, whatever was said of it before.
            let mut open = Change::default();
            let of_plan = |address: &IpAddr| Some((*address, Some(*plan.get(address)?)));
            let rows = record.pod.addresses.iter().filter_map(of_plan);
            open.policy.pods.extend(rows);
            let opened = datapath.apply(&open);
            opened.map_err(|error| error.to_string())?;
            server.attachments.attached(record);
            server.tell_names(record, true);
            drop(datapath);
            let mut netlink = server.sockets.take().map_err(|error| error.to_string())?;
            let finished = foreign.found.finish(&link, &mut netlink, &foreign.netns);
            server.sockets.put(netlink);
            finished.map_err(|error| error.to_string())
        };
        taken().inspect_err(|_| self.undo())
    }

    fn undo(&self) {
        let Self {
            server, foreign, ..
        } = self;
        let record = &foreign.record;
        let mut datapath = server.datapath();
        server.attachments.disown(record);
        server.tell_names(record, false);
        let removed = datapath.remove_pod(&record.pod);
        drop(datapath);
        let renamed = server.with_netlink(|netlink| foreign.found.unname(netlink));
        let failures = [
            removed.map_err(|error| error.to_string()).err(),
            renamed.map_err(|error| error.to_string()).err(),
        ];
        for error in failures.into_iter().flatten() {
            tracing::warn!(pod = describe(&record.pod), error, "putting its link back");
        }
    }
}

/// Goes on with a takeover that an earlier agent had begun. The pod has no network
/// without, so what fails is tried again at the next start.
pub(super) fn resume(record: &Record, netlink: &mut Netlink) {
    let link = link_of(record);
    let mut resumed = || -> Result<(), String> {
        let netns = Netns::open(&record.netns).map_err(|error| error.to_string())?;
        let inside = Netlink::in_netns(&netns);
        let mut inside = inside.map_err(|error| error.to_string())?;
        let found = Found::look(netlink, &mut inside, &record.ifname);
        let found = found.map_err(|error| error.to_string())?;
        let finished = found.finish(&link, netlink, &netns);
        finished.map_err(|error: Failure| error.to_string())
    };
    let pod = describe(&record.pod);
    match resumed() {
        Ok(()) => tracing::info!(pod, "its takeover from another plugin is finished"),
        Err(error) => tracing::warn!(pod, error, "its takeover from another plugin stays half"),
    }
}
