//! Services of one TCP port and their slices, as the API has them.

use std::net::IpAddr;

use ripstop_model::{
    EndpointSlice, ObjectKey, Protocol, Service, ServicePort, SliceEndpoint, SlicePort,
};

pub(crate) fn service(key: ObjectKey, cluster_ip: IpAddr, port: u16) -> Service {
    Service {
        cluster_ips: vec![cluster_ip],
        ports: vec![ServicePort {
            name: String::new(),
            protocol: Protocol::Tcp,
            port,
            node_port: None,
            app_protocol: None,
        }],
        ..Service::new(key)
    }
}

/// One of a service's slices, by a number that no other has: all its endpoints have
/// this port.
pub(crate) fn slice(
    service: ObjectKey,
    number: usize,
    port: u16,
    addresses: &[IpAddr],
) -> EndpointSlice {
    EndpointSlice {
        key: ObjectKey::new(&service.namespace, format!("{}-{number}", service.name)),
        service: service.name,
        ports: vec![SlicePort {
            name: String::new(),
            protocol: Protocol::Tcp,
            port,
        }],
        endpoints: addresses.iter().copied().map(SliceEndpoint::new).collect(),
        proxied: true,
    }
}
