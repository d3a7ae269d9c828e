//! From a name to what there is at it. Pure: reads the table, writes nothing.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use ripstop_model::Protocol;
use ripstop_plan::{Headless, Host, NamedPort, ServiceNames};

use crate::name::Name;
use crate::table::{Key, Table};
use crate::zone::{PodNames, Zone};

/// What there is at a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Found<'t> {
    /// Not the cluster's: others know.
    Outside,
    /// NXDOMAIN.
    Nothing,
    /// The name exists because there are names below it (RFC 8020).
    Empty,
    /// The cluster domain itself.
    Apex,
    /// `dns-version`: which version of the specification this is.
    Version,
    /// The name of this server.
    Server,
    Service(&'t Key, &'t ServiceNames),
    /// Endpoints of a headless service that have this name.
    Hosts(&'t Key, &'t Headless, &'t [Host]),
    /// `_port._protocol` of a service.
    Ports(&'t Key, &'t ServiceNames, PortFilter),
    /// The address that is in the name.
    Pod(IpAddr),
    /// The services that have an address.
    Pointers(IpAddr),
}

/// Which ports a SRV question asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PortFilter {
    /// Where the port's name is among the ports of the service, or of its first
    /// endpoint that has it; `None` asks for all.
    name: Option<Label>,
    protocol: Option<Protocol>,
}

/// A label by value: names of ports have at most 15 characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Label {
    bytes: [u8; 15],
    length: u8,
}

impl PortFilter {
    pub(crate) const ALL: Self = Self {
        name: None,
        protocol: None,
    };

    pub(crate) fn takes(&self, port: &NamedPort) -> bool {
        self.protocol
            .is_none_or(|protocol| protocol == port.protocol)
            && self.name.is_none_or(|label| {
                port.name.as_bytes() == &label.bytes[..usize::from(label.length)]
            })
    }

    /// Whether any port of the service passes.
    fn any(&self, names: &ServiceNames) -> bool {
        match names {
            ServiceNames::Cluster { ports, .. } => ports.iter().any(|port| self.takes(port)),
            ServiceNames::Headless(headless) => {
                let ports = headless.port_sets.iter().flatten();
                ports.into_iter().any(|port| self.takes(port))
            }
            ServiceNames::Alias(_) => false,
        }
    }
}

/// What `name` means; second, where the name of the zone begins in it (label
/// index), for the SOA record.
pub(crate) fn find<'t>(zone: &Zone, table: &'t Table, name: &Name) -> (Found<'t>, usize) {
    if let Some(below) = name.below(&zone.domain) {
        return (inside(zone, table, name, below), below);
    }
    match reverse(name) {
        Some(block) => pointers(table, name, block),
        None => (Found::Outside, 0),
    }
}

/// Whether the cluster answers for a name, whatever there is at it.
pub(crate) fn is_ours(zone: &Zone, table: &Table, name: &Name) -> bool {
    name.below(&zone.domain).is_some()
        || reverse(name).is_some_and(|block| table.range_of(block).is_some())
}

fn inside<'t>(zone: &Zone, table: &'t Table, name: &Name, below: usize) -> Found<'t> {
    let label = |from_right: usize| name.label(below - from_right);
    match (below, below.checked_sub(1).map(|last| name.label(last))) {
        (_, None) => Found::Apex,
        (_, Some(b"svc")) => service(table, name, below),
        (_, Some(b"pod")) => pod(zone, table, name, below),
        (1, Some(b"dns-version")) => Found::Version,
        (1, Some(b"dns")) => Found::Empty,
        (2, Some(b"dns")) if label(2) == b"ns" => Found::Server,
        _ => Found::Nothing,
    }
}

/// `[[<host>|_<port>._<protocol>].<service>.]<namespace>.svc`
fn service<'t>(table: &'t Table, name: &Name, below: usize) -> Found<'t> {
    let namespace = match below {
        1 => return Found::Empty,
        _ => name.label(below - 2),
    };
    if below == 2 {
        return match table.has_namespace(namespace) {
            true => Found::Empty,
            false => Found::Nothing,
        };
    }
    let Some((key, names)) = table.get(name.span(below - 3, below - 1)) else {
        return Found::Nothing;
    };
    match below {
        3 => Found::Service(key, names),
        4 => match protocol(name.label(0)) {
            Some(protocol) => {
                let filter = PortFilter {
                    name: None,
                    protocol: Some(protocol),
                };
                match filter.any(names) {
                    true => Found::Empty,
                    false => Found::Nothing,
                }
            }
            None => hosts(key, names, name.label(0)),
        },
        5 => ports(key, names, name.label(0), name.label(1)),
        _ => Found::Nothing,
    }
}

