//! Who is attached, which addresses that takes, and who is being worked on.

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;
use std::path::Path;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use ripstop_cni_types::{Attachment, Code, Error};
use ripstop_host::ipam::{self, Allocator};
use ripstop_host::records::{Record, Records};
use ripstop_model::LocalPod;

use super::ports;

/// How long ADD waits for links that are being deleted, when it needs a name
/// or an address of theirs. The kernel takes some 25 ms for a batch of them.
const PATIENCE: Duration = Duration::from_secs(2);

/// All attachments of this node.
pub(super) struct Attachments {
    records: Records,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    allocator: Allocator,
    known: BTreeMap<Attachment, Entry>,
    /// Containers that a request is working on.
    busy: HashSet<String>,
}

struct Entry {
    record: Record,
    phase: Phase,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The record is written; the kernel has a part of it at most.
    Making,
    /// The datapath has it.
    Attached,
    /// DEL is answered; the link is still to be deleted.
    Leaving,
}

/// While it lives, no other request works on this container.
pub(super) struct Busy<'a> {
    attachments: &'a Attachments,
    container_id: String,
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.attachments.state().busy.remove(&self.container_id);
        self.attachments.changed.notify_all();
    }
}

impl Attachments {
    pub(super) fn new(records: Records, allocator: Allocator, restored: Vec<Record>) -> Self {
        let known = restored
            .into_iter()
            .map(|record| {
                (
                    key_of(&record),
                    Entry {
                        record,
                        phase: Phase::Attached,
                    },
                )
            })
            .collect();
        let state = State {
            allocator,
            known,
            busy: HashSet::new(),
        };
        Self {
            records,
            state: Mutex::new(state),
            changed: Condvar::new(),
        }
    }

    /// Waits until no other request works on `container_id`.
    pub(super) fn lock(&self, container_id: &str) -> Busy<'_> {
        let mut state = self.state();
        while !state.busy.insert(container_id.to_owned()) {
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        Busy {
            attachments: self,
            container_id: container_id.to_owned(),
        }
    }

    /// Takes addresses for a new attachment and writes its record.
    ///
    /// # Errors
    /// If the attachment exists, one of its host ports is taken, a pod range is
    /// used up, or the record cannot be written. Nothing is taken then.
    pub(super) fn reserve(&self, mut record: Record) -> Result<Record, Error> {
        let key = key_of(&record);
        let deadline = Instant::now() + PATIENCE;
        let mut state = self.state();
        record.pod.addresses = loop {
            match state.try_reserve(&key, &record) {
                Err(error) if state.is_leaving() && Instant::now() < deadline => {
                    tracing::debug!(%error, "waiting for links to be deleted");
                    let left = deadline.saturating_duration_since(Instant::now());
                    let woken = self.changed.wait_timeout(state, left);
                    state = woken.unwrap_or_else(PoisonError::into_inner).0;
                }
                result => break result?,
            }
        };
        let entry = Entry {
            record: record.clone(),
            phase: Phase::Making,
        };
        state.known.insert(key, entry);
        drop(state);
        if let Err(error) = self.records.write(&record) {
            self.release(&record);
            return Err(Error::new(Code::Io, error.to_string()));
        }
        Ok(record)
    }

    /// Writes the record of a pod that is another plugin's. Its addresses must be
    /// [kept free](Attachments::keep_free), and are the record's from now on.
    ///
    /// # Errors
    /// If the attachment exists, or the record cannot be written.
    pub(super) fn begin_takeover(&self, record: &Record) -> Result<(), String> {
        let key = key_of(record);
        let mut state = self.state();
        if state.known.contains_key(&key) || state.holds_interface(&record.netns, &record.ifname) {
            return Err(format!("container {} is known already", key.container_id));
        }
        let written = self.records.write(record);
        written.map_err(|error| error.to_string())?;
        let entry = Entry {
            record: record.clone(),
            phase: Phase::Making,
        };
        state.known.insert(key, entry);
        Ok(())
    }

    /// Undoes [`Attachments::begin_takeover`]; the addresses stay kept free. Call with
    /// the datapath's lock held, so that audits see both or neither.
    pub(super) fn disown(&self, record: &Record) {
        if let Err(error) = self.records.remove(record) {
            // The next start finds the record without a link and removes it.
            tracing::warn!(%error, "pod record stays");
        }
        self.state().known.remove(&key_of(record));
    }

    /// The record of an attachment that is not on its way out.
    pub(super) fn get(&self, key: &Attachment) -> Option<Record> {
        let state = self.state();
        let entry = state.known.get(key)?;
        (entry.phase != Phase::Leaving).then(|| entry.record.clone())
    }

