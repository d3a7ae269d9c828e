//! The eBPF engine: services are translated at the socket, packets go from pod
//! to pod past the host's stack.
//!
//! Programs, tables and attachments are pinned, so they work on while no agent
//! runs, and the next one takes them over: the same tables always, the same
//! programs if they are the ones that it would load.

mod apart;
mod audit;
mod config;
mod frontends;
mod grow;
mod layout;
mod links;
mod maglev;
mod maps;
mod old;
#[cfg(test)]
mod packet_tests;
mod pins;
mod pods;
mod policy;
mod preflight;
mod programs;
mod ranges;
mod readback;
mod retire;
mod stranded;
mod sys;
mod table;
mod upgrade;
mod uplinks;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Instant;

use ipnet::IpNet;
use ripstop_abi::{
    Backend, Config as Constants, Endpoint, FLAG_HOST_ONLY, FLAG_MAGLEV, Port, Route, RouteKey,
    SCHEMA, ServiceAddress, names,
};
use ripstop_model::LocalPod;
use ripstop_netlink::Netlink;
use ripstop_plan::policy::PolicyTables;
use ripstop_plan::{Change, Frontend, FrontendKind, FrontendRow, Outside, Tables};

pub use config::{Config, Limits};
pub use links::unprepare;
pub use preflight::{Loaded, try_load};
pub use programs::ProgramStats;

use crate::engine::{Datapath, Drift, EngineStatus, Error, NextHop, PolicySettings, ResolvedRoute};
use crate::state::{Connection, Denials, FrontendState, TranslatedFlow};
use frontends::{Frontends, Wanted};
use links::Cgroup;
use maps::{Maps, State};
use old::OldTables;
use pins::Pins;
use pods::PodRows;
use policy::{Collector, Policies};
use programs::Programs;
use upgrade::Upgrade;

/// The engine of one node. Dropped, it leaves everything in the kernel.
///
/// Its methods attach to interfaces by index: they are to be called from a
/// thread in the node's network namespace, where it was opened.
#[derive(Debug)]
pub struct EbpfEngine {
    config: Config,
    pins: Pins,
    cgroup: Cgroup,
    netlink: Netlink,
    programs: Programs,
    maps: Maps,
    adopted: bool,
    /// Programs of another version are attached where ours should be, over tables
    /// of another form. Ours take over at once if all that was in those could be
    /// carried over; else with the first audit: before that ours do not have
    /// every service.
    takeover: Takeover,
    state: State,
    /// Flows of another engine are being taken over: pods that come in keep to
    /// the host's stack for what they are in the middle of.
    handing_over: bool,
    frontends: Frontends,
    policies: Policies,
    _collector: Collector,
    /// By container id: those that this process knows.
    pods: BTreeMap<String, LocalPod>,
    /// It was said that datagram sockets cannot be disconnected here.
    stranding_said: bool,
}

impl EbpfEngine {
    /// Loads the programs, or takes over what an earlier engine left.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if the kernel, or what this process may do, is not
    /// enough; nothing is attached then.
    pub fn open(config: Config) -> Result<Self, Error> {
        let pins = Pins::open(&config.bpffs)?;
        let cgroup = Cgroup::open(&config.cgroup_root)?;
        let Start {
            maps,
            programs,
            state,
            found,
        } = Start::find(&pins, &config.limits)?;
        let adopted = !matches!(found, Found::Nothing);
        let mut engine = Self {
            takeover: Takeover::None,
            state,
            handing_over: false,
            frontends: Frontends::default(),
            policies: if adopted {
                Policies::default()
            } else {
                Policies::of_new_tables()
            },
            _collector: Collector::start(&maps.policy)?,
            pods: BTreeMap::new(),
            stranding_said: false,
            config,
            pins,
            cgroup,
            netlink: Netlink::new().map_err(|error| Error::Kernel {
                operation: "open a netlink socket".into(),
                source: io::Error::other(error),
            })?,
            programs,
            maps,
            adopted,
        };
        engine.read_back()?;
        // Who was in the middle of it is gone.
        retire::take_over(&engine.maps, false)?;
        match found {
            Found::Ours => upgrade::tidy(&engine.pins, &mut engine.netlink)?,
            Found::Nothing if links::are_there(&engine.pins)? => {
                engine.takeover = Takeover::OfUnknown;
            }
            Found::Nothing => {}
            Found::Old {
                tables,
                is_complete,
            } => {
                // Marks of an engine that did not come to its end.
                retire::resume(&engine.maps)?;
                engine.takeover = Takeover::Of(tables);
                if !is_complete {
                    return Ok(engine);
                }
                engine.take_over()?;
            }
        }
        if let Takeover::None = engine.takeover {
            engine.attach_links()?;
        }
        // Last: from here on the pins are a whole.
        engine.state.write(&engine.pins)?;
        Ok(engine)
    }

