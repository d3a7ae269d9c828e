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

/// Their names in the object, and how many numbers they take
/// (`ebpf/src/packet/apart.rs`).
const GLOBAL: [(&str, usize); 4] = [
    ("begun", 2),
    ("decided_from_pod", 2),
    ("decided_from_outside", 2),
    ("policed", 1),
];
const MOST_NUMBERS: usize = 2;

/// Types in the order in which they are made: a word, what takes none, one and
/// more of them, a function that is not global, and the global ones.
const WORD: u32 = 1;
const TAKES_NONE: u32 = 2;
const STATIC: u32 = TAKES_NONE + MOST_NUMBERS as u32 + 1;

/// Type information about the functions of all programs.
pub(crate) fn types() -> io::Result<OwnedFd> {
    const INT: u32 = 1 << 24;
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
    for numbers in 0..=MOST_NUMBERS {
        types.extend([0, FUNC_PROTO | numbers as u32, WORD]);
        types.extend([word, WORD].repeat(numbers));
    }
    // Linkage is in the place of a number of members: 0 is static, 1 global.
    types.extend([named("part"), FUNC, TAKES_NONE]);
    for (name, numbers) in GLOBAL {
        types.extend([named(name), FUNC | 1, TAKES_NONE + numbers as u32]);
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
