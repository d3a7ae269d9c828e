//! Headers as they lie in a packet, seen in place.

mod transport;

pub(crate) use transport::{Icmp, Mss, Ports, Sctp, TCP_ACK, TCP_FIN, TCP_RST, TCP_SYN, Tcp};

use crate::Address;

/// Length of an Ethernet header, bytes.
pub const ETH_LEN: usize = size_of::<Ethernet>();
pub const IPPROTO_TCP: u8 = 6;
pub const IPPROTO_UDP: u8 = 17;
pub const IPPROTO_SCTP: u8 = 132;
/// Header of a part of an IPv6 packet (RFC 8200, 4.5).
pub(crate) const IPPROTO_FRAGMENT: u8 = 44;
/// Of the nodes' tunnel: VXLAN's (RFC 7348).
pub const TUNNEL_PORT: u16 = 4789;
pub const IPPROTO_ICMP: u8 = 1;
pub const IPPROTO_ICMPV6: u8 = 58;

/// EtherTypes, in network order.
pub(crate) const ETH_P_ARP: u16 = 0x0806_u16.to_be();
pub(crate) const ETH_P_IP: u16 = 0x0800_u16.to_be();
pub const ETH_P_IPV6: u16 = 0x86dd_u16.to_be();

/// Source of every frame that goes into a pod: host's ends of pod links all
/// have this address, and no pod needs to learn another.
pub(crate) const HOST_MAC: [u16; 3] = [0xeeee; 3];

/// A header that can be seen at any place of a packet.
///
/// # Safety
/// `repr(C)`, alignment one, any bytes are valid.
pub unsafe trait Header {}

macro_rules! headers {
    ($($type:ty: $size:literal),+ $(,)?) => {$(
        // SAFETY: byte arrays throughout: alignment one, any bytes are valid.
        unsafe impl Header for $type {}
        const _: () = assert!(size_of::<$type>() == $size && align_of::<$type>() == 1);
    )+};
}

headers! {
    Ethernet: 14,
    Ipv4: 20,
    Ipv6: 40,
    Frame<Ipv4>: 34,
    Frame<Ipv6>: 54,
    Ports: 4,
    Tcp: 20,
    Mss: 4,
    Icmp: 8,
    Sctp: 12,
    Quote<14, 7>: 56,
    Quote<26, 14>: 104,
    FragmentHeader: 8,
}

#[repr(C)]
#[derive(Debug)]
pub(crate) struct Ethernet {
    destination: Mac,
    source: Mac,
    ethertype: [u8; 2],
}

/// IPv4 without options (RFC 791).
#[repr(C)]
#[derive(Debug)]
pub(crate) struct Ipv4 {
    version_ihl: u8,
    tos: u8,
    total_length: [u8; 2],
    id: [u8; 2],
    fragment: [u8; 2],
    ttl: u8,
    protocol: u8,
    checksum: [u8; 2],
    source: [u8; 4],
    destination: [u8; 4],
}

/// IPv6's fixed header (RFC 8200).
#[repr(C)]
#[derive(Debug)]
pub(crate) struct Ipv6 {
    version_class: [u8; 2],
    flow: [u8; 2],
    payload_length: [u8; 2],
    next_header: u8,
    hop_limit: u8,
    source: [u8; 16],
    destination: [u8; 16],
}

#[repr(C)]
#[derive(Debug)]
pub(crate) struct Frame<H> {
    pub(crate) ethernet: Ethernet,
    pub(crate) ip: H,
}

/// RFC 8200, 4.5.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct FragmentHeader {
    next_header: u8,
    reserved: u8,
    offset: [u8; 2],
    id: [u8; 4],
}

impl FragmentHeader {
    /// Of the whole packet.
    #[inline(always)]
    pub(crate) fn protocol(&self) -> u8 {
        self.next_header
    }
    #[inline(always)]
    pub(crate) fn id(&self) -> u32 {
        u32::from_be(load32(&self.id))
    }
    /// It is the first part, with the transport's header.
    #[inline(always)]
    pub(crate) fn is_first(&self) -> bool {
        u16::from_be(load16(&self.offset)) >> 3 == 0
    }
}

