//! Functions of programs that the verifier walks through once, with whatever
//! numbers, and not again for all that is known where they are called: global
//! functions, as the kernel calls them. It knows them by type information
//! (<https://docs.kernel.org/bpf/btf.html>), which is made here: the object has
//! none.

use std::io;
use std::os::fd::OwnedFd;

use aya_obj::Object;
use aya_obj::generated::bpf_func_info;

use super::sys;

/// Their names in the object, and what they take (`ebpf/src/packet/apart.rs`,
/// `ebpf/src/socket/mod.rs`).
const GLOBAL: [(&str, Takes); 25] = [
    ("picked", Takes::SocketAnd(4)),
    ("begun", Takes::Words(2)),
    ("claimed", Takes::Words(2)),
    ("decided_from_pod", Takes::Words(2)),
    ("decided_from_outside", Takes::Words(2)),
    ("decided_to_outside", Takes::Words(2)),
    ("note_part", Takes::Words(1)),
    ("first_part", Takes::Words(1)),
    ("policed", Takes::Words(2)),
    ("noted", Takes::Words(2)),
    ("placed", Takes::Words(1)),
    ("judged", Takes::Words(1)),
    ("read_v4", Takes::PacketAnd(1)),
    ("read_v6", Takes::PacketAnd(1)),
    ("stranded", Takes::PacketAnd(0)),
    ("part_for_stack", Takes::PacketAnd(1)),
    ("settled_v4", Takes::PacketAnd(1)),
    ("settled_v6", Takes::PacketAnd(1)),
    ("asked_v4", Takes::PacketAnd(2)),
    ("asked_v6", Takes::PacketAnd(2)),
    ("performed_v4", Takes::PacketAnd(1)),
    ("performed_v6", Takes::PacketAnd(1)),
    ("left_v4", Takes::PacketAnd(1)),
    ("left_v6", Takes::PacketAnd(1)),
    ("crc32c_product", Takes::Words(2)),
];

/// What a function takes: so many numbers, or the packet or socket before them.
#[derive(Clone, Copy)]
enum Takes {
    Words(u32),
    PacketAnd(u32),
    SocketAnd(u32),
}
const MOST_WORDS: u32 = 4;

/// Types in the order in which they are made: a word, a packet, where one is, a
/// socket, where one is, what takes none, one and more words, what takes a packet
/// besides, what takes a socket, a function that is not global, and the global ones.
const WORD: u32 = 1;
const PACKET: u32 = 2;
const PACKET_AT: u32 = 3;
const SOCKET: u32 = 4;
const SOCKET_AT: u32 = 5;
const TAKES_WORDS: u32 = 6;
const TAKES_PACKET: u32 = TAKES_WORDS + MOST_WORDS + 1;
const TAKES_SOCKET: u32 = TAKES_PACKET + MOST_WORDS + 1;
const STATIC: u32 = TAKES_SOCKET + MOST_WORDS + 1;

/// Type information about the functions of all programs.
pub(crate) fn types() -> io::Result<OwnedFd> {
    const INT: u32 = 1 << 24;
    const POINTER: u32 = 2 << 24;
    const STRUCT: u32 = 4 << 24;
    const FUNC: u32 = 12 << 24;
    const FUNC_PROTO: u32 = 13 << 24;
    let mut strings = vec![0];
    let mut named = |name: &str| {
        let at = strings.len() as u32;
        strings.extend(name.bytes().chain([0]));
        at
    };
    let word = named("word");
    let mut types = vec![word, INT, 8, 64];
    // By these names the kernel knows what programs are given.
    types.extend([named("__sk_buff"), STRUCT, 0]);
    types.extend([0, POINTER, PACKET]);
    types.extend([named("bpf_sock_addr"), STRUCT, 0]);
    types.extend([0, POINTER, SOCKET]);
    for given in [[].as_slice(), &[PACKET_AT], &[SOCKET_AT]] {
        for words in 0..=MOST_WORDS {
            let takes = given.len() as u32 + words;
            types.extend([0, FUNC_PROTO | takes, WORD]);
            types.extend(given.iter().flat_map(|at| [word, *at]));
            types.extend([word, WORD].repeat(words as usize));
        }
    }
    // Linkage is in the place of a number of members: 0 is static, 1 global.
    types.extend([named("part"), FUNC, TAKES_WORDS]);
    for (name, takes) in GLOBAL {
        let takes = match takes {
            Takes::Words(words) => TAKES_WORDS + words,
            Takes::PacketAnd(words) => TAKES_PACKET + words,
            Takes::SocketAnd(words) => TAKES_SOCKET + words,
        };
        types.extend([named(name), FUNC | 1, takes]);
    }
    sys::btf_load(&sys::btf(&types, &strings))
}

/// Says of each function what it is. Before they are linked to programs, which
/// then have the list of theirs.
pub(crate) fn mark(object: &mut Object) {
    for function in object.functions.values_mut() {
        let global = GLOBAL.iter().position(|(name, _)| *name == function.name);
        function.func_info.func_info = vec![bpf_func_info {
            insn_off: 0,
            type_id: global.map_or(STATIC, |index| STATIC + 1 + index as u32),
        }];
    }
}
