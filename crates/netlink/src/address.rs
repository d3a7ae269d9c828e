//! IP addresses of interfaces.

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use netlink_packet_route::RouteNetlinkMessage as Rtnl;
use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressScope, CacheInfo,
};

use super::attributes::{Message, address, attributes, u32_at};
use super::route::family_of;
use super::{Error, Netlink, Request};

const RTM_NEWADDR: u16 = 20;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
/// `struct ifaddrmsg`.
const ADDRESS_HEADER: usize = 8;
/// `RT_SCOPE_UNIVERSE`.
const SCOPE_GLOBAL: u8 = 0;

/// An address of an interface, with the length of its prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    pub index: u32,
    pub address: IpNet,
    /// Neither link-local nor loopback.
    pub global: bool,
}

/// Gives an interface an address. An IPv6 address is usable at once: nobody
/// else has it, so the second of duplicate detection is left out.
pub fn add(index: u32, address: IpNet) -> Request {
    let mut message = message(index, address);
    if let IpNet::V6(_) = address {
        message.header.flags = AddressHeaderFlags::Nodad;
    }
    if let IpNet::V4(net) = address
        && net.prefix_len() < 31
        && net.broadcast() != Ipv4Addr::BROADCAST
    {
        message
            .attributes
            .push(AddressAttribute::Broadcast(net.broadcast()));
    }
    Request::create(
        Rtnl::NewAddress(message),
        format!("add address {address} to interface {index}"),
    )
}

/// Gives an interface an address that is no source of packets by itself: one
/// that the node has on another interface, or shares with other nodes. IPv6
/// knows no scope for that, but the kernel avoids addresses whose preferred time
/// is over (RFC 6724, rule 3).
pub fn add_host_scope(index: u32, address: IpNet) -> Request {
    let mut message = message(index, address);
    message.header.scope = AddressScope::Host;
    if let IpNet::V6(_) = address {
        message.header.flags = AddressHeaderFlags::Nodad;
        let mut lifetimes = CacheInfo::default();
        lifetimes.ifa_valid = u32::MAX;
        message
            .attributes
            .push(AddressAttribute::CacheInfo(lifetimes));
    }
    let operation = format!("add address {address} to interface {index}");
    Request::create(Rtnl::NewAddress(message), operation)
}

/// Whether the kernel has a route to the prefix of an IPv6 address that an interface
/// has already.
pub fn set_prefix_route(index: u32, address: IpNet, there: bool) -> Request {
    let mut message = message(index, address);
    let flags = match there {
        true => AddressFlags::Nodad,
        false => AddressFlags::Nodad | AddressFlags::Noprefixroute,
    };
    message.attributes.push(AddressAttribute::Flags(flags));
    Request::replace(
        Rtnl::NewAddress(message),
        format!("change address {address} of interface {index}"),
    )
}

/// Takes an address from an interface.
pub fn delete(index: u32, address: IpNet) -> Request {
    Request::change(
        Rtnl::DelAddress(message(index, address)),
        format!("remove address {address} from interface {index}"),
    )
}

fn message(index: u32, address: IpNet) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = family_of(address.addr());
    message.header.prefix_len = address.prefix_len();
    message.header.index = index;
    message.attributes.extend([
        AddressAttribute::Local(address.addr()),
        AddressAttribute::Address(address.addr()),
    ]);
    message
}

/// Between two looks for an address that is not in use yet.
const PAUSE: Duration = Duration::from_micros(50);
/// Far beyond what a busy machine takes.
const PATIENCE: Duration = Duration::from_secs(1);

impl Netlink {
    /// Waits until packets to these addresses of the namespace arrive. For IPv6
    /// the kernel sees to that in the work item that would detect duplicates
    /// (`addrconf_dad_work`), also without any detection, after the request to
    /// add the address is answered. False if it took too long.
    ///
    /// # Errors
    /// If the kernel cannot be asked.
    pub fn settle(&mut self, addresses: &[IpAddr]) -> Result<bool, Error> {
        let deadline = Instant::now() + PATIENCE;
        for &address in addresses.iter().filter(|address| address.is_ipv6()) {
            while !self.is_local(address)? {
                if Instant::now() > deadline {
                    return Ok(false);
                }
                std::thread::sleep(PAUSE);
            }
        }
        Ok(true)
    }

    /// All addresses of the socket's namespace, both families.
    ///
    /// # Errors
    /// If the kernel cannot be asked.
    pub fn addresses(&mut self) -> Result<Vec<Address>, Error> {
        let request = Request::dump(
            Rtnl::GetAddress(AddressMessage::default()),
            "list addresses",
        );
        self.dump(&request, read)
    }
}

fn read(message: Message<'_>) -> Option<Address> {
    if message.kind != RTM_NEWADDR {
        return None;
    }
    let (prefix, scope) = (*message.payload.get(1)?, *message.payload.get(3)?);
    let index = u32_at(message.payload, 4)?;
    let (mut local, mut peer) = (None, None);
    for (kind, value) in attributes(message.payload.get(ADDRESS_HEADER..)?) {
        match kind {
            IFA_LOCAL => local = address(value),
            IFA_ADDRESS => peer = address(value),
            _ => {}
        }
    }
    // IPv6 addresses without a peer have no IFA_LOCAL.
    let address: IpAddr = local.or(peer)?;
    Some(Address {
        index,
        address: IpNet::new(address, prefix).ok()?,
        global: scope == SCOPE_GLOBAL,
    })
}
