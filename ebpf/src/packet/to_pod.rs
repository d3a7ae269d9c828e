//! Egress of the host's end of a pod's link: what the host's stack sends to the
//! pod.

use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;

use ripstop_abi::FinalVerdict;

use super::{Skb, answer, exit};
use crate::services::Kernel;

#[classifier]
fn to_pod(context: TcContext) -> i32 {
    let mut packet = Skb::new(&context);
    let outcome = ripstop_abi::to_pod(&mut packet, &Kernel);
    if outcome.kind == FinalVerdict::ANSWER {
        return answer(&packet, outcome.value);
    }
    exit(&packet, outcome)
}
