//! What the stacks of functions that call each other take together.
//!
//! All kernels allow 512 bytes (`check_max_stack_depth` in kernel/bpf/verifier.c).
//! Before Linux 6.9 each function's part counts in steps of 32 bytes, and since then
//! of 16: what is loaded here may be refused there.

use std::collections::{BTreeMap, HashSet};

use aya_obj::Object;
use aya_obj::generated::bpf_insn;

use super::OBJECT;

const LIMIT: usize = 512;
const STEP: usize = 32;

/// The register of the frame, and the codes (include/uapi/linux/bpf.h) of what is
/// asked here.
const FRAME: u8 = 10;
const MOVE: u8 = 0xbf;
const ADD: u8 = 0x07;
const CALL: u8 = 0x85;
const LOAD_ADDRESS: u8 = 0x18;
/// Source registers that say that a call, or an address, is a function of ours.
const OURS: u8 = 1;
const OURS_ADDRESS: u8 = 4;

/// A function: bytes of its own stack, and where those that it calls begin.
#[derive(Debug, Default)]
struct Function {
    stack: usize,
    calls: Vec<usize>,
}

/// The functions of a program by where they begin; its own is at 0.
fn functions(code: &[bpf_insn]) -> BTreeMap<usize, Function> {
    let called = |at: usize, one: &bpf_insn| {
        let is_ours = matches!(
            (one.code, one.src_reg()),
            (CALL, OURS) | (LOAD_ADDRESS, OURS_ADDRESS)
        );
        is_ours.then(|| at.wrapping_add_signed(1 + one.imm as isize))
    };
    let calls = code.iter().enumerate();
    let calls: Vec<_> = calls
        .filter_map(|(at, one)| Some((at, called(at, one)?)))
        .collect();
    let begins = calls.iter().map(|(_, to)| *to).chain([0]);
    let mut found: BTreeMap<_, _> = begins.map(|at| (at, Function::default())).collect();
    for (at, to) in calls {
        let (_, function) = found.range_mut(..=at).next_back().expect("one begins at 0");
        function.calls.push(to);
    }
    let mut frame = [None::<i64>; 11];
    for (at, one) in code.iter().enumerate() {
        if found.contains_key(&at) {
            frame = [None; 11];
            frame[usize::from(FRAME)] = Some(0);
        }
        let (to, from) = (usize::from(one.dst_reg()), usize::from(one.src_reg()));
        let lowest = match one.code & 7 {
            // A load, and stores.
            1 => frame[from].map(|base| base + i64::from(one.off)),
            2 | 3 => frame[to].map(|base| base + i64::from(one.off)),
            _ => None,
        };
        match one.code {
            MOVE => frame[to] = frame[from],
            ADD => frame[to] = frame[to].map(|base| base + i64::from(one.imm)),
            // The others of 64 and 32 bits, and loads, make something else of it.
            other if matches!(other & 7, 0 | 1 | 4 | 7) => frame[to] = None,
            _ => {}
        }
        let reached = frame[to].filter(|_| one.code == ADD).or(lowest);
        let (_, function) = found.range_mut(..=at).next_back().expect("one begins at 0");
        let bytes = reached.map_or(0, |base| usize::try_from(-base).unwrap_or(0));
        function.stack = function.stack.max(bytes);
    }
    found
}

/// The most that `at` and what it calls take, and their parts of it.
fn deepest(functions: &BTreeMap<usize, Function>, at: usize) -> (usize, Vec<usize>) {
    let function = &functions[&at];
    let below = function.calls.iter().map(|to| deepest(functions, *to));
    let (rest, mut parts) = below.max().unwrap_or_default();
    parts.insert(0, function.stack);
    (rest + function.stack.max(1).next_multiple_of(STEP), parts)
}

#[test]
fn stacks_are_small_enough_for_older_kernels() {
    let mut object = Object::parse(&OBJECT.0).unwrap();
    let text: HashSet<usize> = object.functions.keys().map(|(at, _)| *at).collect();
    object.relocate_calls(&text).unwrap();
    let mut calls = 0;
    for (name, program) in &object.programs {
        let code = &object.functions[&program.function_key()].instructions;
        let functions = functions(code);
        calls += functions.len() - 1;
        let (all, parts) = deepest(&functions, 0);
        println!("{name}: {all} bytes, of functions with {parts:?}");
        assert!(
            all <= LIMIT,
            "{name}: {all} bytes, of functions with {parts:?}"
        );
    }
    assert!(calls > 10, "the programs call functions");
}
