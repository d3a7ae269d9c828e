//! A packet as the decisions see it: in the kernel a socket buffer, in user
//! space bytes.

use crate::crossing::{left_v4, left_v6, performed_v4, performed_v6, read_v4, read_v6, stranded};
use crate::forward::{Tables, part_for_stack};
use crate::policy::{asked_v4, asked_v6, settled_v4, settled_v6};
use crate::table::SocketState;
use crate::wire::Header;
use crate::{Address, DropReason, Port, crc32c};

/// What a translation changes in the sum over a transport header. Both
/// addresses are of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChecksumChange<'a> {
    pub old: (&'a Address, Port),
    pub new: (&'a Address, Port),
    /// UDP over IPv4 may have no checksum (zero), and then keeps having none.
    pub udp: bool,
    pub addresses: Covered,
}

/// Whether a sum covers the addresses, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Covered {
    No,
    /// As a header that is not sent (RFC 9293, 3.1; RFC 8200, 8.1).
    PseudoHeader,
    /// As a part of the payload: of a packet that an ICMP error quotes.
    Payload,
}

/// A packet with its Ethernet header, at a link.
pub trait Packet {
    /// EtherType in network order; of the packet inside a VLAN tag.
    fn protocol(&self) -> u16;

    /// Sent to this link's own Ethernet address, and in no VLAN.
    fn is_for_this_link(&self) -> bool;

    /// The link that it comes in by, or goes out by.
    fn ifindex(&self) -> u32;

    /// The link by which a packet that goes out came in; 0 if it is the node's
    /// own.
    fn came_by(&self) -> u32;

    /// Payload of each segment that a large packet stands for; 0 if it is one
    /// packet.
    fn segment_size(&self) -> u32;

    /// Makes sure that this much of it can be seen, if the packet is as long.
    fn reach(&mut self, length: usize);

    /// An address became another one in a packet of which no checksum makes up for
    /// that: a sum over it that the device made has to.
    fn address_replaced(&mut self, old: &Address, new: &Address);

    /// The header at that offset; `None` if the packet ends before it does.
    fn at<H: Header>(&mut self, offset: usize) -> Option<&mut H>;

    /// Brings the checksum at that offset in line with a change of address and
    /// port. A method and not arithmetic on bytes, because a checksum that the
    /// device has still to complete is kept differently.
    ///
    /// # Errors
    /// [`DropReason::Rewrite`] if the packet cannot be written; it may then be
    /// half translated.
    fn replace_checksum(
        &mut self,
        offset: usize,
        change: &ChecksumChange<'_>,
    ) -> Result<(), DropReason>;

    /// Tells a device's sum over the whole packet that IPv6's hop limit went
    /// down by one: there is no header checksum that would have made up for it.
    fn hop_limit_decremented(&mut self);

    /// Cuts the packet to this length, or lengthens it by zeros: it becomes
    /// another one, without segments and sums of a device.
    ///
    /// # Errors
    /// [`DropReason::Rewrite`] if there is no memory.
    fn resize(&mut self, length: usize) -> Result<(), DropReason>;

    /// What the socket that sent it remembers, if it is one of this machine and
    /// remembers anything.
    fn socket(&self) -> Option<&SocketState>;

    /// [`read_v4`], [`read_v6`]. In the kernel functions that the verifier walks
    /// through once, whoever calls them; so are the next ones.
    #[inline(always)]
    fn read(&mut self, tables: &impl Tables, v6: bool, of_pod: u32) -> u32
    where
        Self: Sized,
    {
        if v6 {
            read_v6(self, tables, of_pod)
        } else {
            read_v4(self, tables, of_pod)
        }
    }

    /// [`stranded`].
    #[inline(always)]
    fn stranded(&mut self, tables: &impl Tables) -> u32
    where
        Self: Sized,
    {
        stranded(self, tables)
    }

    /// [`part_for_stack`].
    #[inline(always)]
    fn part_for_stack(&mut self, tables: &impl Tables, mtu: u32) -> u32
    where
        Self: Sized,
    {
        part_for_stack(self, tables, mtu)
    }

    /// [`settled_v4`], [`settled_v6`].
    #[inline(always)]
    fn settled(&mut self, tables: &impl Tables, v6: bool, sides: u32) -> u32
    where
        Self: Sized,
    {
        if v6 {
            settled_v6(self, tables, sides)
        } else {
            settled_v4(self, tables, sides)
        }
    }

    /// [`asked_v4`], [`asked_v6`].
    #[inline(always)]
    fn asked(&mut self, tables: &impl Tables, v6: bool, sides: u32, more: u32) -> u32
    where
        Self: Sized,
    {
        if v6 {
            asked_v6(self, tables, sides, more)
        } else {
            asked_v4(self, tables, sides, more)
        }
    }

    /// [`performed_v4`], [`performed_v6`].
    #[inline(always)]
    fn performed(&mut self, tables: &impl Tables, v6: bool, act: u64) -> u64
    where
        Self: Sized,
    {
        if v6 {
            performed_v6(self, tables, act)
        } else {
            performed_v4(self, tables, act)
        }
    }

    /// [`left_v4`], [`left_v6`].
    #[inline(always)]
    fn left(&mut self, tables: &impl Tables, v6: bool, marks: u32) -> u64
    where
        Self: Sized,
    {
        if v6 {
            left_v6(self, tables, marks)
        } else {
            left_v4(self, tables, marks)
        }
    }

    /// [`crc32c::product`].
    #[inline(always)]
    fn crc32c_product(&self, factor: u32, power: u32) -> u32 {
        crc32c::product(factor, power)
    }
}
