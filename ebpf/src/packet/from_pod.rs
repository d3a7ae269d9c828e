//! Ingress of the host's end of a pod's link: what the pod sends.

use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;

use super::{Skb, exit};
use crate::services::Kernel;

#[classifier]
fn from_pod(context: TcContext) -> i32 {
    let mut packet = Skb::new(&context);
    let outcome = ripstop_abi::from_pod(&mut packet, &Kernel);
    exit(&packet, outcome)
}
