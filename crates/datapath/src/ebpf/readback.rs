//! The kernel's tables as people and other engines understand them.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use ripstop_abi::{
    Address, Backend, FLOW_AWAITED, FLOW_CLOSING, FLOW_RENUMBERED, FLOW_REPLY, Flow, FlowKey, Port,
    RouteKey, ServiceAddress,
};
use ripstop_model::Protocol;
use ripstop_netlink::Netlink;
use ripstop_netlink::route::Route;
use ripstop_plan as plan;

use super::frontends::Counts;
use super::maps::Maps;
use super::{frontends, links};
use crate::Error;
use crate::state::{BackendState, FrontendState, TranslatedFlow};

/// Which tables are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    All,
    /// All but policies' classes, which may be very many.
    ButClasses,
}

pub(crate) fn services(maps: &Maps) -> Result<Vec<FrontendState>, Error> {
    let mut services = Vec::new();
    for (address, state) in frontends::states(maps)? {
        let Some(frontend) = frontend(&address) else {
            continue;
        };
        let counts = |backend: &Backend| state.counts.get(backend).copied().unwrap_or_default();
        let backends = |backends: &[Backend]| {
            let mut states: Vec<_> = backends
                .iter()
                .map(|backend| {
                    let Counts { connections, bytes } = counts(backend);
                    BackendState {
                        backend: plan::Backend {
                            address: backend.address.into(),
                            port: backend.port.host(),
                        },
                        connections,
                        bytes: Some(bytes),
                    }
                })
                .collect();
            states.sort_by_key(|state| state.backend);
            states
        };
        let sources = state.wanted.sources.iter();
        let mut source_ranges: Vec<IpNet> = sources.filter_map(range).collect();
        source_ranges.sort();
        services.push(FrontendState {
            frontend,
            backends: backends(&state.wanted.backends),
            outside: state.wanted.outside.as_deref().map(backends),
            affinity: Some(state.wanted.affinity).filter(|seconds| *seconds != 0),
            affinities_held: state.affinities_held,
            source_ranges,
            refused: state.refused,
        });
    }
    services.sort_by_key(|service| service.frontend);
    Ok(services)
}

