//! Datagram sockets of the node's own processes that are connected to a backend
//! which has gone. Their packets are not seen one by one, as those of pods are,
//! so the socket is disconnected: who waits for an answer gets `ECONNABORTED`, who
//! sends `EDESTADDRREQ`, and who connects again another backend.
//!
//! Sockets in pods are led like these only if the backend was no pod (see
//! [`ripstop_abi::leads_datagrams`]). They are in namespaces that the engine is
//! not told of, and stay.

use ripstop_abi::{Backend, Port, ReverseKey};

use super::EbpfEngine;
use super::frontends::Frontends;
use super::maps::Maps;
use crate::Error;
use ripstop_netlink::sockets::{ConnectedUdp, Sockets};

/// Disconnects the sockets, in the calling thread's network namespace, that were
/// led to a backend which their frontend does not have any more. Gives how many.
///
/// # Errors
/// If the kernel cannot list sockets, or not disconnect them.
pub(crate) fn disconnect(maps: &Maps, frontends: &Frontends) -> Result<usize, Error> {
    let mut sockets = Sockets::new().map_err(failed)?;
    let mut stranded = Vec::new();
    for socket in sockets.connected_udp().map_err(failed)? {
        let key = key(&socket);
        // Who connects to a backend by its own address has no row.
        if let Some(frontend) = maps.connected.get(&key)?
            && !frontends.leads_to(&frontend, &key.backend)
        {
            stranded.push(socket);
        }
    }
    sockets.disconnect(&stranded).map_err(failed)?;
    Ok(stranded.len())
}

fn key(socket: &ConnectedUdp) -> ReverseKey {
    let port = Port::from_host(socket.peer.port());
    ReverseKey {
        cookie: [socket.cookie as u32, (socket.cookie >> 32) as u32],
        backend: Backend::new(socket.peer.ip().into(), port),
    }
}

fn failed(error: ripstop_netlink::Error) -> Error {
    Error::Kernel {
        operation: "disconnect datagram sockets".into(),
        source: std::io::Error::other(error),
    }
}

impl EbpfEngine {
    /// Lets the node's own datagram sockets go that are connected to backends
    /// which have gone.
    pub(super) fn disconnect_stranded(&mut self) {
        match disconnect(&self.maps, &self.frontends) {
            Ok(0) => {}
            Ok(count) => tracing::debug!(count, "datagram sockets lost their backend"),
            // Nothing else depends on it, and most kernels can.
            Err(error) if !self.stranding_said => {
                self.stranding_said = true;
                tracing::warn!(
                    %error,
                    "connected datagram sockets of the node's processes stay with backends that \
                     are gone; it takes CONFIG_INET_UDP_DIAG and CONFIG_INET_DIAG_DESTROY"
                );
            }
            Err(_) => {}
        }
    }

    pub(super) fn disconnect_stranded_if_any(&mut self) {
        if self.frontends.take_datagrams_stranded() {
            self.disconnect_stranded();
        }
    }
}
