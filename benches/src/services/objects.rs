//! The services that are measured, and their slices as controllers write them.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use ripstop_model::{EndpointSlice, ObjectKey, Service};

use crate::objects;
use crate::rig::{PODS, PORT};

/// Endpoints of every service, unless it is said; as many real pods are there.
pub(super) const ENDPOINTS: usize = 2;
/// Addresses for clients outside.
const OUTSIDE: [[u8; 4]; 2] = [[192, 0, 2, 1], [192, 0, 2, 2]];
/// `--max-endpoints-per-slice` of kube-controller-manager, unless it is set.
const PER_SLICE: usize = 100;

pub(super) fn pod(number: usize) -> IpAddr {
    PODS[number].parse().expect("an address")
}

/// Of a service's endpoints: the real pods first; the others are nowhere.
pub(super) fn endpoints(count: usize) -> Vec<IpAddr> {
    let real = (1..=ENDPOINTS).map(pod);
    real.chain((ENDPOINTS..).map(nowhere)).take(count).collect()
}

/// An address that no pod has.
pub(super) fn nowhere(number: usize) -> IpAddr {
    let [.., a, b, c] = (number as u32).to_be_bytes();
    IpAddr::from([10, 200 + a, b, c])
}

pub(super) fn address(service: usize) -> SocketAddr {
    let [a, b, c, d] = (u32::from(Ipv4Addr::new(10, 96, 0, 1)) + service as u32).to_be_bytes();
    SocketAddr::new(IpAddr::from([a, b, c, d]), PORT)
}

fn key(service: usize) -> ObjectKey {
    ObjectKey::new("bench", format!("service-{service}"))
}

/// With `outside` clients outside can reach it, too.
pub(super) fn service(number: usize, outside: bool) -> Service {
    let outside = OUTSIDE.into_iter().filter(|_| outside);
    Service {
        external_ips: outside.map(IpAddr::from).collect(),
        ..objects::service(key(number), address(number).ip(), PORT)
    }
}

/// All slices of a service.
pub(super) fn slices(service: usize, endpoints: &[IpAddr]) -> Vec<EndpointSlice> {
    let parts = endpoints.chunks(PER_SLICE).enumerate();
    parts.map(|(at, part)| slice(service, at, part)).collect()
}

/// The one that has the endpoint of that index.
pub(super) fn slice_of(service: usize, endpoints: &[IpAddr], endpoint: usize) -> EndpointSlice {
    let at = endpoint / PER_SLICE;
    let part = endpoints.chunks(PER_SLICE).nth(at).unwrap_or_default();
    slice(service, at, part)
}

fn slice(service: usize, number: usize, addresses: &[IpAddr]) -> EndpointSlice {
    objects::slice(key(service), number, PORT, addresses)
}
