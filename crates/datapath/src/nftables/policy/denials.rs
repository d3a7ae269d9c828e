//! What the rules stopped, and which connections there are.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use ripstop_netlink::conntrack::Conntrack;
use ripstop_netlink::nftables::{Family, Nftables};

use super::super::sets::FAMILIES;
use super::super::{TABLE, keys, refused};
use super::said::WITH_PORTS;
use super::{DIRECTIONS, chains, judge};
use crate::engine::Error;
use crate::state::{Connection, Denial, Denials};

pub(in super::super) fn denials(nftables: &mut Nftables) -> Result<Denials, Error> {
    // Without ports, several elements are one row.
    let mut rows: BTreeMap<Denial, u64> = BTreeMap::new();
    for family in FAMILIES {
        for direction in DIRECTIONS {
            let set = judge::denials(direction).name(family);
            for element in nftables.elements(TABLE, set).map_err(refused)? {
                let Some(row) = read(family, &element.key) else {
                    continue;
                };
                let row = Denial { direction, ..row };
                *rows.entry(row).or_default() += element.packets;
            }
        }
    }
    let counting: Vec<String> = chains::counting().collect();
    let rules = nftables.rules(TABLE).map_err(refused)?;
    let lost = rules
        .iter()
        .filter(|rule| counting.contains(&rule.chain))
        .filter_map(|rule| rule.packets)
        .sum();
    let rows = rows
        .into_iter()
        .map(|(row, packets)| Denial { packets, ..row })
        .collect();
    Ok(Denials { rows, lost })
}

fn read(family: Family, key: &[u8]) -> Option<Denial> {
    let (pod, rest) = key.split_at_checked(keys::length(family))?;
    let (other, rest) = rest.split_at_checked(keys::length(family))?;
    let &[protocol, _, _, _, high, low, _, _] = rest else {
        return None;
    };
    let has_port = WITH_PORTS.contains(&protocol);
    Some(Denial {
        pod: keys::read_address(pod)?,
        direction: DIRECTIONS[0],
        other: keys::read_address(other)?,
        protocol,
        port: if has_port {
            u16::from_be_bytes([high, low])
        } else {
            0
        },
        by: None,
        packets: 0,
    })
}

/// Connections that one of these pods opened or answers; `ended`: also those that
/// connection tracking only remembers, for 10 s at least (nf_conntrack-sysctl).
pub(in super::super) fn connections<P>(
    conntrack: &mut Conntrack,
    pods: &BTreeMap<IpAddr, P>,
    ended: bool,
) -> Result<Vec<Connection>, Error> {
    let is_ours = |connection: &ripstop_netlink::conntrack::Connection| {
        let ends = [connection.original.source, connection.reply.source];
        (ended || !connection.is_over) && ends.iter().any(|end| pods.contains_key(&end.ip()))
    };
    let found = conntrack.list_all(is_ours).map_err(refused)?;
    let connections = found.into_iter().map(|connection| {
        let protocol = connection.original.protocol;
        let end = |end: SocketAddr| match WITH_PORTS.contains(&protocol) {
            true => end,
            false => SocketAddr::new(end.ip(), 0),
        };
        Connection {
            protocol,
            client: end(connection.original.source),
            server: end(connection.reply.source),
        }
    });
    Ok(connections.collect())
}
