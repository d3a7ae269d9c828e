//! The interfaces by which this node reaches other nodes.

use std::io;
use std::net::IpAddr;

use ipnet::IpNet;
use ripstop_model::Mac;

use crate::pod::is_host_end;
use crate::routes::is_tunnel;
use crate::sysctl;
use ripstop_netlink::{Error, Netlink};

/// An interface to the underlay network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uplink {
    pub index: u32,
    pub name: String,
    /// Largest IP packet, bytes.
    pub mtu: u32,
    pub mac: Option<Mac>,
    /// Its addresses with their prefixes, link-local ones left out.
    pub addresses: Vec<IpNet>,
}

/// Finds the interfaces that carry one of `node_addresses` or a default route;
/// those with a node's address come first.
///
/// # Errors
/// If the kernel cannot be asked.
pub fn find(netlink: &mut Netlink, node_addresses: &[IpAddr]) -> Result<Vec<Uplink>, Error> {
    let addresses = netlink.addresses()?;
    let routes = netlink.routes()?;
    let mut found: Vec<(bool, Uplink)> = Vec::new();
    for link in netlink.links()? {
        if link.loopback || !link.up || is_host_end(&link.name) || is_tunnel(&link.name) {
            continue;
        }
        let own = || {
            addresses
                .iter()
                .filter(|address| address.index == link.index)
        };
        let has_address = own().any(|own| node_addresses.contains(&own.address.addr()));
        let has_default = routes
            .iter()
            .any(|route| route.index == link.index && route.destination.prefix_len() == 0);
        if has_address || has_default {
            let uplink = Uplink {
                index: link.index,
                name: link.name.clone(),
                mtu: link.mtu,
                mac: link.mac,
                addresses: own()
                    .filter(|own| own.global)
                    .map(|own| own.address)
                    .collect(),
            };
            found.push((has_address, uplink));
        }
    }
    found.sort_by_key(|(has_address, _)| !has_address);
    Ok(found.into_iter().map(|(_, uplink)| uplink).collect())
}

/// A setting of the kernel's that has to be another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// As under `/proc/sys`.
    pub name: String,
    pub before: String,
    pub value: &'static str,
}

/// Makes a router of this node, in the calling thread's network namespace: see
/// [`changes`].
///
/// # Errors
/// A setting that the kernel refuses, and does not have already.
pub fn prepare_node(uplinks: &[Uplink]) -> Result<(), sysctl::Error> {
    let mut changes = changes(uplinks)?.into_iter();
    changes.try_for_each(|change| sysctl::set(&change.name, change.value))
}

/// What a router has to have otherwise than this node has it, in the order in which
/// it is to be changed: forwarding on, and no check that would drop a packet of a
/// pod because the answer takes another way than the question did.
///
/// # Errors
/// A setting that cannot be read.
pub fn changes(uplinks: &[Uplink]) -> Result<Vec<Change>, sysctl::Error> {
    let mut changes = Vec::new();
    for uplink in uplinks {
        changes.extend(keep_router_advertisements(&uplink.name)?);
        changes.extend(allow_asymmetry(&uplink.name)?);
    }
    // Writing it sets the default and every interface as well.
    for family in ["ipv4", "ipv6"] {
        let name = format!("net/{family}/conf/all/forwarding");
        let before = unless_missing(sysctl::get(&name))?;
        changes.extend(before.filter(|value| value != "1").map(|before| Change {
            name,
            before,
            value: "1",
        }));
    }
    Ok(changes)
}

/// A router ignores router advertisements; a node that has its own default
/// route by one would lose it. 2 means: heed them nevertheless.
fn keep_router_advertisements(ifname: &str) -> Result<Option<Change>, sysctl::Error> {
    let name = format!("net/ipv6/conf/{ifname}/accept_ra");
    let before = unless_missing(sysctl::get(&name))?;
    Ok(before.filter(|value| value == "1").map(|before| Change {
        name,
        before,
        value: "2",
    }))
}

/// The kernel uses the greater of the interface's `rp_filter` and of `all`:
/// 2 (loose) therefore also overrides a strict `all`. Off stays off.
fn allow_asymmetry(ifname: &str) -> Result<Option<Change>, sysctl::Error> {
    let name = format!("net/ipv4/conf/{ifname}/rp_filter");
    let before = sysctl::get(&name)?;
    let all = sysctl::get("net/ipv4/conf/all/rp_filter")?;
    let strict = before == "1" || all == "1" && before != "2";
    Ok(strict.then_some(Change {
        name,
        before,
        value: "2",
    }))
}

/// A kernel without IPv6 has no settings for it.
fn unless_missing(result: Result<String, sysctl::Error>) -> Result<Option<String>, sysctl::Error> {
    match result {
        Err(error) if error.source.kind() == io::ErrorKind::NotFound => Ok(None),
        other => other.map(Some),
    }
}
