//! The sets and maps of the table. Those of a family are alike.

use ripstop_netlink::nftables::{DataKind, Family, Field, SetSpec};

use Field::{Interface, Ipv4, Ipv6, Number, Port, Protocol};

/// Pairs of frontend and backend whose bytes, or connections from outside, are known,
/// per family, at most.
const TRAFFIC: u32 = 1 << 16;
/// Rows of what was stopped, per family and direction, at most.
const DENIALS: u32 = 4096;
/// A filler, and an id of 8 bytes.
const ID: &[Field] = &[Number, Number, Number];
/// Side, family and class, and nothing of an address.
const PAIR: &[Field] = &[Number, Number, Number, Number, Number];
/// Row, protocol, port, and how many of its bits count.
const PORTS: &[Field] = &[Number, Number, Protocol, Port, Protocol];
/// Clients that hold a backend, per family, at most.
const AFFINITIES: u32 = 1 << 18;

/// What a set is for; each is there once per family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Set {
    /// Frontend -> class. Counts connections.
    Services,
    /// Class -> chain.
    Classes,
    /// Slot and frontend -> backend. Counts connections.
    Slots,
    /// The same for packets from outside, where these choose among others.
    Outer,
    /// The same for packets from outside, by a consistent table. Counts nothing: to
    /// make and end a counter takes the kernel longer than all the rest of an element,
    /// and there are many slots for each backend, of which a change moves some.
    Spread,
    /// Frontend and backend of connections that were so spread; made and counted by
    /// their first packets.
    Led,
    /// Client and frontend -> backend; made by packets.
    Affinity,
    /// Frontend and backend: those that clients may hold. Counts connections.
    Members,
    /// Frontend and backend of connections; made and counted by packets of both
    /// directions.
    Traffic,
    /// Frontends whose clients keep their address.
    Preserved,
    /// Frontend and client, as ranges.
    Clients,
    /// All addresses that packets of pods go to as they are. Before those of pods: the
    /// kernel puts sets of ranges in place one after the other, and what comes from pods
    /// and goes to none of these leaves the cluster.
    ClusterRanges,
    /// Addresses of the cluster's pods.
    PodRanges,
    /// Addresses for services.
    ServiceRanges,
    /// Addresses of this node's pods.
    Pods,
    /// The same twice: from itself to itself.
    Hairpin,
    /// Addresses of other nodes' pods, as ranges -> longest segment.
    Segments,
    /// Interfaces that lead to this node's pods.
    PodLinks,
    /// Such an interface and the address of its pod.
    PodSources,
    /// Address of a pod of this node that policies are about -> side.
    EgressSides,
    IngressSides,
    /// Address of a pod or the like -> class.
    PolicyAddresses,
    /// All other addresses, as ranges -> class.
    PolicyBlocks,
    /// Side and class -> row.
    Pairs,
    /// Row, protocol, and ports by their first bits: what is allowed.
    Allowed,
    /// Pod, other, protocol and port of what was stopped; made and counted by
    /// packets.
    DeniedEgress,
    DeniedIngress,
}

pub(super) const ALL: [Set; 27] = [
    Set::Services,
    Set::Classes,
    Set::Slots,
    Set::Outer,
    Set::Spread,
    Set::Led,
    Set::Affinity,
    Set::Members,
    Set::Traffic,
    Set::Preserved,
    Set::Clients,
    Set::PodRanges,
    Set::ServiceRanges,
    Set::ClusterRanges,
    Set::Pods,
    Set::Hairpin,
    Set::Segments,
    Set::PodLinks,
    Set::PodSources,
    Set::EgressSides,
    Set::IngressSides,
    Set::PolicyAddresses,
    Set::PolicyBlocks,
    Set::Pairs,
    Set::Allowed,
    Set::DeniedEgress,
    Set::DeniedIngress,
];

pub(super) const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

const PORT_AND_CLASS: &[Field] = &[Port, Number, Number, Number, Number];