fn hosts<'t>(key: &'t Key, names: &'t ServiceNames, host: &[u8]) -> Found<'t> {
    let ServiceNames::Headless(headless) = names else {
        return Found::Nothing;
    };
    match headless.named(host) {
        [] => Found::Nothing,
        hosts => Found::Hosts(key, headless, hosts),
    }
}

fn ports<'t>(key: &'t Key, names: &'t ServiceNames, port: &[u8], under: &[u8]) -> Found<'t> {
    let (Some(protocol), Some(label)) = (protocol(under), port.strip_prefix(b"_")) else {
        return Found::Nothing;
    };
    let mut bytes = [0; 15];
    let Some(copy) = bytes.get_mut(..label.len()).filter(|copy| !copy.is_empty()) else {
        return Found::Nothing;
    };
    copy.copy_from_slice(label);
    let filter = PortFilter {
        name: Some(Label {
            bytes,
            length: label.len() as u8,
        }),
        protocol: Some(protocol),
    };
    match filter.any(names) {
        true => Found::Ports(key, names, filter),
        false => Found::Nothing,
    }
}

fn protocol(label: &[u8]) -> Option<Protocol> {
    match label {
        b"_tcp" => Some(Protocol::Tcp),
        b"_udp" => Some(Protocol::Udp),
        b"_sctp" => Some(Protocol::Sctp),
        _ => None,
    }
}

/// `[<address>.]<namespace>.pod`
fn pod<'t>(zone: &Zone, table: &Table, name: &Name, below: usize) -> Found<'t> {
    let mode = zone.config.pods;
    let exists = |there| match there {
        true => Found::Empty,
        false => Found::Nothing,
    };
    match below {
        _ if mode == PodNames::Off => Found::Nothing,
        1 => Found::Empty,
        2 => exists(mode == PodNames::Always || table.has_pods(name.label(0))),
        3 => match dashed(name.label(0)) {
            Some(ip) if mode == PodNames::Always || table.has_pod(name.label(1), ip) => {
                Found::Pod(ip)
            }
            _ => Found::Nothing,
        },
        _ => Found::Nothing,
    }
}

/// An address with dashes for its dots or colons.
fn dashed(label: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(label).ok()?;
    let v4 = || text.replace('-', ".").parse().map(IpAddr::V4).ok();
    let v6 = || text.replace('-', ":").parse().map(IpAddr::V6).ok();
    v4().or_else(v6)
}

/// The addresses below a name of the reverse tree: all of them, if the name is
/// the tree's root.
fn reverse(name: &Name) -> Option<IpNet> {
    let labels = name.count();
    if labels < 2 || name.label(labels - 1) != b"arpa" {
        return None;
    }
    // The first label is the last part of the address.
    let parts = (0..labels - 2).rev().map(|index| name.label(index));
    match name.label(labels - 2) {
        b"in-addr" => {
            let mut octets = [0; 4];
            let mut bits = 0;
            for label in parts {
                let octet = octets.get_mut(usize::from(bits / 8))?;
                *octet = decimal(label)?;
                bits += 8;
            }
            IpNet::new(Ipv4Addr::from(octets).into(), bits).ok()
        }
        b"ip6" => {
            let mut value = 0_u128;
            let mut bits: u8 = 0;
            for label in parts {
                let &[digit] = label else { return None };
                let digit = char::from(digit).to_digit(16)?;
                bits = bits.checked_add(4).filter(|bits| *bits <= 128)?;
                value |= u128::from(digit) << (128 - u32::from(bits));
            }
            IpNet::new(Ipv6Addr::from(value).into(), bits).ok()
        }
        _ => None,
    }
}

/// As names of the reverse tree have numbers: without zeros before them.
fn decimal(label: &[u8]) -> Option<u8> {
    if label.len() > 1 && label[0] == b'0' {
        return None;
    }
    if !label.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(label).ok()?.parse().ok()
}

fn pointers<'t>(table: &Table, name: &Name, block: IpNet) -> (Found<'t>, usize) {
    let address = block.addr();
    let whole = block.prefix_len() == block.max_prefix_len();
    let there = match whole {
        true => table.any_within(address..=address),
        false => false,
    };
    let Some(range) = table.range_of(block) else {
        // An endpoint outside of the cluster.
        return match there {
            true => (Found::Pointers(address), 0),
            false => (Found::Outside, 0),
        };
    };
    // The zone is the least part of the tree that is all within the range.
    let bits = match block {
        IpNet::V4(_) => 8,
        IpNet::V6(_) => 4,
    };
    let zone_labels = usize::from(range.prefix_len().div_ceil(bits)) + 2;
    let start = name.count().saturating_sub(zone_labels);
    let found = match (whole, there) {
        (true, true) => Found::Pointers(address),
        (true, false) => Found::Nothing,
        // The top of the zone exists, whether there is something below or not.
        (false, _) if start == 0 || table.any_within(address..=block.broadcast()) => Found::Empty,
        (false, _) => Found::Nothing,
    };
    (found, start)
}
