//! DEL and GC: attachments end.

use std::collections::HashSet;

use ripstop_cni_types::{Attachment, Code, Config, Error};
use ripstop_host::pod::PodLink;
use ripstop_host::records::Record;
use ripstop_model::LocalPod;
use ripstop_plan::Change;

use super::attachments::key_of;
use super::{CniServer, describe};

impl CniServer {
    /// Detaches a pod; one that is not attached is no error, nor is one whose
    /// namespace is gone. The link itself is deleted after the answer.
    pub(super) fn del(&self, key: &Attachment) -> Result<(), Error> {
        let _busy = self.attachments.lock(&key.container_id);
        match self.attachments.get(key) {
            Some(record) => self.detach(record),
            None => Ok(()),
        }
    }

    /// Undoes an attachment. The container must be locked.
    pub(super) fn detach(&self, record: Record) -> Result<(), Error> {
        // Before the datapath lets go of it: nothing is to move on a link that
        // nobody watches. And the address is used again only after the link is
        // gone, but packets to it must not wait for that.
        let ended = self.with_netlink(|netlink| PodLink::close(netlink, record.pod.host_ifindex));
        let mut datapath = self.datapath();
        self.attachments.leaving(&record);
        self.tell_names(&record, false);
        let removed = datapath.remove_pod(&record.pod);
        // Without a plan nobody else takes these rows, and whoever gets the
        // addresses next must not begin with them.
        let closed = datapath.apply(&closed(&record.pod));
        drop(datapath);
        if let Some(plan) = self.plan.get() {
            plan.removed(key_of(&record));
        }
        let pod = describe(&record.pod);
        self.reaper.delete(record);
        // The link goes in a moment, so this is for the log; rows that stay in the
        // datapath are for the runtime to know, which tries again.
        if let Err(error) = ended {
            tracing::warn!(pod, %error, "its link is up until it is deleted");
        }
        removed.and(closed).map_err(|error| {
            Error::new(Code::Refused, format!("datapath of pod {pod}")).details(error.to_string())
        })?;
        tracing::debug!(pod, "pod detached");
        Ok(())
    }

    /// Detaches what is not in `cni.dev/valid-attachments`.
    pub(super) fn gc(&self, config: &Config) -> Result<(), Error> {
        let valid: HashSet<&Attachment> = config
            .valid_attachments
            .as_ref()
            .ok_or_else(|| {
                Error::new(
                    Code::InvalidConfig,
                    "network configuration: GC needs cni.dev/valid-attachments",
                )
            })?
            .iter()
            .collect();
        // They are another network's, of which this runtime may not tell us any more.
        self.forget_gone();
        let mut failures = Vec::new();
        for key in self.attachments.idle_of_network(&config.name) {
            if !valid.contains(&key) {
                tracing::info!(container = key.container_id, "collecting an attachment");
                failures.extend(self.del(&key).err().map(|error| error.to_string()));
            }
        }
        if failures.is_empty() {
            return Ok(());
        }
        let message = format!("{} attachments could not be collected", failures.len());
        Err(Error::new(Code::Refused, message).details(failures.join("; ")))
    }
}

/// Takes a pod's policies from it: it is closed then.
fn closed(pod: &LocalPod) -> Change {
    let mut change = Change::default();
    let rows = pod.addresses.iter().map(|address| (*address, None));
    change.policy.pods.extend(rows);
    change
}
