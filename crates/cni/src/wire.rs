//! Between plugin and agent: one JSON line each way on the agent's socket.
//!
//! The plugin sends a [`Request`] and reads a [`Reply`]. After an ADD it prints
//! the result to the runtime and then sends [`ACK`]; if the socket closes before
//! the acknowledgement (plugin killed, runtime gone), the agent undoes the ADD.

use serde::{Deserialize, Serialize};

/// What the plugin sends after the runtime has got an ADD's result.
pub const ACK: &[u8] = b"ack\n";

/// Everything that the runtime told the plugin.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// `CNI_COMMAND`.
    pub command: String,
    /// `CNI_CONTAINERID`; empty for STATUS and GC.
    #[serde(default)]
    pub container_id: String,
    /// `CNI_NETNS`: path of the pod's network namespace.
    #[serde(default)]
    pub netns: Option<String>,
    /// `CNI_IFNAME`.
    #[serde(default)]
    pub ifname: String,
    /// `CNI_ARGS`, as it came: `K8S_POD_NAMESPACE=...;K8S_POD_NAME=...`.
    #[serde(default)]
    pub args: String,
    /// The network configuration from standard input.
    pub config: serde_json::Value,
}

/// What the plugin prints: a result with exit status 0, or an error with 1.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reply {
    /// Printed as it is; null prints nothing.
    Result(serde_json::Value),
    /// An error object of the specification (`cniVersion`, `code`, `msg`, `details`).
    Error(serde_json::Value),
}
