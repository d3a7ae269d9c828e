//! Network interfaces.

use std::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd};

use netlink_packet_core::{DefaultNla, NLA_F_NESTED, NLM_F_ECHO};
use netlink_packet_route::RouteNetlinkMessage as Rtnl;
use netlink_packet_route::link::{
    AfSpecInet, AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoData, InfoKind, InfoVeth, InfoVxlan,
    LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use ripstop_model::Mac;

use super::attributes::{Message, address, attributes, text, u16_at, u32_at, u32_value};
use super::{Error, Netlink, Request};

const RTM_NEWLINK: u16 = 16;
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINK: u16 = 5;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_IFALIAS: u16 = 20;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_VXLAN_ID: u16 = 1;
const IFLA_VXLAN_LOCAL: u16 = 4;
const IFLA_VXLAN_PORT: u16 = 15;
const IFLA_VXLAN_LOCAL6: u16 = 17;
/// Links of this group (`ip link show group 1380992076`) are about to be deleted.
const DELETION_GROUP: u32 = u32::from_be_bytes(*b"RPDL");
/// `IFALIASZ` less its zero byte.
const MAX_ALIAS: usize = 255;
/// `struct ifinfomsg`.
const LINK_HEADER: usize = 16;

/// A network interface as the kernel shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    pub index: u32,
    pub name: String,
    /// Largest IP packet, bytes.
    pub mtu: u32,
    /// None for interfaces without Ethernet addresses.
    pub mac: Option<Mac>,
    /// Administratively up.
    pub up: bool,
    pub loopback: bool,
    /// Index of the bridge that this is a port of.
    pub master: Option<u32>,
    /// The other end of a veth pair; an index in the other end's namespace.
    pub peer: Option<u32>,
    /// A remark for people; empty if there is none.
    pub alias: String,
    /// `veth`, `bridge`, `vxlan`...; empty for hardware and loopback.
    pub kind: String,
    /// For `kind` "vxlan".
    pub vxlan: Option<VxlanData>,
}

/// The identity of a VXLAN device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VxlanData {
    /// VXLAN network identifier.
    pub id: u32,
    /// UDP port.
    pub port: u16,
    /// Source of the outer packets.
    pub local: Option<IpAddr>,
}

/// One end of a veth pair that shall be made.
#[derive(Clone, Copy, Debug)]
pub struct VethEnd<'a> {
    pub name: &'a str,
    /// Random if absent.
    pub mac: Option<Mac>,
    /// The socket's namespace if absent.
    pub netns: Option<BorrowedFd<'a>>,
}

/// A VXLAN device that learns nothing: who is where, is told by FDB entries.
#[derive(Clone, Copy, Debug)]
pub struct NewVxlan<'a> {
    pub name: &'a str,
    pub mac: Mac,
    pub mtu: u32,
    pub id: u32,
    pub port: u16,
    /// Source of the outer packets; says of which family they are.
    pub local: IpAddr,
}

/// Makes a bridge; it is down.
pub fn create_bridge(name: &str) -> Request {
    let mut message = named(name);
    message
        .attributes
        .push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(
            InfoKind::Bridge,
        )]));
    Request::create(Rtnl::NewLink(message), format!("create bridge {name}"))
}

/// Makes both ends of a veth pair at once, each in its namespace; they are down.
pub fn create_veth(one: &VethEnd<'_>, other: &VethEnd<'_>, mtu: u32) -> Request {
    Request::create(
        Rtnl::NewLink(veth_message(one, other, mtu)),
        format!("create veth pair {} and {}", one.name, other.name),
    )
}

