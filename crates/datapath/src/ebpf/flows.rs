//! Removes translated flows that are over, and shares their table out.
//!
//! Programs begin flows, and count for each pod how many it began: a pod that has
//! all that it may have begins no more, and nobody else notices. Here flows that
//! have ended are taken away, and counted anew. While no agent does this, nobody
//! is limited, and in a table that is full the least recently used flows go.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use ripstop_abi::{
    Address, Endpoint, FLOW_CLOSING, FLOW_REPLY, FLOWS_EACH, FLOWS_LIMITED_UNTIL, Flow, FlowKey,
    IPPROTO_TCP, IPPROTO_UDP, flow_patience,
};

use super::maps::Maps;
use super::readback::now;
use super::table::Table;
use crate::Error;
use crate::regular::Regular;

/// Between two looks at how many flows there are, and at the flows themselves if
/// those are few.
const GLANCE: Duration = Duration::from_millis(250);
const PAUSE: Duration = Duration::from_secs(10);
/// Between two looks at flows that are many, and of which none is over.
const SHORT_PAUSE: Duration = Duration::from_secs(1);
/// For how many seconds a limit holds without an agent that counts.
const LIMITED: u32 = 5;
/// What part of the table each pod may have: in ports less than there are for
/// flows to one address and port.
const SHARE: u64 = 2;
/// Rows of a flow.
const ROWS: u64 = 2;

/// The tables, by descriptors of this thread's own.
struct Shared {
    flows: Table<FlowKey, Flow>,
    shares: Table<u32, u32>,
    endpoints: Table<Address, Endpoint>,
    /// Flows that a pod may have.
    each: u32,
    /// What each had at the last look.
    counted: BTreeMap<u32, u32>,
    /// Answers' rows that the last look left alone, and when their last packet had
    /// come.
    alone: HashMap<FlowKey, u32>,
    looked: Option<Instant>,
}

/// # Errors
/// If there is no thread to be had, or what the kernel said.
pub(crate) fn share_out(maps: &Maps) -> Result<Regular, Error> {
    let failed = |source| Error::Kernel {
        operation: "start sharing out flows".into(),
        source,
    };
    let mut shared = Shared {
        flows: maps.flows.again().map_err(failed)?,
        shares: maps.flow_shares.again().map_err(failed)?,
        endpoints: maps.endpoints.again().map_err(failed)?,
        each: u32::try_from(maps.flows.limit() / ROWS / SHARE).unwrap_or(u32::MAX),
        counted: BTreeMap::new(),
        alone: HashMap::new(),
        looked: None,
    };
    let mut was_said = false;
    Regular::start("flows", Duration::ZERO, move || {
        let result = shared.glance();
        if let Err(error) = &result
            && !was_said
        {
            tracing::warn!(%error, "translated flows that are over stay");
        }
        was_said = result.is_err();
        GLANCE
    })
    .map_err(failed)
}

impl Shared {
    fn glance(&mut self) -> Result<(), Error> {
        let due = match self.looked {
            None => true,
            Some(looked) if looked.elapsed() >= PAUSE => true,
            Some(looked) => {
                let again = looked.elapsed() >= SHORT_PAUSE;
                let rows = self.shares.rows()?.into_iter();
                let mut links = rows.filter(|(link, _)| !is_rule(*link));
                links.any(|(link, used)| self.is_much(link, used, again))
            }
        };
        if due {
            self.look()?;
        }
        let until = now() + LIMITED;
        self.put(FLOWS_LIMITED_UNTIL, until)
    }

    /// More than half of a share, and many more than at the last look; or hardly
    /// any left.
    fn is_much(&self, link: u32, used: u32, again: bool) -> bool {
        let share = self.each;
        let before = self.counted.get(&link).copied().unwrap_or(0);
        let grew = used > share / 2 && used > before.saturating_add(share / 8);
        grew || again && used > share - share / 8
    }

