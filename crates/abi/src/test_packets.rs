//! Packets and tables for tests.

mod parts;
mod tables;

pub use parts::{parts, whole};
pub use tables::MemoryTables;

use core::net::IpAddr;
use std::vec;
use std::vec::Vec;

use crate::{IPPROTO_ICMP, IPPROTO_ICMPV6, IPPROTO_SCTP, IPPROTO_TCP, IPPROTO_UDP};

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
