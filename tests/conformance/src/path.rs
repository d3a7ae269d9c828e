//! Ways from a client to a server.

use crate::place::Place;

/// Nodes of every cluster of the suite. The second is in another subnet and
/// another zone than the others.
pub const NODES: [&str; 3] = ["node1", "node2", "node3"];
/// The node of the clients.
pub const HOME: &str = NODES[0];

/// A server of the cluster that stays for all scenarios.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Server {
    pub name: &'static str,
    pub node: &'static str,
    /// Where it serves; `+ 1` as well.
    pub port: u16,
}

/// On the clients' node.
pub const NEAR: Server = server("near", NODES[0]);
/// On a node that is on the same link.
pub const BESIDE: Server = server("beside", NODES[2]);
/// On a node behind a router.
pub const FAR: Server = server("far", NODES[1]);
/// In the network namespace of the clients' node.
pub const ON_HOST: Server = Server {
    name: "on-host",
    node: NODES[0],
    port: 18080,
};

const fn server(name: &'static str, node: &'static str) -> Server {
    Server {
        name,
        node,
        port: 8080,
    }
}

/// A pod that only asks, on [`HOME`].
pub const CLIENT: &str = "client";
/// The same on the node of [`FAR`].
pub const OTHER_CLIENT: &str = "other-client";

/// From where to which server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Path {
    /// The scenario has ways of its own.
    Own,
    PodToNear,
    PodToBeside,
    PodToFar,
    PodToHost,
    Hairpin,
    NodeToNear,
    NodeToBeside,
    NodeToFar,
    HostPodToNear,
    HostPodToFar,
    OutsideToNear,
    OutsideToBeside,
    OutsideToFar,
    OutsideToHost,
}

impl Path {
    pub const PODS: &[Path] = &[
        Self::PodToNear,
        Self::PodToBeside,
        Self::PodToFar,
        Self::PodToHost,
        Self::Hairpin,
    ];
    pub const INSIDE: &[Path] = &[
        Self::PodToNear,
        Self::PodToBeside,
        Self::PodToFar,
        Self::PodToHost,
        Self::Hairpin,
        Self::NodeToNear,
        Self::NodeToBeside,
        Self::NodeToFar,
        Self::HostPodToNear,
        Self::HostPodToFar,
    ];
    pub const ALL: &[Path] = &[
        Self::PodToNear,
        Self::PodToBeside,
        Self::PodToFar,
        Self::PodToHost,
        Self::Hairpin,
        Self::NodeToNear,
        Self::NodeToBeside,
        Self::NodeToFar,
        Self::HostPodToNear,
        Self::HostPodToFar,
        Self::OutsideToNear,
        Self::OutsideToBeside,
        Self::OutsideToFar,
        Self::OutsideToHost,
    ];
    /// For scenarios that ask from everywhere, wherever the server is.
    pub const CLIENTS: &[Path] = &[Self::PodToNear, Self::NodeToNear, Self::OutsideToNear];

    pub fn name(self) -> &'static str {
        match self {
            Self::Own => "",
            Self::PodToNear => "pod to pod, one node",
            Self::PodToBeside => "pod to pod, routed",
            Self::PodToFar => "pod to pod, tunnelled",
            Self::PodToHost => "pod to host-network pod",
            Self::Hairpin => "pod to itself",
            Self::NodeToNear => "node to its pod",
            Self::NodeToBeside => "node to pod, routed",
            Self::NodeToFar => "node to pod, tunnelled",
            Self::HostPodToNear => "host-network pod to pod",
            Self::HostPodToFar => "host-network pod, tunnelled",
            Self::OutsideToNear => "outside to pod of the node",
            Self::OutsideToBeside => "outside, forwarded, routed",
            Self::OutsideToFar => "outside, forwarded, tunnelled",
            Self::OutsideToHost => "outside to host-network pod",
        }
    }

    pub fn client(self) -> Place {
        match self {
            Self::Own | Self::PodToNear | Self::PodToBeside | Self::PodToFar | Self::PodToHost => {
                Place::pod(CLIENT)
            }
            Self::Hairpin => Place::pod(NEAR.name),
            Self::NodeToNear | Self::NodeToBeside | Self::NodeToFar => Place::node(HOME),
            Self::HostPodToNear | Self::HostPodToFar => Place::pod(ON_HOST.name),
            Self::OutsideToNear
            | Self::OutsideToBeside
            | Self::OutsideToFar
            | Self::OutsideToHost => Place::Outside,
        }
    }

    pub fn server(self) -> Server {
        match self {
            Self::Own
            | Self::PodToNear
            | Self::Hairpin
            | Self::NodeToNear
            | Self::HostPodToNear
            | Self::OutsideToNear => NEAR,
            Self::PodToBeside | Self::NodeToBeside | Self::OutsideToBeside => BESIDE,
            Self::PodToFar | Self::NodeToFar | Self::HostPodToFar | Self::OutsideToFar => FAR,
            Self::PodToHost | Self::OutsideToHost => ON_HOST,
        }
    }
}
