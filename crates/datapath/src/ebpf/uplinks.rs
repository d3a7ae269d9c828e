//! With which addresses and ports translated packets leave.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ripstop_abi::{Address, Uplink};
use ripstop_netlink::Netlink;

use super::links;
use super::maps::Maps;
use super::table::Mirror;
use crate::Error;

/// First and number of the ports from which translated flows leave: the larger
/// part of those that the kernel does not give to sockets by itself.
pub(crate) fn ports() -> (u32, u32) {
    let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range");
    let range = range.unwrap_or_default();
    let mut words = range.split_whitespace().map(str::parse::<u32>);
    match (words.next(), words.next()) {
        (Some(Ok(first)), Some(Ok(last))) => beside(first, last),
        // The kernel's default.
        _ => beside(32_768, 60_999),
    }
}

/// Without those below 1024, which are for who has privileges.
fn beside(first: u32, last: u32) -> (u32, u32) {
    const LOWEST: u32 = 1024;
    const HIGHEST: u32 = 65_535;
    let below = (LOWEST, first.saturating_sub(LOWEST));
    let above = (last + 1, HIGHEST.saturating_sub(last));
    let larger = if below.1 >= above.1 { below } else { above };
    match larger.1 {
        // All are given to sockets: then they are shared. Two flows with the
        // same ends are as unlikely as the ports are many.
        0 => (LOWEST, HIGHEST - LOWEST + 1),
        _ => larger,
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_not_those_of_sockets() {
        assert_eq!(beside(32_768, 60_999), (1024, 31_744));
        assert_eq!(beside(1024, 40_000), (40_001, 25_535));
        assert_eq!(beside(1024, 65_535), (1024, 64_512));
        assert_eq!(beside(1, 65_535), (1024, 64_512));
    }
}
