//! Packets in parts, and whole again.

use std::vec::Vec;

use super::checksum;

const ETHERNET: usize = 14;
/// Of an IPv6 packet.
const FRAGMENT: u8 = 44;

/// The parts that a router would cut the packet into, with at most so many bytes of
/// payload each; `id` is the packet's number.
///
/// # Panics
/// If `most` is no multiple of eight.
pub fn parts(frame: &[u8], most: usize, id: u16) -> Vec<Vec<u8>> {
    assert_eq!(most % 8, 0, "parts begin at multiples of eight bytes");
    let v4 = frame[ETHERNET] >> 4 == 4;
    let header = ETHERNET + if v4 { 20 } else { 40 };
    let (head, payload) = frame.split_at(header);
    let last = payload.len().div_ceil(most) - 1;
    let part = |(index, bytes): (usize, &[u8])| {
        let (offset, more) = ((index * most) as u16, index != last);
        let mut part = head.to_vec();
        if v4 {
            let field = (offset / 8) | if more { 0x2000 } else { 0 };
            part[ETHERNET + 2..][..2].copy_from_slice(&(20 + bytes.len() as u16).to_be_bytes());
            part[ETHERNET + 4..][..2].copy_from_slice(&id.to_be_bytes());
            part[ETHERNET + 6..][..2].copy_from_slice(&field.to_be_bytes());
            set_checksum(&mut part);
        } else {
            let length = 8 + bytes.len() as u16;
            part[ETHERNET + 4..][..2].copy_from_slice(&length.to_be_bytes());
            part[ETHERNET + 6] = FRAGMENT;
            part.extend([head[ETHERNET + 6], 0]);
            part.extend((offset | u16::from(more)).to_be_bytes());
            part.extend([0, 0]);
            part.extend(id.to_be_bytes());
        }
        part.extend(bytes);
        part
    };
    payload.chunks(most).enumerate().map(part).collect()
}

/// What they are parts of: in order, and all of them.
pub fn whole(parts: &[Vec<u8>]) -> Vec<u8> {
    let v4 = parts[0][ETHERNET] >> 4 == 4;
    let header = ETHERNET + if v4 { 20 } else { 40 };
    let mut whole = parts[0][..header].to_vec();
    let payload = header + if v4 { 0 } else { 8 };
    for part in parts {
        assert_eq!(part[12..14], whole[12..14], "of one family");
        whole.extend(&part[payload..]);
    }
    let length = (whole.len() - header) as u16;
    if v4 {
        whole[ETHERNET + 2..][..2].copy_from_slice(&(20 + length).to_be_bytes());
        whole[ETHERNET + 6..][..2].fill(0);
        set_checksum(&mut whole);
    } else {
        whole[ETHERNET + 4..][..2].copy_from_slice(&length.to_be_bytes());
        whole[ETHERNET + 6] = parts[0][header];
    }
    whole
}

fn set_checksum(frame: &mut [u8]) {
    frame[ETHERNET + 10..][..2].fill(0);
    let sum = checksum(&frame[ETHERNET..ETHERNET + 20]);
    frame[ETHERNET + 10..][..2].copy_from_slice(&sum.to_be_bytes());
}
