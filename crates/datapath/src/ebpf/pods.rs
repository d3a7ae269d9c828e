//! Pods of this node in the kernel: endpoints and host ports.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ripstop_abi::{
    Address, Backend, Endpoint, FLAG_HOST_ONLY, FLAG_HOST_PORT, Port, ServiceAddress,
};
use ripstop_model::{HostPort, LocalPod};

use super::frontends::{self, Wanted};
use super::start::Takeover;
use super::{EbpfEngine, links};
use crate::Error;

/// Every row that a pod has in the kernel.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct PodRows {
    pub(crate) endpoints: BTreeMap<Address, Endpoint>,
    /// Its ports of the node: frontends with one backend, which keep the client's
    /// address.
    pub(crate) frontends: BTreeMap<ServiceAddress, Wanted>,
}

impl PodRows {
    pub(crate) fn of(pod: &LocalPod, node_addresses: &[IpAddr]) -> Self {
        let endpoint = Endpoint::new(pod.host_ifindex, pod.mac.0);
        let mut rows = Self::default();
        for address in &pod.addresses {
            rows.endpoints.insert((*address).into(), endpoint);
            for port in &pod.host_ports {
                rows.add_host_port(port, *address, node_addresses);
            }
        }
        rows
    }

    fn add_host_port(&mut self, port: &HostPort, pod: IpAddr, node_addresses: &[IpAddr]) {
        let loopback: IpAddr = match pod {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        };
        let on: Vec<IpAddr> = match port.host_ip {
            Some(ip) if !ip.is_unspecified() => vec![ip],
            _ => node_addresses.iter().copied().chain([loopback]).collect(),
        };
        let backend = Backend::new(pod.into(), Port::from_host(port.container_port));
        for address in on
            .into_iter()
            .filter(|address| address.is_ipv4() == pod.is_ipv4())
        {
            let key = ServiceAddress::new(
                address.into(),
                Port::from_host(port.host_port),
                port.protocol as u8,
            );
            let mut kind = FLAG_HOST_PORT;
            if address.is_loopback() {
                kind |= FLAG_HOST_ONLY;
            }
            self.frontends.insert(
                key,
                Wanted {
                    backends: [backend].into(),
                    outside: Some([backend].into()),
                    kind,
                    ..Wanted::default()
                },
            );
        }
    }
}

impl EbpfEngine {
    /// The pod's rows and its program. Gives what was not there.
    pub(super) fn write_pod(&mut self, pod: &LocalPod) -> Result<Vec<String>, Error> {
        let rows = PodRows::of(pod, &self.config.node_addresses);
        let has_ports = !pod.host_ports.is_empty();
        let mut done = Vec::new();
        for (address, endpoint) in rows.endpoints {
            let row = || format!("endpoint {}", IpAddr::from(address));
            let tracked = self.policies.is_tracked(&self.maps.policy, &address);
            let endpoint = endpoint.with_tracked(tracked);
            // An answer to what the other engine translated is not for the pod
            // as it is, not for a moment.
            let handing_over = self.handing_over;
            let mark = |endpoint: &mut Endpoint| {
                if handing_over {
                    endpoint.set_handed_over();
                }
                if has_ports {
                    endpoint.set_renumbered();
                }
            };
            let endpoints = &mut self.maps.endpoints;
            if endpoints.put_marked(address, endpoint, row, mark)? {
                done.push(row());
            } else if handing_over || has_ports {
                // With what our programs have noted meanwhile.
                endpoints.change(&address, |mut endpoint| {
                    mark(&mut endpoint);
                    endpoint
                })?;
            }
        }
        let frontends = rows.frontends.into_iter();
        let frontends = frontends.map(|(key, wanted)| (key, Some(wanted)));
        let plan = self.frontends.plan_host_ports(frontends);
        let (written, result) = self.write_growing(plan);
        result?;
        done.extend(written);
        // Not one by one where those of another version are.
        let waits = matches!(self.takeover, Takeover::Of(_))
            && links::has_any(&mut self.netlink, pod.host_ifindex)?;
        if !waits && links::pod(&mut self.netlink, &self.programs, pod.host_ifindex)? {
            done.push(format!("program on {}", pod.host_ifname));
        }
        Ok(done)
    }