fn veth_message(one: &VethEnd<'_>, other: &VethEnd<'_>, mtu: u32) -> LinkMessage {
    let end = |end: &VethEnd<'_>| {
        let mut message = named(end.name);
        message.attributes.extend([
            LinkAttribute::Mtu(mtu),
            // The driver would make a queue per CPU, each with its files in
            // sysfs, and uses them only with XDP or its own GRO.
            LinkAttribute::NumTxQueues(1),
            LinkAttribute::NumRxQueues(1),
        ]);
        if let Some(mac) = end.mac {
            message
                .attributes
                .push(LinkAttribute::Address(mac.0.to_vec()));
        }
        if let Some(netns) = end.netns {
            message
                .attributes
                .push(LinkAttribute::NetNsFd(netns.as_raw_fd()));
        }
        message
    };
    let mut message = end(one);
    message.attributes.push(LinkAttribute::LinkInfo(vec![
        LinkInfo::Kind(InfoKind::Veth),
        LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(end(other)))),
    ]));
    message
}

/// Makes a VXLAN device; it is down.
pub fn create_vxlan(new: &NewVxlan<'_>) -> Request {
    let mut message = named(new.name);
    message.attributes.extend([
        LinkAttribute::Mtu(new.mtu),
        LinkAttribute::Address(new.mac.0.to_vec()),
        LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Vxlan),
            LinkInfo::Data(InfoData::Vxlan(vec![
                InfoVxlan::Id(new.id),
                InfoVxlan::Port(new.port),
                InfoVxlan::Learning(false),
                match new.local {
                    IpAddr::V4(local) => InfoVxlan::Local(local),
                    IpAddr::V6(local) => InfoVxlan::Local6(local),
                },
            ])),
        ]),
    ]);
    Request::create(
        Rtnl::NewLink(message),
        format!("create VXLAN device {} from {}", new.name, new.local),
    )
}

/// Takes an interface up.
pub fn up(index: u32) -> Request {
    let mut message = indexed(index);
    message.header.flags = LinkFlags::Up;
    message.header.change_mask = LinkFlags::Up;
    Request::change(Rtnl::SetLink(message), format!("set interface {index} up"))
}

/// Takes an interface down; the routes by it go.
pub fn down(index: u32) -> Request {
    let mut message = indexed(index);
    message.header.change_mask = LinkFlags::Up;
    Request::change(
        Rtnl::SetLink(message),
        format!("set interface {index} down"),
    )
}

/// Waits until an interface whose carrier has just come sends packets. The end
/// of a veth pair that was up first gets its carrier from the other one; the
/// kernel activates its queue in a work item later, and drops what is sent until
/// then. Reading the link does that work at once, since Linux 6.9
/// (facd15dfd691, "synchronize link-watch when carrier is queried"); before, a
/// first packet may be lost on a busy machine.
pub fn settle(index: u32) -> Request {
    Request::get(
        Rtnl::GetLink(indexed(index)),
        format!("wait for interface {index}"),
    )
}

/// Makes an interface a port of bridge `master`.
pub fn set_master(index: u32, master: u32) -> Request {
    set(
        index,
        LinkAttribute::Controller(master),
        format!("add interface {index} to bridge {master}"),
    )
}

/// Takes an interface out of the bridge that it is a port of; one of none stays so.
pub fn no_master(index: u32) -> Request {
    set(
        index,
        LinkAttribute::Controller(0),
        format!("take interface {index} out of its bridge"),
    )
}

pub fn set_mtu(index: u32, mtu: u32) -> Request {
    set(
        index,
        LinkAttribute::Mtu(mtu),
        format!("set MTU {mtu} of interface {index}"),
    )
}

pub fn set_mac(index: u32, mac: Mac) -> Request {
    let attribute = LinkAttribute::Address(mac.0.to_vec());
    set(
        index,
        attribute,
        format!("set address {mac} of interface {index}"),
    )
}

/// Before Linux 6.2 the interface must be down.
pub fn rename(index: u32, name: &str) -> Request {
    let attribute = LinkAttribute::IfName(name.to_owned());
    set(
        index,
        attribute,
        format!("rename interface {index} to {name}"),
    )
}

