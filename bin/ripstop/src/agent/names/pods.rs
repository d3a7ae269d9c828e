//! Addresses of pods, for names of pods that are to be verified.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use ripstop_dns::{PodNames, Zone};
use ripstop_model::{ObjectKey, Pod};
use ripstop_watch::ObjectEvent;

/// Follows pods into the zone: some hundred bytes for each pod of the cluster,
/// so only if names of pods are verified.
pub(crate) struct PodAddresses {
    zone: Arc<Zone>,
    pods: HashMap<ObjectKey, Box<[IpAddr]>>,
}

impl PodAddresses {
    /// `None` if nobody asks which pods there are.
    pub(crate) fn new(zone: &Arc<Zone>) -> Option<Self> {
        (zone.config().pods == PodNames::Verified).then(|| Self {
            zone: Arc::clone(zone),
            pods: HashMap::new(),
        })
    }

    pub(crate) fn take(&mut self, event: &ObjectEvent<Pod, ObjectKey>) {
        match event {
            // The address of a pod that has ended may be another's.
            ObjectEvent::Applied(pod) if pod.ended => self.set(&pod.key, &[]),
            ObjectEvent::Applied(pod) => self.set(&pod.key, &pod.addresses),
            ObjectEvent::Deleted(key) => self.set(key, &[]),
            ObjectEvent::Listed(keys) => {
                let gone = self.pods.keys().filter(|key| !keys.contains(key));
                for key in gone.cloned().collect::<Vec<_>>() {
                    self.set(&key, &[]);
                }
                self.zone.set_pods_known();
            }
        }
    }

    fn set(&mut self, key: &ObjectKey, addresses: &[IpAddr]) {
        let before = match addresses {
            [] => self.pods.remove(key),
            _ => self.pods.insert(key.clone(), addresses.into()),
        };
        let before = before.unwrap_or_default();
        for address in addresses.iter().filter(|ip| !before.contains(ip)) {
            self.zone.set_pod(&key.namespace, *address, true);
        }
        for address in before.iter().filter(|ip| !addresses.contains(ip)) {
            self.zone.set_pod(&key.namespace, *address, false);
        }
    }
}
