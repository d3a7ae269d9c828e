//! With which addresses and ports translated packets leave.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ripstop_abi::{Address, Uplink};
use ripstop_netlink::Netlink;

use super::links;
use super::maps::Maps;
use super::table::Mirror;
use crate::Error;

/// Writes with which addresses packets leave by each uplink, and, as that of
/// link 0, those of the node. Gives what was not so.
pub(crate) fn write(
    netlink: &mut Netlink,
    maps: &mut Maps,
    node: &[IpAddr],
    uplinks: &[u32],
) -> Result<Vec<String>, Error> {
    let found = netlink.addresses().map_err(links::failed)?;
    let mut done = Vec::new();
    for ifindex in std::iter::once(0).chain(uplinks.iter().copied()) {
        let here = found.iter().filter(|a| a.index == ifindex && a.global);
        let here: Vec<IpAddr> = match ifindex {
            0 => node.to_vec(),
            _ => here.map(|a| a.address.addr()).collect(),
        };
        // The node's own name for itself, if it is there, before others.
        let of = |is_family: fn(&IpAddr) -> bool| {
            let named = node.iter().find(|a| is_family(a) && here.contains(a));
            let any = here.iter().find(|a| is_family(a));
            let address = named.or(any).copied();
            address.map_or(Address::default(), Address::from)
        };
        let uplink = Uplink::new(of(IpAddr::is_ipv4), of(IpAddr::is_ipv6));
        let name = || format!("addresses of link {ifindex}");
        if maps.uplinks.put(ifindex, uplink, name)? {
            done.push(name());
        }
    }
    let gone = |ifindex: &&u32| **ifindex != 0 && !uplinks.contains(ifindex);
    let gone: Vec<u32> = maps.uplinks.rows().keys().filter(gone).copied().collect();
    for ifindex in gone {
        maps.uplinks.remove(&ifindex)?;
    }
    let found = found.iter().map(|found| found.address.addr().into());
    let own: BTreeSet<Address> = found.filter(Address::is_routed).collect();
    write_own(&mut maps.policy.own, &own)?;
    Ok(done)
}

/// Writes which addresses are the node's: what pods send there is not denied.
fn write_own(table: &mut Mirror<Address, u32>, own: &BTreeSet<Address>) -> Result<(), Error> {
    for address in own {
        table.put(*address, 1, || {
            format!("address {} of the node", IpAddr::from(*address))
        })?;
    }
    let gone = table.rows().keys().filter(|address| !own.contains(address));
    for address in gone.copied().collect::<Vec<_>>() {
        table.remove(&address)?;
    }
    Ok(())
}
