//! Ingress of the host's end of a pod's link: what the pod sends.

use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;

use super::{Skb, exit};
use crate::services::Kernel;

/// For pods without host ports: what they send to pods is no answer to a
/// translated packet.
#[classifier]
fn from_pod(context: TcContext) -> i32 {
    let mut packet = Skb::new(&context);
    let outcome = ripstop_abi::from_pod(&mut packet, &Kernel, false);
    exit(&packet, outcome)
}

/// For pods with host ports.
#[classifier]
fn from_pod_ports(context: TcContext) -> i32 {
    let mut packet = Skb::new(&context);
    let outcome = ripstop_abi::from_pod(&mut packet, &Kernel, true);
    exit(&packet, outcome)
}
