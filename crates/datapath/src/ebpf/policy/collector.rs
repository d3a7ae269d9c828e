//! Removes connections that are over, and denials of long ago.
//!
//! Programs end a connection's row when they see its last packet; what never has
//! one is found here: by a thread of the engine, so that no change of a table
//! waits for it. Without an agent nobody does this, and the table may fill up:
//! then connections begin only where they need no row.
//!
//! A pod may fill a quarter of the table with connections that it begins, and
//! others, who are not asked themselves, another one with those to it: whoever
//! begins too many leaves room for the rest. Programs count them; here they are
//! counted anew. Where half of that is used, those go first that nobody has answered:
//! a pod that is flooded can soon be asked again.
//!
//! Of connections that have places (`ripstop_abi::Place`) nobody has to be told:
//! places that are not free are passed over.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use ripstop_abi::{Connection, ConnectionKey, DenialKey, DenialRow, ShareKey};

use super::maps::PolicyMaps;
use crate::Error;
use crate::ebpf::readback::now;
use crate::ebpf::table::Table;
use crate::regular::Regular;

/// Between two looks; sooner if somebody's share is half full, which is asked
/// for oftener.
const PAUSE: Duration = Duration::from_secs(10);
const SHORT_PAUSE: Duration = Duration::from_secs(1);
/// For how many seconds after its last packet a denial keeps its row when the
/// table is half full.
const DENIALS_STAY: u32 = 600;
/// What part of the table each pod may have, either way.
const SHARE: u64 = 4;
/// Seconds after which an answer is no longer waited for where there are too many.
const UNANSWERED: u32 = 2;

/// # Errors
/// If there is no thread to be had, or what the kernel said.
pub(crate) fn collect(maps: &PolicyMaps) -> Result<Regular, Error> {
    let failed = |source| Error::Kernel {
        operation: "start collecting connections".into(),
        source,
    };
    let connections = maps.connections.again().map_err(failed)?;
    let denials = maps.denials.again().map_err(failed)?;
    let shares = maps.shares.again().map_err(failed)?;
    let mut looked = Instant::now();
    Regular::start("connections", SHORT_PAUSE, move || {
        let soon = is_half_used(&shares, &connections);
        if looked.elapsed() >= PAUSE || soon.as_ref().is_ok_and(|soon| *soon) {
            let result = soon.and_then(|_| look(&connections, &denials, &shares, now()));
            if let Err(error) = result {
                tracing::warn!(%error, "connections that are over stay");
            }
            looked = Instant::now();
        }
        SHORT_PAUSE
    })
    .map_err(failed)
}

/// How many rows of connections each may have.
pub(crate) fn share(connections: &Table<ConnectionKey, Connection>) -> u32 {
    u32::try_from(connections.limit() / SHARE).unwrap_or(u32::MAX)
}

/// Whether somebody has half of what he may have.
fn is_half_used(
    shares: &Table<ShareKey, u32>,
    connections: &Table<ConnectionKey, Connection>,
) -> Result<bool, Error> {
    let half = share(connections) / 2;
    let mut rows = shares.rows()?.into_iter();
    Ok(rows.any(|(_, used)| used > half))
}

/// # Errors
/// What the kernel said.
fn look(
    connections: &Table<ConnectionKey, Connection>,
    denials: &Table<DenialKey, DenialRow>,
    shares: &Table<ShareKey, u32>,
    now: u32,
) -> Result<(), Error> {
    let rows = connections.rows()?;
    let is_many = rows.len() as u64 > connections.limit() / 2;
    // Room for others comes before what is only to be seen.
    let is_over = |key: &ConnectionKey, row: &Connection| {
        row.is_over(key.protocol, now) || (is_many && row.has_ended())
    };
    let (over, others): (Vec<_>, Vec<_>) =
        rows.into_iter().partition(|(key, row)| is_over(key, row));
    let mut over: Vec<ConnectionKey> = over.into_iter().map(|(key, _)| key).collect();
    let (missed, used) = judge(&others, share(connections), now);
    over.extend(missed);
    connections.remove_all(&over)?;
    let counted = shares.rows()?.into_iter().map(|(key, _)| key);
    let gone = counted.filter(|key| !used.contains_key(key));
    shares.remove_all(&gone.collect::<Vec<_>>())?;
    let used: Vec<_> = used.into_iter().collect();
    // One more than there is room for is not limited.
    let _ = shares.put_all(&used, |row| format!("row {row}"));
    let rows = denials.rows()?;
    if rows.len() as u64 > denials.limit() / 2 {
        let old = rows
            .iter()
            .filter(|(_, row)| now.wrapping_sub(row.last) > DENIALS_STAY);
        let old: Vec<DenialKey> = old.map(|(key, _)| *key).collect();
        denials.remove_all(&old)?;
    }
    Ok(())
}

