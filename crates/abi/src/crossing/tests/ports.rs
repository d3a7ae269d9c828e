//! Ports of translated flows: which one a flow gets, and when another one gets it.

use super::*;
use crate::{FLOW_LINGERS, FlowPorts};

#[test]
fn a_port_is_found_among_many_that_are_taken() {
    for names in &FAMILIES {
        let mut tables = tables();
        tables.ports = flow_ports(256);
        let request = |port| Sample::udp((names.client, port), (names.node, 30_080));
        for port in 1..12 {
            let verdict = through(&tables, &mut request(port).bytes(), UPLINK);
            assert_eq!(verdict, DELIVER);
        }
        // The same chances again: each of those ports is tried.
        tables.random.set(0);
        let verdict = through(&tables, &mut request(12).bytes(), UPLINK);
        assert_eq!(verdict, DELIVER);
        assert_eq!(tables.flows.borrow().len(), 24);
    }
}

/// Else a server's answer to that port is led to the service, before there is a packet.
#[test]
fn a_port_of_a_service_is_no_flow_s() {
    for names in &FAMILIES {
        let mut tables = tables();
        let asked = |tables: &MemoryTables, port| {
            let request = Sample::udp((names.client, port), (names.node, 30_080));
            through(tables, &mut request.bytes(), UPLINK)
        };
        tables.ports = FlowPorts {
            first: 30_080,
            ..flow_ports(7)
        };
        let refused = Verdict::Drop(DropReason::PortsExhausted);
        assert!((1..20).all(|port| asked(&tables, port) == refused));
        // The last one has no service.
        tables.ports.count = 8;
        assert!((1..20).any(|port| asked(&tables, port) == DELIVER));
        let flows = tables.flows.borrow();
        let from_node = flows.values().find(|flow| {
            flow.source == address(names.node) && flow.destination != address(names.client)
        });
        assert!(from_node.is_some_and(|flow| flow.source_port.host() == 30_087));
    }
}

#[test]
fn ports_run_out_one_day_and_come_back() {
    let names = &FAMILIES[0];
    let mut tables = tables();
    tables.ports = flow_ports(2);
    let leave = |tables: &MemoryTables, port| {
        let mut bytes = Sample::tcp_syn((names.pod, port), (names.client, 443)).bytes();
        through(tables, &mut bytes, LEAVING)
    };
    assert_eq!(leave(&tables, 1), Verdict::Stack);
    tables.random.set(1 << 31);
    assert_eq!(leave(&tables, 2), Verdict::Stack);
    assert_eq!(leave(&tables, 3), Verdict::Drop(DropReason::PortsExhausted));
    // Another destination has ports of its own.
    let mut other = Sample::tcp_syn((names.pod, 3), (names.client, 444)).bytes();
    assert_eq!(through(&tables, &mut other, LEAVING), Verdict::Stack);
    // Nobody has answered.
    tables.now.set(120);
    assert_eq!(leave(&tables, 3), Verdict::Stack);
}

/// A connection keeps its port for a day of silence, datagrams as long as
/// connection tracking has it.
#[test]
fn ports_are_kept_for_who_is_silent() {
    for (tcp, silent) in [(true, 24 * 60 * 60), (false, 120)] {
        let names = &FAMILIES[0];
        let mut tables = tables();
        tables.ports = flow_ports(1);
        tables.now.set(1);
        let make = |from, to| match tcp {
            true => Sample::tcp_syn(from, to),
            false => Sample::udp(from, to),
        };
        let leave = |tables: &MemoryTables, port| {
            let mut bytes = make((names.pod, port), (names.client, 443)).bytes();
            through(tables, &mut bytes, LEAVING)
        };
        assert_eq!(leave(&tables, 1), Verdict::Stack);
        let answer = make((names.client, 443), (names.node, FIRST_PORT));
        assert_eq!(through(&tables, &mut answer.bytes(), UPLINK), DELIVER);
        tables.now.set(silent);
        let refused = Verdict::Drop(DropReason::PortsExhausted);
        assert_eq!(leave(&tables, 2), refused);
        tables.now.set(1 + silent);
        assert_eq!(leave(&tables, 2), Verdict::Stack);
    }
}

/// Packets of connections from outside to a service by a port of the node.
struct Connections<'t> {
    names: &'t Names,
    tables: MemoryTables,
}

impl<'t> Connections<'t> {
    fn new(names: &'t Names, ports: FlowPorts) -> Self {
        let mut tables = tables();
        tables.ports = ports;
        Self { names, tables }
    }

    fn begin(&self, client: &str, port: u16) -> Verdict {
        let syn = Sample::tcp_syn((client, port), (self.names.node, 30_080));
        through(&self.tables, &mut syn.bytes(), UPLINK)
    }

    /// The node's port of a client's.
    fn port(&self, client: &str, port: u16) -> u16 {
        let flows = self.tables.flows.borrow();
        let is_it = |key: &&FlowKey| {
            key.source == address(client) && key.source_port == Port::from_host(port)
        };
        let key = flows.keys().find(is_it).unwrap();
        flows[key].source_port.host()
    }

