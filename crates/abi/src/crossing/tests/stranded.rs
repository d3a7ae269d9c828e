//! Sockets of pods that are connected to backends which are no pods.

use super::*;
use crate::{BackendKey, SOCKET_CONNECTED, SOCKET_UNCONNECTED, SocketState};

/// What becomes of a packet of a socket that remembers this.
fn sent(tables: &MemoryTables, sample: &Sample, socket: Option<SocketState>) -> Verdict {
    let mut bytes = sample.bytes();
    let mut packet = PacketBytes {
        bytes: &mut bytes,
        link: [0; 6],
        ifindex: POD,
        segment_size: 0,
        came_by: 0,
        socket,
    };
    crate::from_pod(&mut packet, tables).verdict()
}

#[test]
fn they_are_told_that_it_is_gone() {
    for names in &FAMILIES {
        for backend in [names.far_node, names.client] {
            let mut tables = tables();
            let (set, id) = (9000, 1);
            let led = SocketState {
                frontend: at(names.service, 80, IPPROTO_UDP),
                backend: to(backend, 53),
                set,
                id,
                flags: SOCKET_CONNECTED,
            };
            let datagram = Sample::udp((names.pod, 1000), (backend, 53));
            let refused = Verdict::Answer(DropReason::NoBackends);
            assert_eq!(sent(&tables, &datagram, Some(led)), refused);
            // Not what it or another one sends elsewhere, or was not led to.
            let elsewhere = Sample::udp((names.pod, 1000), (backend, 54));
            let unconnected = SocketState {
                flags: SOCKET_UNCONNECTED,
                ..led
            };
            let connection = Sample::tcp_syn((names.pod, 1000), (backend, 53));
            for (sample, socket) in [
                (&elsewhere, Some(led)),
                (&datagram, Some(unconnected)),
                (&datagram, None),
                (&connection, Some(led)),
            ] {
                assert_eq!(sent(&tables, sample, socket), Verdict::Stack);
            }
            tables.backends.insert(BackendKey { set, id }, led.backend);
            assert_eq!(sent(&tables, &datagram, Some(led)), Verdict::Stack);
        }
    }
}