/// An error as long as it is with what it quotes: as many words at its end. Those
/// are an IP header and eight bytes behind it; over IPv6 eight more, as the header
/// of a part may come first.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct Quote<const WORDS: usize, const QUOTED: usize>([[u8; 4]; WORDS]);

impl Ethernet {
    /// Back to who sent it.
    #[inline(always)]
    pub(crate) fn turn(&mut self) {
        let (destination, source) = (self.destination.get(), self.source.get());
        self.address(source, destination);
    }
    #[inline(always)]
    pub(crate) fn address(&mut self, destination: [u16; 3], source: [u16; 3]) {
        self.destination.set(destination);
        self.source.set(source);
    }
}

/// An Ethernet address, stored by words: copying bytes would be a call.
#[repr(C)]
#[derive(Debug)]
struct Mac([[u8; 2]; 3]);

impl Mac {
    #[inline(always)]
    fn get(&self) -> [u16; 3] {
        [load16(&self.0[0]), load16(&self.0[1]), load16(&self.0[2])]
    }
    #[inline(always)]
    fn set(&mut self, words: [u16; 3]) {
        store16(&mut self.0[0], words[0]);
        store16(&mut self.0[1], words[1]);
        store16(&mut self.0[2], words[2]);
    }
}

/// What forwarding needs of an IP header, whatever the family.
pub(crate) trait Ip: Header + Sized
where
    Frame<Self>: Header,
{
    const LEN: usize = size_of::<Self>();
    /// Offset of the transport header in a frame.
    const TRANSPORT: usize = ETH_LEN + Self::LEN;
    /// Whether [`Ip::decrement_hops`] leaves the sum over the packet as it was.
    const HAS_CHECKSUM: bool;

    /// A packet that a router may forward by looking at its destination alone:
    /// well-formed, with hops left, without options that concern routers.
    fn is_routable(&self) -> bool;
    /// Without options between this header and the transport's.
    fn is_plain(&self) -> bool;
    fn source(&self) -> Address;
    fn destination(&self) -> Address;
    fn hops(&self) -> u8;
    /// Length of the whole packet, bytes.
    fn packet_len(&self) -> u32;
    /// Protocol of the header right after this one, or of the packet that this
    /// is a part of.
    fn protocol(&self) -> u8;
    /// Protocol of the header right after this one; `None` in a fragment.
    fn transport(&self) -> Option<u8>;
    /// Whether a router may cut the packet into parts.
    fn may_be_cut(&self) -> bool;
    /// One hop less, and the header's checksum with it.
    fn decrement_hops(&mut self);
    fn set_source(&mut self, address: &Address);
    fn set_destination(&mut self, address: &Address);
    /// Makes it the header of an answer with that much behind it: fresh hops,
    /// the other way round.
    fn turn(&mut self, payload: u16, protocol: u8);
    /// Which part of a packet this is, as far as this header says so: where it
    /// begins, whether more follow, and the packet's number.
    fn part(&self) -> (u16, bool, u32);
    /// Protocol number of this family's ICMP.
    const ICMP: u8;
    /// Types of an echo: who asks, who answers.
    const ECHO: [u8; 2];
    /// Whether an ICMP message of that type is an error that quotes the packet
    /// which it is about.
    fn is_error(kind: u8) -> bool;
    /// Type and code of an error: nobody at that port; too long.
    const PORT_UNREACHABLE: [u8; 2];
    /// Communication is administratively prohibited (RFC 1812, 5.2.7.1; RFC
    /// 4443, 3.1).
    const PROHIBITED: [u8; 2];
    const TOO_LONG: [u8; 2];
    /// For errors.
    type Quote: Header + Quoted;
}

