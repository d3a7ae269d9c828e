//! Neighbours (which MAC an IP address has) and forwarding entries (which
//! tunnel end a MAC is behind).

use std::net::IpAddr;

use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage as Rtnl};
use ripstop_model::Mac;

use super::attributes::{Message, address, attributes, u16_at, u32_at};
use super::route::family_of;
use super::{Error, Netlink, Request};

const RTM_NEWNEIGH: u16 = 28;
const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
/// `struct ndmsg`.
const NEIGHBOUR_HEADER: usize = 12;
const NUD_PERMANENT: u16 = 0x80;

/// A permanent entry: of the neighbour table, or of a VXLAN device's
/// forwarding table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neighbour {
    pub index: u32,
    pub address: IpAddr,
    pub mac: Mac,
}

impl Neighbour {
    /// `address` has this MAC on interface `index`, for ever.
    pub fn replace(&self) -> Request {
        let mut message = self.message();
        message.header.state = NeighbourState::Permanent;
        message
            .attributes
            .push(NeighbourAttribute::LinkLayerAddress(self.mac.0.to_vec()));
        Request::replace(
            Rtnl::NewNeighbour(message),
            format!(
                "set neighbour {} at {} on interface {}",
                self.address, self.mac, self.index
            ),
        )
    }

    /// Forgets who has `address`.
    pub fn delete(&self) -> Request {
        Request::change(
            Rtnl::DelNeighbour(self.message()),
            format!(
                "remove neighbour {} on interface {}",
                self.address, self.index
            ),
        )
    }

    fn message(&self) -> NeighbourMessage {
        let mut message = NeighbourMessage::default();
        message.header.family = family_of(self.address);
        message.header.ifindex = self.index;
        message
            .attributes
            .push(NeighbourAttribute::Destination(destination(self.address)));
        message
    }

    /// As an entry of VXLAN device `index`: the MAC is behind tunnel end `address`.
    pub fn replace_fdb(&self) -> Request {
        let mut message = self.fdb_message();
        message.header.state = NeighbourState::Permanent;
        Request::replace(
            Rtnl::NewNeighbour(message),
            format!(
                "set {} behind {} on interface {}",
                self.mac, self.address, self.index
            ),
        )
    }

    /// Removes the entry that [`Self::replace_fdb`] makes.
    pub fn delete_fdb(&self) -> Request {
        Request::change(
            Rtnl::DelNeighbour(self.fdb_message()),
            format!(
                "remove {} behind {} on interface {}",
                self.mac, self.address, self.index
            ),
        )
    }

    fn fdb_message(&self) -> NeighbourMessage {
        let mut message = NeighbourMessage::default();
        message.header.family = AddressFamily::Bridge;
        message.header.ifindex = self.index;
        message.header.flags = NeighbourFlags::Own;
        message.attributes.extend([
            NeighbourAttribute::LinkLayerAddress(self.mac.0.to_vec()),
            NeighbourAttribute::Destination(destination(self.address)),
        ]);
        message
    }
}

fn destination(address: IpAddr) -> NeighbourAddress {
    match address {
        IpAddr::V4(v4) => NeighbourAddress::Inet(v4),
        IpAddr::V6(v6) => NeighbourAddress::Inet6(v6),
    }
}

impl Netlink {
    /// The permanent neighbours on interface `index`, both families.
    ///
    /// # Errors
    /// If the kernel cannot be asked.
    pub fn neighbours(&mut self, index: u32) -> Result<Vec<Neighbour>, Error> {
        self.dump_neighbours(AddressFamily::Unspec, index, "list neighbours")
    }

    /// The permanent forwarding entries of VXLAN device `index`.
    ///
    /// # Errors
    /// If the kernel cannot be asked.
    pub fn fdb(&mut self, index: u32) -> Result<Vec<Neighbour>, Error> {
        self.dump_neighbours(AddressFamily::Bridge, index, "list forwarding entries")
    }

    fn dump_neighbours(
        &mut self,
        family: AddressFamily,
        index: u32,
        operation: &str,
    ) -> Result<Vec<Neighbour>, Error> {
        let mut message = NeighbourMessage::default();
        message.header.family = family;
        // The two tables filter differently: one by attribute, one by header.
        if family == AddressFamily::Bridge {
            message.header.ifindex = index;
        } else {
            message.attributes.push(NeighbourAttribute::IfIndex(index));
        }
        let request = Request::dump(Rtnl::GetNeighbour(message), operation);
        let mut found = self.dump(&request, read)?;
        found.retain(|neighbour| neighbour.index == index);
        Ok(found)
    }
}

fn read(message: Message<'_>) -> Option<Neighbour> {
    if message.kind != RTM_NEWNEIGH || u16_at(message.payload, 8)? & NUD_PERMANENT == 0 {
        return None;
    }
    let (mut destination, mut mac) = (None, None);
    for (kind, value) in attributes(message.payload.get(NEIGHBOUR_HEADER..)?) {
        match kind {
            NDA_DST => destination = address(value),
            NDA_LLADDR => mac = <[u8; 6]>::try_from(value).ok().map(Mac),
            _ => {}
        }
    }
    Some(Neighbour {
        index: u32_at(message.payload, 4)?,
        address: destination?,
        mac: mac?,
    })
}
