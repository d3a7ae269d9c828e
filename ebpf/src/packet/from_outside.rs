//! Ingress of uplinks and of the tunnel: what other nodes and the world send.

use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;

use super::{Skb, exit};
use crate::services::Kernel;

#[classifier]
fn from_outside(context: TcContext) -> i32 {
    let mut packet = Skb::new(&context);
    let outcome = ripstop_abi::from_outside(&mut packet, &Kernel);
    exit(&packet, outcome)
}