/// A [`Quote`] of any length.
pub(crate) trait Quoted {
    /// Copies what is quoted from the beginning to the end; gives the sum of its
    /// words.
    fn quote(&mut self) -> u32;
}

impl<const WORDS: usize, const QUOTED: usize> Quoted for Quote<WORDS, QUOTED> {
    #[inline(always)]
    fn quote(&mut self) -> u32 {
        let mut sum = 0;
        // The last word first: the two places overlap.
        let mut left = QUOTED;
        while left > 0 {
            left -= 1;
            let word = load32(&self.0[left]);
            store32(&mut self.0[left + WORDS - QUOTED], word);
            sum += sum32(word);
        }
        sum
    }
}

/// Hops of answers that the programs make.
const HOPS: u8 = 64;

impl Ip for Ipv4 {
    const HAS_CHECKSUM: bool = true;
    const ICMP: u8 = IPPROTO_ICMP;
    const ECHO: [u8; 2] = [8, 0];
    const PORT_UNREACHABLE: [u8; 2] = [3, 3];
    const PROHIBITED: [u8; 2] = [3, 13];
    const TOO_LONG: [u8; 2] = [3, 4];
    type Quote = Quote<14, 7>;

    #[inline(always)]
    fn is_error(kind: u8) -> bool {
        // Unreachable, time exceeded, parameter problem. (A redirect is for who is
        // on the link.)
        matches!(kind, 3 | 11 | 12)
    }

    #[inline(always)]
    fn turn(&mut self, payload: u16, protocol: u8) {
        let (source, destination) = (load32(&self.source), load32(&self.destination));
        let length = (Self::LEN as u16 + payload).to_be();
        // Do not fragment (RFC 791, 3.1).
        let fragment = 0x4000_u16.to_be();
        self.version_ihl = 0x45;
        self.tos = 0;
        store16(&mut self.total_length, length);
        store16(&mut self.id, 0);
        store16(&mut self.fragment, fragment);
        self.ttl = HOPS;
        self.protocol = protocol;
        let sum = u32::from(u16::from_ne_bytes([0x45, 0]))
            + u32::from(length)
            + u32::from(fragment)
            + u32::from(u16::from_ne_bytes([HOPS, protocol]))
            + sum32(source)
            + sum32(destination);
        store16(&mut self.checksum, fold(sum));
        store32(&mut self.source, destination);
        store32(&mut self.destination, source);
    }

    #[inline(always)]
    fn is_routable(&self) -> bool {
        // Version 4 and five words: options are for the host's stack.
        self.version_ihl == 0x45 && self.ttl > 1
    }
    #[inline(always)]
    fn is_plain(&self) -> bool {
        self.version_ihl == 0x45
    }
    #[inline(always)]
    fn source(&self) -> Address {
        Address::v4(load32(&self.source))
    }
    #[inline(always)]
    fn destination(&self) -> Address {
        Address::v4(load32(&self.destination))
    }
    #[inline(always)]
    fn hops(&self) -> u8 {
        self.ttl
    }
    #[inline(always)]
    fn packet_len(&self) -> u32 {
        u32::from(u16::from_be(load16(&self.total_length)))
    }
    #[inline(always)]
    fn protocol(&self) -> u8 {
        self.protocol
    }
    #[inline(always)]
    fn part(&self) -> (u16, bool, u32) {
        // Offset, and more of them (RFC 791, 3.1).
        let field = u16::from_be(load16(&self.fragment));
        let id = u16::from_be(load16(&self.id)).into();
        (field & 0x1fff, field & 0x2000 != 0, id)
    }
    #[inline(always)]
    fn transport(&self) -> Option<u8> {
        // More fragments, or an offset (RFC 791, 3.1).
        const FRAGMENT: u16 = 0x3fff_u16.to_be();
        (load16(&self.fragment) & FRAGMENT == 0).then_some(self.protocol)
    }
    #[inline(always)]
    fn may_be_cut(&self) -> bool {
        const DONT: u16 = 0x4000_u16.to_be();
        load16(&self.fragment) & DONT == 0
    }
    #[inline(always)]
    fn decrement_hops(&mut self) {
        self.ttl -= 1;
        // The field is the high byte of its word, so the sum grows by 0x0100
        // (RFC 1141); a carry goes round.
        let sum = u32::from(load16(&self.checksum)) + u32::from(0x0100_u16.to_be());
        store16(
            &mut self.checksum,
            (sum as u16).wrapping_add(u16::from(sum >= 0xffff)),
        );
    }
    #[inline(always)]
    fn set_source(&mut self, address: &Address) {
        self.replace_checksum(load32(&self.source), address.v4_word());
        store32(&mut self.source, address.v4_word());
    }
    #[inline(always)]
    fn set_destination(&mut self, address: &Address) {
        self.replace_checksum(load32(&self.destination), address.v4_word());
        store32(&mut self.destination, address.v4_word());
    }
}

