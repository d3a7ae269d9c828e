//! Egress of uplinks: what of the pods' leaves the cluster.

use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;

use super::{Skb, exit};
use crate::services::Kernel;

#[classifier]
fn to_outside(context: TcContext) -> i32 {
    let mut packet = Skb::new(&context);
    let outcome = ripstop_abi::to_outside(&mut packet, &Kernel);
    exit(&packet, outcome)
}
