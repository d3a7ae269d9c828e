//! Pods of this node in the kernel: endpoints and host ports.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ripstop_abi::{
    Address, Backend, Endpoint, FLAG_HOST_ONLY, FLAG_HOST_PORT, Port, ServiceAddress,
};
use ripstop_model::{HostPort, LocalPod};

use super::frontends::Wanted;

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
                    backends: vec![backend],
                    outside: Some(vec![backend]),
                    kind,
                    ..Wanted::default()
                },
            );
        }
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
