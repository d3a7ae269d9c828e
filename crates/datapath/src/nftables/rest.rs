//! What a switch to another engine leaves for a while.
//!
//! Connections of the node's own processes to services are translated where no
//! program of the other engine meets them. Connection tracking goes on with them
//! by itself, as long as there is some chain for NAT and some rule that looks at
//! connections: the hooks come with the first one and go with the last
//! (`nf_nat_register_fn`, net/netfilter/nf_nat_core.c; `nf_ct_netns_get`,
//! nf_conntrack_proto.c). So a chain that changes nothing stays until those
//! connections have ended, and while there is one, the node's own connections keep to
//! the ports of sockets ([`own_ports`]).

use std::collections::BTreeSet;
use std::net::IpAddr;

use ripstop_model::Protocol;
use ripstop_netlink::conntrack::{Connection, Conntrack};
use ripstop_netlink::nftables::{Batch, Expression, Hook, HookPoint, Nftables, Register, Verdict};
use ripstop_netlink::sockets::Sockets;

use super::refused;
use super::rules::is_translated;
use super::sets::FAMILIES;
use super::sources_nat::own_ports;
use crate::engine::Error;

/// Name of the table, in the `inet` family.
const REST: &str = "ripstop-rest";

/// Tells which connections are left to connection tracking.
pub(super) struct Left<'a> {
    node_addresses: &'a [IpAddr],
    /// Datagrams of a socket that is gone need nothing, and another socket may get
    /// its port.
    udp_ports: BTreeSet<u16>,
}

impl<'a> Left<'a> {
    pub(super) fn now(node_addresses: &'a [IpAddr]) -> Result<Self, Error> {
        let ports = Sockets::new().and_then(|mut sockets| sockets.udp_ports());
        Ok(Self {
            node_addresses,
            udp_ports: ports.map_err(refused)?,
        })
    }

    /// It is one of the node's own, translated, and has not ended.
    pub(super) fn contains(&self, connection: &Connection) -> bool {
        let original = &connection.original;
        !connection.is_over
            && is_own(self.node_addresses, connection)
            && (original.protocol != Protocol::Udp as u8
                || self.udp_ports.contains(&original.source.port()))
    }
}

/// One of the node's own, led to a backend, or by another port as somebody had its
/// own there.
pub(super) fn is_own(node_addresses: &[IpAddr], connection: &Connection) -> bool {
    connection.is_translated() && node_addresses.contains(&connection.original.source.ip())
}

pub(super) fn leave(nftables: &mut Nftables) -> Result<(), Error> {
    if nftables.table(REST).map_err(refused)?.is_some() {
        return Ok(());
    }
    let mut batch = Batch::new(REST);
    batch.create_table("the node's own connections to services, from before a switch of engines");
    batch.create_chain(
        "output",
        Some(Hook {
            point: HookPoint::Output,
            priority: -100,
            nat: true,
        }),
    );
    let accept = Expression::Verdict(Verdict::Accept);
    let steps = is_translated(Register::word(0)).into_iter().chain([accept]);
    batch.add_rule(
        "output",
        "what is translated goes on",
        &steps.collect::<Vec<_>>(),
    );
    batch.create_chain(
        "postrouting",
        Some(Hook {
            point: HookPoint::Postrouting,
            priority: 100,
            nat: true,
        }),
    );
    for rule in FAMILIES.map(own_ports) {
        batch.add_rule("postrouting", &rule.what, &rule.steps);
    }
    nftables.commit(&batch).map_err(refused)
}

pub(super) fn take_away(nftables: &mut Nftables) -> Result<(), Error> {
    if nftables.table(REST).map_err(refused)?.is_none() {
        return Ok(());
    }
    let mut batch = Batch::new(REST);
    batch.delete_table();
    nftables.commit(&batch).map_err(refused)
}

/// Takes away what a switch has left, if nobody needs it any more; true if it is
/// still needed.
///
/// # Errors
/// If the kernel cannot be asked.
pub fn end_rest(node_addresses: &[IpAddr]) -> Result<bool, Error> {
    let mut nftables = Nftables::new().map_err(refused)?;
    if nftables.table(REST).map_err(refused)?.is_none() {
        return Ok(false);
    }
    let mut conntrack = Conntrack::new().map_err(refused)?;
    let own = conntrack.list(|connection| is_own(node_addresses, connection));
    let own = own.map_err(refused)?;
    let left = Left::now(node_addresses)?;
    if own.iter().any(|connection| left.contains(connection)) {
        return Ok(true);
    }
    take_away(&mut nftables)?;
    // Whoever gets such a port next, and is asked about when there are rules again,
    // would be taken for them.
    conntrack.delete(&own).map_err(refused)?;
    Ok(false)
}