    /// Removes what leads to this pod, unless it leads to another one by now.
    /// Goes on after an error and gives the first.
    pub(super) fn erase_pod(&mut self, pod: &LocalPod) -> Result<(), Error> {
        let rows = PodRows::of(pod, &self.config.node_addresses);
        let mut results = Vec::new();
        // First what leads there, then what it leads to.
        let mine = |(key, wanted): (ServiceAddress, Wanted)| {
            let known = self.frontends.get(&key);
            (known == Some(&wanted)).then_some((key, None))
        };
        let frontends: Vec<_> = rows.frontends.into_iter().filter_map(mine).collect();
        let plan = self.frontends.plan_host_ports(frontends);
        results.push(self.write_growing(plan).1);
        self.disconnect_stranded_if_any();
        for (key, endpoint) in rows.endpoints {
            let known = self.maps.endpoints.rows().get(&key);
            if known.map(|known| known.with_tracked(false)) == Some(endpoint) {
                results.push(self.maps.endpoints.remove(&key).map(drop));
            }
        }
        results.push(links::detach(&mut self.netlink, pod.host_ifindex));
        results.into_iter().collect()
    }

    /// A pod that has one of this pod's ports of the node, and that port.
    pub(super) fn port_holder(&self, pod: &LocalPod) -> Option<(&LocalPod, ServiceAddress)> {
        let ports = |pod| PodRows::of(pod, &self.config.node_addresses).frontends;
        let wanted = ports(pod);
        let others = self
            .pods
            .values()
            .filter(|other| other.container_id != pod.container_id);
        others.filter(|_| !wanted.is_empty()).find_map(|other| {
            let held = ports(other);
            let shared = wanted.keys().find(|key| held.contains_key(key));
            shared.map(|key| (other, *key))
        })
    }

    /// What the kernel does not have of this pod, if anything.
    pub(super) fn fault_of_pod(&self, pod: &LocalPod) -> Result<Option<String>, Error> {
        let rows = PodRows::of(pod, &self.config.node_addresses);
        for (address, endpoint) in &rows.endpoints {
            let tracked = self.policies.is_tracked(&self.maps.policy, address);
            let endpoint = &endpoint.with_tracked(tracked);
            if !self.maps.endpoints.holds(address, endpoint)? {
                let address = IpAddr::from(*address);
                return Ok(Some(format!("the datapath has no endpoint {address}")));
            }
        }
        for (address, wanted) in &rows.frontends {
            if !self.frontends.is_there(&self.maps, address, wanted)? {
                let port = frontends::show(address);
                return Ok(Some(format!("the datapath has no host port {port}")));
            }
        }
        let attached = links::has_pod(&self.programs, pod.host_ifindex)?;
        Ok((!attached).then(|| {
            format!(
                "interface {} has no program of the datapath",
                pod.host_ifname
            )
        }))
    }
}

#[cfg(test)]
mod tests {
    use ripstop_model::{Mac, ObjectKey, Protocol};

    use super::*;
    use crate::ebpf::frontends::show;

    fn pod(addresses: &[&str], host_ports: Vec<HostPort>) -> LocalPod {
        LocalPod {
            pod: ObjectKey::new("default", "web"),
            uid: None,
            container_id: "c1".into(),
            addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(),
            host_ifindex: 7,
            host_ifname: "rs1".into(),
            mac: Mac([2, 0, 0, 0, 0, 1]),
            host_ports,
        }
    }

    fn port(host_ip: Option<&str>) -> HostPort {
        HostPort {
            host_ip: host_ip.map(|ip| ip.parse().unwrap()),
            host_port: 8080,
            container_port: 80,
            protocol: Protocol::Tcp,
        }
    }

    /// Frontends, with a `!` where they are for the node alone.
    fn rows(addresses: &[&str], host_ip: Option<&str>) -> Vec<String> {
        let node = ["172.30.1.11", "fd00:30:1::b"].map(|a| a.parse().unwrap());
        let rows = PodRows::of(&pod(addresses, vec![port(host_ip)]), &node);
        let frontends = rows.frontends.iter().map(|(key, wanted)| {
            let own = if wanted.kind & FLAG_HOST_ONLY == 0 {
                ""
            } else {
                "!"
            };
            format!("{}{own}", show(key))
        });
        frontends.collect()
    }

    #[test]
    fn host_ports_are_on_every_address_of_the_pod_s_families() {
        let frontends = rows(&["10.244.1.2"], None);
        assert_eq!(frontends, ["127.0.0.1:8080/TCP!", "172.30.1.11:8080/TCP"]);
        let frontends = rows(&["10.244.1.2", "fd00:244:1::2"], Some("0.0.0.0"));
        assert_eq!(
            frontends,
            [
                "[::1]:8080/TCP!",
                "127.0.0.1:8080/TCP!",
                "172.30.1.11:8080/TCP",
                "[fd00:30:1::b]:8080/TCP"
            ]
        );
    }

    #[test]
    fn a_host_ip_is_the_only_one() {
        let frontends = rows(&["10.244.1.2", "fd00:244:1::2"], Some("172.30.1.99"));
        assert_eq!(frontends, ["172.30.1.99:8080/TCP"]);
        let frontends = rows(&["10.244.1.2"], Some("127.0.0.1"));
        assert_eq!(frontends, ["127.0.0.1:8080/TCP!"]);
    }
}
