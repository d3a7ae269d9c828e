//! Removes translated flows that are over, and shares their table out.
//!
//! Programs begin flows, and count for each pod how many it began: a pod that has
//! all that it may have begins no more, and nobody else notices. Here flows that
//! have ended are taken away, and counted anew. While no agent does this a pod
//! begins as many as it may have, and others what is left.
//!
//! The table is read some rows at a time, and of flows that were in use a moment ago
//! one of their two rows.

mod candidates;
mod judge;

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::time::{Duration, Instant};

use ripstop_abi::{Address, Endpoint, FLOW_REPLY, FLOWS_EACH, Flow, FlowKey};

use super::maps::Maps;
use super::readback::now;
use super::table::Table;
use crate::Error;
use crate::regular::Regular;
use candidates::Candidates;
use judge::{Fate, SILENT, judge, other, since};

/// Between two looks at how many flows there are, and at the flows themselves if
/// those are few.
const GLANCE: Duration = Duration::from_millis(250);
const PAUSE: Duration = Duration::from_secs(10);
/// Between two looks at flows that are many, and of which none is over.
const SHORT_PAUSE: Duration = Duration::from_secs(1);
/// A look takes no more than one part of so many of the time until the next one that
/// nothing makes urgent, for which nobody waits longer than this.
const COST: u32 = 100;
const LONG_PAUSE: Duration = Duration::from_secs(30);
/// What part of the table each pod may have.
const SHARE: u64 = 2;
/// Rows of a flow.
const ROWS: u64 = 2;
/// Rows that are read at a time.
const BATCH: usize = 4096;
/// Looks between two for rows without the other one.
const RARELY: u32 = 6;
/// Rows that are remembered as such until the next look; one of those besides finds
/// more.
const MOST_ALONE: usize = 65_536;

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
    /// Until the next look if there are no more than there were.
    pause: Duration,
    looks: u32,
}