impl Set {
    pub(super) fn name(self, family: Family) -> &'static str {
        self.spec(family).name
    }

    /// Where in a key the frontend begins, in sets that have one.
    pub(super) const fn frontend_at(self, family: Family) -> usize {
        match self {
            Self::Slots | Self::Outer | Self::Spread => 4,
            Self::Affinity => super::keys::length(family),
            _ => 0,
        }
    }

    /// Packets make its elements.
    pub(super) fn is_dynamic(self) -> bool {
        self.spec(Family::V4).dynamic.is_some()
    }

    pub(super) const fn spec(self, family: Family) -> SetSpec {
        macro_rules! of {
            ($name:literal, $($field:ident),+) => {
                match family {
                    Family::V4 => {
                        const KEY: &[Field] = &of!(@ Ipv4, $($field),+);
                        SetSpec::set(concat!($name, "4"), KEY)
                    }
                    Family::V6 => {
                        const KEY: &[Field] = &of!(@ Ipv6, $($field),+);
                        SetSpec::set(concat!($name, "6"), KEY)
                    }
                }
            };
            (@ $address:ident, $($field:ident),+) => {
                [$(of!(= $address, $field)),+]
            };
            (= $address:ident, Address) => { $address };
            (= $address:ident, $field:ident) => { $field };
        }
        // The frontend's port comes before it: `rules` says why.
        let backend: &'static [Field] = match family {
            Family::V4 => &[Port, Ipv4, Port],
            Family::V6 => &[Port, Ipv6, Port],
        };
        match self {
            Self::Services => SetSpec {
                data: DataKind::Fields(PORT_AND_CLASS),
                counts: true,
                ..of!("services", Address, Protocol, Port)
            },
            Self::Classes => SetSpec {
                data: DataKind::Verdict,
                ..of!("classes", Number, Number, Number, Number)
            },
            Self::Slots => SetSpec {
                data: DataKind::Fields(backend),
                counts: true,
                ..of!("slots", Number, Address, Protocol, Port)
            },
            Self::Outer => SetSpec {
                data: DataKind::Fields(backend),
                counts: true,
                ..of!("outer", Number, Address, Protocol, Port)
            },
            Self::Spread => SetSpec {
                data: DataKind::Fields(backend),
                ..of!("spread", Number, Address, Protocol, Port)
            },
            Self::Led => SetSpec {
                dynamic: Some(TRAFFIC),
                counts: true,
                ..of!("led", Address, Protocol, Port, Address, Port)
            },
            Self::Affinity => SetSpec {
                data: DataKind::Fields(backend),
                dynamic: Some(AFFINITIES),
                ..of!("affinity", Address, Address, Protocol, Port)
            },
            Self::Members => SetSpec {
                counts: true,
                ..of!("members", Address, Protocol, Port, Address, Port)
            },
            Self::Traffic => SetSpec {
                dynamic: Some(TRAFFIC),
                counts: true,
                ..of!("traffic", Address, Protocol, Port, Address, Port)
            },
            Self::Preserved => of!("preserved", Address, Protocol, Port),
            Self::Clients => SetSpec {
                ranges: true,
                ..of!("clients", Address, Protocol, Port, Address)
            },
            Self::PodRanges => SetSpec {
                ranges: true,
                ..of!("pod-ranges", Address)
            },
            Self::ServiceRanges => SetSpec {
                ranges: true,
                ..of!("service-ranges", Address)
            },
            Self::ClusterRanges => SetSpec {
                ranges: true,
                ..of!("cluster-ranges", Address)
            },
            Self::Pods => of!("pods", Address),
            Self::Hairpin => of!("hairpin", Address, Address),
            Self::Segments => SetSpec {
                data: DataKind::Fields(&[Port]),
                ranges: true,
                ..of!("segments", Address)
            },
            Self::PodLinks => of!("pod-links", Interface),
            Self::PodSources => of!("pod-sources", Interface, Address),
            Self::EgressSides => SetSpec {
                data: DataKind::Fields(ID),
                ..of!("egress-sides", Address)
            },
            Self::IngressSides => SetSpec {
                data: DataKind::Fields(ID),
                ..of!("ingress-sides", Address)
            },
            Self::PolicyAddresses => SetSpec {
                data: DataKind::Fields(ID),
                ..of!("policy-addresses", Address)
            },
            Self::PolicyBlocks => SetSpec {
                data: DataKind::Fields(ID),
                ranges: true,
                ..of!("policy-blocks", Address)
            },
            Self::Pairs => {
                let name = match family {
                    Family::V4 => "policy-rules4",
                    Family::V6 => "policy-rules6",
                };
                SetSpec {
                    data: DataKind::Fields(ID),
                    ..SetSpec::set(name, PAIR)
                }
            }
            Self::Allowed => {
                let name = match family {
                    Family::V4 => "policy-ports4",
                    Family::V6 => "policy-ports6",
                };
                SetSpec::set(name, PORTS)
            }
            Self::DeniedEgress => SetSpec {
                dynamic: Some(DENIALS),
                counts: true,
                ..of!("denied-egress", Address, Address, Protocol, Port)
            },
            Self::DeniedIngress => SetSpec {
                dynamic: Some(DENIALS),
                counts: true,
                ..of!("denied-ingress", Address, Address, Protocol, Port)
            },
        }
    }
}
