//! A packet in user space: for tests, and for telling what would become of one.

use alloc::vec::Vec;

use crate::packet::{ChecksumChange, Covered, Packet};
use crate::wire::{Header, replace_sum, sum32};
use crate::{Address, DropReason, SocketState};

/// A packet with its Ethernet header, in memory.
#[derive(Debug)]
pub struct PacketBytes<'a> {
    pub bytes: &'a mut Vec<u8>,
    /// Ethernet address of the link that it came in by.
    pub link: [u8; 6],
    /// Index of that link.
    pub ifindex: u32,
    /// As [`Packet::segment_size`].
    pub segment_size: u32,
    /// As [`Packet::came_by`].
    pub came_by: u32,
    /// As [`Packet::socket`].
    pub socket: Option<SocketState>,
}

impl Packet for PacketBytes<'_> {
    fn protocol(&self) -> u16 {
        self.bytes
            .get(12..14)
            .map_or(0, |bytes| u16::from_ne_bytes([bytes[0], bytes[1]]))
    }

    fn is_for_this_link(&self) -> bool {
        self.bytes.starts_with(&self.link)
    }

    fn ifindex(&self) -> u32 {
        self.ifindex
    }

    fn segment_size(&self) -> u32 {
        self.segment_size
    }

    fn came_by(&self) -> u32 {
        self.came_by
    }

    fn socket(&self) -> Option<&SocketState> {
        self.socket.as_ref()
    }

    fn reach(&mut self, _: usize) {}

    fn address_replaced(&mut self, _: &Address, _: &Address) {}

    fn at<H: Header>(&mut self, offset: usize) -> Option<&mut H> {
        let bytes = self.bytes.get_mut(offset..)?.get_mut(..size_of::<H>())?;
        // SAFETY: of that size; a header has alignment one and any bytes are one.
        Some(unsafe { &mut *bytes.as_mut_ptr().cast::<H>() })
    }

    fn replace_checksum(
        &mut self,
        offset: usize,
        change: &ChecksumChange<'_>,
    ) -> Result<(), DropReason> {
        let field = self
            .bytes
            .get_mut(offset..)
            .and_then(|bytes| bytes.first_chunk_mut::<2>());
        let field = field.ok_or(DropReason::Rewrite)?;
        let words = |(address, port): (&crate::Address, crate::Port)| {
            let [a, b, c, d] = address.words();
            [a, b, c, d, port.network().into()]
        };
        let mut sum = u16::from_ne_bytes(*field);
        if change.udp && sum == 0 {
            return Ok(());
        }
        // An IPv4 address has the same prefix on both sides, which changes nothing.
        let skipped = if change.addresses == Covered::No {
            4
        } else {
            0
        };
        let (old, new) = (words(change.old), words(change.new));
        for (old, new) in old.into_iter().zip(new).skip(skipped) {
            if old != new {
                sum = replace_sum(sum, sum32(!old), sum32(new));
            }
        }
        if change.udp && sum == 0 {
            sum = 0xffff;
        }
        *field = sum.to_ne_bytes();
        Ok(())
    }

    fn hop_limit_decremented(&mut self) {}

    fn resize(&mut self, length: usize) -> Result<(), DropReason> {
        self.bytes.resize(length, 0);
        self.segment_size = 0;
        Ok(())
    }
}
