//! Writing an answer.

use std::net::IpAddr;

use crate::query::{HEADER, Query};

/// Seconds that a client may keep an answer, or that there is none. Short,
/// because headless services' addresses change with their pods.
pub(crate) const TTL: u32 = 5;
/// What we send over UDP at most, whatever the client takes: fits every link
/// without fragments (DNS flag day 2020).
const UDP_MAX: u16 = 1232;
/// Bytes of our OPT record.
const OPT: usize = 11;
const CLASS_IN: u16 = 1;
/// Pointer to the name of the question.
const QUESTION_NAME: u16 = 0xc000 | HEADER as u16;

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

/// A reply under construction, in a buffer that is used again and again.
pub(crate) struct Reply<'a> {
    out: &'a mut Vec<u8>,
    limit: usize,
    edns: bool,
    answers: u16,
    authorities: u16,
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
    pub(crate) fn new(
        out: &'a mut Vec<u8>,
        packet: &[u8],
        query: &Query<'_>,
        limit: usize,
        flags: Flags,
    ) -> Self {
        out.clear();
        // Answer bit; opcode, RD and CD as the client has them.
        let mut bits = 0x8000 | query.flags & 0x7910;
        bits |= u16::from(flags.authoritative) << 10;
        bits |= u16::from(flags.recursion_available) << 7;
        out.extend_from_slice(&packet[..2]);
        out.extend_from_slice(&bits.to_be_bytes());
        out.extend_from_slice(&[0, 1, 0, 0, 0, 0, 0, 0]);
        out.extend_from_slice(query.question());
        Self {
            out,
            limit,
            edns: query.edns.is_some(),
            answers: 0,
            authorities: 0,
        }
    }

    /// Addresses of the name in question. Sets TC if they do not all fit.
    pub(crate) fn addresses<'b>(&mut self, addresses: impl Iterator<Item = &'b IpAddr>) {
        for address in addresses {
            let (kind, length) = match address {
                IpAddr::V4(_) => (1u16, 4u16),
                IpAddr::V6(_) => (28, 16),
            };
            if !self.fits(12 + usize::from(length)) {
                self.out[2] |= 0x02;
                return;
            }
            self.out.extend_from_slice(&QUESTION_NAME.to_be_bytes());
            self.record(kind, length);
            match address {
                IpAddr::V4(v4) => self.out.extend_from_slice(&v4.octets()),
                IpAddr::V6(v6) => self.out.extend_from_slice(&v6.octets()),
            }
            self.answers += 1;
        }
    }

    /// The zone's SOA record, as the answer or as the authority for "there is
    /// nothing" (RFC 2308, 3). `zone` is where the zone's name begins.
    pub(crate) fn soa(&mut self, zone: usize, serial: u32, is_answer: bool) {
        const PRIMARY: &[u8] = b"\x02ns\x03dns";
        const MAILBOX: &[u8] = b"\x0ahostmaster";
        const TIMES: [u32; 4] = [7200, 1800, 86400, TTL];
        let length = PRIMARY.len() + 2 + MAILBOX.len() + 2 + 20;
        // A name has at most 255 bytes, so the offset fits a pointer.
        let pointer = (0xc000 | zone as u16).to_be_bytes();
        if !self.fits(12 + length) {
            return;
        }
        self.out.extend_from_slice(&pointer);
        self.record(6, length as u16);
        self.out.extend_from_slice(PRIMARY);
        self.out.extend_from_slice(&pointer);
        self.out.extend_from_slice(MAILBOX);
        self.out.extend_from_slice(&pointer);
        self.out.extend_from_slice(&serial.to_be_bytes());
        for time in TIMES {
            self.out.extend_from_slice(&time.to_be_bytes());
        }
        match is_answer {
            true => self.answers += 1,
            false => self.authorities += 1,
        }
    }

    pub(crate) fn finish(self, rcode: Rcode) {
        let rcode = rcode as u16;
        self.out[3] |= (rcode & 0xf) as u8;
        self.out[6..8].copy_from_slice(&self.answers.to_be_bytes());
        self.out[8..10].copy_from_slice(&self.authorities.to_be_bytes());
        if self.edns {
            self.out[11] = 1;
            self.out.extend_from_slice(&[0, 0, 41]);
            self.out.extend_from_slice(&UDP_MAX.to_be_bytes());
            self.out
                .extend_from_slice(&[(rcode >> 4) as u8, 0, 0, 0, 0, 0]);
        }
    }

    fn record(&mut self, kind: u16, length: u16) {
        self.out.extend_from_slice(&kind.to_be_bytes());
        self.out.extend_from_slice(&CLASS_IN.to_be_bytes());
        self.out.extend_from_slice(&TTL.to_be_bytes());
        self.out.extend_from_slice(&length.to_be_bytes());
    }

    fn fits(&self, more: usize) -> bool {
        let opt = if self.edns { OPT } else { 0 };
        self.out.len() + more + opt <= self.limit
    }
}

/// A reply to what has no readable question: a header alone.
pub(crate) fn form_err(out: &mut Vec<u8>, packet: &[u8]) {
    out.clear();
    out.extend_from_slice(&packet[..2]);
    out.extend_from_slice(&[
        0x80 | packet[2] & 0x79,
        Rcode::FormErr as u8,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
    ]);
}
