//! Ingress of the host's end of a pod's link: what the pod sends.

use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;

use super::{Kernel, Skb, exit};

/// For pods without host ports: nothing of theirs is translated.
#[classifier]
fn from_pod(context: TcContext) -> i32 {
    exit(ripstop_abi::from_pod(
        &mut Skb::new(&context),
        &Kernel,
        false,
    ))
}

/// For pods with host ports.
#[classifier]
fn from_pod_ports(context: TcContext) -> i32 {
    exit(ripstop_abi::from_pod(
        &mut Skb::new(&context),
        &Kernel,
        true,
    ))
}
