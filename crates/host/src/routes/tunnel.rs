//! The VXLAN devices of this node: one per family of the underlay.

use std::net::{IpAddr, Ipv6Addr};

use ripstop_model::Mac;

use super::kernel::Kernel;
use crate::pod::prepare_for_programs;
use ripstop_netlink::link::{self, Link, NewVxlan};
use ripstop_netlink::{Error, Netlink, address};

/// VXLAN network identifier.
const VNI: u32 = 1;
/// Registered for VXLAN (RFC 7348).
const PORT: u16 = 4789;
/// `IPV4_DEVCONF_RP_FILTER` of linux/ip.h.
const RP_FILTER: u16 = 8;

/// True for the names of our tunnel devices.
pub fn is_tunnel(name: &str) -> bool {
    Family::ALL.iter().any(|family| family.device() == name)
}

/// Of the outer packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    V6,
}

impl Family {
    const ALL: [Self; 2] = [Self::V4, Self::V6];

    pub(super) fn of(address: IpAddr) -> Self {
        if address.is_ipv4() {
            Self::V4
        } else {
            Self::V6
        }
    }

    fn device(self) -> &'static str {
        match self {
            Self::V4 => "ripstop.vx",
            Self::V6 => "ripstop.vx6",
        }
    }

    /// Outer IP header, UDP (8), VXLAN (8) and inner Ethernet header (14).
    fn overhead(self) -> u32 {
        match self {
            Self::V4 => 20 + 8 + 8 + 14,
            Self::V6 => 40 + 8 + 8 + 14,
        }
    }
}

/// A tunnel device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tunnel {
    pub(super) index: u32,
    /// Largest inner IP packet, bytes.
    pub(super) mtu: u32,
    /// This node's end.
    pub(super) local: IpAddr,
}

/// The devices that exist, by family.
#[derive(Debug)]
pub(super) struct Tunnels {
    node_addresses: Vec<IpAddr>,
    made: [Option<Tunnel>; 2],
}

impl Tunnels {
    pub(super) fn new(node_addresses: Vec<IpAddr>) -> Self {
        Self {
            node_addresses,
            made: [None; 2],
        }
    }

    /// Drops what is known of the devices; they are looked for again.
    pub(super) fn forget(&mut self) {
        self.made = [None; 2];
    }

    /// Looks for devices of an earlier agent.
    pub(super) fn find(&mut self, netlink: &mut Netlink) -> Result<(), Error> {
        for family in Family::ALL {
            if self.made[family as usize].is_none()
                && let Some(local) = self.local(family)
                && let Some(link) = netlink.link(family.device())?
                && fits(&link, local)
            {
                self.made[family as usize] = Some(Tunnel {
                    index: link.index,
                    mtu: link.mtu,
                    local,
                });
            }
        }
        Ok(())
    }

    /// The device whose tunnels end at addresses like `via`, made if needed;
    /// `underlay_mtu` is that of the way to `via`. `None` if this node has no
    /// address of that family.
    pub(super) fn get(
        &mut self,
        netlink: &mut Netlink,
        via: IpAddr,
        underlay_mtu: u32,
    ) -> Result<Option<Tunnel>, Error> {
        let family = Family::of(via);
        let Some(local) = self.local(family) else {
            return Ok(None);
        };
        self.find(netlink)?;
        let mtu = underlay_mtu.saturating_sub(family.overhead());
        let tunnel = match self.made[family as usize] {
            Some(tunnel) if tunnel.mtu <= mtu => tunnel,
            Some(tunnel) => {
                // The device has one MTU: that of the narrowest way.
                netlink.execute([link::set_mtu(tunnel.index, mtu)])?;
                Tunnel { mtu, ..tunnel }
            }
            None => create(netlink, family, local, mtu)?,
        };
        self.made[family as usize] = Some(tunnel);
        Ok(Some(tunnel))
    }

    /// Deletes devices that no route of ours uses any more.
    pub(super) fn remove_unused(
        &mut self,
        netlink: &mut Netlink,
        kernel: &Kernel,
    ) -> Result<(), Error> {
        for slot in &mut self.made {
            if let Some(tunnel) = *slot
                && !kernel.uses(tunnel.index)
            {
                netlink.execute([link::delete(tunnel.index).if_exists()])?;
                *slot = None;
            }
        }
        Ok(())
    }