impl Ipv4 {
    #[inline(always)]
    fn replace_checksum(&mut self, old: u32, new: u32) {
        let sum = replace_sum(load16(&self.checksum), sum32(!old), sum32(new));
        store16(&mut self.checksum, sum);
    }
}

impl Ip for Ipv6 {
    const HAS_CHECKSUM: bool = false;
    const ICMP: u8 = IPPROTO_ICMPV6;
    const ECHO: [u8; 2] = [128, 129];
    const PORT_UNREACHABLE: [u8; 2] = [1, 4];
    const PROHIBITED: [u8; 2] = [1, 1];
    const TOO_LONG: [u8; 2] = [2, 0];
    type Quote = Quote<26, 14>;

    #[inline(always)]
    fn is_error(kind: u8) -> bool {
        // RFC 4443, 2.1.
        kind < 128
    }

    #[inline(always)]
    fn turn(&mut self, payload: u16, protocol: u8) {
        let (source, destination) = (load128(&self.source), load128(&self.destination));
        store16(&mut self.version_class, 0x6000_u16.to_be());
        store16(&mut self.flow, 0);
        store16(&mut self.payload_length, payload.to_be());
        self.next_header = protocol;
        self.hop_limit = HOPS;
        store128(&mut self.source, destination);
        store128(&mut self.destination, source);
    }

    #[inline(always)]
    fn is_routable(&self) -> bool {
        // Hop-by-hop options (0) are for routers (RFC 8200, 4.3); a link-local
        // source may not be forwarded (RFC 4291, 2.5.6).
        self.is_plain()
            && self.hop_limit > 1
            && self.next_header != 0
            && !(self.source[0] == 0xfe && self.source[1] & 0xc0 == 0x80)
    }
    #[inline(always)]
    fn is_plain(&self) -> bool {
        // An IPv4 address in the clothes of IPv6 is for sockets, not for wires
        // (RFC 6890, 2.2.3); here it would be that address.
        self.version_class[0] >> 4 == 6 && !self.source().is_v4() && !self.destination().is_v4()
    }
    #[inline(always)]
    fn source(&self) -> Address {
        Address::v6(load128(&self.source))
    }
    #[inline(always)]
    fn destination(&self) -> Address {
        Address::v6(load128(&self.destination))
    }
    #[inline(always)]
    fn hops(&self) -> u8 {
        self.hop_limit
    }
    #[inline(always)]
    fn packet_len(&self) -> u32 {
        Self::LEN as u32 + u32::from(u16::from_be(load16(&self.payload_length)))
    }
    #[inline(always)]
    fn protocol(&self) -> u8 {
        self.next_header
    }
    #[inline(always)]
    fn part(&self) -> (u16, bool, u32) {
        (0, false, 0)
    }
    #[inline(always)]
    fn transport(&self) -> Option<u8> {
        // A fragment header (44) is one more that is not TCP or UDP.
        Some(self.next_header)
    }
    #[inline(always)]
    fn may_be_cut(&self) -> bool {
        false
    }
    #[inline(always)]
    fn decrement_hops(&mut self) {
        self.hop_limit -= 1;
    }
    #[inline(always)]
    fn set_source(&mut self, address: &Address) {
        store128(&mut self.source, address.words());
    }
    #[inline(always)]
    fn set_destination(&mut self, address: &Address) {
        store128(&mut self.destination, address.words());
    }
}

