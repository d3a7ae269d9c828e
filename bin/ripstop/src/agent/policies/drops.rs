//! What policies stopped.

use std::net::IpAddr;

use anyhow::{Context, Result};
use ripstop_datapath::Denial;
use serde::{Deserialize, Serialize};

use super::{attribution, name_of};
use crate::agent::effects::{Effects, lock};
use crate::agent::feed::Feed;

/// All packets that were stopped and are counted.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DropsView {
    pub(crate) drops: Vec<DropView>,
    /// Stopped as well, when there was no room to say whose they were.
    pub(crate) others: u64,
}

/// Packets of one kind.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DropView {
    /// NAMESPACE/NAME, or the address if it is no pod's any more.
    pub(crate) pod: String,
    pub(crate) address: IpAddr,
    pub(crate) direction: String,
    /// The other end: a pod, a node, or an address.
    pub(crate) other: String,
    pub(crate) other_address: IpAddr,
    pub(crate) protocol: String,
    /// The destination's; absent for protocols without ports.
    pub(crate) port: Option<u16>,
    /// The policy that denied them.
    pub(crate) by: String,
    pub(crate) packets: u64,
}

pub(super) fn drops(feed: &Feed, effects: &Effects) -> Result<DropsView> {
    let denials = lock(&effects.datapath)
        .denials()
        .context("reading what the kernel stopped")?;
    let drops = denials.rows.iter().map(|denial| view(feed, denial));
    let mut drops: Vec<_> = drops.collect();
    drops.sort();
    Ok(DropsView {
        drops,
        others: denials.lost,
    })
}

fn view(feed: &Feed, denial: &Denial) -> DropView {
    let planner = feed.policies();
    let name = |address| name_of(planner, address).unwrap_or_else(|| address.to_string());
    DropView {
        pod: name(denial.pod),
        address: denial.pod,
        direction: denial.direction.to_string(),
        other: name(denial.other),
        other_address: denial.other,
        protocol: protocol(denial.protocol),
        port: (denial.port != 0).then_some(denial.port),
        by: by(feed, denial),
        packets: denial.packets,
    }
}

/// Who denied it: as the engine says, or else as the plan does.
pub(super) fn by(feed: &Feed, denial: &Denial) -> String {
    if let Some(id) = denial.by {
        return attribution(feed, id);
    }
    let Denial {
        pod,
        direction,
        other,
        protocol,
        port,
        ..
    } = *denial;
    let outcome = feed
        .tables()
        .policy
        .judge(pod, direction, other, protocol, port);
    match outcome {
        Some(outcome) if !outcome.allowed => attribution(feed, outcome.by),
        Some(_) => "a rule that is no more".to_owned(),
        None => "the pod was not known".to_owned(),
    }
}

pub(super) fn protocol(number: u8) -> String {
    match number {
        1 => "ICMP".to_owned(),
        6 => "TCP".to_owned(),
        17 => "UDP".to_owned(),
        58 => "ICMPv6".to_owned(),
        132 => "SCTP".to_owned(),
        other => format!("protocol {other}"),
    }
}
