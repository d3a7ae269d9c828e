//! Writing an answer.

use std::net::IpAddr;

use crate::name::Name;
use crate::query::{HEADER, Query};

/// What we send over UDP at most, whatever the client takes: fits every link
/// without fragments (DNS flag day 2020).
pub(crate) const UDP_MAX: u16 = 1232;
/// Bytes of our OPT record.
pub(crate) const OPT: usize = 11;
pub(crate) const CLASS_IN: u16 = 1;
/// Where a name that is in the message already begins, as a pointer to it.
pub(crate) type Pointer = u16;
/// Pointer to the name of the question.
pub(crate) const QUESTION: Pointer = POINTER | HEADER as u16;
const POINTER: u16 = 0xc000;

/// Points at what begins at `at`, which is below 16384.
pub(crate) fn pointer(at: usize) -> Pointer {
    POINTER | at as u16
}

/// In the third byte of a message: it did not all fit.
pub(crate) const TRUNCATED: u8 = 0x02;

/// Types of records (RFC 1035 and others).
pub(crate) mod kind {
    pub(crate) const A: u16 = 1;
    pub(crate) const NS: u16 = 2;
    pub(crate) const CNAME: u16 = 5;
    pub(crate) const SOA: u16 = 6;
    pub(crate) const PTR: u16 = 12;
    pub(crate) const TXT: u16 = 16;
    pub(crate) const AAAA: u16 = 28;
    pub(crate) const SRV: u16 = 33;
    pub(crate) const OPT: u16 = 41;
    /// From here to ANY: transfers and other requests that are no types of data.
    pub(crate) const META: u16 = 249;
    pub(crate) const ANY: u16 = 255;
}

/// Response codes (RFC 1035, 4.1.1; BADVERS: RFC 6891, 9).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rcode {
    NoError = 0,
    FormErr = 1,
    ServFail = 2,
    NxDomain = 3,
    NotImp = 4,
    Refused = 5,
    BadVers = 16,
}

/// Parts of a message, in their order, with where each is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Section {
    Answer = 6,
    Authority = 8,
    Additional = 10,
}

/// A reply under construction, in a buffer that is used again and again.
pub(crate) struct Reply<'a> {
    out: &'a mut Vec<u8>,
    limit: usize,
    edns: bool,
    ttl: u32,
}

/// Bits that only we set.
#[derive(Clone, Copy, Default)]
pub(crate) struct Flags {
    pub(crate) authoritative: bool,
    pub(crate) recursion_available: bool,
}

/// Longest UDP answer for a client that said `payload`; without EDNS, 512.
pub(crate) fn udp_limit(query: &Query<'_>) -> usize {
    query
        .edns
        .map_or(512, |edns| usize::from(edns.payload.clamp(512, UDP_MAX)))
}

impl<'a> Reply<'a> {
    /// Header and question; nothing longer than `limit` will be written.
    pub(crate) fn new(out: &'a mut Vec<u8>, query: &Query<'_>, limit: usize, ttl: u32) -> Self {
        out.clear();
        // Answer bit; opcode, RD and CD as the client has them.
        let bits = 0x8000 | query.flags & 0x7910;
        out.extend_from_slice(&query.packet()[..2]);
        out.extend_from_slice(&bits.to_be_bytes());
        out.extend_from_slice(&[0, 1, 0, 0, 0, 0, 0, 0]);
        out.extend_from_slice(query.question());
        Self {
            out,
            limit,
            edns: query.edns.is_some(),
            ttl,
        }
    }

