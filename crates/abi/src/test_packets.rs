//! Packets and tables for tests.

mod parts;

pub use parts::{parts, whole};

use core::net::IpAddr;
use std::boxed::Box;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::vec;
use std::vec::Vec;

use crate::{
    Address, Affinity, AffinityKey, BACKENDS_PER_SLOTS, Backend, BackendKey, Connection,
    ConnectionKey, Connections, DenialKey, DropReason, Endpoint, Flow, FlowKey, Frontend,
    IPPROTO_ICMP, IPPROTO_ICMPV6, IPPROTO_SCTP, IPPROTO_TCP, IPPROTO_UDP, MaglevRow, PairKey,
    PairRow, Part, PartKey, Policing, PolicyPod, PolicyState, PolicyTables, PortNode, Route,
    RouteKey, ServiceAddress, Services, Slots, SlotsKey, Tables, Uplink, Work,
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
    /// Of a TCP header.
    pub flags: u8,
    /// TCP's option of how long segments may be.
    pub mss: Option<u16>,
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
            flags: 0x10,
            mss: None,
            payload: (0..100).collect(),
        }
    }

    /// The first one of a connection.
    pub fn tcp_syn(source: (&str, u16), destination: (&str, u16)) -> Self {
        Self {
            flags: 0x02,
            ..Self::tcp(source, destination)
        }
    }

    /// The last one of one side.
    pub fn tcp_fin(source: (&str, u16), destination: (&str, u16)) -> Self {
        Self {
            flags: 0x11,
            ..Self::tcp(source, destination)
        }
    }

    pub fn sctp(source: (&str, u16), destination: (&str, u16)) -> Self {
        Self {
            protocol: IPPROTO_SCTP,
            ..Self::tcp(source, destination)
        }
    }

    /// Somebody asks for an echo: the identifier is in the place of the source's
    /// port, and the destination's is not used.
    pub fn echo(source: (&str, u16), destination: (&str, u16)) -> Self {
        let mut sample = Self::tcp(source, (destination.0, 0));
        sample.protocol = if sample.source.0.is_ipv4() {
            IPPROTO_ICMP
        } else {
            IPPROTO_ICMPV6
        };
        sample
    }

    /// From the other side: an answer.
    #[must_use]
    pub fn reversed(&self) -> Self {
        Self {
            source: self.destination,
            destination: self.source,
            ..self.clone()
        }
    }

    /// An echo's answer with the same ends.
    #[must_use]
    pub fn reversed_types(&self) -> Self {
        Self {
            source: (self.source.0, self.destination.1),
            destination: (self.destination.0, self.source.1),
            ..self.clone()
        }
    }

    pub fn udp(source: (&str, u16), destination: (&str, u16)) -> Self {
        Self {
            protocol: IPPROTO_UDP,
            ..Self::tcp(source, destination)
        }
    }

    /// An ICMP error that `from` sends about a packet, of which it quotes the IP
    /// header and eight bytes; without that packet's own checksum, if it would be
    /// among those.
    pub fn error(from: &str, [kind, code]: [u8; 2], about: &Self) -> Self {
        let source: IpAddr = from.parse().expect("an address");
        let (protocol, header) = match source {
            IpAddr::V4(_) => (IPPROTO_ICMP, 20),
            IpAddr::V6(_) => (IPPROTO_ICMPV6, 40),
        };
        let mut quoted = about.bytes().split_off(14);
        quoted.truncate(header + 8);
        match about.protocol {
            IPPROTO_UDP => quoted[header + 6..].fill(0),
            IPPROTO_ICMP | IPPROTO_ICMPV6 => quoted[header + 2..header + 4].fill(0),
            _ => {}
        }
        let mut payload = vec![kind, code, 0, 0, 0, 0, 5, 120];
        payload.extend(quoted);
        let destination = about.source.0;
        let sum = transport_sum(source, destination, protocol, &payload);
        payload[2..4].copy_from_slice(&sum.to_be_bytes());
        Self {
            source: (source, 0),
            destination: (destination, 0),
            protocol,
            payload,
            ..Self::tcp((from, 0), (from, 0))
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
                header.extend([0, 0, 0, 1, 0, 0, 0, 2, 0x80, self.flags]);
                header.extend([0xff, 0xff, 0, 0, 0, 0]);
                let mut options = [1; 12];
                if let Some(size) = self.mss {
                    options[..2].copy_from_slice(&[2, 4]);
                    options[2..4].copy_from_slice(&size.to_be_bytes());
                }
                header.extend(options);
                16
            }
            IPPROTO_UDP => {
                header.extend((8 + self.payload.len() as u16).to_be_bytes());
                header.extend([0, 0]);
                6
            }
            IPPROTO_SCTP => {
                header.extend([0, 0, 0, 7, 0, 0, 0, 0]);
                header.extend(&self.payload);
                let sum = crc32c(&header);
                header[8..12].copy_from_slice(&sum.to_le_bytes());
                return header;
            }
            IPPROTO_ICMP | IPPROTO_ICMPV6 if self.source.1 != 0 || self.destination.1 != 0 => {
                let asks = self.destination.1 == 0;
                let kind = match (self.protocol, asks) {
                    (IPPROTO_ICMP, true) => 8,
                    (IPPROTO_ICMP, false) => 0,
                    (_, true) => 128,
                    (_, false) => 129,
                };
                let id = self.source.1 | self.destination.1;
                header = vec![kind, 0, 0, 0];
                header.extend(id.to_be_bytes());
                header.extend([0, 1]);
                2
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
        let mut sum = transport_sum(self.source.0, self.destination.0, self.protocol, transport);
        if sum == 0 && self.protocol == IPPROTO_UDP {
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

/// The sum over what it covers: ICMP over IPv4 has no pseudo header.
fn transport_sum(source: IpAddr, destination: IpAddr, protocol: u8, transport: &[u8]) -> u16 {
    if protocol == IPPROTO_ICMP {
        checksum(transport)
    } else {
        pseudo_header(source, destination, protocol, transport)
    }
}

/// RFC 9260, appendix A.
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg())
        })
    })
}

