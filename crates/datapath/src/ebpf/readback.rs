//! The kernel's tables as people and other engines understand them.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use ripstop_abi::{Address, Backend, BackendKey, Flow, FlowKey, Port, ServiceAddress};
use ripstop_model::Protocol;
use ripstop_plan as plan;

use super::maps::Maps;
use crate::Error;
use crate::state::{BackendState, FrontendState, TranslatedFlow};

pub(crate) fn services(maps: &Maps) -> Result<Vec<FrontendState>, Error> {
    let backends: BTreeMap<BackendKey, Backend> = maps.backends.rows()?.into_iter().collect();
    let mut services = Vec::new();
    for (address, row) in maps.frontends.rows()? {
        let Some(frontend) = frontend(&address) else {
            continue;
        };
        let keys = (0..row.count().into()).map(|slot| BackendKey {
            service: row.service(),
            slot,
        });
        services.push(FrontendState {
            frontend,
            backends: keys
                .filter_map(|key| backends.get(&key))
                .map(|backend| BackendState {
                    backend: plan::Backend {
                        address: backend.address.into(),
                        port: backend.port.host(),
                    },
                    connections: 0,
                    bytes: None,
                })
                .collect(),
            outside: None,
            affinity: None,
            affinities_held: 0,
            source_ranges: Vec::new(),
            refused: 0,
        });
    }
    services.sort_by_key(|service| service.frontend);
    Ok(services)
}

/// A frontend as the plan names it.
fn frontend(address: &ServiceAddress) -> Option<plan::Frontend> {
    Some(plan::Frontend {
        address: address.address.into(),
        protocol: protocol(address.protocol)?,
        port: address.port.host(),
    })
}

fn protocol(number: u8) -> Option<Protocol> {
    [Protocol::Tcp, Protocol::Udp, Protocol::Sctp]
        .into_iter()
        .find(|protocol| *protocol as u8 == number)
}

pub(crate) fn flows(maps: &Maps) -> Result<Vec<TranslatedFlow>, Error> {
    let flow = |(key, flow): (FlowKey, Flow)| {
        Some(TranslatedFlow {
            protocol: protocol(u8::try_from(key.protocol).ok()?)?,
            client: socket(key.client, key.client_port),
            frontend: socket(flow.node, flow.node_port),
            backend: socket(key.pod, key.pod_port),
            source: None,
        })
    };
    Ok(maps.flows.rows()?.into_iter().filter_map(flow).collect())
}

/// Nothing to do: a flow through a host port is found again by its next request.
pub(crate) fn take_flows(_: &Maps, _: &[TranslatedFlow]) -> Result<(), Error> {
    Ok(())
}

fn socket(address: Address, port: Port) -> SocketAddr {
    SocketAddr::new(address.into(), port.host())
}
