//! Packets and tables for tests.

use core::net::IpAddr;
use std::cell::RefCell;
use std::collections::HashMap;
use std::vec;
use std::vec::Vec;

use crate::{
    Address, DropReason, Endpoint, Flow, FlowKey, HostPortTarget, IPPROTO_TCP, IPPROTO_UDP, Route,
    RouteKey, ServiceAddress, Tables,
};

/// A packet that can be varied.
#[derive(Clone, Debug)]
pub struct Sample {
    pub source: (IpAddr, u16),
    pub destination: (IpAddr, u16),
    pub protocol: u8,
    pub hops: u8,
    /// The IPv4 header's flags and fragment offset.
    pub fragment: u16,
    /// UDP over IPv4 without a checksum.
    pub no_checksum: bool,
    pub payload: Vec<u8>,
}

impl Sample {
    /// A TCP segment with 100 bytes.
    pub fn tcp(source: (&str, u16), destination: (&str, u16)) -> Self {
        let address = |(text, port): (&str, u16)| (text.parse().expect("an address"), port);
        Self {
            source: address(source),
            destination: address(destination),
            protocol: IPPROTO_TCP,
            hops: 64,
            fragment: 0,
            no_checksum: false,
            payload: (0..100).collect(),
        }
    }

    pub fn udp(source: (&str, u16), destination: (&str, u16)) -> Self {
        Self {
            protocol: IPPROTO_UDP,
            ..Self::tcp(source, destination)
        }
    }

    /// With an Ethernet header from and to zero, and correct checksums.
    pub fn bytes(&self) -> Vec<u8> {
        let transport = self.transport();
        let mut bytes = vec![0; 12];
        match (self.source.0, self.destination.0) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                bytes.extend([8, 0, 0x45, 0]);
                bytes.extend((20 + transport.len() as u16).to_be_bytes());
                bytes.extend([0x12, 0x34]);
                bytes.extend(self.fragment.to_be_bytes());
                bytes.extend([self.hops, self.protocol, 0, 0]);
                bytes.extend(source.octets());
                bytes.extend(destination.octets());
                let sum = checksum(&bytes[14..34]);
                bytes[24..26].copy_from_slice(&sum.to_be_bytes());
            }
            (source, destination) => {
                let octets = |address| match address {
                    IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
                    IpAddr::V6(v6) => v6.octets(),
                };
                bytes.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
                bytes.extend((transport.len() as u16).to_be_bytes());
                bytes.extend([self.protocol, self.hops]);
                bytes.extend(octets(source));
                bytes.extend(octets(destination));
            }
        }
        bytes.extend(transport);
        bytes
    }

    fn transport(&self) -> Vec<u8> {
        let mut header = Vec::new();
        header.extend(self.source.1.to_be_bytes());
        header.extend(self.destination.1.to_be_bytes());
        let field = match self.protocol {
            IPPROTO_TCP => {
                // With twelve bytes of options, as TCP has them.
                header.extend([0, 0, 0, 1, 0, 0, 0, 2, 0x80, 0x10, 0xff, 0xff, 0, 0, 0, 0]);
                header.extend([1; 12]);
                16
            }
            IPPROTO_UDP => {
                header.extend((8 + self.payload.len() as u16).to_be_bytes());
                header.extend([0, 0]);
                6
            }
            _ => return self.payload.clone(),
        };
        header.extend(&self.payload);
        if !self.no_checksum {
            let sum = self.transport_checksum(&header);
            header[field..field + 2].copy_from_slice(&sum.to_be_bytes());
        }
        header
    }

    fn transport_checksum(&self, transport: &[u8]) -> u16 {
        let mut sum = pseudo_header(self.source.0, self.destination.0, self.protocol, transport);
        if sum == 0 {
            sum = 0xffff;
        }
        sum
    }
}

/// RFC 1071, as a number.
fn checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = bytes
        .chunks(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)])))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

fn pseudo_header(source: IpAddr, destination: IpAddr, protocol: u8, transport: &[u8]) -> u16 {
    let mut bytes = Vec::new();
    for address in [source, destination] {
        match address {
            IpAddr::V4(v4) => bytes.extend(v4.octets()),
            IpAddr::V6(v6) => bytes.extend(v6.octets()),
        }
    }
    bytes.extend((transport.len() as u32).to_be_bytes());
    bytes.extend([0, 0, 0, protocol]);
    bytes.extend(transport);
    checksum(&bytes)
}

/// Whether the checksums of a whole TCP or UDP packet without options are right.
pub fn checksums_are_right(packet: &[u8]) -> bool {
    let ip = &packet[14..];
    let (source, destination, protocol, transport): (IpAddr, IpAddr, u8, &[u8]) = match ip[0] >> 4 {
        4 => {
            if checksum(&ip[..20]) != 0 {
                return false;
            }
            let address = |at| {
                <[u8; 4]>::try_from(&ip[at..at + 4])
                    .expect("four bytes")
                    .into()
            };
            (address(12), address(16), ip[9], &ip[20..])
        }
        _ => {
            let address = |at| {
                <[u8; 16]>::try_from(&ip[at..at + 16])
                    .expect("sixteen")
                    .into()
            };
            (address(8), address(24), ip[6], &ip[40..])
        }
    };
    let absent = protocol == IPPROTO_UDP && transport[6..8] == [0, 0];
    absent || pseudo_header(source, destination, protocol, transport) == 0
}

/// Tables in memory.
#[derive(Debug, Default)]
pub struct MemoryTables {
    pub endpoints: HashMap<Address, Endpoint>,
    pub routes: Vec<(RouteKey, Route)>,
    pub host_ports: HashMap<ServiceAddress, HostPortTarget>,
    /// Leaked when written, so that they can be lent: tests are short.
    pub flows: RefCell<HashMap<FlowKey, &'static Flow>>,
}

impl Tables for MemoryTables {
    fn endpoint(&self, address: &Address) -> Option<&Endpoint> {
        self.endpoints.get(address)
    }

    fn route(&self, address: &Address) -> Option<&Route> {
        let bits = |address: &Address| match IpAddr::from(*address) {
            IpAddr::V4(v4) => u128::from(v4.to_ipv6_mapped()),
            IpAddr::V6(v6) => u128::from(v6),
        };
        let covers = |key: &RouteKey| {
            let mask = u128::MAX.checked_shl(128 - key.prefix_len).unwrap_or(0);
            bits(&key.address) & mask == bits(address) & mask
        };
        let covering = self.routes.iter().filter(|(key, _)| covers(key));
        covering
            .max_by_key(|(key, _)| key.prefix_len)
            .map(|(_, route)| route)
    }

    fn host_port(&self, address: &ServiceAddress) -> Option<&HostPortTarget> {
        self.host_ports.get(address)
    }

    fn flow(&self, key: &FlowKey) -> Option<&Flow> {
        self.flows.borrow().get(key).copied()
    }

    fn remember(&self, key: &FlowKey, flow: &Flow) -> Result<(), DropReason> {
        let flow = std::boxed::Box::leak(std::boxed::Box::new(*flow));
        self.flows.borrow_mut().insert(*key, flow);
        Ok(())
    }
}
