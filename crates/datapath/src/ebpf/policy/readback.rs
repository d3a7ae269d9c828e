//! The kernel's rows of policies, and its connections, as the plan names them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ripstop_abi::{Address, Connection as Row, ConnectionKey, Outcome, Port, is_first};
use ripstop_plan::policy::{ClassId, PolicyId, PolicyTables, PortsId, kernel};

use super::maps::PolicyMaps;
use crate::Error;
use crate::ebpf::maps::Maps;
use crate::ebpf::policy::BASES;
use crate::state::Connection;

/// All rows; those that are damaged are left out.
///
/// # Errors
/// What the kernel said.
pub(crate) fn policies(maps: &PolicyMaps) -> Result<PolicyTables, Error> {
    let mut found = policies_but_classes(maps)?;
    for (key, class) in maps.classes.read_rows()? {
        if BASES.contains(&(key, class)) {
            continue;
        }
        if let Some(net) = kernel::class_net(key) {
            found.classes.insert(net, ClassId::from_number(class));
        }
    }
    Ok(found)
}

/// The same without classes, of which there may be very many.
///
/// # Errors
/// What the kernel said.
pub(crate) fn policies_but_classes(maps: &PolicyMaps) -> Result<PolicyTables, Error> {
    let mut found = PolicyTables::default();
    for (address, row) in maps.pods.read_rows()? {
        found.pods.insert(address.into(), kernel::read_pod(row));
    }
    let nodes: BTreeMap<_, _> = maps.ports.read_rows()?.into_iter().collect();
    let mut ids: BTreeMap<u32, PortsId> = BTreeMap::new();
    for (key, row) in maps.pairs.read_rows()? {
        for root in row.cells.into_iter().filter_map(Outcome::node) {
            if ids.contains_key(&root) {
                continue;
            }
            if let Some((table, _)) = kernel::port_table(root, |at| nodes.get(&at).copied()) {
                ids.insert(root, table.id());
                found.ports.insert(table.id(), Arc::new(table));
            }
        }
        let pair = (
            PolicyId::from_number(key.policy),
            ClassId::from_number(key.class),
        );
        if let Some(row) = kernel::read_pair(&row, |root| ids.get(&root).copied()) {
            found.rules.insert(pair, Arc::new(row));
        }
    }
    Ok(found)
}

/// Those that go on, each once, or those that have ended as well. Sorted.
///
/// # Errors
/// What the kernel said.
pub(crate) fn connections(
    maps: &PolicyMaps,
    now: u32,
    ended: bool,
) -> Result<Vec<Connection>, Error> {
    let mut found = BTreeSet::new();
    for (key, row) in maps.all_connections()? {
        if row.is_over(key.protocol, now) || (row.has_ended() && !ended) {
            continue;
        }
        let pod = socket(key.pod, key.pod_port);
        let other = socket(key.other, key.other_port);
        let (client, server) = if row.is_inward() {
            (other, pod)
        } else {
            (pod, other)
        };
        found.insert(Connection {
            protocol: key.protocol as u8,
            client,
            server,
        });
    }
    Ok(found.into_iter().collect())
}

fn socket(address: Address, port: Port) -> SocketAddr {
    SocketAddr::new(address.into(), port.host())
}

/// Goes on with connections that another engine knew, of pods that policies are
/// about.
///
/// # Errors
/// [`Error::TableFull`] and the like; the others are in place.
pub(crate) fn take_connections(
    maps: &Maps,
    connections: &[Connection],
    now: u32,
) -> Result<(), Error> {
    let is_tracked = |address: IpAddr| {
        let endpoint = maps.endpoints.rows().get(&Address::from(address));
        endpoint.is_some_and(ripstop_abi::Endpoint::is_tracked)
    };
    let mut rows = Vec::new();
    for connection in connections {
        let (client, server) = (connection.client, connection.server);
        let of_both = is_tracked(client.ip()) && is_tracked(server.ip());
        for (pod, other, inward) in [(client, server, false), (server, client, true)] {
            let row = Row::established(inward, now);
            let key = ConnectionKey {
                pod: pod.ip().into(),
                other: other.ip().into(),
                pod_port: Port::from_host(pod.port()),
                other_port: Port::from_host(other.port()),
                protocol: connection.protocol.into(),
            };
            let ends = ((&key.pod, key.pod_port), (&key.other, key.other_port));
            if of_both && is_first(ends.0, ends.1) {
                rows.push((key, row.of_both()));
            } else if !of_both && is_tracked(pod.ip()) {
                rows.push((key, row));
            }
        }
    }
    let describe = |row: usize| format!("connection {:?}", rows[row].0);
    maps.policy.connections.put_all(&rows, describe).1
}
