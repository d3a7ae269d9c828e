//! Connections that the table's rules translated, in connection tracking.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ripstop_model::Protocol;
use ripstop_netlink::conntrack::{Connection, Conntrack, Tuple};
use ripstop_plan::{Backend, Frontend};

use super::refuse::CLOSED_PORT;
use super::refused;
use super::rows::Placed;
use crate::engine::Error;
use crate::state::TranslatedFlow;

fn protocol(number: u8) -> Option<Protocol> {
    match number {
        6 => Some(Protocol::Tcp),
        17 => Some(Protocol::Udp),
        132 => Some(Protocol::Sctp),
        _ => None,
    }
}

fn frontend(connection: &Connection) -> Option<Frontend> {
    let to = connection.original.destination;
    Some(Frontend {
        address: to.ip(),
        protocol: protocol(connection.original.protocol)?,
        port: to.port(),
    })
}

fn backend(connection: &Connection) -> Backend {
    let to = connection.reply.source;
    Backend {
        address: to.ip(),
        port: to.port(),
    }
}

/// Connections to the frontends, unless they lead to a backend that `keep`
/// knows. Also those that were not led anywhere: they began before there was
/// such a frontend.
pub(super) fn forget(
    conntrack: &mut Conntrack,
    frontends: &BTreeSet<Frontend>,
    keep: impl Fn(&Frontend, &Backend) -> bool,
) -> Result<(), Error> {
    let stale = |connection: &Connection| {
        frontend(connection).is_some_and(|frontend| {
            frontends.contains(&frontend) && !keep(&frontend, &backend(connection))
        })
    };
    let stale = conntrack.list(stale).map_err(refused)?;
    conntrack.delete(&stale).map_err(refused)
}

/// Those that our rules translated: to a frontend, or out of the cluster. And `others`.
pub(super) fn connections(
    conntrack: &mut Conntrack,
    frontends: &BTreeMap<Frontend, Placed>,
    pods: &BTreeSet<IpAddr>,
    others: impl Fn(&Connection) -> bool,
) -> Result<Vec<Connection>, Error> {
    let is_ours = |connection: &Connection| {
        let to_backend = || {
            let to_frontend = frontend(connection).and_then(|f| frontends.get(&f));
            to_frontend.is_some() && connection.original.destination != connection.reply.source
        };
        let of_pod = || pods.contains(&connection.original.source.ip());
        connection.is_translated() && (to_backend() || of_pod() || others(connection))
    };
    conntrack.list(is_ours).map_err(refused)
}

pub(super) fn list(
    conntrack: &mut Conntrack,
    frontends: &BTreeMap<Frontend, Placed>,
    pods: &BTreeSet<IpAddr>,
) -> Result<Vec<TranslatedFlow>, Error> {
    let connections = connections(conntrack, frontends, pods, |_| false)?;
    Ok(connections
        .iter()
        // Its ports may be another connection's soon, which needs no translation.
        .filter(|connection| !connection.is_over)
        // Of one that was refused there is nothing to go on with.
        .filter(|connection| connection.reply.source.port() != CLOSED_PORT)
        .filter_map(|connection| {
            let Connection {
                original, reply, ..
            } = connection;
            Some(TranslatedFlow {
                protocol: protocol(original.protocol)?,
                client: original.source,
                frontend: original.destination,
                backend: reply.source,
                source: (reply.destination != original.source).then_some(reply.destination),
                is_closing: connection.is_closing,
            })
        })
        .collect())
}

/// Flows of another engine that were taken a first time.
#[derive(Debug, Default)]
pub(super) struct Taken(Option<Vec<TranslatedFlow>>);

impl Taken {
    /// Those that are gone the second time are over, and the other engine may have
    /// given their ports to others.
    pub(super) fn take(
        &mut self,
        conntrack: &mut Conntrack,
        flows: &[TranslatedFlow],
    ) -> Result<(), Error> {
        match self.0.take() {
            None => self.0 = Some(flows.to_vec()),
            Some(before) => {
                let now: BTreeSet<&TranslatedFlow> = flows.iter().collect();
                let over = before.iter().filter(|flow| !now.contains(flow));
                let over: Vec<Connection> = over.map(connection).collect();
                conntrack.delete(&over).map_err(refused)?;
            }
        }
        create(conntrack, flows)
    }
}

fn create(conntrack: &mut Conntrack, flows: &[TranslatedFlow]) -> Result<(), Error> {
    let connections: Vec<Connection> = flows.iter().map(connection).collect();
    conntrack.create(&connections).map_err(refused)
}

/// Connections that nothing translates.
pub(super) fn take_plain(
    conntrack: &mut Conntrack,
    connections: &[crate::Connection],
) -> Result<(), Error> {
    let plain = |connection: &crate::Connection| {
        Some(TranslatedFlow {
            protocol: protocol(connection.protocol)?,
            client: connection.client,
            frontend: connection.server,
            backend: connection.server,
            source: None,
            is_closing: false,
        })
    };
    let flows: Vec<TranslatedFlow> = connections.iter().filter_map(plain).collect();
    create(conntrack, &flows)
}

fn connection(flow: &TranslatedFlow) -> Connection {
    let protocol = flow.protocol as u8;
    Connection {
        original: Tuple {
            protocol,
            source: flow.client,
            destination: flow.frontend,
        },
        reply: Tuple {
            protocol,
            source: flow.backend,
            destination: flow.source.unwrap_or(flow.client),
        },
        is_closing: false,
        is_over: false,
    }
}
