//! Headers behind those of IP.

use super::{fold, load16, load32, store16, store32, sum32};
use crate::Port;

/// Flags of a TCP header (RFC 9293, 3.1).
pub(crate) const TCP_FIN: u8 = 1;
pub(crate) const TCP_SYN: u8 = 2;
pub(crate) const TCP_RST: u8 = 4;
pub(crate) const TCP_ACK: u8 = 16;

/// RFC 9293, 3.1.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct Tcp {
    ports: Ports,
    sequence: [u8; 4],
    acknowledgement: [u8; 4],
    offset: u8,
    flags: u8,
    window: [u8; 2],
    checksum: [u8; 2],
    urgent: [u8; 2],
}

/// Where TCP and UDP have their ports.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct Ports {
    source: [u8; 2],
    destination: [u8; 2],
}

impl Ports {
    #[inline(always)]
    pub(crate) fn source(&self) -> Port {
        Port::from_network(load16(&self.source))
    }
    #[inline(always)]
    pub(crate) fn destination(&self) -> Port {
        Port::from_network(load16(&self.destination))
    }
    #[inline(always)]
    pub(crate) fn set_source(&mut self, port: Port) {
        store16(&mut self.source, port.network());
    }
    #[inline(always)]
    pub(crate) fn set_destination(&mut self, port: Port) {
        store16(&mut self.destination, port.network());
    }
}

impl Tcp {
    #[inline(always)]
    pub(crate) fn source(&self) -> Port {
        self.ports.source()
    }
    #[inline(always)]
    pub(crate) fn destination(&self) -> Port {
        self.ports.destination()
    }
    /// Header with options, bytes.
    #[inline(always)]
    pub(crate) fn header_len(&self) -> u32 {
        u32::from(self.offset >> 4) * 4
    }
    #[inline(always)]
    pub(crate) fn flags(&self) -> u8 {
        self.flags
    }
    /// What this segment, with that many bytes of payload, is refused with (RFC
    /// 9293, 3.5.2): a header of its own, without checksum yet; and the sum of
    /// its words.
    #[inline(always)]
    pub(crate) fn make_reset(&mut self, payload: u32) -> u32 {
        let (source, destination) = (self.ports.source(), self.ports.destination());
        self.ports.set_source(destination);
        self.ports.set_destination(source);
        let sequence = load32(&self.sequence);
        let (sequence, acknowledgement, flags) = if self.flags & TCP_ACK != 0 {
            (load32(&self.acknowledgement), 0, TCP_RST)
        } else {
            let taken = payload
                + u32::from(self.flags & TCP_SYN != 0)
                + u32::from(self.flags & TCP_FIN != 0);
            let next = u32::from_be(sequence).wrapping_add(taken).to_be();
            (0, next, TCP_RST | TCP_ACK)
        };
        store32(&mut self.sequence, sequence);
        store32(&mut self.acknowledgement, acknowledgement);
        self.offset = 5 << 4;
        self.flags = flags;
        store16(&mut self.window, 0);
        store16(&mut self.checksum, 0);
        store16(&mut self.urgent, 0);
        u32::from(source.network())
            + u32::from(destination.network())
            + sum32(sequence)
            + sum32(acknowledgement)
            + u32::from(u16::from_ne_bytes([5 << 4, flags]))
    }
    #[inline(always)]
    pub(crate) fn set_checksum(&mut self, sum: u32) {
        store16(&mut self.checksum, fold(sum));
    }
}

/// The option that says how long segments may be (RFC 9293, 3.2).
#[repr(C)]
#[derive(Debug)]
pub(crate) struct Mss {
    kind: u8,
    length: u8,
    size: [u8; 2],
}

impl Mss {
    /// The size, if this is that option.
    #[inline(always)]
    pub(crate) fn size(&self) -> Option<Port> {
        let this = self.kind == 2 && self.length == 4;
        this.then(|| Port::from_network(load16(&self.size)))
    }
    #[inline(always)]
    pub(crate) fn set_size(&mut self, size: Port) {
        store16(&mut self.size, size.network());
    }
}

/// ICMP (RFC 792) and ICMPv6 (RFC 4443).
#[repr(C)]
#[derive(Debug)]
pub(crate) struct Icmp {
    pub(crate) kind: u8,
    pub(crate) code: u8,
    checksum: [u8; 2],
    /// Identifier and sequence number of an echo; MTU of an error.
    rest: [[u8; 2]; 2],
}

impl Icmp {
    #[inline(always)]
    pub(crate) fn id(&self) -> Port {
        Port::from_network(load16(&self.rest[0]))
    }
    #[inline(always)]
    pub(crate) fn set_id(&mut self, id: Port) {
        store16(&mut self.rest[0], id.network());
    }
    /// Makes it an error; gives the sum of its words.
    #[inline(always)]
    pub(crate) fn set_error(&mut self, kind: u8, code: u8, rest: u32) -> u32 {
        self.kind = kind;
        self.code = code;
        store16(&mut self.checksum, 0);
        let rest = rest.to_be();
        store16(&mut self.rest[0], rest as u16);
        store16(&mut self.rest[1], (rest >> 16) as u16);
        u32::from(u16::from_ne_bytes([kind, code])) + sum32(rest)
    }
    #[inline(always)]
    pub(crate) fn set_checksum(&mut self, sum: u32) {
        store16(&mut self.checksum, fold(sum));
    }
}

/// RFC 9260, 3.1.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct Sctp {
    ports: Ports,
    tag: [u8; 4],
    checksum: [u8; 4],
}

impl Sctp {
    #[inline(always)]
    pub(crate) fn checksum(&self) -> u32 {
        load32(&self.checksum)
    }
    #[inline(always)]
    pub(crate) fn set_checksum(&mut self, checksum: u32) {
        store32(&mut self.checksum, checksum);
    }
}
