//! TCP probes: a connection can be opened.

use std::net::SocketAddr;
use std::time::Duration;

use ripstop_netlink::netns::Netns;

use super::connect::{connect, describe};

pub(super) async fn probe(node: &Netns, to: SocketAddr, limit: Duration) -> Result<(), String> {
    match tokio::time::timeout(limit, connect(node, to)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(describe(to, &error)),
        Err(_) => Err(format!("dial tcp {to}: i/o timeout")),
    }
}
