//! Pods of this node: their addresses, and ports of the node that lead to them.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ripstop_model::LocalPod;
use ripstop_netlink::nftables::{Element, Family};
use ripstop_plan::{Backend, Backends, Frontend, FrontendKind, FrontendRow, Outside};

use super::readback::Scope;
use super::rows::Placed;
use super::sets::Set;
use super::write::Changes;
use super::{NftEngine, TABLE, keys, refused};
use crate::engine::Error;

/// The rows of a pod's ports of the node, on each of its addresses of the pod's
/// families. Whoever asks keeps its address: there is one backend, and it is
/// here.
pub(super) fn host_ports(
    pod: &LocalPod,
    node_addresses: &[IpAddr],
) -> BTreeMap<Frontend, FrontendRow> {
    let mut rows = BTreeMap::new();
    for port in &pod.host_ports {
        for address in &pod.addresses {
            let loopback: IpAddr = match address {
                IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
                IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
            };
            let on: Vec<IpAddr> = match port.host_ip {
                Some(ip) if !ip.is_unspecified() => vec![ip],
                _ => node_addresses.iter().copied().chain([loopback]).collect(),
            };
            let backends = Backends::from(vec![Backend {
                address: *address,
                port: port.container_port,
            }]);
            let row = FrontendRow {
                kind: FrontendKind::NodePort,
                outside: Outside::Local(backends.clone()),
                backends,
                ..FrontendRow::new(pod.pod.clone())
            };
            let same_family = on.iter().filter(|on| on.is_ipv4() == address.is_ipv4());
            rows.extend(same_family.map(|on| {
                let frontend = Frontend {
                    address: *on,
                    protocol: port.protocol,
                    port: port.host_port,
                };
                (frontend, row.clone())
            }));
        }
    }
    rows
}

/// The elements of one address.
pub(super) fn elements(address: IpAddr, container: &str) -> [(Set, Element); 2] {
    let key = keys::address(address);
    let twice = [&key[..], &key[..]].concat();
    let with = |key| Element {
        comment: container.to_owned(),
        ..Element::key(key)
    };
    [(Set::Pods, with(key)), (Set::Hairpin, with(twice))]
}

impl NftEngine {
    pub(super) fn is_host_port(&self, frontend: &Frontend) -> bool {
        self.frontends.get(frontend).is_some_and(|p| p.host_port)
    }

    fn host_ports(&self, pod: &LocalPod) -> BTreeMap<Frontend, FrontendRow> {
        host_ports(pod, &self.config.node_addresses)
    }

    /// A pod that has one of this pod's ports of the node, and that port.
    fn port_holder(&self, pod: &LocalPod) -> Option<(&LocalPod, Frontend)> {
        let wanted = self.host_ports(pod);
        let others = self
            .pods
            .values()
            .filter(|other| other.container_id != pod.container_id);
        others.filter(|_| !wanted.is_empty()).find_map(|other| {
            let held = self.host_ports(other);
            let shared = wanted.keys().find(|key| held.contains_key(key));
            shared.map(|key| (other, *key))
        })
    }

    /// From what the kernel has of an address to what it is to have.
    pub(super) fn change_address(
        &mut self,
        changes: &mut Changes,
        address: IpAddr,
        container: Option<&str>,
    ) {
        let before = self.addresses.get(&address);
        let all = |container: &str| elements(address, container).into();
        changes.replace(
            Family::of(&address),
            before.map(|b| all(b)).unwrap_or_default(),
            container.map(all).unwrap_or_default(),
        );
        match container {
            Some(container) => drop(self.addresses.insert(address, container.to_owned())),
            None => drop(self.addresses.remove(&address)),
        }
    }