    fn look(&mut self) -> Result<(), Error> {
        let endpoints = self.endpoints.rows()?.into_iter();
        let links: HashMap<Address, u32> = endpoints
            .map(|(address, endpoint)| (address, endpoint.ifindex))
            .collect();
        let rows = self.flows.rows()?;
        let crowded = rows.len() as u64 > self.flows.limit() / 4 * 3;
        let before = std::mem::take(&mut self.alone);
        let Judged { over, alone, used } = judge(&rows, &links, self.each, crowded, &before, now());
        self.flows.remove_all(&over)?;
        self.alone = alone;
        let rows = self.shares.rows()?.into_iter().map(|(link, _)| link);
        let gone = rows.filter(|link| !is_rule(*link) && !used.contains_key(link));
        self.shares.remove_all(&gone.collect::<Vec<_>>())?;
        for (link, used) in &used {
            self.put(*link, *used)?;
        }
        self.put(FLOWS_EACH, self.each)?;
        self.counted = used;
        self.looked = Some(Instant::now());
        Ok(())
    }

    fn put(&self, link: u32, value: u32) -> Result<(), Error> {
        let describe = || format!("flows of link {link}");
        self.shares.put(&link, &value, describe)
    }
}

fn is_rule(link: u32) -> bool {
    matches!(link, FLOWS_EACH | FLOWS_LIMITED_UNTIL)
}

/// What is to be done with flows.
///
/// Of a flow only the requests' row is removed at once. A request may come before that
/// is done, and then its answer still finds the way; and rows that were written while
/// the table was read are seen without each other. So answers' rows go one look later,
/// if they still are alone and nothing came.
#[derive(Debug, Default, PartialEq, Eq)]
struct Judged {
    /// Rows to be removed.
    over: Vec<FlowKey>,
    /// Answers' rows for the next look, and when their last packet came.
    alone: HashMap<FlowKey, u32>,
    /// By link: flows that stay.
    used: BTreeMap<u32, u32>,
}

impl Judged {
    fn end(&mut self, [requests, answers]: [FlowKey; 2], answered: u32) {
        self.over.push(requests);
        self.alone.insert(answers, answered);
    }
}

/// A flow that is not over.
struct Alive {
    rows: [FlowKey; 2],
    /// When the last answer came.
    answered: u32,
    /// Seconds since its last packet.
    idle: u32,
    /// It can be missed: it has most likely done what it was for.
    dispensable: bool,
}

/// Flows that are over; of whom more than half of a share is left, those besides
/// that can be missed, the longest silent first, down to that half. `crowded`: the
/// table is, and a smaller part is left to each. `before`: [`Judged::alone`] of the
/// last look.
fn judge(
    rows: &[(FlowKey, Flow)],
    links: &HashMap<Address, u32>,
    each: u32,
    crowded: bool,
    before: &HashMap<FlowKey, u32>,
    now: u32,
) -> Judged {
    let mut answers: HashMap<FlowKey, Flow> = rows
        .iter()
        .filter(|(_, flow)| flow.flags & FLOW_REPLY != 0)
        .copied()
        .collect();
    let mut judged = Judged::default();
    let mut alive: BTreeMap<u32, Vec<Alive>> = BTreeMap::new();
    for (key, flow) in rows.iter().filter(|(_, flow)| flow.flags & FLOW_REPLY == 0) {
        let back = FlowKey {
            source: flow.destination,
            destination: flow.source,
            source_port: flow.destination_port,
            destination_port: flow.source_port,
            protocol: key.protocol,
        };
        let answer = answers.remove(&back).unwrap_or_default();
        let idle = since(flow.last, now).min(since(answer.last, now));
        let replied = answer.last != 0;
        let closing = [flow.flags, answer.flags].map(|flags| flags & FLOW_CLOSING != 0);
        if idle > patience(key.protocol, replied, closing) {
            judged.end([*key, back], answer.last);
            continue;
        }
        let open = replied && key.protocol == u32::from(IPPROTO_TCP) && closing == [false; 2];
        let link = links.get(&key.source).copied().unwrap_or(0);
        alive.entry(link).or_default().push(Alive {
            rows: [*key, back],
            answered: answer.last,
            idle,
            dispensable: match open {
                true => idle >= SILENT,
                // A question is answered by then as a rule.
                false => idle >= if replied { 1 } else { 2 },
            },
        });
    }
    // Of flows of which the other row is gone.
    for (key, row) in answers {
        match before.get(&key) {
            Some(last) if *last == row.last => judged.over.push(key),
            None if since(row.last, now) <= SILENT => {}
            _ => drop(judged.alone.insert(key, row.last)),
        }
    }
    for (link, mut flows) in alive {
        let stays = each as usize / if crowded { 8 } else { 2 };
        let mut count = flows.len();
        if count > stays {
            flows.sort_by_key(|flow| std::cmp::Reverse((flow.dispensable, flow.idle)));
            let missed = flows.iter().take_while(|flow| flow.dispensable);
            let missed: Vec<_> = missed.take(count - stays).collect();
            count -= missed.len();
            for flow in missed {
                judged.end(flow.rows, flow.answered);
            }
        }
        judged.used.insert(link, count as u32);
    }
    judged
}