/// # Errors
/// If there is no thread to be had, or what the kernel said.
pub(crate) fn share_out(maps: &Maps) -> Result<Regular, Error> {
    let failed = |source| Error::Kernel {
        operation: "start sharing out flows".into(),
        source,
    };
    let mut shared = Shared::of(maps).map_err(failed)?;
    // Programs limit by it from the first packet on.
    shared.put(FLOWS_EACH, shared.each)?;
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

/// Flows that a pod may have.
fn each(maps: &Maps) -> u32 {
    u32::try_from(maps.flows.limit() / ROWS / SHARE).unwrap_or(u32::MAX)
}

/// Rows of the table of flows, as programs and the last look counted them.
pub(crate) fn rows(maps: &Maps) -> u64 {
    let shares = maps.flow_shares.rows().unwrap_or_else(|error| {
        tracing::warn!(%error, "translated flows cannot be counted");
        Vec::new()
    });
    ROWS * sum(&shares)
}

/// By link, and 0 for all who have none.
fn flows_of(shares: &[(u32, u32)]) -> impl Iterator<Item = (u32, u32)> {
    shares
        .iter()
        .copied()
        .filter(|(link, _)| *link != FLOWS_EACH)
}

fn sum(shares: &[(u32, u32)]) -> u64 {
    flows_of(shares).map(|(_, used)| u64::from(used)).sum()
}

impl Shared {
    fn of(maps: &Maps) -> io::Result<Self> {
        Ok(Self {
            flows: maps.flows.again()?,
            shares: maps.flow_shares.again()?,
            endpoints: maps.endpoints.again()?,
            each: each(maps),
            counted: BTreeMap::new(),
            alone: HashMap::new(),
            looked: None,
            pause: PAUSE,
            looks: 0,
        })
    }

    fn glance(&mut self) -> Result<(), Error> {
        let Some(looked) = self.looked else {
            return self.look();
        };
        let passed = looked.elapsed();
        let due = passed >= self.pause || {
            let again = passed >= SHORT_PAUSE;
            let shares = self.shares.rows()?;
            let mut links = flows_of(&shares);
            again && self.is_crowded(sum(&shares))
                || links.any(|(link, used)| self.is_much(link, used, again))
        };
        if due { self.look() } else { Ok(()) }
    }

    /// More than half of a share, and many more than at the last look; or hardly
    /// any left.
    fn is_much(&self, link: u32, used: u32, again: bool) -> bool {
        let share = self.each;
        let before = self.counted.get(&link).copied().unwrap_or(0);
        let grew = used > share / 2 && used > before.saturating_add(share / 8);
        grew || again && used > share - share / 8
    }

    fn is_crowded(&self, flows: u64) -> bool {
        flows * ROWS > self.flows.limit() / 4 * 3
    }

    /// Looks at all flows: removes what is over, and of who has more than half of
    /// what he may have, what can be missed, the longest silent first.
    fn look(&mut self) -> Result<(), Error> {
        let began = Instant::now();
        let endpoints = self.endpoints.rows()?.into_iter();
        let links: HashMap<Address, u32> = endpoints
            .map(|(address, endpoint)| (address, endpoint.ifindex))
            .collect();
        let link = |key: &FlowKey| links.get(&key.source).copied().unwrap_or(0);
        self.looks = self.looks.wrapping_add(1);
        self.remove_alone()?;
        let mut used = self.sweep(link, self.looks % RARELY == 1)?;
        let all = used.values().map(|used| u64::from(*used)).sum();
        let crowded = self.is_crowded(all);
        let stays = self.each / if crowded { 8 } else { 2 };
        let heavy = used.iter().filter(|(_, used)| **used > stays);
        let heavy: BTreeMap<u32, Candidates> = heavy
            .map(|(link, used)| (*link, Candidates::new((used - stays) as usize)))
            .collect();
        if !heavy.is_empty() {
            for (link, removed) in self.thin(heavy, link)? {
                used.entry(link).and_modify(|used| *used -= removed);
            }
        }
        let shares = self.shares.rows()?;
        let gone = flows_of(&shares).map(|(link, _)| link);
        let gone: Vec<_> = gone.filter(|link| !used.contains_key(link)).collect();
        self.shares.remove_all(&gone)?;
        for (link, used) in &used {
            self.put(*link, *used)?;
        }
        // Whoever has little goes on where a few have taken nearly everything.
        let each = if crowded { self.each / 8 } else { self.each };
        self.put(FLOWS_EACH, each)?;
        self.counted = used;
        self.pause = (began.elapsed() * COST).clamp(PAUSE, LONG_PAUSE);
        self.looked = Some(Instant::now());
        Ok(())
    }

    /// Removes what is over; gives how many flows each link has besides. `orphans`:
    /// also rows without the other one.
    fn sweep(
        &mut self,
        link: impl Fn(&FlowKey) -> u32,
        orphans: bool,
    ) -> Result<BTreeMap<u32, u32>, Error> {
        let now = now();
        let mut used = BTreeMap::new();
        let (mut over, alone) = (Vec::new(), &mut self.alone);
        self.flows.each_batch(BATCH, |rows| {
            for (key, flow) in rows {
                if flow.flags & FLOW_REPLY != 0 {
                    let silent = orphans && since(flow.last, now) > SILENT;
                    if silent && self.flows.get(&other(key, flow))?.is_none() {
                        note(alone, *key, flow.last);
                    }
                    continue;
                }
                let back = other(key, flow);
                match judge(key, flow, now, false, || self.flows.get(&back))? {
                    Fate::Over { answered } => {
                        over.push(*key);
                        note(alone, back, answered);
                    }
                    Fate::Alive { .. } => *used.entry(link(key)).or_insert(0) += 1,
                }
            }
            self.flows.remove_all(&over)?;
            over.clear();
            Ok(())
        })?;
        Ok(used)
    }

    /// Removes what can be missed of those links; gives how many flows that were.
    fn thin(
        &mut self,
        mut heavy: BTreeMap<u32, Candidates>,
        link: impl Fn(&FlowKey) -> u32,
    ) -> Result<BTreeMap<u32, u32>, Error> {
        let now = now();
        self.flows.each_batch(BATCH, |rows| {
            let requests = rows.iter().filter(|(_, flow)| flow.flags & FLOW_REPLY == 0);
            for (key, flow) in requests {
                let Some(candidates) = heavy.get_mut(&link(key)) else {
                    continue;
                };
                let back = other(key, flow);
                let fate = judge(key, flow, now, true, || self.flows.get(&back))?;
                if let Fate::Alive {
                    idle,
                    answered,
                    dispensable: true,
                } = fate
                {
                    candidates.offer(idle, [*key, back], answered);
                }
            }
            Ok(())
        })?;
        let mut removed = BTreeMap::new();
        for (link, candidates) in heavy {
            let flows = candidates.into_flows();
            removed.insert(link, flows.len() as u32);
            let requests: Vec<_> = flows.iter().map(|([requests, _], _)| *requests).collect();
            for ([_, answers], answered) in flows {
                note(&mut self.alone, answers, answered);
            }
            self.flows.remove_all(&requests)?;
        }
        Ok(removed)
    }

    /// Removes answers' rows that the last look left alone, if they still are and
    /// nothing came. Of a flow only the requests' row is removed at once: a request may
    /// come before that is done, and then its answer still finds the way; and rows that
    /// were written while the table was read are seen without each other.
    fn remove_alone(&mut self) -> Result<(), Error> {
        let mut over = Vec::new();
        for (key, last) in std::mem::take(&mut self.alone) {
            let Some(row) = self.flows.get(&key)? else {
                continue;
            };
            if self.flows.get(&other(&key, &row))?.is_some() {
                continue;
            }
            if row.last == last {
                over.push(key);
            } else {
                note(&mut self.alone, key, row.last);
            }
        }
        self.flows.remove_all(&over)
    }

    fn put(&self, link: u32, value: u32) -> Result<(), Error> {
        let describe = || format!("flows of link {link}");
        self.shares.put(&link, &value, describe)
    }
}

fn note(alone: &mut HashMap<FlowKey, u32>, answers: FlowKey, last: u32) {
    if alone.len() < MOST_ALONE {
        alone.insert(answers, last);
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use ripstop_abi::{IPPROTO_UDP, Port};

    use super::*;
    use crate::ebpf::config::Limits;

    const PODS_PORT: u16 = 4000;

    /// Rows of a flow that a pod began, of which nothing came for so many seconds.
    fn flow(pods_port: u16, silent: u32) -> [(FlowKey, Flow); 2] {
        let at = |last| Address::from(IpAddr::from([10, 244, 0, last]));
        let [pod, node, server] = [7, 1, 9].map(at);
        let last = now().saturating_sub(silent);
        let key = |source, source_port, destination, destination_port| FlowKey {
            source,
            destination,
            source_port: Port::from_host(source_port),
            destination_port: Port::from_host(destination_port),
            protocol: IPPROTO_UDP.into(),
        };
        let row = |key: FlowKey, flags| Flow {
            source: key.source,
            destination: key.destination,
            source_port: key.source_port,
            destination_port: key.destination_port,
            flags,
            last,
            ..Flow::default()
        };
        let requests = key(pod, pods_port, server, 53);
        let answers = key(server, 53, node, pods_port + 1);
        let sent = key(node, pods_port + 1, server, 53);
        let returned = key(server, 53, pod, pods_port);
        [
            (requests, row(sent, 0)),
            (answers, row(returned, FLOW_REPLY)),
        ]
    }

    /// The table is read while packets write to it: a request that came in between has
    /// its answer after it.
    #[test]
    fn an_answer_under_way_finds_its_row() {
        let maps = Maps::create(&Limits::default()).unwrap();
        let mut shared = Shared::of(&maps).unwrap();
        let put = |rows: &[(FlowKey, Flow)]| {
            for (key, row) in rows {
                maps.flows.put(key, row, || "a flow".into()).unwrap();
            }
        };
        let has = |key: &FlowKey| maps.flows.get(key).unwrap().is_some();
        let [over, in_use] = [flow(PODS_PORT, 500), flow(PODS_PORT + 10, 0)];
        put(&[over, in_use].concat());
        let [(requests, _), (answers, answer)] = over;
        shared.look().unwrap();
        assert_eq!([&requests, &answers].map(has), [false, true]);
        put(&[(
            answers,
            Flow {
                last: now(),
                ..answer
            },
        )]);
        shared.look().unwrap();
        assert!(has(&answers), "an answer came");
        shared.look().unwrap();
        assert!(!has(&answers), "nothing came since");
        assert_eq!(in_use.map(|(key, _)| has(&key)), [true; 2]);
    }
}