    /// The pod's addresses and ports, as they are to be.
    fn write_pod(&mut self, pod: &LocalPod) -> Result<(), Error> {
        let mut changes = Changes::default();
        for address in &pod.addresses {
            // One that is known keeps what its policies say.
            if self.addresses.get(address) != Some(&pod.container_id) {
                self.policies.close_pod(&mut changes, *address);
            }
            self.change_address(&mut changes, *address, Some(&pod.container_id));
        }
        self.sources.add(&mut changes, pod);
        if let Err(error) = self.commit(&mut changes) {
            self.read_back(Scope::ButBlocks)?;
            return Err(error);
        }
        let rows = self.host_ports(pod);
        for frontend in rows.keys() {
            let hidden = self.frontends.get(frontend).filter(|p| !p.host_port);
            if let Some(row) = hidden.map(|placed| placed.row.clone()) {
                self.hidden.insert(*frontend, row);
            }
        }
        let rows = rows
            .into_iter()
            .map(|(frontend, row)| (frontend, Some((row, true))));
        self.write(rows).map(drop)
    }
}

pub(super) fn add(engine: &mut NftEngine, pod: &LocalPod) -> Result<(), Error> {
    if let Some((holder, port)) = engine.port_holder(pod) {
        return Err(Error::PortTaken {
            port: port.to_string(),
            pod: pod.pod.clone(),
            holder: holder.pod.clone(),
        });
    }
    if !engine.takeover_pending
        && let Err(error) = engine.write_pod(pod)
    {
        if let Err(also) = remove(engine, pod) {
            tracing::warn!(%also, pod = %pod.pod, "rows of a pod that was not added stay");
        }
        return Err(error);
    }
    engine.pods.insert(pod.container_id.clone(), pod.clone());
    Ok(())
}

/// Removes what leads to this pod, unless it is another one's by now.
pub(super) fn remove(engine: &mut NftEngine, pod: &LocalPod) -> Result<(), Error> {
    engine.pods.remove(&pod.container_id);
    if engine.takeover_pending {
        return Ok(());
    }
    let ports: Vec<_> = engine
        .host_ports(pod)
        .into_iter()
        .filter(|(frontend, row)| {
            let is_mine = |placed: &Placed| placed.host_port && placed.row == *row;
            engine.frontends.get(frontend).is_some_and(is_mine)
        })
        .map(|(frontend, _)| frontend)
        .collect();
    let rows: Vec<_> = ports
        .into_iter()
        .map(|frontend| {
            let hidden = engine.hidden.remove(&frontend);
            (frontend, hidden.map(|row| (row, false)))
        })
        .collect();
    let ports = engine.write(rows).map(drop);
    let mut changes = Changes::default();
    for address in &pod.addresses {
        if engine.addresses.get(address) == Some(&pod.container_id) {
            engine.policies.change_pod(&mut changes, *address, None);
            engine.change_address(&mut changes, *address, None);
        }
    }
    engine.sources.remove(&mut changes, pod);
    let addresses = engine.commit(&mut changes);
    if addresses.is_err() {
        engine.read_back(Scope::ButBlocks)?;
    }
    ports.and(addresses)
}

pub(super) fn check(engine: &NftEngine, pod: &LocalPod) -> Result<Option<String>, Error> {
    let mut nftables = engine.nftables.borrow_mut();
    let mut there = |set: Set, family: Family| -> Result<Vec<Element>, Error> {
        nftables.elements(TABLE, set.name(family)).map_err(refused)
    };
    for address in &pod.addresses {
        let family = Family::of(address);
        for (set, wanted) in elements(*address, &pod.container_id) {
            let found = there(set, family)?;
            if !found
                .iter()
                .any(|e| e.key == wanted.key && e.comment == wanted.comment)
            {
                return Ok(Some(format!("the datapath has no endpoint {address}")));
            }
        }
    }
    for frontend in engine.host_ports(pod).into_keys() {
        let key = keys::frontend(&frontend);
        let found = there(Set::Services, Family::of(&frontend.address))?;
        if !found.iter().any(|element| element.key == key) {
            return Ok(Some(format!("the datapath has no host port {frontend}")));
        }
    }
    Ok(None)
}