/// Whether the checksums of a whole packet without IP options are right.
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
    if protocol == IPPROTO_SCTP {
        let mut plain = transport.to_vec();
        plain[8..12].fill(0);
        return transport[8..12] == crc32c(&plain).to_le_bytes();
    }
    let absent = protocol == IPPROTO_UDP && transport[6..8] == [0, 0];
    absent || transport_sum(source, destination, protocol, transport) == 0
}

/// Tables in memory. Rows that are lent are leaked when they are written: tests
/// are short.
#[derive(Debug, Default)]
pub struct MemoryTables {
    pub endpoints: HashMap<Address, Endpoint>,
    pub routes: Vec<(RouteKey, Route)>,
    pub ranges: Vec<(RouteKey, u32)>,
    pub uplinks: HashMap<u32, Uplink>,
    /// Set once packets were led to the node itself.
    pub node_translated: RefCell<Option<&'static Uplink>>,
    pub frontends: HashMap<ServiceAddress, Frontend>,
    pub slots: HashMap<SlotsKey, Slots>,
    pub maglev: HashMap<SlotsKey, MaglevRow>,
    pub backends: HashMap<BackendKey, Backend>,
    /// Set and range.
    pub sources: Vec<(u32, RouteKey)>,
    /// First and number.
    pub ports: (u32, u32),
    pub now: Cell<u32>,
    /// Steps by this much from number to number.
    pub random: Cell<u32>,
    pub flows: RefCell<HashMap<FlowKey, &'static Flow>>,
    /// How many flows each may begin, if that is limited, and what each has begun.
    pub flows_each: Option<u32>,
    pub flow_shares: RefCell<HashMap<u32, u32>>,
    pub affinity: RefCell<HashMap<AffinityKey, Affinity>>,
    pub connections: RefCell<HashMap<BackendKey, u64>>,
    /// Of backends: what was added to them.
    pub bytes: RefCell<HashMap<BackendKey, u64>>,
    pub refused: RefCell<HashMap<ServiceAddress, u64>>,
    /// Pods of whose packets something was noted.
    pub translated: RefCell<HashMap<Address, &'static Endpoint>>,
    /// Addresses of the node.
    pub own: Vec<Address>,
    pub policy_pods: HashMap<Address, PolicyPod>,
    pub policy_classes: Vec<(RouteKey, u64)>,
    pub policy_pairs: HashMap<PairKey, PairRow>,
    pub policy_ports: HashMap<u32, PortNode>,
    pub policy_state: PolicyState,
    pub connections_of_pods: RefCell<HashMap<ConnectionKey, *mut Connection>>,
    /// How many connections are remembered; none more if it is not none.
    pub connections_limit: Option<usize>,
    pub parts: RefCell<HashMap<PartKey, &'static Part>>,
    pub denials: RefCell<HashMap<DenialKey, u64>>,
    /// Made when it is first asked for.
    pub work: Cell<*mut Work>,
    /// Likewise.
    pub policing: Cell<*mut Policing>,
}