    /// Our programs take over from those of another version, if there are any.
    fn take_over(&mut self) -> Result<(), Error> {
        let Takeover::Of(old) = std::mem::replace(&mut self.takeover, Takeover::None) else {
            return Ok(());
        };
        let started = Instant::now();
        let mut upgrade = Upgrade {
            pins: &self.pins,
            cgroup: &self.cgroup,
            netlink: &mut self.netlink,
            programs: &self.programs,
            maps: &mut self.maps,
            limits: &self.config.limits,
        };
        if let Err(error) = upgrade.carry_out(&old) {
            self.takeover = Takeover::Of(old);
            return Err(error);
        }
        tracing::info!(
            millis = started.elapsed().as_millis(),
            "took over from the programs and tables of another version"
        );
        self.state.write(&self.pins)
    }

    /// What the kernel knows of the programs.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn program_stats(&self) -> Result<Vec<ProgramStats>, Error> {
        self.programs.stats().map_err(|source| Error::Kernel {
            operation: "read the programs' statistics".into(),
            source,
        })
    }

    /// Socket and uplink programs on their places; gives what was not.
    fn attach_links(&mut self) -> Result<Vec<String>, Error> {
        let mut attached = Vec::new();
        if !self.handing_over {
            attached = links::sockets(&self.pins, &self.programs, &self.cgroup)?;
        }
        for ifindex in &self.config.uplinks {
            if links::uplink(&mut self.netlink, &self.programs, *ifindex)? {
                attached.push(format!("program on uplink {ifindex}"));
            }
        }
        attached.extend(self.write_uplinks()?);
        retire::resume(&self.maps)?;
        Ok(attached)
    }

    /// With which addresses packets leave; gives what was not so.
    fn write_uplinks(&mut self) -> Result<Vec<String>, Error> {
        let (node, uplinks) = (&self.config.node_addresses, &self.config.uplinks);
        uplinks::write(&mut self.netlink, &mut self.maps, node, uplinks)
    }

    /// What is in the kernel's tables becomes what counts as applied.
    fn read_back(&mut self) -> Result<(), Error> {
        self.frontends = Frontends::read(&self.maps)?;
        self.maps.endpoints.read()?;
        self.maps.routes.read()?;
        self.maps.ranges.read()?;
        self.maps.uplinks.read()?;
        self.policies = Policies::read(&mut self.maps.policy, &self.policies)?;
        Ok(())
    }

    /// The pod's rows and its program. Gives what was not there.
    fn write_pod(&mut self, pod: &LocalPod) -> Result<Vec<String>, Error> {
        let rows = PodRows::of(pod, &self.config.node_addresses);
        let mut done = Vec::new();
        for (address, endpoint) in rows.endpoints {
            let row = || format!("endpoint {}", IpAddr::from(address));
            let tracked = self.policies.is_tracked(&self.maps.policy, &address);
            let endpoint = endpoint.with_tracked(tracked);
            // An answer to what the other engine translated is not for the pod
            // as it is, not for a moment.
            let handing_over = self.handing_over;
            let mark = |endpoint: &mut Endpoint| {
                if handing_over {
                    endpoint.set_handed_over();
                }
            };
            let endpoints = &mut self.maps.endpoints;
            if endpoints.put_marked(address, endpoint, row, mark)? {
                done.push(row());
            } else if handing_over {
                // With what our programs have noted meanwhile.
                endpoints.change(&address, |mut endpoint| {
                    endpoint.set_handed_over();
                    endpoint
                })?;
            }
        }
        let (written, result) = self.write_growing(|engine| {
            let frontends = rows.frontends.iter();
            let frontends = frontends.map(|(key, wanted)| (*key, Some(wanted.clone())));
            engine.frontends.write_host_ports(&engine.maps, frontends)
        });
        result?;
        done.extend(written);
        let has_ports = !pod.host_ports.is_empty();
        // Not one by one where those of another version are.
        let waits = matches!(self.takeover, Takeover::Of(_))
            && links::has_any(&mut self.netlink, pod.host_ifindex)?;
        if !waits
            && links::pod(
                &mut self.netlink,
                &self.programs,
                pod.host_ifindex,
                has_ports,
            )?
        {
            done.push(format!("program on {}", pod.host_ifname));
        }
        Ok(done)
    }

    /// Removes what leads to this pod, unless it leads to another one by now.
    /// Goes on after an error and gives the first.
    fn erase_pod(&mut self, pod: &LocalPod) -> Result<(), Error> {
        let rows = PodRows::of(pod, &self.config.node_addresses);
        let mut results = Vec::new();
        // First what leads there, then what it leads to.
        let mine = |(key, wanted): (ServiceAddress, Wanted)| {
            let known = self.frontends.get(&key);
            (known == Some(&wanted)).then_some((key, None))
        };
        let frontends: Vec<_> = rows.frontends.into_iter().filter_map(mine).collect();
        results.push(self.frontends.write_host_ports(&self.maps, frontends).1);
        self.disconnect_stranded_if_any();
        for (key, endpoint) in rows.endpoints {
            let known = self.maps.endpoints.rows().get(&key);
            if known.map(|known| known.with_tracked(false)) == Some(endpoint) {
                results.push(self.maps.endpoints.remove(&key).map(drop));
            }
        }
        results.push(links::detach(&mut self.netlink, pod.host_ifindex));
        results.into_iter().collect()
    }

    /// A pod that has one of this pod's ports of the node, and that port.
    fn port_holder(&self, pod: &LocalPod) -> Option<(&LocalPod, ServiceAddress)> {
        let ports = |pod| PodRows::of(pod, &self.config.node_addresses).frontends;
        let wanted = ports(pod);
        let others = self
            .pods
            .values()
            .filter(|other| other.container_id != pod.container_id);
        others.filter(|_| !wanted.is_empty()).find_map(|other| {
            let held = ports(other);
            let shared = wanted.keys().find(|key| held.contains_key(key));
            shared.map(|key| (other, *key))
        })
    }

    /// Lets the node's own datagram sockets go that are connected to backends
    /// which have gone.
    fn disconnect_stranded(&mut self) {
        match stranded::disconnect(&self.maps, &self.frontends) {
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

    fn disconnect_stranded_if_any(&mut self) {
        if self.frontends.take_datagrams_stranded() {
            self.disconnect_stranded();
        }
    }

    /// True if the route was not there, or another one.
    fn write_route(&mut self, route: &ResolvedRoute) -> Result<bool, Error> {
        let key = route_key(&route.prefix);
        // A neighbour of the other family cannot be given to the kernel here;
        // the host's stack has the route.
        match route
            .next_hop
            .filter(|hop| hop.gateway.is_ipv4() == route.prefix.addr().is_ipv4())
        {
            Some(hop) => {
                let NextHop {
                    ifindex,
                    mtu,
                    gateway,
                } = hop;
                let row = Route {
                    ifindex,
                    mtu,
                    gateway: gateway.into(),
                };
                self.maps
                    .routes
                    .put(key, row, || format!("route {}", route.prefix))
            }
            None => self.maps.routes.remove(&key),
        }
    }
}

impl Datapath for EbpfEngine {
    fn apply(&mut self, change: &Change) -> Result<(), Error> {
        self.grow_for_change(change)?;
        let written = self.write_growing(|engine| {
            let rows = change.frontends.iter().map(|(frontend, row)| {
                let wanted = row.as_ref().map(|row| wanted(frontend, row));
                (key(frontend), wanted)
            });
            engine.frontends.write_services(&engine.maps, rows)
        });
        let written = written.1;
        self.disconnect_stranded_if_any();
        let ranges = ranges::apply(&mut self.maps, &change.ranges);
        let policies = self.policies.apply(&mut self.maps, &change.policy);
        policies.and(written).and(ranges)
    }

    fn apply_routes(&mut self, routes: &[ResolvedRoute]) -> Result<(), Error> {
        let mut result = Ok(());
        for route in routes {
            let outcome = self.write_route(route);
            if result.is_ok() {
                result = outcome.map(drop);
            }
        }
        result
    }

    fn add_pod(&mut self, pod: &LocalPod) -> Result<(), Error> {
        if let Some((holder, port)) = self.port_holder(pod) {
            return Err(Error::PortTaken {
                port: frontends::show(&port),
                pod: pod.pod.clone(),
                holder: holder.pod.clone(),
            });
        }
        if let Err(error) = self.write_pod(pod) {
            if let Err(also) = self.erase_pod(pod) {
                tracing::warn!(%also, pod = %pod.pod, "rows of a pod that was not added stay");
            }
            return Err(error);
        }
        self.pods.insert(pod.container_id.clone(), pod.clone());
        Ok(())
    }

    fn remove_pod(&mut self, pod: &LocalPod) -> Result<(), Error> {
        self.pods.remove(&pod.container_id);
        self.erase_pod(pod)
    }

    fn check_pod(&self, pod: &LocalPod) -> Result<Option<String>, Error> {
        let rows = PodRows::of(pod, &self.config.node_addresses);
        for (address, endpoint) in &rows.endpoints {
            let tracked = self.policies.is_tracked(&self.maps.policy, address);
            let endpoint = &endpoint.with_tracked(tracked);
            if !self.maps.endpoints.holds(address, endpoint)? {
                let address = IpAddr::from(*address);
                return Ok(Some(format!("the datapath has no endpoint {address}")));
            }
        }
        for (address, wanted) in &rows.frontends {
            if !self.frontends.is_there(&self.maps, address, wanted)? {
                let port = frontends::show(address);
                return Ok(Some(format!("the datapath has no host port {port}")));
            }
        }
        let attached = links::has_pod(&self.programs, pod.host_ifindex)?;
        Ok((!attached).then(|| {
            format!(
                "interface {} has no program of the datapath",
                pod.host_ifname
            )
        }))
    }

    fn attach_uplink(&mut self, ifindex: u32) -> Result<(), Error> {
        if !self.config.uplinks.contains(&ifindex) {
            self.config.uplinks.push(ifindex);
        }
        if let Takeover::None = self.takeover {
            links::uplink(&mut self.netlink, &self.programs, ifindex)?;
        }
        self.write_uplinks().map(drop)
    }

    fn audit(&mut self, desired: &Tables, pods: &[LocalPod]) -> Result<Drift, Error> {
        audit::audit(self, desired, pods)
    }

    fn status(&self) -> EngineStatus {
        let (maps, frontends) = (&self.maps, &self.frontends);
        // Of tables that grow: what they can grow to.
        let limits = &self.config.limits;
        let most = |(name, rows, _): (_, u64, u64), limit: u32| (name, rows, limit.into());
        EngineStatus {
            mode: "ebpf",
            tables: vec![
                maps.endpoints.usage(),
                (
                    names::FRONTENDS,
                    frontends.len() as u64,
                    limits.frontends.into(),
                ),
                (
                    names::BACKENDS,
                    frontends.backend_count() as u64,
                    limits.backends.into(),
                ),
                maps.routes.usage(),
                maps.ranges.usage(),
                maps.policy.pods.usage(),
                maps.policy.classes.usage(),
                most(maps.policy.pairs.usage(), limits.policy_pairs),
                most(maps.policy.ports.usage(), limits.policy_ports),
            ],
            drops: maps.drops().unwrap_or_else(|error| {
                tracing::warn!(%error, "the drop counters cannot be read");
                Vec::new()
            }),
            adopted: self.adopted,
        }
    }

    fn services(&self) -> Result<Vec<FrontendState>, Error> {
        readback::services(&self.maps)
    }

    fn flows(&self) -> Result<Vec<TranslatedFlow>, Error> {
        readback::flows(&self.maps)
    }

    fn take_flows(&mut self, flows: &[TranslatedFlow]) -> Result<(), Error> {
        // The first time before the pods come in, the second time after.
        self.handing_over = !self.handing_over;
        if self.handing_over {
            // No flow is led before all programs are there: connection tracking
            // loses those of which it sees one direction alone. And a socket that
            // is led begins a connection of which connection tracking, which still
            // is asked about it, may know another one by that name.
            links::release_sockets(&self.pins)?;
            readback::await_flows(&self.maps, &mut self.netlink, flows)?;
            return retire::take_over(&self.maps, true);
        }
        readback::take_flows(&mut self.maps, &mut self.netlink, flows)?;
        retire::take_over(&self.maps, false)?;
        links::sockets(&self.pins, &self.programs, &self.cgroup).map(drop)
    }

    fn retire(&mut self) -> Result<(), Error> {
        self.policies.retire(&self.maps)?;
        retire::retire(&self.maps, &self.pins)
    }

    fn set_policy_settings(&mut self, settings: PolicySettings) -> Result<(), Error> {
        self.policies.set(&mut self.maps, settings)
    }

    fn policies(&self) -> Result<PolicyTables, Error> {
        policy::policies(&self.maps.policy)
    }

    fn denials(&self) -> Result<Denials, Error> {
        policy::denials(&self.maps.policy)
    }

    fn connections(&self) -> Result<Vec<Connection>, Error> {
        policy::connections(&self.maps.policy, readback::now(), false)
    }

    fn observed(&self) -> Result<Vec<Connection>, Error> {
        policy::connections(&self.maps.policy, readback::now(), true)
    }

    fn take_connections(&mut self, connections: &[Connection]) -> Result<(), Error> {
        policy::take_connections(&self.maps, connections, readback::now())
    }

    fn dismantle(mut self: Box<Self>) -> Result<(), Error> {
        remove_all(&self.pins, &mut self.netlink)
    }
}

/// Whether programs of an engine, of whichever version, are attached.
///
/// # Errors
/// If the directory cannot be read.
pub fn is_attached(bpffs: &Path) -> Result<bool, Error> {
    match Pins::open(bpffs) {
        Ok(pins) => links::are_there(&pins),
        // No BPF file system, hence no pins.
        Err(Error::Unsupported { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Takes away what an engine left, of whichever version, also where the kernel
/// does not take ours. Goes on after an error.
///
/// # Errors
/// The first thing that could not be removed.
pub fn remove(bpffs: &Path) -> Result<(), Error> {
    let pins = match Pins::open(bpffs) {
        Ok(pins) => pins,
        Err(Error::Unsupported { .. }) => return Ok(()),
        Err(error) => return Err(error),
    };
    let mut netlink = Netlink::new().map_err(links::failed)?;
    remove_all(&pins, &mut netlink)
}

fn remove_all(pins: &Pins, netlink: &mut Netlink) -> Result<(), Error> {
    // Attachments first: programs that nothing leads to need no tables.
    let half_done = upgrade::tidy(pins, netlink);
    let filters = links::retain(netlink, &BTreeSet::new());
    let sockets = pins.remove_all("link_");
    half_done
        .and(filters.map(drop))
        .and(sockets)
        .and(pins.remove_all(""))
}

/// Whose programs are attached where ours should be.
#[derive(Debug)]
enum Takeover {
    /// Nobody's.
    None,
    /// Those of tables that we can read.
    Of(OldTables),
    /// Those of tables that nobody can read any more.
    OfUnknown,
}

/// What an engine begins with.
struct Start {
    maps: Maps,
    programs: Programs,
    state: State,
    found: Found,
}

/// What an engine found in the kernel.
enum Found {
    Nothing,
    /// Tables as this version makes them.
    Ours,
    /// Those of another version, carried over into new ones.
    Old {
        tables: OldTables,
        /// The new tables have everything that programs look up.
        is_complete: bool,
    },
}

impl Start {
    /// Tables and programs. What is pinned and attached changes only once the
    /// kernel has taken our programs.
    fn find(pins: &Pins, limits: &Limits) -> Result<Self, Error> {
        let constants = constants()?;
        let state = State {
            schema: SCHEMA.into(),
            digest: Programs::digest(&constants),
        };
        if let Some(maps) = Maps::adopt(pins, limits)? {
            let programs = load_or_adopt(pins, &maps, &constants, state)?;
            return Ok(Self {
                maps,
                programs,
                state,
                found: Found::Ours,
            });
        }
        if let Some(tables) = OldTables::find(pins)? {
            let maps = Maps::create_beside(limits, &tables)?;
            let programs = Programs::load(&maps, &constants)?;
            let is_complete = tables.carry_all(&maps, limits)?;
            return Ok(Self {
                maps,
                programs,
                state,
                found: Found::Old {
                    tables,
                    is_complete,
                },
            });
        }
        let maps = Maps::create(&limits.at_first())?;
        let programs = Programs::load(&maps, &constants)?;
        maps.pin(pins)?;
        programs.pin(pins)?;
        Ok(Self {
            maps,
            programs,
            state,
            found: Found::Nothing,
        })
    }
}

/// The pinned programs if they are what would be loaded, else newly loaded ones
/// over the same tables.
fn load_or_adopt(
    pins: &Pins,
    maps: &Maps,
    constants: &Constants,
    wanted: State,
) -> Result<Programs, Error> {
    if State::read(pins)? == Some(wanted)
        && let Some(programs) = Programs::adopt(pins)?
    {
        return Ok(programs);
    }
    let programs = Programs::load(maps, constants)?;
    // The pins are a mixture until the record is written again.
    State {
        digest: 0,
        ..wanted
    }
    .write(pins)?;
    programs.pin(pins)?;
    Ok(programs)
}

/// What the programs are told of this node.
fn constants() -> Result<Constants, Error> {
    let (first_port, ports) = crate::ports::of_flows(crate::ports::Half::EBPF);
    Ok(Constants {
        first_port,
        ports,
        says_why: sys::has_set_retval().into(),
        reserved: 0,
        node_netns: sys::netns_cookie().map_err(|source| Error::Kernel {
            operation: "read the cookie of the network namespace".into(),
            source,
        })?,
    })
}

/// Makes the kernel count runs and run time of programs, all of the machine's,
/// for as long as this descriptor is open. It costs them some time.
///
/// # Errors
/// Without CAP_SYS_ADMIN.
pub fn enable_stats() -> io::Result<OwnedFd> {
    sys::enable_stats()
}

fn key(frontend: &Frontend) -> ServiceAddress {
    let port = Port::from_host(frontend.port);
    ServiceAddress::new(frontend.address.into(), port, frontend.protocol as u8)
}

/// As rows of the kernel; `frontend` says whose loopback it is.
fn wanted(frontend: &Frontend, row: &FrontendRow) -> Wanted {
    let backend =
        |b: &ripstop_plan::Backend| Backend::new(b.address.into(), Port::from_host(b.port));
    // By address as the tables have it, which is not the plan's order.
    let sorted = |backends: &[ripstop_plan::Backend]| {
        let mut backends: Vec<Backend> = backends.iter().map(backend).collect();
        backends.sort_unstable();
        backends.dedup();
        backends
    };
    let mut sources: Vec<RouteKey> = row.source_ranges.iter().map(route_key).collect();
    sources.sort_unstable();
    let backends = sorted(&row.backends);
    let outside = match &row.outside {
        Outside::Cluster => None,
        Outside::Local(backends) => Some(sorted(backends)),
    };
    let kind = match row.kind {
        _ if frontend.address.is_loopback() => FLAG_HOST_ONLY,
        FrontendKind::ClusterIp if outside.as_ref().is_none_or(|own| *own == backends) => 0,
        _ => FLAG_MAGLEV,
    };
    Wanted {
        backends,
        outside,
        affinity: row.affinity.unwrap_or(0),
        sources,
        kind,
    }
}

fn route_key(prefix: &IpNet) -> RouteKey {
    let mapped = if prefix.addr().is_ipv4() { 96 } else { 0 };
    RouteKey {
        prefix_len: mapped + u32::from(prefix.prefix_len()),
        address: prefix.trunc().addr().into(),
    }
}