    /// Its host end exists.
    pub(super) fn linked(&self, record: &Record) {
        self.change(record, |entry| {
            entry.record.pod.host_ifindex = record.pod.host_ifindex
        });
    }

    /// Call with the datapath's lock held, so that audits see both or neither.
    pub(super) fn attached(&self, record: &Record) {
        self.change(record, |entry| entry.phase = Phase::Attached);
    }

    /// Call with the datapath's lock held, so that audits see both or neither.
    pub(super) fn leaving(&self, record: &Record) {
        self.change(record, |entry| entry.phase = Phase::Leaving);
    }

    fn change(&self, record: &Record, change: impl FnOnce(&mut Entry)) {
        if let Some(entry) = self.state().known.get_mut(&key_of(record)) {
            change(entry);
        }
    }

    /// Nothing of it is left in the kernel: forgets it and frees its addresses.
    pub(super) fn forget(&self, record: &Record) {
        if let Err(error) = self.records.remove(record) {
            // The next start finds the record without a link and removes it.
            tracing::warn!(%error, "pod record stays");
        }
        self.release(record);
    }

    fn release(&self, record: &Record) {
        let mut state = self.state();
        state.known.remove(&key_of(record));
        for &address in &record.pod.addresses {
            state.allocator.release(address);
        }
        drop(state);
        self.changed.notify_all();
    }

    /// What the datapath shall have.
    pub(super) fn pods(&self) -> Vec<LocalPod> {
        let state = self.state();
        let attached = state
            .known
            .values()
            .filter(|entry| entry.phase == Phase::Attached);
        attached.map(|entry| entry.record.pod.clone()).collect()
    }

    /// Records of the pods that there are.
    pub(super) fn attached_records(&self) -> Vec<Record> {
        let state = self.state();
        let attached = state
            .known
            .values()
            .filter(|entry| entry.phase == Phase::Attached);
        attached.map(|entry| entry.record.clone()).collect()
    }

    /// Attachments of a network that no request works on.
    pub(super) fn idle_of_network(&self, network: &str) -> Vec<Attachment> {
        let state = self.state();
        state
            .known
            .iter()
            .filter(|(key, entry)| {
                entry.phase == Phase::Attached
                    && entry.record.network == network
                    && !state.busy.contains(&key.container_id)
            })
            .map(|(key, _)| key.clone())
            .collect()
    }

    /// Gives these addresses to nobody; those that are somebody's already stay so.
    pub(super) fn keep_free(&self, addresses: &[IpAddr]) {
        let mut state = self.state();
        for address in addresses {
            // Two pods of one address are the other network's affair.
            let _ = state.allocator.claim(*address);
        }
    }

    /// They can be given again.
    pub(super) fn give_back(&self, addresses: &[IpAddr]) {
        let mut state = self.state();
        for address in addresses {
            state.allocator.release(*address);
        }
    }

    pub(super) fn usage(&self) -> Vec<(IpNet, usize, usize)> {
        self.state().allocator.usage().collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn try_reserve(
        &mut self,
        key: &Attachment,
        record: &Record,
    ) -> Result<Vec<std::net::IpAddr>, Error> {
        if self.known.contains_key(key) {
            return Err(Error::new(
                Code::AlreadyAttached,
                format!(
                    "container {} has interface {} already: DEL comes before another ADD",
                    key.container_id, key.ifname
                ),
            ));
        }
        if self.holds_interface(&record.netns, &record.ifname) {
            return Err(Error::new(
                Code::AlreadyAttached,
                format!(
                    "another container has interface {} in {}",
                    record.ifname,
                    record.netns.display()
                ),
            ));
        }
        let present = self
            .known
            .values()
            .filter(|entry| entry.phase != Phase::Leaving);
        ports::check_free(
            &record.pod.host_ports,
            present.map(|entry| &entry.record.pod),
        )?;
        self.allocator.allocate().map_err(|error| match error {
            ipam::Error::Exhausted { .. } => {
                Error::new(Code::AddressesExhausted, error.to_string())
            }
            other => Error::new(Code::Refused, other.to_string()),
        })
    }

    fn holds_interface(&self, netns: &Path, ifname: &str) -> bool {
        self.known
            .values()
            .any(|entry| entry.record.ifname == ifname && entry.record.netns == netns)
    }

    fn is_leaving(&self) -> bool {
        self.known
            .values()
            .any(|entry| entry.phase == Phase::Leaving)
    }
}

pub(super) fn key_of(record: &Record) -> Attachment {
    Attachment {
        container_id: record.pod.container_id.clone(),
        ifname: record.ifname.clone(),
    }
}
