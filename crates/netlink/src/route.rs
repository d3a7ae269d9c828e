//! Routes of the main table.

use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_route::route::{
    RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteMetric, RouteProtocol, RouteScope,
    RouteType, RouteVia,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage as Rtnl};

use super::attributes::{Message, address, attributes, u32_value};
use super::{Error, Netlink, Request};

const RTM_NEWROUTE: u16 = 24;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PRIORITY: u16 = 6;
const RTA_PREFSRC: u16 = 7;
const RTA_METRICS: u16 = 8;
const RTA_TABLE: u16 = 15;
const RTA_VIA: u16 = 18;
const RTAX_MTU: u16 = 2;
/// `struct rtmsg`.
const ROUTE_HEADER: usize = 12;
const TABLE_MAIN: u32 = 254;
const TYPE_UNICAST: u8 = 1;
const TYPE_LOCAL: u8 = 2;

/// Who made a route (`rtm_protocol`). Numbers up to 4 are the kernel's, up to
/// 42 and from 186 to 192 are taken by routing daemons (iproute2's
/// rt_protos); 114 is "r". Routes with it are ours to change and remove.
pub const PROTOCOL: u8 = 114;

/// A unicast route of the main table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    pub destination: IpNet,
    /// Outgoing interface.
    pub index: u32,
    /// On the link itself if absent. May be of the other family (RFC 8950).
    pub gateway: Option<IpAddr>,
    /// The gateway is reached although no prefix of the link contains it.
    pub onlink: bool,
    /// The address that this node's own packets get.
    pub source: Option<IpAddr>,
    /// Largest packet, bytes, if not the interface's.
    pub mtu: Option<u32>,
    /// The smaller one wins among routes to the same prefix.
    pub metric: Option<u32>,
    /// `rtm_protocol`.
    pub protocol: u8,
}

impl Route {
    /// A route of ours to `destination` through interface `index`.
    pub fn new(destination: IpNet, index: u32) -> Self {
        Self {
            destination: destination.trunc(),
            index,
            gateway: None,
            onlink: false,
            source: None,
            mtu: None,
            metric: None,
            protocol: PROTOCOL,
        }
    }

    #[must_use]
    pub fn via(self, gateway: IpAddr) -> Self {
        Self {
            gateway: Some(gateway),
            ..self
        }
    }

    #[must_use]
    pub fn onlink(self) -> Self {
        Self {
            onlink: true,
            ..self
        }
    }

    #[must_use]
    pub fn source(self, source: Option<IpAddr>) -> Self {
        Self { source, ..self }
    }

    #[must_use]
    pub fn mtu(self, mtu: u32) -> Self {
        Self {
            mtu: Some(mtu),
            ..self
        }
    }

    /// The request that makes this route; one that exists is an error.
    pub fn add(&self) -> Request {
        Request::create(
            Rtnl::NewRoute(self.message()),
            format!("add {}", self.describe()),
        )
    }

    /// The request that makes this route, in place of one that is there.
    pub fn replace(&self) -> Request {
        Request::replace(
            Rtnl::NewRoute(self.message()),
            format!("set {}", self.describe()),
        )
    }

    /// The request that removes this route.
    pub fn delete(&self) -> Request {
        Request::change(
            Rtnl::DelRoute(self.message()),
            format!("remove {}", self.describe()),
        )
    }

    fn describe(&self) -> String {
        match self.gateway {
            Some(gateway) => {
                format!(
                    "route {} via {gateway} on interface {}",
                    self.destination, self.index
                )
            }
            None => format!("route {} on interface {}", self.destination, self.index),
        }
    }

    fn message(&self) -> RouteMessage {
        let destination = self.destination;
        let mut message = RouteMessage::default();
        message.header.address_family = family_of(destination.addr());
        message.header.destination_prefix_length = destination.prefix_len();
        message.header.table = RouteHeader::RT_TABLE_MAIN;
        message.header.protocol = RouteProtocol::from(self.protocol);
        message.header.kind = RouteType::Unicast;
        if self.gateway.is_none() && destination.addr().is_ipv4() {
            message.header.scope = RouteScope::Link;
        }
        if self.onlink {
            message.header.flags = RouteFlags::Onlink;
        }
        message.attributes.push(RouteAttribute::Oif(self.index));
        if destination.prefix_len() > 0 {
            message
                .attributes
                .push(RouteAttribute::Destination(destination.network().into()));
        }
        if let Some(gateway) = self.gateway {
            message.attributes.push(match (gateway, destination) {
                (IpAddr::V6(v6), IpNet::V4(_)) => RouteAttribute::Via(RouteVia::Inet6(v6)),
                (IpAddr::V4(v4), IpNet::V6(_)) => RouteAttribute::Via(RouteVia::Inet(v4)),
                _ => RouteAttribute::Gateway(gateway.into()),
            });
        }
        if let Some(source) = self.source {
            message
                .attributes
                .push(RouteAttribute::PrefSource(source.into()));
        }
        if let Some(mtu) = self.mtu {
            message
                .attributes
                .push(RouteAttribute::Metrics(vec![RouteMetric::Mtu(mtu)]));
        }
        if let Some(metric) = self.metric {
            message.attributes.push(RouteAttribute::Priority(metric));
        }
        message
    }
}