/// A remark for people, shown by `ip link`; the kernel keeps up to 255 bytes.
pub fn set_alias(index: u32, alias: &str) -> Request {
    let end = alias.floor_char_boundary(MAX_ALIAS);
    let attribute = LinkAttribute::IfAlias(alias[..end].to_owned());
    set(index, attribute, format!("set remark of interface {index}"))
}

/// Settings that otherwise are files of `/proc/sys/net/ipv4/conf/IFNAME`.
/// `values` are pairs of an `IPV4_DEVCONF_*` number and a value.
pub fn set_ipv4_conf(index: u32, values: &[(u16, u32)]) -> Request {
    let mut nested = Vec::with_capacity(8 * values.len());
    for (setting, value) in values {
        nested.extend(8u16.to_ne_bytes());
        nested.extend(setting.to_ne_bytes());
        nested.extend(value.to_ne_bytes());
    }
    // IFLA_INET_CONF
    let conf = AfSpecInet::Other(DefaultNla::new(1 | NLA_F_NESTED, nested));
    let attribute = LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet(vec![conf])]);
    set(
        index,
        attribute,
        format!("set IPv4 settings of interface {index}"),
    )
}

/// No link-local address of its own accord: quiet, and no duplicate detection.
pub fn no_ipv6_link_local(index: u32) -> Request {
    let mode = AfSpecInet6::AddrGenMode(In6AddrGenMode::None);
    let attribute = LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(vec![mode])]);
    set(
        index,
        attribute,
        format!("set IPv6 address generation of interface {index}"),
    )
}

/// Deletes an interface; of a veth pair both ends.
pub fn delete(index: u32) -> Request {
    Request::change(
        Rtnl::DelLink(indexed(index)),
        format!("delete interface {index}"),
    )
}

/// As [`delete`], by name.
pub fn delete_named(name: &str) -> Request {
    Request::change(
        Rtnl::DelLink(named(name)),
        format!("delete interface {name}"),
    )
}

/// Deletes interfaces by name, those of them that exist. The kernel waits for
/// packets in flight once for all, instead of once for each.
pub fn delete_together<'a>(names: impl IntoIterator<Item = &'a str>) -> Vec<Request> {
    let mut requests: Vec<Request> = names
        .into_iter()
        .map(|name| {
            let mut message = named(name);
            message
                .attributes
                .push(LinkAttribute::Group(DELETION_GROUP));
            let operation = format!("mark interface {name} for deletion");
            Request::change(Rtnl::SetLink(message), operation).if_exists()
        })
        .collect();
    let mut message = LinkMessage::default();
    message
        .attributes
        .push(LinkAttribute::Group(DELETION_GROUP));
    let operation = "delete the interfaces that are marked for it".to_owned();
    requests.push(Request::change(Rtnl::DelLink(message), operation).if_exists());
    requests
}

fn named(name: &str) -> LinkMessage {
    let mut message = LinkMessage::default();
    message
        .attributes
        .push(LinkAttribute::IfName(name.to_owned()));
    message
}

fn indexed(index: u32) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message
}

fn set(index: u32, attribute: LinkAttribute, operation: String) -> Request {
    let mut message = indexed(index);
    message.attributes.push(attribute);
    Request::change(Rtnl::SetLink(message), operation)
}

impl Netlink {
    /// Makes a veth pair and takes the first end up; returns the indices of
    /// both, each valid in its own namespace.
    ///
    /// # Errors
    /// `EEXIST` if a name is taken in its namespace.
    pub fn create_veth(
        &mut self,
        one: &VethEnd<'_>,
        other: &VethEnd<'_>,
        mtu: u32,
    ) -> Result<(u32, u32), Error> {
        let mut message = veth_message(one, other, mtu);
        // The peer cannot be up from the start: its end is opened before it has
        // a partner, and the driver refuses that.
        message.header.flags = LinkFlags::Up;
        message.header.change_mask = LinkFlags::Up;
        let operation = format!("create veth pair {} and {}", one.name, other.name);
        let request = Request::create(Rtnl::NewLink(message), operation).with_flags(NLM_F_ECHO);
        let mut made = None;
        self.exchange(&[request], |message| {
            made = made.take().or_else(|| read(message))
        })?;
        // Kernels before 6.2 do not echo.
        let made = match made {
            Some(link) => Some(link),
            None => self.link(one.name)?,
        };
        let indices = made.and_then(|link| Some((link.index, link.peer?)));
        indices.ok_or_else(|| Error::Malformed {
            operation: format!("create veth pair {} and {}", one.name, other.name),
        })
    }