    fn open(&self, client: &str, port: u16) -> u16 {
        assert_eq!(self.begin(client, port), DELIVER);
        let node_port = self.port(client, port);
        let answer = Sample::tcp((self.names.pod, 8080), (self.names.node, node_port));
        assert_eq!(through(&self.tables, &mut answer.bytes(), POD), OUT);
        node_port
    }

    fn client_ends(&self, client: &str, port: u16) {
        let end = Sample::tcp_fin((client, port), (self.names.node, 30_080));
        assert_eq!(through(&self.tables, &mut end.bytes(), UPLINK), DELIVER);
    }

    fn server_ends(&self, node_port: u16) {
        let end = Sample::tcp_fin((self.names.pod, 8080), (self.names.node, node_port));
        assert_eq!(through(&self.tables, &mut end.bytes(), POD), OUT);
    }

    fn lingers(&self) -> usize {
        let flows = self.tables.flows.borrow();
        let lingers = flows.values().filter(|flow| flow.flags & FLOW_LINGERS != 0);
        lingers.count()
    }
}

/// Whose own clock its server may remember.
#[test]
fn a_client_s_port_leads_to_the_same_one_again() {
    for names in &FAMILIES {
        let all = Connections::new(names, flow_ports(1000));
        let first = all.open(names.client, 40_000);
        for _ in 0..20 {
            all.server_ends(first);
            all.client_ends(names.client, 40_000);
            assert_eq!(all.open(names.client, 40_000), first);
        }
        // While it is open, another one; and who has another port gets that one's.
        let other = all.open(names.client, 40_002);
        assert_ne!(other, first);
        assert_eq!(other, first + 1);
    }
}

#[test]
fn servers_that_end_first_linger() {
    for names in &FAMILIES {
        let all = Connections::new(names, flow_ports(1000));
        let port = all.open(names.client, 40_000);
        all.client_ends(names.client, 40_000);
        all.server_ends(port);
        assert_eq!(all.lingers(), 0);
        let port = all.open(names.client, 40_002);
        all.server_ends(port);
        assert_eq!(all.lingers(), 1);
        // Its own port, which others do not get.
        let local = Sample::tcp_syn((names.client, 40_000), (names.node, 30_082));
        assert_eq!(through(&all.tables, &mut local.bytes(), UPLINK), DELIVER);
        let end = Sample::tcp_fin((names.pod, 8080), (names.client, 40_000));
        assert_eq!(through(&all.tables, &mut end.bytes(), POD), OUT);
        assert_eq!(all.lingers(), 1);
    }
}

/// Until the other engine is gone.
#[test]
fn while_another_engine_begins_flows_ports_are_others() {
    const OWN: u16 = 40_000;
    for names in &FAMILIES {
        let mut all = Connections::new(names, flow_ports(1000));
        all.tables.own_ports = FlowPorts {
            first: OWN,
            ..flow_ports(100)
        };
        let is_own = |port| (OWN..OWN + 100).contains(&port);
        let before = all.open(names.client, 1);
        assert!(!is_own(before));
        all.tables.uplinks.get_mut(&0).unwrap().set_shares_ports();
        for port in 2..40 {
            assert!(is_own(all.open(names.client, port)));
        }
        // Who has one keeps it.
        let next = Sample::tcp((names.client, 1), (names.node, 30_080));
        assert_eq!(through(&all.tables, &mut next.bytes(), UPLINK), DELIVER);
        assert_eq!(all.port(names.client, 1), before);
    }
}

/// Ports of which a server remembers another one's clock come last.
#[test]
fn others_get_ports_that_no_server_remembers() {
    // Chance goes from one to the next.
    const COUNT: u16 = 256;
    let clients = || (0..COUNT).map(|n| 40_000 + 2 * n);
    for names in &FAMILIES {
        let all = Connections::new(names, flow_ports(COUNT));
        let mut forgotten = Vec::new();
        for client in clients() {
            let port = all.open(names.client, client);
            if client % 8 == 0 {
                all.client_ends(names.client, client);
                all.server_ends(port);
                forgotten.push(port);
            } else {
                all.server_ends(port);
                all.client_ends(names.client, client);
            }
        }
        assert_eq!(all.lingers(), usize::from(COUNT) / 4 * 3);
        for client in 1..20 {
            assert!(forgotten.contains(&all.open(names.far_node, client)));
        }
        // Where there is none but those.
        let all = Connections::new(names, flow_ports(COUNT));
        for client in clients() {
            all.server_ends(all.open(names.client, client));
            all.client_ends(names.client, client);
        }
        all.open(names.far_node, 1);
        // What is open is nobody else's.
        let all = Connections::new(names, flow_ports(COUNT));
        for client in clients() {
            all.open(names.client, client);
        }
        let refused = Verdict::Drop(DropReason::PortsExhausted);
        assert_eq!(all.begin(names.far_node, 1), refused);
    }
}
