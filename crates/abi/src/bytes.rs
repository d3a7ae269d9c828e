//! A packet in user space: for tests, and for telling what would become of one.

use crate::DropReason;
use crate::packet::{ChecksumChange, Packet};
use crate::wire::{Header, replace_sum, sum32};

/// A packet with its Ethernet header, in memory.
#[derive(Debug)]
pub struct PacketBytes<'a> {
    pub bytes: &'a mut [u8],
    /// Ethernet address of the link that it came in by.
    pub link: [u8; 6],
    /// As [`Packet::segment_size`].
    pub segment_size: u32,
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

    fn segment_size(&self) -> u32 {
        self.segment_size
    }

    fn at<H: Header>(&mut self, offset: usize) -> Option<&mut H> {
        let bytes = self.bytes.get_mut(offset..)?.get_mut(..size_of::<H>())?;
        // SAFETY: of that size; a header has alignment one and any bytes are one.
        Some(unsafe { &mut *bytes.as_mut_ptr().cast::<H>() })
    }

    fn replace_checksum(
        &mut self,
        offset: usize,
        change: &ChecksumChange,
    ) -> Result<(), DropReason> {
        let field = self
            .bytes
            .get_mut(offset..)
            .and_then(|bytes| bytes.first_chunk_mut::<2>());
        let field = field.ok_or(DropReason::Rewrite)?;
        let words = |(address, port): (crate::Address, crate::Port)| {
            let [a, b, c, d] = address.words();
            [a, b, c, d, port.network().into()]
        };
        let mut sum = u16::from_ne_bytes(*field);
        if change.udp && sum == 0 {
            return Ok(());
        }
        // An IPv4 address has the same prefix on both sides, which changes nothing.
        for (old, new) in words(change.old).into_iter().zip(words(change.new)) {
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
}
