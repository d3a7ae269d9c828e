//! Answers of upstream servers, as they are kept and as they are passed on.

use std::time::{Duration, Instant};

use hickory_proto::op::{Message, MessageType, ResponseCode};
use hickory_proto::rr::{Record, RecordType};

use crate::query::{HEADER, Query, be16, skip_name};
use crate::reply::{self, TRUNCATED};

/// An answer is kept no longer, whatever its records say.
const TTL_MAX: u32 = 3600;
/// Nor is "there is nothing" (RFC 2308, 5 recommends 1 to 3 hours at most; a name
/// that was just registered should not wait so long).
const NEGATIVE_MAX: u32 = 300;
/// "There is nothing" without an SOA record that says for how long.
const NEGATIVE_UNSAID: u32 = 5;
/// A server's failure is not asked about again for so long (RFC 9520, 3.2).
const FAILURE: u32 = 2;
/// What an answer past its time is passed on with (RFC 8767, 4).
const STALE_TTL: u32 = 30;

/// An answer without its question: records in wire form, and where their times
/// to live are.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) rcode: u16,
    /// The server has checked signatures.
    authentic: bool,
    /// Counts of answers, authorities, additionals.
    counts: [u16; 3],
    /// What follows the question.
    records: Box<[u8]>,
    /// Where times to live are in `records`.
    ttls: Box<[u16]>,
    at: Instant,
    ttl: Duration,
}

impl Answer {
    /// Keeps of a message what clients need: for data the answers, for "there is
    /// nothing" the SOA record. `None` if it cannot be written again.
    pub(crate) fn new(mut message: Message, dnssec: bool, now: Instant) -> Option<Self> {
        let rcode = message.metadata.response_code;
        let has_data = !message.answers.is_empty();
        message.edns = None;
        message.additionals.clear();
        if !dnssec && (has_data && rcode == ResponseCode::NoError) {
            message.authorities.clear();
        }
        let ttl = ttl(&message);
        let mut question = message.queries.first()?.clone();
        // The case of letters was for this server alone.
        let asked = question.name().clone();
        question.set_name(asked.to_lowercase());
        let records = message.answers.iter_mut().chain(&mut message.authorities);
        for record in records.filter(|record| record.name == asked) {
            record.name = question.name().clone();
        }
        let mut again = Message::new(0, MessageType::Response, message.metadata.op_code);
        again.add_query(question);
        again.answers = message.answers;
        again.authorities = message.authorities;
        let wire = again.to_vec().ok()?;
        let name_end = skip_name(&wire, HEADER)?;
        let records = wire.get(name_end + 4..)?;
        let count = |at| be16(&wire, at).unwrap_or_default();
        Some(Self {
            rcode: rcode.into(),
            authentic: message.metadata.authentic_data,
            counts: [count(6), count(8), count(10)],
            ttls: ttl_places(&wire, name_end + 4)?,
            records: records.into(),
            at: now,
            ttl: Duration::from_secs(ttl.into()),
        })
    }

    /// Bytes that it takes.
    pub(crate) fn size(&self) -> usize {
        size_of::<Self>() + self.records.len() + 2 * self.ttls.len()
    }

    pub(crate) fn is_fresh(&self, now: Instant) -> bool {
        now < self.at + self.ttl
    }

    /// Whether it is worth asking for again before its time is over: in its last
    /// tenth.
    pub(crate) fn is_due(&self, now: Instant) -> bool {
        now >= self.at + self.ttl * 9 / 10
    }

