//! Frames, written by hand.

use std::net::IpAddr;

const ETH_IPV4: [u8; 2] = [0x08, 0x00];
const ETH_IPV6: [u8; 2] = [0x86, 0xdd];
const ETH_ARP: [u8; 2] = [0x08, 0x06];
const UDP: u8 = 17;
const ICMPV6: u8 = 58;
/// Locally administered; nobody's.
pub(crate) const FOREIGN_MAC: [u8; 6] = [0x02, 0xba, 0xad, 0, 0, 1];

pub(crate) const BROADCAST: [u8; 6] = [0xff; 6];

/// Who writes to whom.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Datagram {
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
}

/// What is unusual about a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extra {
    None,
    /// IPv4 options, or a hop-by-hop header.
    Options,
    LastHop,
    /// Two of them, each with a part of the payload.
    Fragments,
    /// So many times 802.1Q with VLAN 0.
    PriorityTags(usize),
    OtherMac,
    ToEverybody,
}

/// MAC addresses of a link: the pod's own, and the node's end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Link {
    pub(crate) own: [u8; 6],
    pub(crate) node: [u8; 6],
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

/// RFC 1071.
fn checksum(parts: &[&[u8]]) -> [u8; 2] {
    let bytes: Vec<u8> = parts.concat();
    let words = bytes.chunks(2);
    let mut sum: u32 = words
        .map(|word| u32::from(word[0]) << 8 | u32::from(*word.get(1).unwrap_or(&0)))
        .sum();
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    (!(sum as u16)).to_be_bytes()
}

impl Datagram {
    /// The next protocol's checksum covers the addresses.
    fn pseudo(&self, protocol: u8, length: usize) -> Vec<u8> {
        let addresses = [octets(self.source), octets(self.destination)].concat();
        [
            &addresses[..],
            &(length as u32).to_be_bytes(),
            &[0, 0, 0, protocol],
        ]
        .concat()
    }

    pub(crate) fn udp(&self, port: u16, payload: &[u8]) -> Vec<u8> {
        let length = 8 + payload.len();
        let mut udp = [port.to_be_bytes(), port.to_be_bytes()].concat();
        udp.extend((length as u16).to_be_bytes());
        udp.extend([0, 0]);
        udp.extend(payload);
        let sum = checksum(&[&self.pseudo(UDP, length), &udp]);
        udp[6..8].copy_from_slice(&sum);
        udp
    }

    fn icmpv6(&self, mut message: Vec<u8>) -> Vec<u8> {
        let sum = checksum(&[&self.pseudo(ICMPV6, message.len()), &message]);
        message[2..4].copy_from_slice(&sum);
        message
    }

    /// IP packets with `transport` in them.
    fn packets(&self, protocol: u8, transport: &[u8], hops: u8, extra: Extra) -> Vec<Vec<u8>> {
        let hops = if extra == Extra::LastHop { 1 } else { hops };
        if extra != Extra::Fragments {
            let options = extra == Extra::Options;
            return vec![self.packet(protocol, transport, hops, options, None)];
        }
        // Parts begin at multiples of eight bytes.
        let (first, second) = transport.split_at(16);
        vec![
            self.packet(protocol, first, hops, false, Some((0, true))),
            self.packet(protocol, second, hops, false, Some((16, false))),
        ]
    }

    fn packet(
        &self,
        protocol: u8,
        payload: &[u8],
        hops: u8,
        options: bool,
        part: Option<(u16, bool)>,
    ) -> Vec<u8> {
        let addresses = [octets(self.source), octets(self.destination)].concat();
        let (offset, more) = part.unwrap_or((0, false));
        if self.source.is_ipv4() {
            // Four times "no operation" (RFC 791).
            let options: &[u8] = if options { &[1, 1, 1, 1] } else { &[] };
            let length = 20 + options.len() + payload.len();
            let mut header = vec![0x45 + (options.len() / 4) as u8, 0];
            header.extend((length as u16).to_be_bytes());
            header.extend([0x12, 0x34]);
            header.extend(((offset / 8) | (u16::from(more) << 13)).to_be_bytes());
            header.extend([hops, protocol, 0, 0]);
            header.extend(addresses);
            header.extend(options);
            let sum = checksum(&[&header]);
            header[10..12].copy_from_slice(&sum);
            return [&header, payload].concat();
        }
        let (next, middle) = match part {
            Some(_) => {
                let mut fragment = vec![protocol, 0];
                fragment.extend((offset | u16::from(more)).to_be_bytes());
                fragment.extend([0, 0, 0x12, 0x34]);
                (44, fragment)
            }
            // PadN of four bytes (RFC 8200, 4.2).
            None if options => (0, vec![protocol, 0, 1, 4, 0, 0, 0, 0]),
            None => (protocol, Vec::new()),
        };
        let mut header = vec![0x60, 0, 0, 0];
        header.extend(((middle.len() + payload.len()) as u16).to_be_bytes());
        header.extend([next, hops]);
        header.extend(addresses);
        [&header[..], &middle, payload].concat()
    }

