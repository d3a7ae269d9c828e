//! What a service is called, for the DNS server.
//! <https://github.com/kubernetes/dns/blob/master/docs/specification.md>

use std::net::IpAddr;

use ripstop_model::{EndpointSlice, Protocol, Service, ServiceKind};
use serde::{Deserialize, Serialize};

use crate::service::is_ready;

/// What there is at the name of one service and below it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ServiceNames {
    /// The cluster addresses, of either family, sorted, and the ports that have
    /// a name.
    Cluster {
        addresses: Vec<IpAddr>,
        ports: Vec<NamedPort>,
    },
    /// The ready endpoints of a headless service.
    Headless(Headless),
    /// Another name: `externalName`.
    Alias(Box<str>),
}

/// A port with a SRV record.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct NamedPort {
    pub name: Box<str>,
    pub protocol: Protocol,
    pub port: u16,
}

/// Endpoints with names of their own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Headless {
    /// Sorted, without duplicates. Several have one name when a pod has
    /// addresses of both families.
    pub hosts: Vec<Host>,
    /// Ports by [`Host::ports`]: as a rule all endpoints have the same.
    pub port_sets: Vec<Vec<NamedPort>>,
}

/// One endpoint of a headless service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Host {
    /// Below the service's name: the endpoint's host name (a StatefulSet's pod
    /// name), or its address with dashes where it has none.
    pub name: Box<str>,
    pub address: IpAddr,
    /// Index into [`Headless::port_sets`].
    pub ports: u16,
}

impl Headless {
    /// Endpoints of one name.
    pub fn named(&self, name: &[u8]) -> &[Host] {
        let start = self.hosts.partition_point(|h| h.name.as_bytes() < name);
        let end = self.hosts[start..].partition_point(|h| h.name.as_bytes() == name);
        &self.hosts[start..start + end]
    }

    /// Ports of one endpoint.
    pub fn ports(&self, host: &Host) -> &[NamedPort] {
        self.port_sets
            .get(usize::from(host.ports))
            .map_or(&[], Vec::as_slice)
    }
}

/// The names of a service with its slices. `None` if it has none: it waits for
/// an address, or is headless without a ready endpoint, which does not exist for
/// DNS (2.4.1 of the specification).
pub(crate) fn names<'a>(
    service: &Service,
    slices: impl Iterator<Item = &'a EndpointSlice>,
) -> Option<ServiceNames> {
    if let ServiceKind::ExternalName(target) = &service.kind {
        return Some(ServiceNames::Alias(target.as_str().into()));
    }
    if service.headless {
        let headless = headless(service, slices);
        return (!headless.hosts.is_empty()).then_some(ServiceNames::Headless(headless));
    }
    let mut addresses = service.cluster_ips.clone();
    addresses.sort_unstable();
    addresses.dedup();
    let ports = service
        .ports
        .iter()
        .map(|port| (port.name.as_str(), port.protocol, port.port));
    (!addresses.is_empty()).then(|| ServiceNames::Cluster {
        addresses,
        ports: named_ports(ports),
    })
}

fn headless<'a>(service: &Service, slices: impl Iterator<Item = &'a EndpointSlice>) -> Headless {
    let mut port_sets: Vec<Vec<NamedPort>> = Vec::new();
    let mut hosts = Vec::new();
    for slice in slices {
        let ports = slice.ports.iter();
        let ports = named_ports(ports.map(|port| (port.name.as_str(), port.protocol, port.port)));
        let set = port_sets.iter().position(|known| *known == ports);
        let set = set.unwrap_or_else(|| {
            port_sets.push(ports);
            port_sets.len() - 1
        });
        let ready = slice.endpoints.iter().filter(|e| is_ready(service, e));
        hosts.extend(ready.map(|endpoint| Host {
            name: match &endpoint.hostname {
                Some(name) => name.to_ascii_lowercase().into(),
                None => endpoint.address.to_string().replace(['.', ':'], "-").into(),
            },
            address: endpoint.address,
            // No service has so many slices that differ in their ports.
            ports: u16::try_from(set).unwrap_or(u16::MAX),
        }));
    }
    hosts.sort_unstable();
    hosts.dedup();
    hosts.shrink_to_fit();
    Headless { hosts, port_sets }
}