    pub(crate) fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.at)
    }

    /// A server said that it could not.
    pub(crate) fn is_failure(&self) -> bool {
        !matches!(self.rcode, 0 | 3)
    }

    /// Whether the name exists.
    pub(crate) fn exists(&self) -> bool {
        self.rcode == 0
    }

    /// Writes the reply to `query`; nothing but that it is truncated if it would
    /// be longer than `limit`.
    pub(crate) fn write(&self, query: &Query<'_>, limit: usize, now: Instant, out: &mut Vec<u8>) {
        out.clear();
        let mut bits = 0x8080 | query.flags & 0x7910;
        let asked_for = query.flags & 0x20 != 0 || query.edns.is_some_and(|e| e.dnssec);
        bits |= u16::from(self.authentic && asked_for) << 5 | self.rcode & 0xf;
        out.extend_from_slice(&query.packet()[..2]);
        out.extend_from_slice(&bits.to_be_bytes());
        out.extend_from_slice(&[0, 1]);
        out.extend(self.counts.iter().flat_map(|count| count.to_be_bytes()));
        out.extend_from_slice(query.question());
        let start = out.len();
        let opt = if query.edns.is_some() { reply::OPT } else { 0 };
        if start + self.records.len() + opt > limit {
            out[2] |= TRUNCATED;
            out[6..12].fill(0);
        } else {
            out.extend_from_slice(&self.records);
            let age = self.age(now).as_secs() as u32;
            let fresh = self.is_fresh(now);
            for place in &self.ttls {
                let at = start + usize::from(*place);
                let ttl = match fresh {
                    true => be32(out, at).saturating_sub(age).min(TTL_MAX),
                    false => STALE_TTL,
                };
                out[at..at + 4].copy_from_slice(&ttl.to_be_bytes());
            }
        }
        if query.edns.is_some() {
            reply::opt(out, self.rcode);
        }
    }
}

fn be32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// Seconds for which the message holds.
fn ttl(message: &Message) -> u32 {
    let least = |records: &[Record]| records.iter().map(|r| r.ttl).min();
    let soa = message
        .authorities
        .iter()
        .find(|r| r.record_type() == RecordType::SOA);
    let nothing = soa.map(|record| match &record.data {
        hickory_proto::rr::RData::SOA(soa) => record.ttl.min(soa.minimum),
        _ => record.ttl,
    });
    match message.metadata.response_code {
        ResponseCode::NoError if message.answers.iter().any(|r| wanted(message, r)) => {
            least(&message.answers).unwrap_or_default().min(TTL_MAX)
        }
        ResponseCode::NoError | ResponseCode::NXDomain => {
            nothing.unwrap_or(NEGATIVE_UNSAID).min(NEGATIVE_MAX)
        }
        _ => FAILURE,
    }
}

fn wanted(message: &Message, record: &Record) -> bool {
    let kind = message.queries.first().map(|q| q.query_type());
    kind.is_some_and(|kind| kind == record.record_type() || kind == RecordType::ANY)
}

/// Where the times to live are, counted from `start`.
fn ttl_places(wire: &[u8], start: usize) -> Option<Box<[u16]>> {
    let mut places = Vec::new();
    let mut at = start;
    while at < wire.len() {
        at = skip_name(wire, at)?;
        places.push(u16::try_from(at + 4 - start).ok()?);
        at += 10 + usize::from(be16(wire, at + 8)?);
    }
    Some(places.into())
}