/// Connections that can be missed of whom more than half of `share` is used, the
/// longest silent first, down to that half; and what everybody has then.
fn judge(
    rows: &[(ConnectionKey, Connection)],
    share: u32,
    now: u32,
) -> (Vec<ConnectionKey>, BTreeMap<ShareKey, u32>) {
    let mut used: BTreeMap<ShareKey, u32> = BTreeMap::new();
    let mut unanswered: BTreeMap<ShareKey, Vec<(u32, ConnectionKey)>> = BTreeMap::new();
    for (key, row) in rows {
        let of = ShareKey::new(key, row);
        *used.entry(of).or_default() += 1;
        let idle = row.idle(now);
        if !row.is_answered() && idle >= UNANSWERED {
            unanswered.entry(of).or_default().push((idle, *key));
        }
    }
    let mut missed = Vec::new();
    for (of, used) in &mut used {
        let many = used.saturating_sub(share / 2);
        let mut these = unanswered.remove(of).unwrap_or_default();
        these.sort_by_key(|(idle, _)| std::cmp::Reverse(*idle));
        let before = missed.len();
        missed.extend(these.into_iter().take(many as usize).map(|(_, key)| key));
        *used -= (missed.len() - before) as u32;
    }
    (missed, used)
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use ripstop_abi::{IPPROTO_UDP, Port};

    use super::*;

    const NOW: u32 = 1000;

    fn rows(
        pod: u8,
        ports: std::ops::Range<u16>,
        idle: u32,
        answered: bool,
    ) -> Vec<(ConnectionKey, Connection)> {
        let key = |port| ConnectionKey {
            pod: IpAddr::from([10, 244, 0, pod]).into(),
            other: IpAddr::from([10, 244, 1, 1]).into(),
            pod_port: Port::from_host(port),
            other_port: Port::from_host(80),
            protocol: IPPROTO_UDP.into(),
        };
        let row = match answered {
            true => Connection::established(true, NOW - idle),
            false => Connection::new(true, NOW - idle),
        };
        ports.map(|port| (key(port), row)).collect()
    }

    #[test]
    fn who_is_flooded_keeps_what_was_answered() {
        let flooded = [
            rows(1, 0..3, 100, true),
            rows(1, 10..14, 5, false),
            rows(1, 20..23, 9, false),
            rows(1, 30..32, 1, false),
        ];
        let other = rows(2, 0..4, 100, false);
        let all = [flooded.concat(), other].concat();
        let (missed, used) = judge(&all, 10, NOW);
        let gone: Vec<u16> = missed.iter().map(|key| key.pod_port.host()).collect();
        assert_eq!(gone, [20, 21, 22, 10, 11, 12, 13], "the oldest first");
        assert_eq!(used.into_values().collect::<Vec<_>>(), [5, 4]);
    }

    #[test]
    fn between_two_pods_who_began_it_is_counted() {
        for (inward, began) in [(false, [10, 244, 0, 1]), (true, [10, 244, 1, 1])] {
            let (key, _) = rows(1, 0..1, 0, true)[0];
            let row = Connection::established(inward, NOW).of_both();
            let (_, used) = judge(&[(key, row)], 10, NOW);
            let began = ShareKey {
                pod: IpAddr::from(began).into(),
                inward: 0,
            };
            assert_eq!(used, [(began, 1)].into());
        }
    }
}
