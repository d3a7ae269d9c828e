//! The cluster's names, shared between those who change and those who ask.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, PoisonError, RwLock, RwLockReadGuard};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ipnet::IpNet;
use ripstop_model::ObjectKey;
use ripstop_plan::ServiceNames;

use crate::name::{Name, NameError};
use crate::table::Table;

/// Names of services and hosts must still fit before the domain.
const DOMAIN_MAX: usize = 100;

/// A cluster domain that no question could name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cluster domain {domain:?}: {problem} (right would be: cluster.local)")]
pub struct DomainError {
    domain: String,
    problem: String,
}

/// What `<address with dashes>.<namespace>.pod` means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PodNames {
    /// There are no such names.
    Off,
    /// The address, if a pod of the namespace has it.
    Verified,
    /// The address, whoever has it. Costs nothing, proves nothing; what kubeadm
    /// sets CoreDNS to.
    #[default]
    Always,
}

/// How the cluster's names are answered.
#[derive(Clone, Debug)]
pub struct ZoneConfig {
    /// Cluster domain, `cluster.local` as a rule.
    pub domain: String,
    /// Where this server answers: the addresses of the domain's name server.
    pub servers: Vec<IpAddr>,
    /// Ranges of pods and services to begin with ([`Zone::set_range`]): an address
    /// in them that nobody has does not exist; others are asked for upstream.
    pub ranges: Vec<IpNet>,
    pub pods: PodNames,
    /// Seconds that a client may keep an answer, or that there is none. Short,
    /// because headless services' addresses change with their pods.
    pub ttl: u32,
}

impl Default for ZoneConfig {
    fn default() -> Self {
        Self {
            domain: "cluster.local".to_owned(),
            servers: Vec::new(),
            ranges: Vec::new(),
            pods: PodNames::default(),
            ttl: 5,
        }
    }
}

/// The names of the cluster. Updates lock out questions only while they touch
/// one service.
#[derive(Debug)]
pub struct Zone {
    pub(crate) domain: Name,
    /// `ns.dns.<domain>` (as CoreDNS calls itself) and `hostmaster.<domain>`.
    pub(crate) server: Name,
    pub(crate) mailbox: Name,
    pub(crate) config: ZoneConfig,
    table: RwLock<Table>,
    serial: AtomicU32,
    changes: AtomicU64,
    known: Mutex<bool>,
    becomes_known: Condvar,
    is_known: AtomicBool,
    /// Pods have been listed ([`PodNames::Verified`]).
    pods_known: AtomicBool,
}

impl Zone {
    /// A zone that does not know its names yet, and says so to who asks.
    ///
    /// # Errors
    /// If the domain is no domain name.
    pub fn new(config: ZoneConfig) -> Result<Self, DomainError> {
        let error = |problem: String| DomainError {
            domain: config.domain.clone(),
            problem,
        };
        let domain = Name::parse(&config.domain).map_err(|e: NameError| error(e.to_string()))?;
        if domain.count() == 0 {
            return Err(error("it is empty".to_owned()));
        }
        if domain.wire().len() > DOMAIN_MAX {
            return Err(error(format!("longer than {DOMAIN_MAX} bytes")));
        }
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
        for index in 0..domain.count() {
            if !domain.label(index).iter().copied().all(allowed) {
                return Err(error(
                    "a label has letters, digits and hyphens only".to_owned(),
                ));
            }
        }
        let below = |labels: &[u8]| {
            Name::join(labels, domain.wire()).ok_or_else(|| error("too long".to_owned()))
        };
        // Greater than that of the agent before us (RFC 1035, 3.3.13).
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let serial = since.map_or(1, |since| since.as_secs() as u32);
        let mut table = Table::default();
        for range in &config.ranges {
            table.set_range(*range, true);
        }
        Ok(Self {
            server: below(b"\x02ns\x03dns")?,
            mailbox: below(b"\x0ahostmaster")?,
            domain,
            config,
            table: RwLock::new(table),
            serial: AtomicU32::new(serial),
            changes: AtomicU64::new(0),
            known: Mutex::new(false),
            becomes_known: Condvar::new(),
            is_known: AtomicBool::new(false),
            pods_known: AtomicBool::new(false),
        })
    }

    /// Takes over changed names of services; `None` removes them.
    pub fn update(&self, changes: impl IntoIterator<Item = (ObjectKey, Option<ServiceNames>)>) {
        let mut changed = false;
        for (service, names) in changes {
            self.change(|table| table.set(&service, names));
            changed = true;
        }
        if changed {
            self.serial.fetch_add(1, Ordering::Relaxed);
            self.changes.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Removes the services that a complete list does not have.
    pub fn retain(&self, keep: impl Fn(&ObjectKey) -> bool) {
        let others = self.table().others(keep);
        self.update(others.into_iter().map(|service| (service, None)));
    }

    /// Adds the address of a pod, or takes it away ([`PodNames::Verified`]).
    pub fn set_pod(&self, namespace: &str, address: IpAddr, there: bool) {
        self.change(|table| table.set_pod(namespace, address, there));
    }

    /// Adds a range of pods or services, or takes it away.
    pub fn set_range(&self, range: IpNet, there: bool) {
        self.change(|table| table.set_range(range, there));
    }

    /// From here on, a name that is not known does not exist.
    pub fn set_known(&self) {
        self.is_known.store(true, Ordering::Release);
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.becomes_known.notify_all();
    }

    /// From here on, a pod that is not known does not exist.
    pub fn set_pods_known(&self) {
        self.pods_known.store(true, Ordering::Release);
    }

    /// Whether it can be told what there is at a name of the cluster.
    pub(crate) fn can_tell(&self, name: &Name) -> bool {
        let of_pods = || {
            let below = name.below(&self.domain).unwrap_or_default();
            below > 1 && name.label(below - 1) == b"pod"
        };
        let waits =
            self.config.pods == PodNames::Verified && !self.pods_known.load(Ordering::Acquire);
        self.is_known() && !(waits && of_pods())
    }

    pub fn is_known(&self) -> bool {
        self.is_known.load(Ordering::Acquire)
    }

    /// Waits until the names are known, or for so long.
    pub fn wait_known(&self, patience: Duration) {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        // Whether it is known or not, the questions are looked at now.
        drop(
            self.becomes_known
                .wait_timeout_while(known, patience, |known| !*known),
        );
    }

    /// Number of services with a name.
    pub fn len(&self) -> usize {
        self.table().len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How often the names have changed.
    pub fn changes(&self) -> u64 {
        self.changes.load(Ordering::Relaxed)
    }

    pub fn config(&self) -> &ZoneConfig {
        &self.config
    }

    pub(crate) fn table(&self) -> RwLockReadGuard<'_, Table> {
        self.table.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn serial(&self) -> u32 {
        self.serial.load(Ordering::Relaxed)
    }

    fn change(&self, change: impl FnOnce(&mut Table)) {
        change(&mut self.table.write().unwrap_or_else(PoisonError::into_inner));
    }
}