/// Adds the answer for the last alias of a reply to it. `None` if one of the two
/// cannot be read.
pub(crate) fn append(
    reply: &[u8],
    answer: &Answer,
    target: &[u8],
    limit: usize,
    now: Instant,
) -> Option<Vec<u8>> {
    // Its own question, so that its records can be read.
    let question = [
        &[0; 4],
        &[0, 1, 0, 0, 0, 0, 0, 0][..],
        target,
        &[0, 1, 0, 1],
    ]
    .concat();
    let mut wire = Vec::new();
    answer.write(
        &Query::parse(&question).ok()?,
        usize::from(u16::MAX),
        now,
        &mut wire,
    );
    let more = Message::from_vec(&wire).ok()?;
    let mut whole = Message::from_vec(reply).ok()?;
    whole.metadata.response_code = more.metadata.response_code;
    whole.metadata.authoritative = false;
    whole.metadata.recursion_available = true;
    whole.answers.extend(more.answers);
    whole.authorities.extend(more.authorities);
    let wire = whole.to_vec().ok()?;
    if wire.len() <= limit {
        return Some(wire);
    }
    whole.answers.clear();
    whole.authorities.clear();
    whole.metadata.truncation = true;
    whole.to_vec().ok()
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use hickory_proto::op::{Edns, Query as ForeignQuery};
    use hickory_proto::rr::rdata::{A, SOA};
    use hickory_proto::rr::{Name, RData};

    use super::*;

    fn name(text: &str) -> Name {
        Name::from_ascii(text).unwrap()
    }

    fn message(rcode: ResponseCode) -> Message {
        let mut message = Message::new(7, MessageType::Response, hickory_proto::op::OpCode::Query);
        message.metadata.response_code = rcode;
        message.add_query(ForeignQuery::query(name("eXample.oRg."), RecordType::A));
        message
    }

    fn with_address(ttl: u32) -> Message {
        let mut message = message(ResponseCode::NoError);
        let data = RData::A(A(Ipv4Addr::new(192, 0, 2, 1)));
        message.add_answer(Record::from_rdata(name("eXample.oRg."), ttl, data));
        message
    }

    fn nothing(ttl: u32, minimum: u32) -> Message {
        let mut message = message(ResponseCode::NXDomain);
        let soa = SOA::new(name("ns.org."), name("h.org."), 1, 2, 3, 4, minimum);
        message.add_authority(Record::from_rdata(name("org."), ttl, RData::SOA(soa)));
        message
    }

    fn reply(answer: &Answer, now: Instant, limit: usize) -> Message {
        let mut question = Message::query();
        question.add_query(ForeignQuery::query(name("EXAMPLE.org."), RecordType::A));
        question.edns = Some(Edns::new());
        let packet = question.to_vec().unwrap();
        let mut out = Vec::new();
        answer.write(&Query::parse(&packet).unwrap(), limit, now, &mut out);
        let reply = Message::from_vec(&out).unwrap();
        assert_eq!(reply.queries[0].name().to_ascii(), "EXAMPLE.org.");
        reply
    }

    #[test]
    fn time_passes_for_an_answer() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let answer = Answer::new(with_address(100), false, start).unwrap();
        assert!(answer.is_fresh(at(99)) && !answer.is_fresh(at(100)));
        assert!(
            !answer.is_due(at(89)) && answer.is_due(at(90)),
            "asked for again before"
        );
        for (seconds, ttl) in [
            (0, 100),
            (40, 60),
            (99, 1),
            (100, STALE_TTL),
            (5000, STALE_TTL),
        ] {
            let reply = reply(&answer, at(seconds), 1232);
            assert_eq!(reply.answers[0].ttl, ttl, "after {seconds} s");
            assert_eq!(reply.answers[0].name.to_ascii(), "EXAMPLE.org.");
        }
        let cut = reply(&answer, start, 40);
        assert!(cut.metadata.truncation && cut.answers.is_empty() && cut.edns.is_some());
    }

    #[test]
    fn nothing_is_kept_as_long_as_its_zone_says() {
        let start = Instant::now();
        let fresh_for = |message| {
            let answer = Answer::new(message, false, start).unwrap();
            answer.ttl.as_secs()
        };
        assert_eq!(fresh_for(nothing(3600, 60)), 60);
        assert_eq!(fresh_for(nothing(20, 60)), 20);
        assert_eq!(fresh_for(nothing(86400, 86400)), u64::from(NEGATIVE_MAX));
        assert_eq!(
            fresh_for(message(ResponseCode::NoError)),
            u64::from(NEGATIVE_UNSAID)
        );
        assert_eq!(
            fresh_for(message(ResponseCode::ServFail)),
            u64::from(FAILURE)
        );
        assert_eq!(fresh_for(with_address(86400)), u64::from(TTL_MAX));
        let answer = Answer::new(nothing(60, 60), false, start).unwrap();
        assert_eq!(reply(&answer, start, 1232).authorities.len(), 1);
        assert!(!answer.exists() && !answer.is_failure());
    }

    proptest::proptest! {
        /// Whatever a server sends that can be read can be kept and passed on.
        #[test]
        fn answers_of_any_sort(
            damage in proptest::collection::vec(
                (proptest::prelude::any::<proptest::sample::Index>(), proptest::prelude::any::<u8>()),
                0..6,
            ),
            negative: bool,
        ) {
            let whole = if negative { nothing(60, 60) } else { with_address(60) };
            let mut wire = whole.to_vec().unwrap();
            for (at, byte) in damage {
                let at = at.index(wire.len());
                wire[at] = byte;
            }
            let now = Instant::now();
            let kept = Message::from_vec(&wire).ok().and_then(|m| Answer::new(m, false, now));
            if let Some(answer) = kept {
                for limit in [40, 512, 1232] {
                    let reply = reply(&answer, now, limit);
                    proptest::prop_assert!(reply.queries.len() == 1);
                }
            }
        }
    }
}