    /// An address of `owner`. False if it did not fit.
    pub(crate) fn address(&mut self, section: Section, owner: Pointer, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(v4) => self.record(section, owner, kind::A, &[&v4.octets()]),
            IpAddr::V6(v6) => self.record(section, owner, kind::AAAA, &[&v6.octets()]),
        }
        .is_some()
    }

    /// Another name of `owner`; where that name now is.
    pub(crate) fn alias(&mut self, owner: Pointer, target: &Name) -> Option<Pointer> {
        let at = self.record(Section::Answer, owner, kind::CNAME, &[target.wire()])?;
        Some(pointer(at))
    }

    /// A service's port at a host; where the host's name now is.
    pub(crate) fn service(
        &mut self,
        owner: Pointer,
        weight: u16,
        port: u16,
        target: &Name,
    ) -> Option<Pointer> {
        let numbers = [0, weight, port].map(u16::to_be_bytes).concat();
        // Names in these records are not to be compressed (RFC 2782).
        let data = [&numbers[..], target.wire()];
        let at = self.record(Section::Answer, owner, kind::SRV, &data)? + numbers.len();
        (at < usize::from(!POINTER)).then(|| pointer(at))
    }

    /// The SOA record of the zone whose name `owner` points at, as the answer or
    /// as the authority for "there is nothing" (RFC 2308, 3).
    pub(crate) fn soa(
        &mut self,
        section: Section,
        owner: Pointer,
        server: &Name,
        mailbox: &Name,
        serial: u32,
    ) {
        // As CoreDNS has them; the last is how long "nothing" may be kept.
        let times = [serial, 7200, 1800, 86400, self.ttl].map(u32::to_be_bytes);
        let data = [server.wire(), mailbox.wire(), times.as_flattened()];
        // Without it a client asks again, that is all.
        let _ = self.record(section, owner, kind::SOA, &data);
    }

    /// Any record; where its data begins, or `None` if it does not fit.
    pub(crate) fn record(
        &mut self,
        section: Section,
        owner: Pointer,
        kind: u16,
        data: &[&[u8]],
    ) -> Option<usize> {
        let length: usize = data.iter().map(|part| part.len()).sum();
        let opt = if self.edns { OPT } else { 0 };
        if self.out.len() + 12 + length + opt > self.limit {
            return None;
        }
        let mut head = [0; 12];
        head[..2].copy_from_slice(&owner.to_be_bytes());
        head[2..4].copy_from_slice(&kind.to_be_bytes());
        head[4..6].copy_from_slice(&CLASS_IN.to_be_bytes());
        head[6..10].copy_from_slice(&self.ttl.to_be_bytes());
        head[10..].copy_from_slice(&(length as u16).to_be_bytes());
        self.out.extend_from_slice(&head);
        let at = self.out.len();
        for part in data {
            self.out.extend_from_slice(part);
        }
        let count = section as usize;
        let counted = u16::from_be_bytes([self.out[count], self.out[count + 1]]) + 1;
        self.out[count..count + 2].copy_from_slice(&counted.to_be_bytes());
        Some(at)
    }

    /// Says that there is more than fits.
    pub(crate) fn truncate(&mut self) {
        self.out[2] |= TRUNCATED;
    }

    /// Takes all records back.
    pub(crate) fn clear(&mut self, query: &Query<'_>) {
        self.out.truncate(HEADER + query.question().len());
        self.out[6..12].fill(0);
        self.out[2] &= !TRUNCATED;
    }

    pub(crate) fn finish(self, rcode: Rcode, flags: Flags) {
        let rcode = rcode as u16;
        self.out[2] |= u8::from(flags.authoritative) << 2;
        self.out[3] |= (rcode & 0xf) as u8 | u8::from(flags.recursion_available) << 7;
        if self.edns {
            opt(self.out, rcode);
        }
    }
}

/// Appends our OPT record (RFC 6891, 6.1).
pub(crate) fn opt(out: &mut Vec<u8>, rcode: u16) {
    let additionals = u16::from_be_bytes([out[10], out[11]]) + 1;
    out[10..12].copy_from_slice(&additionals.to_be_bytes());
    out.extend_from_slice(&[0, 0, kind::OPT as u8]);
    out.extend_from_slice(&UDP_MAX.to_be_bytes());
    out.extend_from_slice(&[(rcode >> 4) as u8, 0, 0, 0, 0, 0]);
}

/// A reply to what has no readable question: a header alone.
pub(crate) fn form_err(out: &mut Vec<u8>, packet: &[u8]) {
    out.clear();
    out.extend_from_slice(&packet[..2]);
    out.extend_from_slice(&[0x80 | packet[2] & 0x79, Rcode::FormErr as u8]);
    out.extend_from_slice(&[0; 8]);
}
