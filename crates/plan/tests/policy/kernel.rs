//! The rows as the kernel programs have them, and the programs' own decision.

use std::collections::HashMap;
use std::net::IpAddr;

use ripstop_abi as abi;
use ripstop_model::ObjectKey;
use ripstop_plan::policy::{Attribution, Direction, Outcome, PolicyTables, PortTable, kernel};

use crate::reference::Packet;

/// Tables of the kernel, in memory.
pub(crate) struct Kernel {
    pods: HashMap<abi::Address, abi::PolicyPod>,
    classes: HashMap<abi::ClassKey, u64>,
    pairs: HashMap<abi::PairKey, abi::PairRow>,
    ports: Vec<abi::PortNode>,
}

impl Kernel {
    pub(crate) fn new(tables: &PolicyTables) -> Self {
        let mut ports = Vec::new();
        let mut roots = HashMap::new();
        for (id, table) in &tables.ports {
            let root = u32::try_from(ports.len()).unwrap();
            roots.insert(*id, root);
            let nodes = kernel::port_nodes(table, root);
            assert_eq!(nodes.len(), kernel::port_nodes_count(table));
            ports.extend(nodes);
        }
        let classes = tables.classes.iter();
        let classes = classes.map(|(net, class)| (kernel::class_key(*net), class.number()));
        let pods = tables.pods.iter();
        let rules = tables.rules.iter();
        Self {
            pods: pods
                .map(|(at, pod)| ((*at).into(), kernel::pod(*pod)))
                .collect(),
            classes: classes
                .chain([(abi::ClassKey::ALL_V4, abi::CLASS_V4)])
                .collect(),
            pairs: rules
                .map(|(pair, row)| {
                    (
                        kernel::pair_key(*pair),
                        kernel::pair_row(row, |id| roots[&id]),
                    )
                })
                .collect(),
            ports,
        }
    }

    pub(crate) fn judge(&self, packet: Packet<'_>) -> abi::Outcome {
        let question = abi::Question {
            pod: packet.address.into(),
            direction: match packet.direction {
                Direction::Ingress => abi::Direction::Ingress,
                Direction::Egress => abi::Direction::Egress,
            },
            other: packet.other.into(),
            protocol: packet.protocol.map_or(1, |protocol| protocol as u8),
            port: abi::Port::from_host(packet.port),
        };
        abi::judge(self, &question)
    }
}

impl abi::PolicyTables for Kernel {
    fn pod(&self, address: &abi::Address) -> Option<&abi::PolicyPod> {
        self.pods.get(address)
    }

    /// One trie for both families, as the kernel has it.
    fn class(&self, address: &abi::Address) -> Option<u64> {
        let bits = match IpAddr::from(*address) {
            IpAddr::V4(v4) => u128::from(v4.to_ipv6_mapped()),
            IpAddr::V6(v6) => u128::from(v6),
        };
        (0..=128_u32).rev().find_map(|prefix_len| {
            let mask = u128::MAX.checked_shl(128 - prefix_len).unwrap_or(0);
            let address = IpAddr::from((bits & mask).to_be_bytes()).into();
            let key = abi::ClassKey {
                prefix_len,
                address,
            };
            self.classes.get(&key).copied()
        })
    }

    fn pair(&self, key: &abi::PairKey) -> Option<&abi::PairRow> {
        self.pairs.get(key)
    }

    fn port_node(&self, node: u32) -> Option<&abi::PortNode> {
        self.ports.get(node as usize)
    }
}

/// Rules that make any number of port ranges, and every port asked.
#[test]
fn port_tables_of_every_depth() {
    for ranges in [1, 2, 8, 9, 64, 65, 513, 4097, 32_769] {
        let name = |index: usize| Attribution::UnknownPod {
            pod: ObjectKey::new("n", (index % 7).to_string()),
        };
        let table = PortTable(
            (0..ranges)
                .map(|index| {
                    let first = u16::try_from(index * 65_536 / ranges).unwrap();
                    let by = name(index).id();
                    let allowed = index % 2 == 0;
                    (first, Outcome { allowed, by })
                })
                .collect(),
        );
        let offset = 5;
        let filler = abi::PortNode::new(&[]);
        let mut ports = vec![filler; offset];
        ports.extend(kernel::port_nodes(&table, u32::try_from(offset).unwrap()));
        let pod: IpAddr = [10, 0, 0, 1].into();
        let row = abi::PairRow {
            cells: [
                abi::Outcome::see_node(u32::try_from(offset).unwrap()),
                abi::Outcome::allow(1),
                abi::Outcome::allow(1),
                abi::Outcome::allow(1),
            ],
        };
        let (policy, class) = (77, abi::CLASS_V4);
        let kernel = Kernel {
            pods: HashMap::from([(pod.into(), abi::PolicyPod::new(policy, policy))]),
            classes: HashMap::new(),
            pairs: HashMap::from([(abi::PairKey { policy, class }, row)]),
            ports,
        };
        for port in 0..=u16::MAX {
            let question = abi::Question {
                pod: pod.into(),
                direction: abi::Direction::Egress,
                other: IpAddr::from([10, 0, 0, 2]).into(),
                protocol: 6,
                port: abi::Port::from_host(port),
            };
            let found = abi::judge(&kernel, &question);
            let expect = table.at(port);
            assert_eq!(
                (found.is_allowed(), found.by()),
                (expect.allowed, expect.by.number()),
                "{ranges} ranges, port {port}"
            );
        }
    }
}