/// The checksum that such a sum gives (RFC 1071).
#[inline(always)]
pub(crate) const fn fold(sum: u32) -> u16 {
    replace_sum(!0, sum, 0)
}

/// One's complement sum of the words of a pseudo header (RFC 9293, 3.1; RFC
/// 8200, 8.1), not folded.
#[inline(always)]
pub(crate) fn pseudo_header(
    source: &Address,
    destination: &Address,
    length: u16,
    protocol: u8,
) -> u32 {
    let ends = u32::from(length.to_be()) + u32::from(u16::from(protocol).to_be());
    if source.is_v4() {
        return ends + sum32(source.v4_word()) + sum32(destination.v4_word());
    }
    let ([a, b, c, d], [e, f, g, h]) = (source.words(), destination.words());
    let source = sum32(a) + sum32(b) + sum32(c) + sum32(d);
    source + sum32(e) + sum32(f) + sum32(g) + sum32(h) + ends
}

/// One's complement sum of the two halves, not folded.
#[inline(always)]
pub(crate) const fn sum32(word: u32) -> u32 {
    (word & 0xffff) + (word >> 16)
}

/// Checksum after a part of what it covers changed (RFC 1624, equation 3):
/// `removed` is the sum of the complement of the old words, `added` of the new
/// ones.
#[inline(always)]
pub(crate) const fn replace_sum(checksum: u16, removed: u32, added: u32) -> u16 {
    let mut sum = (!checksum as u32 & 0xffff) + removed + added;
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    !(sum as u16)
}

/// Loads that the kernel side does with one instruction a word.
macro_rules! load {
    ($name:ident, $size:literal, $word:ty) => {
        #[inline(always)]
        pub(crate) fn $name(bytes: &[u8; $size]) -> $word {
            #[cfg(target_arch = "bpf")]
            // SAFETY: in bounds. The kernel refuses the program on machines that
            // need alignment here; on all others a load needs none.
            unsafe {
                *bytes.as_ptr().cast::<$word>()
            }
            #[cfg(not(target_arch = "bpf"))]
            <$word>::from_ne_bytes(*bytes)
        }
    };
}

/// Stores, likewise.
macro_rules! store {
    ($name:ident, $size:literal, $word:ty) => {
        #[inline(always)]
        pub(crate) fn $name(bytes: &mut [u8; $size], word: $word) {
            #[cfg(target_arch = "bpf")]
            // SAFETY: as for loads.
            unsafe {
                *bytes.as_mut_ptr().cast::<$word>() = word;
            }
            #[cfg(not(target_arch = "bpf"))]
            {
                *bytes = word.to_ne_bytes();
            }
        }
    };
}

load!(load16, 2, u16);
load!(load32, 4, u32);
store!(store16, 2, u16);
store!(store32, 4, u32);

#[inline(always)]
fn load128(bytes: &[u8; 16]) -> [u32; 4] {
    let words = bytes.as_chunks::<4>().0;
    [
        load32(&words[0]),
        load32(&words[1]),
        load32(&words[2]),
        load32(&words[3]),
    ]
}

#[inline(always)]
fn store128(bytes: &mut [u8; 16], words: [u32; 4]) {
    let stored = bytes.as_chunks_mut::<4>().0;
    store32(&mut stored[0], words[0]);
    store32(&mut stored[1], words[1]);
    store32(&mut stored[2], words[2]);
    store32(&mut stored[3], words[3]);
}

#[cfg(test)]
mod tests;