pub(crate) fn family_of(address: IpAddr) -> AddressFamily {
    if address.is_ipv4() {
        AddressFamily::Inet
    } else {
        AddressFamily::Inet6
    }
}

impl Netlink {
    /// Unicast routes of the main table, both families. Routes over several
    /// next hops at once are left out: they have no one interface.
    ///
    /// # Errors
    /// If the kernel cannot be asked.
    pub fn routes(&mut self) -> Result<Vec<Route>, Error> {
        self.dump_routes(|_| {})
    }

    /// As [`Netlink::routes`], only those with interface `index`.
    ///
    /// # Errors
    /// If the kernel cannot be asked.
    pub fn routes_through(&mut self, index: u32) -> Result<Vec<Route>, Error> {
        let mut routes = self.dump_routes(|message| {
            message.attributes.push(RouteAttribute::Oif(index));
        })?;
        routes.retain(|route| route.index == index);
        Ok(routes)
    }

    /// The way that a packet of this node to `destination` takes; `None` if
    /// there is none, or it is an address of this node.
    ///
    /// # Errors
    /// If the kernel cannot be asked.
    pub fn way_to(&mut self, destination: IpAddr) -> Result<Option<Route>, Error> {
        let mut found = None;
        self.look_up(destination, |message| {
            found = found.or_else(|| read(message))
        })?;
        Ok(found.map(|(route, _)| route))
    }

    /// True if packets to `address` are for the socket's namespace itself.
    ///
    /// # Errors
    /// If the kernel cannot be asked.
    pub fn is_local(&mut self, address: IpAddr) -> Result<bool, Error> {
        let mut local = false;
        self.look_up(address, |message| {
            local |= message.kind == RTM_NEWROUTE && message.payload.get(7) == Some(&TYPE_LOCAL);
        })?;
        Ok(local)
    }

    fn look_up(
        &mut self,
        destination: IpAddr,
        found: impl FnMut(Message<'_>),
    ) -> Result<(), Error> {
        let mut message = RouteMessage::default();
        message.header.address_family = family_of(destination);
        message.header.destination_prefix_length = if destination.is_ipv4() { 32 } else { 128 };
        message
            .attributes
            .push(RouteAttribute::Destination(destination.into()));
        let operation = format!("look up route to {destination}");
        match self.exchange(&[Request::get(Rtnl::GetRoute(message), operation)], found) {
            Err(error) if error.is_unreachable() => Ok(()),
            result => result,
        }
    }

    fn dump_routes(&mut self, filter: impl Fn(&mut RouteMessage)) -> Result<Vec<Route>, Error> {
        let mut routes = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut message = RouteMessage::default();
            message.header.address_family = family;
            message.header.table = RouteHeader::RT_TABLE_MAIN;
            filter(&mut message);
            let request = Request::dump(Rtnl::GetRoute(message), "list routes");
            match self.dump(&request, read_main) {
                // A kernel without IPv6, or without any route in the table.
                Err(error)
                    if matches!(
                        error.errno(),
                        Some(libc::EAFNOSUPPORT | libc::EOPNOTSUPP | libc::ENOENT)
                    ) => {}
                found => routes.extend(found?),
            }
        }
        Ok(routes)
    }
}

fn read_main(message: Message<'_>) -> Option<Route> {
    let (route, table) = read(message)?;
    (table == TABLE_MAIN).then_some(route)
}

/// A unicast route and its table.
fn read(message: Message<'_>) -> Option<(Route, u32)> {
    let header = message.payload;
    if message.kind != RTM_NEWROUTE || *header.get(7)? != TYPE_UNICAST {
        return None;
    }
    let unspecified: IpAddr = match i32::from(*header.first()?) {
        libc::AF_INET => std::net::Ipv4Addr::UNSPECIFIED.into(),
        libc::AF_INET6 => std::net::Ipv6Addr::UNSPECIFIED.into(),
        _ => return None,
    };
    let (mut destination, mut index, mut table) = (unspecified, None, u32::from(*header.get(4)?));
    let (mut gateway, mut source, mut mtu, mut metric) = (None, None, None, None);
    for (kind, value) in attributes(header.get(ROUTE_HEADER..)?) {
        match kind {
            RTA_DST => destination = address(value)?,
            RTA_OIF => index = u32_value(value),
            RTA_GATEWAY => gateway = address(value),
            // A family (16 bits) comes before the address.
            RTA_VIA => gateway = address(value.get(2..)?),
            RTA_PREFSRC => source = address(value),
            RTA_PRIORITY => metric = u32_value(value),
            RTA_TABLE => table = u32_value(value)?,
            RTA_METRICS => {
                mtu = attributes(value)
                    .find(|(kind, _)| *kind == RTAX_MTU)
                    .and_then(|(_, value)| u32_value(value));
            }
            _ => {}
        }
    }
    let flags = u32::from_ne_bytes(header.get(8..12)?.try_into().ok()?);
    let route = Route {
        destination: IpNet::new(destination, *header.get(1)?).ok()?,
        index: index?,
        gateway,
        source,
        onlink: RouteFlags::from_bits_retain(flags).contains(RouteFlags::Onlink),
        mtu,
        metric,
        protocol: *header.get(5)?,
    };
    Some((route, table))
}