fn covers(range: &RouteKey, address: &Address) -> bool {
    let bits = |address: &Address| match IpAddr::from(*address) {
        IpAddr::V4(v4) => u128::from(v4.to_ipv6_mapped()),
        IpAddr::V6(v6) => u128::from(v6),
    };
    let mask = u128::MAX.checked_shl(128 - range.prefix_len).unwrap_or(0);
    bits(&range.address) & mask == bits(address) & mask
}

fn longest<'t, V>(rows: &'t [(RouteKey, V)], address: &Address) -> Option<&'t V> {
    let covering = rows.iter().filter(|(key, _)| covers(key, address));
    covering
        .max_by_key(|(key, _)| key.prefix_len)
        .map(|(_, row)| row)
}

impl MemoryTables {
    /// A frontend with its set, slots and backends, without a Maglev table.
    pub fn serve(&mut self, address: ServiceAddress, frontend: Frontend, backends: &[Backend]) {
        let set = frontend.set();
        for (index, backend) in (0..).zip(backends) {
            let id = index + 1;
            self.backends.insert(BackendKey { set, id }, *backend);
            let chunk = index / BACKENDS_PER_SLOTS;
            let slots = self.slots.entry(SlotsKey { set, chunk }).or_default();
            slots.0[(index % BACKENDS_PER_SLOTS) as usize] = id;
        }
        let ids: Vec<u32> = (1..).take(backends.len()).collect();
        self.frontends.insert(address, frontend.with_slots(&ids));
    }
}

impl Services for MemoryTables {
    fn frontend(&self, address: &ServiceAddress) -> Option<&Frontend> {
        self.frontends.get(address)
    }

    fn slot(&self, key: &SlotsKey, slot: u32) -> Option<u32> {
        self.slots.get(key).map(|row| row.0[slot as usize])
    }

    fn maglev(&self, key: &SlotsKey, entry: u32) -> Option<u32> {
        self.maglev.get(key).map(|row| row.0[entry as usize])
    }

    fn take(&self, key: &BackendKey) -> Option<Backend> {
        let backend = self.backends.get(key)?;
        *self.connections.borrow_mut().entry(*key).or_default() += 1;
        Some(*backend)
    }

    fn peek(&self, key: &BackendKey) -> Option<Backend> {
        self.backends.get(key).copied()
    }

    fn affinity(&self, key: &AffinityKey) -> Option<Affinity> {
        self.affinity.borrow().get(key).copied()
    }

    fn set_affinity(&self, key: &AffinityKey, affinity: &Affinity) {
        self.affinity.borrow_mut().insert(*key, *affinity);
    }

    fn range(&self, address: &Address) -> u32 {
        longest(&self.ranges, address).copied().unwrap_or(0)
    }

    fn may_reach(&self, set: u32, client: &Address) -> bool {
        let mut sources = self.sources.iter();
        sources.any(|(of, range)| *of == set && covers(range, client))
    }

    fn count_refused(&self, address: &ServiceAddress) {
        *self.refused.borrow_mut().entry(*address).or_default() += 1;
    }

    fn now(&self) -> u32 {
        self.now.get()
    }

    fn random(&self) -> u32 {
        // Steps through the whole range, evenly.
        let next = self.random.get().wrapping_add(0x0100_0193);
        self.random.set(next);
        next
    }
}

impl Tables for MemoryTables {
    fn endpoint(&self, address: &Address) -> Option<&Endpoint> {
        let translated = self.translated.borrow().get(address).copied();
        translated.or_else(|| self.endpoints.get(address))
    }

    fn route(&self, address: &Address) -> Option<&Route> {
        longest(&self.routes, address)
    }

    fn set_translated(&self, address: &Address) {
        if let Some(mut endpoint) = self.endpoint(address).copied() {
            endpoint.set_translated();
            let endpoint = Box::leak(Box::new(endpoint));
            self.translated.borrow_mut().insert(*address, endpoint);
        }
    }

    fn set_renumbered(&self, address: &Address) {
        if let Some(mut endpoint) = self.endpoint(address).copied() {
            endpoint.set_renumbered();
            let endpoint = Box::leak(Box::new(endpoint));
            self.translated.borrow_mut().insert(*address, endpoint);
        }
    }

    fn set_cut(&self, address: &Address) {
        if let Some(mut endpoint) = self.endpoint(address).copied() {
            endpoint.set_cut();
            let endpoint = Box::leak(Box::new(endpoint));
            self.translated.borrow_mut().insert(*address, endpoint);
        }
    }

    fn set_node_translated(&self) {
        if let Some(mut node) = self.uplinks.get(&0).copied() {
            node.set_translated();
            *self.node_translated.borrow_mut() = Some(Box::leak(Box::new(node)));
        }
    }