fn range(key: &RouteKey) -> Option<IpNet> {
    let bits = key.prefix_len - if key.address.is_v4() { 96 } else { 0 };
    IpNet::new(key.address.into(), u8::try_from(bits).ok()?).ok()
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

/// By the rows of their requests: each says with which address and port it goes
/// on.
pub(crate) fn flows(maps: &Maps) -> Result<Vec<TranslatedFlow>, Error> {
    let flow = |(key, flow): (FlowKey, Flow)| {
        let source = (flow.source, flow.source_port);
        let translated = source != (key.source, key.source_port);
        Some(TranslatedFlow {
            protocol: protocol(u8::try_from(key.protocol).ok()?)?,
            client: socket(key.source, key.source_port),
            frontend: socket(key.destination, key.destination_port),
            backend: socket(flow.destination, flow.destination_port),
            source: translated.then(|| socket(source.0, source.1)),
            is_closing: false,
        })
    };
    let rows = maps.flows.rows()?.into_iter();
    let requests = rows.filter(|(_, flow)| flow.flags & (FLOW_REPLY | FLOW_CLOSING) == 0);
    Ok(requests.filter_map(flow).collect())
}

/// Keeps the ports of another engine's flows from being given to others.
pub(crate) fn await_flows(
    maps: &Maps,
    netlink: &mut Netlink,
    flows: &[TranslatedFlow],
) -> Result<(), Error> {
    let routes = netlink.routes().map_err(links::failed)?;
    let mut ways = Ways::new(&routes);
    let rows = flows.iter().map(|flow| {
        let [_, (key, answers)] = rows(flow, &mut ways);
        let flags = answers.flags | FLOW_AWAITED;
        (key, Flow { flags, ..answers })
    });
    write_flows(maps, &rows.collect::<Vec<_>>())
}

/// Both rows of each flow.
pub(crate) fn take_flows(
    maps: &mut Maps,
    netlink: &mut Netlink,
    flows: &[TranslatedFlow],
) -> Result<(), Error> {
    let routes = netlink.routes().map_err(links::failed)?;
    let mut ways = Ways::new(&routes);
    let both = flows.iter().flat_map(|flow| rows(flow, &mut ways));
    write_flows(maps, &both.collect::<Vec<_>>())?;
    // Whether they have flows straight to others that go by another port.
    let mut clients = BTreeMap::new();
    for flow in flows {
        let client = Address::from(flow.client.ip());
        *clients.entry(client).or_insert(false) |= is_renumbered(flow);
    }
    // What comes to those may be an answer; to the others it may as well if our
    // programs have begun a flow of theirs meanwhile, and noted it.
    let addresses: Vec<Address> = maps.endpoints.rows().keys().copied().collect();
    for address in addresses {
        maps.endpoints.change(&address, |mut endpoint| {
            endpoint.clear_handed_over();
            if let Some(renumbered) = clients.get(&address) {
                endpoint.set_translated();
                if *renumbered {
                    endpoint.set_renumbered();
                }
            }
            endpoint
        })?;
    }
    Ok(())
}

fn write_flows(maps: &Maps, rows: &[(FlowKey, Flow)]) -> Result<(), Error> {
    let describe = |row: usize| format!("flow {:?}", rows[row].0);
    maps.flows.put_all(rows, describe).1
}

/// It goes straight to whom the client names, by another port.
fn is_renumbered(flow: &TranslatedFlow) -> bool {
    let of_client = |source: SocketAddr| source.ip() == flow.client.ip();
    flow.frontend == flow.backend && flow.source.is_some_and(of_client)
}

/// Its packets and its answers.
fn rows(flow: &TranslatedFlow, ways: &mut Ways<'_>) -> [(FlowKey, Flow); 2] {
    let mut row = |from: (SocketAddr, SocketAddr), to: (SocketAddr, SocketAddr), flags| {
        let key = FlowKey {
            source: from.0.ip().into(),
            destination: from.1.ip().into(),
            source_port: Port::from_host(from.0.port()),
            destination_port: Port::from_host(from.1.port()),
            protocol: flow.protocol as u32,
        };
        let becomes = Flow {
            source: to.0.ip().into(),
            destination: to.1.ip().into(),
            source_port: Port::from_host(to.0.port()),
            destination_port: Port::from_host(to.1.port()),
            ifindex: ways.link_to(to.1.ip()),
            flags,
            last: now(),
            ..Flow::default()
        };
        (key, becomes)
    };
    let (client, frontend, backend) = (flow.client, flow.frontend, flow.backend);
    let source = flow.source.unwrap_or(client);
    let closing = if flow.is_closing { FLOW_CLOSING } else { 0 };
    let renumbered = if is_renumbered(flow) {
        FLOW_RENUMBERED
    } else {
        0
    };
    [
        row((client, frontend), (source, backend), closing),
        row(
            (backend, source),
            (frontend, client),
            closing | FLOW_REPLY | renumbered,
        ),
    ]
}

/// By which link addresses are reached. Flows are many and addresses fewer: routes are
/// looked through once for each.
struct Ways<'r> {
    routes: &'r [Route],
    found: HashMap<IpAddr, u32>,
}

impl<'r> Ways<'r> {
    fn new(routes: &'r [Route]) -> Self {
        Self {
            routes,
            found: HashMap::new(),
        }
    }

    fn link_to(&mut self, address: IpAddr) -> u32 {
        *self.found.entry(address).or_insert_with(|| {
            let routes = self.routes.iter();
            let covering = routes.filter(|route| route.destination.contains(&address));
            let best = covering.max_by_key(|route| route.destination.prefix_len());
            best.map_or(0, |route| route.index)
        })
    }
}

/// As programs tell the time.
pub(crate) fn now() -> u32 {
    let mut now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the clock exists, and the time has a place.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC_COARSE, &raw mut now) };
    now.tv_sec as u32
}

fn socket(address: Address, port: Port) -> SocketAddr {
    SocketAddr::new(address.into(), port.host())
}