    pub(super) fn indices(&self) -> impl Iterator<Item = u32> {
        self.made.iter().flatten().map(|tunnel| tunnel.index)
    }

    fn local(&self, family: Family) -> Option<IpAddr> {
        self.node_addresses
            .iter()
            .copied()
            .find(|&address| Family::of(address) == family)
    }
}

fn create(netlink: &mut Netlink, family: Family, local: IpAddr, mtu: u32) -> Result<Tunnel, Error> {
    let name = family.device();
    // One that does not fit: the node's address changed.
    netlink.execute([link::delete_named(name).if_exists()])?;
    let new = NewVxlan {
        name,
        mac: vtep_mac(local),
        mtu,
        id: VNI,
        port: PORT,
        local,
    };
    netlink.execute([link::create_vxlan(&new)])?;
    let made = netlink.link(name)?.ok_or_else(|| Error::Malformed {
        operation: format!("create VXLAN device {name}"),
    })?;
    prepare_for_programs(netlink, made.index);
    let mut requests = vec![link::no_ipv6_link_local(made.index)];
    if local.is_ipv4() {
        // What other nodes themselves send has their underlay addresses, to
        // which our way is another interface: "loose" allows it, and overrides
        // a strict or loose `all`. But an interface without any address is
        // always treated strictly (fib_validate_source), so it gets one.
        requests.push(address::add_host_scope(made.index, local.into()));
        requests.push(link::set_ipv4_conf(made.index, &[(RP_FILTER, 2)]));
    }
    requests.push(link::up(made.index));
    netlink.execute(requests)?;
    Ok(Tunnel {
        index: made.index,
        mtu,
        local,
    })
}

fn fits(link: &Link, local: IpAddr) -> bool {
    link.up
        && link.mac == Some(vtep_mac(local))
        && link
            .vxlan
            .is_some_and(|v| v.id == VNI && v.port == PORT && v.local == Some(local))
}

/// The MAC of the tunnel end of the node with this underlay address: locally
/// administered, and the same wherever it is computed.
pub(super) fn vtep_mac(address: IpAddr) -> Mac {
    match address {
        IpAddr::V4(v4) => {
            let [a, b, c, d] = v4.octets();
            Mac([0x02, 0x76, a, b, c, d])
        }
        IpAddr::V6(v6) => {
            // FNV-1a, 64 bits.
            let hash = v6
                .octets()
                .iter()
                .fold(0xcbf2_9ce4_8422_2325_u64, |hash, &byte| {
                    (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
                });
            let [_, _, a, b, c, d, e, f] = hash.to_be_bytes();
            Mac([a & 0xfc | 0x02, b, c, d, e, f])
        }
    }
}

/// The IPv6 gateway of a node that has IPv4 addresses only: the link-local
/// address that its tunnel end's MAC would give (RFC 4291, appendix A).
pub(super) fn link_local(mac: Mac) -> Ipv6Addr {
    let [a, b, c, d, e, f] = mac.0;
    let mut octets = [0; 16];
    octets[..2].copy_from_slice(&[0xfe, 0x80]);
    octets[8..].copy_from_slice(&[a ^ 0x02, b, c, 0xff, 0xfe, d, e, f]);
    octets.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tunnel_ends_have_macs_of_their_own() {
        let addresses = ["192.0.2.1", "192.0.2.2", "2001:db8::1", "2001:db8::2"];
        let macs = addresses.map(|text| vtep_mac(text.parse().unwrap()));
        for (at, mac) in macs.iter().enumerate() {
            assert_eq!(mac.0[0] & 3, 2, "{mac} is local and unicast");
            assert!(!macs[..at].contains(mac), "{mac}");
        }
        assert_eq!(macs[0].to_string(), "02:76:c0:00:02:01");
        assert_eq!(link_local(macs[0]).to_string(), "fe80::76:c0ff:fe00:201");
    }
}