    fn uplink(&self, ifindex: u32) -> Option<&Uplink> {
        let translated = *self.node_translated.borrow();
        translated
            .filter(|_| ifindex == 0)
            .or_else(|| self.uplinks.get(&ifindex))
    }

    fn ports(&self) -> (u32, u32) {
        self.ports
    }

    fn flow(&self, key: &FlowKey) -> Option<&Flow> {
        self.flows.borrow().get(key).copied()
    }

    fn part(&self, key: &PartKey) -> Option<&Part> {
        self.parts.borrow().get(key).copied()
    }

    fn remember_part(&self, key: &PartKey, part: &Part) {
        let part = Box::leak(Box::new(*part));
        self.parts.borrow_mut().insert(*key, part);
    }

    fn work(&self) -> Option<&mut Work> {
        if self.work.get().is_null() {
            self.work.set(Box::leak(Box::default()));
        }
        // SAFETY: leaked; one packet at a time has it.
        unsafe { self.work.get().as_mut() }
    }

    fn count(&self, key: &FlowKey, flow: &Flow, bytes: u32) {
        let mut counted = *flow;
        counted.bytes += bytes;
        let counted = Box::leak(Box::new(counted));
        self.flows.borrow_mut().insert(*key, counted);
    }

    fn touch(&self, key: &FlowKey, now: u32, flags: u32) {
        let mut flows = self.flows.borrow_mut();
        if let Some(flow) = flows.get_mut(key) {
            let mut touched = **flow;
            touched.flags |= flags;
            touched.last = now;
            let (set, id) = (touched.set, touched.id);
            let mut bytes = self.bytes.borrow_mut();
            *bytes.entry(BackendKey { set, id }).or_default() += u64::from(touched.bytes);
            touched.bytes = 0;
            *flow = Box::leak(Box::new(touched));
        }
    }

    fn forget(&self, key: &FlowKey) {
        self.flows.borrow_mut().remove(key);
    }

    fn takes_share(&self, source: &Address) -> bool {
        let link = self.endpoint(source).map_or(0, |endpoint| endpoint.ifindex);
        let mut shares = self.flow_shares.borrow_mut();
        let used = shares.entry(link).or_default();
        let takes = self.flows_each.is_none_or(|each| *used < each);
        *used += u32::from(takes);
        takes
    }

    fn remember(&self, key: &FlowKey, flow: &Flow) -> Result<(), DropReason> {
        let flow = Box::leak(Box::new(*flow));
        self.flows.borrow_mut().insert(*key, flow);
        Ok(())
    }

    fn claim(&self, key: &FlowKey, flow: &Flow) -> Result<bool, DropReason> {
        if self.flows.borrow().contains_key(key) {
            return Ok(false);
        }
        self.remember(key, flow).map(|()| true)
    }
}

impl PolicyTables for MemoryTables {
    fn pod(&self, address: &Address) -> Option<&PolicyPod> {
        self.policy_pods.get(address)
    }

    fn class(&self, address: &Address) -> Option<u64> {
        longest(&self.policy_classes, address).copied()
    }

    fn pair(&self, key: &PairKey) -> Option<&PairRow> {
        self.policy_pairs.get(key)
    }

    fn port_node(&self, index: u32) -> Option<&PortNode> {
        self.policy_ports.get(&index)
    }
}

impl Connections for MemoryTables {
    fn policy_state(&self) -> PolicyState {
        self.policy_state
    }

    fn is_own(&self, address: &Address) -> bool {
        self.own.contains(address)
    }

    fn connection(&self, key: &ConnectionKey) -> Option<&mut Connection> {
        let row = self.connections_of_pods.borrow().get(key).copied()?;
        // SAFETY: leaked when it was written; one packet at a time has it.
        Some(unsafe { &mut *row })
    }

    fn remember_connection(&self, key: &ConnectionKey, row: &Connection) -> bool {
        let mut rows = self.connections_of_pods.borrow_mut();
        let is_full = self
            .connections_limit
            .is_some_and(|limit| rows.len() >= limit);
        if is_full && !rows.contains_key(key) {
            return false;
        }
        rows.insert(*key, Box::leak(Box::new(*row)));
        true
    }

    fn forget_connection(&self, key: &ConnectionKey) {
        self.connections_of_pods.borrow_mut().remove(key);
    }

    fn count_denied(&self, key: &DenialKey, _: u32) {
        *self.denials.borrow_mut().entry(*key).or_default() += 1;
    }

    fn policing(&self) -> Option<&mut Policing> {
        if self.policing.get().is_null() {
            self.policing.set(Box::leak(Box::default()));
        }
        // SAFETY: as for `work`.
        unsafe { self.policing.get().as_mut() }
    }
}