    /// Frames with a UDP datagram in them.
    pub(crate) fn frames(&self, link: Link, udp: &[u8], extra: Extra) -> Vec<Vec<u8>> {
        let packets = self.packets(UDP, udp, 64, extra);
        let from = match extra {
            Extra::OtherMac => FOREIGN_MAC,
            _ => link.own,
        };
        let kind = match self.source {
            IpAddr::V4(_) => ETH_IPV4,
            IpAddr::V6(_) => ETH_IPV6,
        };
        let to = match extra {
            Extra::ToEverybody => BROADCAST,
            _ => link.node,
        };
        let tags = match extra {
            Extra::PriorityTags(count) => [0x81, 0, 0xe0, 0].repeat(count),
            _ => Vec::new(),
        };
        let frame = |packet: Vec<u8>| [&to, &from[..], &tags, &kind, &packet].concat();
        packets.into_iter().map(frame).collect()
    }

    /// A frame with a message to neighbours, which no router passed (RFC 4861, 7.1).
    fn neighbourly(&self, to: [u8; 6], message: Vec<u8>) -> Vec<u8> {
        let message = self.icmpv6(message);
        let packet = self.packet(ICMPV6, &message, 255, false, None);
        [&to, &FOREIGN_MAC[..], &ETH_IPV6, &packet].concat()
    }

    /// "`target` is at my MAC", unasked for, and rather than what you know.
    pub(crate) fn advertises(&self, to: [u8; 6], target: IpAddr) -> Vec<u8> {
        let mut message = vec![136, 0, 0, 0, 0x20, 0, 0, 0];
        message.extend(octets(target));
        message.extend([2, 1]);
        message.extend(FOREIGN_MAC);
        self.neighbourly(to, message)
    }

    /// "Who is `target`? I am at this MAC."
    pub(crate) fn solicits(&self, to: [u8; 6], target: IpAddr) -> Vec<u8> {
        let mut message = vec![135, 0, 0, 0, 0, 0, 0, 0];
        message.extend(octets(target));
        message.extend([1, 1]);
        message.extend(FOREIGN_MAC);
        self.neighbourly(to, message)
    }

    /// "I am the router, and this is a prefix for all of you" (RFC 4861, 4.2).
    pub(crate) fn is_router(&self, to: [u8; 6], prefix: IpAddr) -> Vec<u8> {
        // High preference, half an hour.
        let mut message = vec![134, 0, 0, 0, 64, 0x08, 0x07, 0x08];
        message.extend([0; 8]);
        message.extend([1, 1]);
        message.extend(FOREIGN_MAC);
        // /64, on this link, for addresses; an hour.
        message.extend([3, 4, 64, 0xc0]);
        message.extend([0, 0, 0x0e, 0x10, 0, 0, 0x0e, 0x10, 0, 0, 0, 0]);
        message.extend(octets(prefix));
        self.neighbourly(to, message)
    }
}

/// "`sender` is at this MAC" to `target`: a question (1) or an answer (2).
pub(crate) fn arp(to: [u8; 6], operation: u8, sender: IpAddr, target: IpAddr) -> Vec<u8> {
    let mut arp = vec![0, 1, 8, 0, 6, 4, 0, operation];
    arp.extend(FOREIGN_MAC);
    arp.extend(octets(sender));
    arp.extend(to);
    arp.extend(octets(target));
    [&to, &FOREIGN_MAC[..], &ETH_ARP, &arp].concat()
}