/// Seconds after which an open connection can be missed where there are too many.
const SILENT: u32 = 600;

/// Seconds without a packet after which a flow is over, as connection tracking of
/// the kernel has them (nf_conntrack-sysctl), with fewer states. A connection of
/// which both ends have ended is kept for what comes late.
fn patience(protocol: u32, replied: bool, closing: [bool; 2]) -> u32 {
    const TCP: u32 = IPPROTO_TCP as u32;
    const UDP: u32 = IPPROTO_UDP as u32;
    match (protocol, replied, closing) {
        (TCP, _, [true, true]) => 10,
        (TCP, _, [true, _] | [_, true]) => 120,
        (TCP, false, _) => 60,
        (TCP | UDP, true, _) => flow_patience(protocol, true),
        (UDP, false, _) => 30,
        (protocol, ..) if protocol == u32::from(ripstop_abi::IPPROTO_SCTP) => SILENT,
        _ => 30,
    }
}

/// Clocks of CPUs may differ by a tick.
fn since(last: u32, now: u32) -> u32 {
    now.saturating_sub(last)
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use ripstop_abi::Port;

    use super::*;

    const NOW: u32 = 100_000;
    const POD: u32 = 7;
    const EACH: u32 = 8;

    fn address(last: u8) -> Address {
        IpAddr::from([10, 244, 0, last]).into()
    }

    /// Both rows of a flow of pod 7, by its port and when its packets came.
    fn flow(protocol: u8, port: u16, last: [u32; 2], flags: [u32; 2]) -> [(FlowKey, Flow); 2] {
        let (client, server, node) = (address(7), address(100), address(200));
        let key = FlowKey {
            source: client,
            destination: server,
            source_port: Port::from_host(port),
            destination_port: Port::from_host(443),
            protocol: protocol.into(),
        };
        let becomes = Flow {
            source: node,
            destination: server,
            source_port: Port::from_host(port),
            destination_port: Port::from_host(443),
            last: last[0],
            flags: flags[0],
            ..Flow::default()
        };
        let back = FlowKey {
            source: server,
            destination: node,
            source_port: Port::from_host(443),
            destination_port: Port::from_host(port),
            protocol: protocol.into(),
        };
        let answer = Flow {
            last: last[1],
            flags: flags[1] | FLOW_REPLY,
            ..Flow::default()
        };
        [(key, becomes), (back, answer)]
    }

    fn at_first(rows: &[(FlowKey, Flow)]) -> Judged {
        later(rows, &HashMap::new())
    }

    fn later(rows: &[(FlowKey, Flow)], before: &HashMap<FlowKey, u32>) -> Judged {
        let links = HashMap::from([(address(7), POD)]);
        judge(rows, &links, EACH, false, before, NOW)
    }

    #[test]
    fn flows_end_when_nothing_is_said_any_more() {
        let (open, closing) = ([0, 0], [FLOW_CLOSING; 2]);
        for (protocol, answered, flags, stays) in [
            (IPPROTO_TCP, true, open, 86_400),
            (IPPROTO_TCP, false, open, 60),
            (IPPROTO_TCP, true, [FLOW_CLOSING, 0], 120),
            (IPPROTO_TCP, true, closing, 10),
            (IPPROTO_UDP, true, open, 120),
            (IPPROTO_UDP, false, open, 30),
            (ripstop_abi::IPPROTO_ICMP, true, open, 30),
        ] {
            for (idle, over) in [(stays, false), (stays + 1, true)] {
                let last = NOW - idle;
                let last = [last, if answered { last } else { 0 }];
                let rows = flow(protocol, 1, last, flags);
                let judged = at_first(&rows);
                let [(requests, _), (answers, row)] = rows;
                let expected = match over {
                    true => Judged {
                        over: vec![requests],
                        alone: HashMap::from([(answers, row.last)]),
                        used: BTreeMap::new(),
                    },
                    false => Judged {
                        used: BTreeMap::from([(POD, 1)]),
                        ..Judged::default()
                    },
                };
                assert_eq!(judged, expected, "{protocol} {answered} {flags:?} {idle}");
            }
        }
    }

    #[test]
    fn who_has_many_loses_what_can_be_missed() {
        let open = |port, idle| flow(IPPROTO_TCP, port, [NOW - idle; 2], [0; 2]);
        let asked = |port, idle| flow(IPPROTO_UDP, port, [NOW - idle; 2], [0; 2]);
        let rows = [
            open(1, 500),
            open(2, 0),
            asked(3, 0),
            asked(4, 5),
            asked(5, 4),
            asked(6, 3),
        ];
        let all = rows.concat();
        let judged = at_first(&all);
        let gone = [rows[3], rows[4]].map(|rows| rows[0].0);
        assert_eq!(judged.over, gone, "the longest silent of what was asked");
        assert_eq!(judged.used, BTreeMap::from([(POD, EACH / 2)]));
        // Whoever has more open connections than that keeps them.
        let all = (1..=10).flat_map(|port| open(port, 100));
        let judged = at_first(&all.collect::<Vec<_>>());
        assert_eq!(judged.over, []);
        assert_eq!(judged.used, BTreeMap::from([(POD, 10)]));
    }

    #[test]
    fn rows_without_the_other_one_go_in_time() {
        let [requests, answers] = flow(IPPROTO_TCP, 1, [NOW - 601; 2], [0; 2]);
        let judged = at_first(&[requests]);
        assert_eq!(judged.over, [requests.0], "it was answered by nobody");
        let judged = at_first(&[answers]);
        assert_eq!(judged.over, []);
        assert_eq!(later(&[answers], &judged.alone).over, [answers.0]);
    }

    /// The table is read while packets write to it.
    #[test]
    fn an_answer_under_way_finds_its_row() {
        let [requests, answers] = flow(IPPROTO_UDP, 1, [NOW - 200; 2], [0; 2]);
        let first = at_first(&[requests, answers]);
        assert_eq!(first.over, [requests.0]);
        // A request came before that was done, and its answer after it.
        let (key, row) = answers;
        let answered = (key, Flow { last: NOW, ..row });
        let second = later(&[answered], &first.alone);
        assert_eq!(second.over, []);
        assert_eq!(later(&[answered], &second.alone).over, [key]);
        // A flow that began meanwhile has no answer yet, and only one row that is seen.
        let [requests, answers] = flow(IPPROTO_UDP, 2, [NOW, 0], [0; 2]);
        let first = at_first(&[answers]);
        assert_eq!(first.over, []);
        assert_eq!(later(&[requests, answers], &first.alone).over, []);
    }
}