/// Ports without a name have no SRV record (2.3.2 of the specification).
fn named_ports<'a>(ports: impl Iterator<Item = (&'a str, Protocol, u16)>) -> Vec<NamedPort> {
    let mut named: Vec<_> = ports
        .filter(|(name, ..)| !name.is_empty())
        .map(|(name, protocol, port)| NamedPort {
            name: name.to_ascii_lowercase().into(),
            protocol,
            port,
        })
        .collect();
    named.sort_unstable();
    named.dedup();
    named
}

#[cfg(test)]
mod tests {
    use ripstop_model::{EndpointState, ObjectKey, ServicePort, SliceEndpoint, SlicePort};

    use super::*;

    fn slice(name: &str, port: u16, endpoints: Vec<SliceEndpoint>) -> EndpointSlice {
        EndpointSlice {
            key: ObjectKey::new("shop", name),
            service: "db".to_owned(),
            ports: vec![SlicePort {
                name: "sql".to_owned(),
                protocol: Protocol::Tcp,
                port,
            }],
            endpoints,
            proxied: true,
        }
    }

    fn endpoint(address: &str, hostname: Option<&str>, ready: bool) -> SliceEndpoint {
        SliceEndpoint {
            hostname: hostname.map(str::to_owned),
            state: EndpointState {
                ready,
                ..EndpointState::READY
            },
            ..SliceEndpoint::new(address.parse().unwrap())
        }
    }

    #[test]
    fn a_headless_services_ready_endpoints() {
        let mut service = Service::new(ObjectKey::new("shop", "db"));
        service.headless = true;
        let slices = [
            slice(
                "a",
                5432,
                vec![
                    endpoint("10.244.1.2", Some("db-0"), true),
                    endpoint("10.244.1.3", None, true),
                    endpoint("10.244.1.4", Some("db-2"), false),
                ],
            ),
            slice("b", 5433, vec![endpoint("fd00::2", Some("db-0"), true)]),
        ];
        let Some(ServiceNames::Headless(headless)) = names(&service, slices.iter()) else {
            panic!("a headless service with endpoints");
        };
        let shown: Vec<_> = headless
            .hosts
            .iter()
            .map(|h| format!("{} {} {}", h.name, h.address, headless.ports(h)[0].port))
            .collect();
        assert_eq!(
            shown,
            [
                "10-244-1-3 10.244.1.3 5432",
                "db-0 10.244.1.2 5432",
                "db-0 fd00::2 5433"
            ]
        );
        assert_eq!(headless.named(b"db-0").len(), 2);
        assert!(headless.named(b"db").is_empty() && headless.named(b"z").is_empty());

        service.publish_not_ready = true;
        let Some(ServiceNames::Headless(headless)) = names(&service, slices.iter()) else {
            panic!("a headless service with endpoints");
        };
        assert_eq!(headless.named(b"db-2").len(), 1);
        assert_eq!(names(&service, [].iter()), None);
    }

    #[test]
    fn services_with_an_address_or_another_name() {
        let mut service = Service::new(ObjectKey::new("shop", "web"));
        assert_eq!(names(&service, [].iter()), None, "not allocated yet");
        service.cluster_ips = vec!["fd00:96::7".parse().unwrap(), "10.96.0.7".parse().unwrap()];
        let port = |name: &str, port| ServicePort {
            name: name.to_owned(),
            protocol: Protocol::Udp,
            port,
            node_port: None,
            app_protocol: None,
        };
        service.ports = vec![port("", 80), port("dns", 53)];
        let expected = ServiceNames::Cluster {
            addresses: vec!["10.96.0.7".parse().unwrap(), "fd00:96::7".parse().unwrap()],
            ports: vec![NamedPort {
                name: "dns".into(),
                protocol: Protocol::Udp,
                port: 53,
            }],
        };
        assert_eq!(names(&service, [].iter()), Some(expected));
        service.kind = ServiceKind::ExternalName("db.example.org".to_owned());
        let alias = ServiceNames::Alias("db.example.org".into());
        assert_eq!(names(&service, [].iter()), Some(alias));
    }
}
