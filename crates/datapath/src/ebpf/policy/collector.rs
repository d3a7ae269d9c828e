//! Removes connections that are over, and denials of long ago.
//!
//! Programs end a connection's row when they see its last packet; what never has
//! one is found here: by a thread of the engine, so that no change of a table
//! waits for it. Without an agent nobody does this, and the table may fill up:
//! then connections begin only where they need no row.
//!
//! A pod may fill a quarter of the table with connections that it begins, and
//! others another one with those to it: whoever begins too many leaves room for
//! the rest. Programs count them; here they are counted anew.

use std::collections::BTreeMap;
use std::time::Duration;

use ripstop_abi::{Connection, ConnectionKey, DenialKey, DenialRow, ShareKey};

use super::maps::PolicyMaps;
use crate::Error;
use crate::ebpf::readback::now;
use crate::ebpf::regular::Regular;
use crate::ebpf::table::Table;

/// Between two looks; sooner if somebody's share may be half full.
const PAUSE: Duration = Duration::from_secs(10);
const SHORT_PAUSE: Duration = Duration::from_secs(1);
/// For how many seconds after its last packet a denial keeps its row when the
/// table is half full.
const DENIALS_STAY: u32 = 600;
/// What part of the table each pod may have, either way.
const SHARE: u64 = 4;

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
    limit(&shares, &connections)?;
    Regular::start("connections", PAUSE, move || {
        match look(&connections, &denials, &shares, now()) {
            Ok(true) => SHORT_PAUSE,
            Ok(false) => PAUSE,
            Err(error) => {
                tracing::warn!(%error, "connections that are over stay");
                PAUSE
            }
        }
    })
    .map_err(failed)
}

/// Says how many connections each may have.
fn limit(
    shares: &Table<ShareKey, u32>,
    connections: &Table<ConnectionKey, Connection>,
) -> Result<(), Error> {
    let limit = u32::try_from(connections.limit() / SHARE).unwrap_or(u32::MAX);
    shares.put(&ShareKey::default(), &limit, || "the limit".to_owned())
}

/// True if connections are to be looked at again soon.
///
/// # Errors
/// What the kernel said.
fn look(
    connections: &Table<ConnectionKey, Connection>,
    denials: &Table<DenialKey, DenialRow>,
    shares: &Table<ShareKey, u32>,
    now: u32,
) -> Result<bool, Error> {
    let rows = connections.rows()?;
    let is_many = rows.len() as u64 > connections.limit() / 2;
    // Somebody may have half of what he may.
    let soon = rows.len() as u64 > connections.limit() / (2 * SHARE);
    // Room for others comes before what is only to be seen.
    let is_over = |key: &ConnectionKey, row: &Connection| {
        row.is_over(key.protocol, now) || (is_many && row.has_ended())
    };
    let (over, others): (Vec<_>, Vec<_>) =
        rows.into_iter().partition(|(key, row)| is_over(key, row));
    let over: Vec<ConnectionKey> = over.into_iter().map(|(key, _)| key).collect();
    connections.remove_all(&over)?;
    let mut used: BTreeMap<ShareKey, u32> = BTreeMap::new();
    for (key, row) in &others {
        *used.entry(ShareKey::new(key, row)).or_default() += 1;
    }
    let counted = shares.rows()?.into_iter().map(|(key, _)| key);
    let gone = counted.filter(|key| *key != ShareKey::default() && !used.contains_key(key));
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
    Ok(soon)
}
