//! What policies stopped, as programs counted it.

use ripstop_abi::BY_DAMAGE;
use ripstop_plan::policy::{AttributionId, Direction};

use super::maps::PolicyMaps;
use crate::Error;
use crate::state::{Denial, Denials};

/// Sorted.
///
/// # Errors
/// What the kernel said.
pub(crate) fn denials(maps: &PolicyMaps) -> Result<Denials, Error> {
    let rows = maps.denials.rows()?.into_iter().map(|(key, row)| Denial {
        pod: key.pod.into(),
        direction: match key.ingress {
            0 => Direction::Egress,
            _ => Direction::Ingress,
        },
        other: key.other.into(),
        protocol: key.protocol,
        port: key.port.host(),
        by: (key.by != BY_DAMAGE).then(|| AttributionId::from_number(key.by)),
        packets: row.packets,
    });
    let mut rows: Vec<Denial> = rows.collect();
    rows.sort_unstable();
    let lost = maps.denials_lost().map_err(|source| Error::Kernel {
        operation: "read how many denials found no room".into(),
        source,
    })?;
    Ok(Denials { rows, lost })
}