    /// The interface of this name in the socket's namespace.
    ///
    /// # Errors
    /// If the kernel cannot be asked.
    pub fn link(&mut self, name: &str) -> Result<Option<Link>, Error> {
        self.get_link(named(name), format!("read interface {name}"))
    }

    /// The interface of this index in the socket's namespace.
    ///
    /// # Errors
    /// If the kernel cannot be asked.
    pub fn link_by_index(&mut self, index: u32) -> Result<Option<Link>, Error> {
        self.get_link(indexed(index), format!("read interface {index}"))
    }

    fn get_link(&mut self, message: LinkMessage, operation: String) -> Result<Option<Link>, Error> {
        let mut found = None;
        let request = Request::get(Rtnl::GetLink(message), operation);
        match self.exchange(&[request], |message| {
            found = found.take().or_else(|| read(message))
        }) {
            Err(error) if error.is_not_found() => Ok(None),
            result => result.map(|()| found),
        }
    }

    /// All interfaces of the socket's namespace.
    ///
    /// # Errors
    /// If the kernel cannot be asked.
    pub fn links(&mut self) -> Result<Vec<Link>, Error> {
        let request = Request::dump(Rtnl::GetLink(LinkMessage::default()), "list interfaces");
        self.dump(&request, read)
    }
}

fn read(message: Message<'_>) -> Option<Link> {
    if message.kind != RTM_NEWLINK {
        return None;
    }
    let flags = LinkFlags::from_bits_retain(u32_at(message.payload, 8)?);
    let mut link = Link {
        index: u32_at(message.payload, 4)?,
        name: String::new(),
        mtu: 0,
        mac: None,
        up: flags.contains(LinkFlags::Up),
        loopback: flags.contains(LinkFlags::Loopback),
        master: None,
        peer: None,
        alias: String::new(),
        kind: String::new(),
        vxlan: None,
    };
    for (kind, value) in attributes(message.payload.get(LINK_HEADER..)?) {
        match kind {
            IFLA_IFNAME => link.name = text(value),
            IFLA_MTU => link.mtu = u32_value(value)?,
            IFLA_ADDRESS => link.mac = <[u8; 6]>::try_from(value).ok().map(Mac),
            IFLA_LINK => link.peer = u32_value(value),
            IFLA_MASTER => link.master = u32_value(value),
            IFLA_IFALIAS => link.alias = text(value),
            IFLA_LINKINFO => read_info(&mut link, value),
            _ => {}
        }
    }
    Some(link)
}

fn read_info(link: &mut Link, info: &[u8]) {
    let find = |wanted| {
        attributes(info)
            .find(|(kind, _)| *kind == wanted)
            .map(|(_, value)| value)
    };
    link.kind = find(IFLA_INFO_KIND).map(text).unwrap_or_default();
    if link.kind != "vxlan" {
        return;
    }
    let mut vxlan = VxlanData {
        id: 0,
        port: 0,
        local: None,
    };
    for (kind, value) in attributes(find(IFLA_INFO_DATA).unwrap_or_default()) {
        match kind {
            IFLA_VXLAN_ID => vxlan.id = u32_value(value).unwrap_or(0),
            IFLA_VXLAN_PORT => vxlan.port = u16_at(value, 0).map_or(0, u16::from_be),
            IFLA_VXLAN_LOCAL | IFLA_VXLAN_LOCAL6 => vxlan.local = address(value),
            _ => {}
        }
    }
    link.vxlan = Some(vxlan);
}
