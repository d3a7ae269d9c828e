//! Reading a question. Nothing here trusts a byte of it.

use crate::name::{LABEL_MAX, NAME_MAX, Name};
use crate::reply::kind;

/// Bytes of a message header (RFC 1035, 4.1.1).
pub(crate) const HEADER: usize = 12;

/// What a client asks, as a view of its packet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Query<'a> {
    packet: &'a [u8],
    pub(crate) flags: u16,
    /// Type of the question.
    pub(crate) kind: u16,
    pub(crate) class: u16,
    /// Where the question ends; what follows are records.
    end: usize,
    pub(crate) edns: Option<Edns>,
}

/// What the client's OPT record says (RFC 6891, 6.1.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Edns {
    /// Longest UDP answer that the client takes, bytes.
    pub(crate) payload: u16,
    pub(crate) version: u8,
    /// Asks for signatures (RFC 3225).
    pub(crate) dnssec: bool,
}

/// A packet that asks nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Malformed {
    /// Shorter than a header, or itself an answer: not worth a reply.
    NoQuery,
    /// To be answered with FORMERR.
    FormErr,
}

impl<'a> Query<'a> {
    /// Reads header, the one question, and the OPT record if there is one.
    pub(crate) fn parse(packet: &'a [u8]) -> Result<Self, Malformed> {
        let word = |at: usize| be16(packet, at).ok_or(Malformed::NoQuery);
        let flags = word(2)?;
        let (questions, answers, authorities, additionals) =
            (word(4)?, word(6)?, word(8)?, word(10)?);
        if flags & 0x8000 != 0 {
            return Err(Malformed::NoQuery);
        }
        if questions != 1 {
            return Err(Malformed::FormErr);
        }
        let name_end = plain_name(packet, HEADER).ok_or(Malformed::FormErr)?;
        let kind = be16(packet, name_end).ok_or(Malformed::FormErr)?;
        let class = be16(packet, name_end + 2).ok_or(Malformed::FormErr)?;
        let end = name_end + 4;
        let skipped = u32::from(answers) + u32::from(authorities);
        let edns = edns(packet, end, skipped, additionals).ok_or(Malformed::FormErr)?;
        Ok(Self {
            packet,
            flags,
            kind,
            class,
            end,
            edns,
        })
    }

    /// The whole message.
    pub(crate) fn packet(&self) -> &'a [u8] {
        self.packet
    }

    pub(crate) fn opcode(&self) -> u16 {
        (self.flags >> 11) & 0xf
    }

    /// The question as it came, name in the client's spelling.
    pub(crate) fn question(&self) -> &'a [u8] {
        &self.packet[HEADER..self.end]
    }

    /// The name in question, in lower case.
    pub(crate) fn name(&self) -> Name {
        // `parse` has walked it: it is a name.
        Name::read(self.question()).unwrap_or_else(Name::root)
    }
}

pub(crate) fn be16(packet: &[u8], at: usize) -> Option<u16> {
    let bytes = packet.get(at..at + 2)?;
    Some(u16::from_be_bytes([bytes[0], bytes[1]]))
}

/// Where the name at `at` ends. A question is the first name in its packet, so
/// there is nothing that a compression pointer in it could point to.
fn plain_name(packet: &[u8], mut at: usize) -> Option<usize> {
    let start = at;
    loop {
        let length = usize::from(*packet.get(at)?);
        at += 1 + length;
        if length > LABEL_MAX || at - start > NAME_MAX {
            return None;
        }
        if length == 0 {
            return Some(at);
        }
    }
}

/// Where the name of a record ends, which may end in a pointer.
pub(crate) fn skip_name(packet: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *packet.get(at)? {
            0 => return Some(at + 1),
            length @ 1..=63 => at += 1 + usize::from(length),
            0xc0.. => return (at + 2 <= packet.len()).then_some(at + 2),
            _ => return None,
        }
    }
}

/// Walks the records after the question. `None` if they are cut short or have
/// more than one OPT.
fn edns(packet: &[u8], mut at: usize, skipped: u32, additionals: u16) -> Option<Option<Edns>> {
    let mut found = None;
    for record in 0..skipped + u32::from(additionals) {
        at = skip_name(packet, at)?;
        let kind = be16(packet, at)?;
        let length = usize::from(be16(packet, at + 8)?);
        if record >= skipped && kind == kind::OPT {
            let edns = Edns {
                payload: be16(packet, at + 2)?,
                version: *packet.get(at + 5)?,
                dnssec: *packet.get(at + 6)? & 0x80 != 0,
            };
            if found.replace(edns).is_some() {
                return None;
            }
        }
        at += 10 + length;
        if at > packet.len() {
            return None;
        }
    }
    Some(found)
}
