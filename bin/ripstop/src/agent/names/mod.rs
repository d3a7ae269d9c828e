//! The agent's DNS server: sockets, names, threads.

pub(crate) mod ask;
pub(crate) mod holder;
mod keep;
pub(crate) mod pods;

use std::fs;
use std::net::IpAddr;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use ipnet::IpNet;
use ripstop_dns::{Name, Server, ServerConfig, UpstreamConfig, Witness, Zone, ZoneConfig};
use ripstop_host::backlog::backlog;
use ripstop_plan::Range;
use tracing::{info, warn};

use super::privileges::Powerless;
use super::{Args, thread};
use holder::Held;
use keep::Kept;

/// After this time a start is slow, and questions, which wait for a second at most,
/// are better answered with the names that were known last.
const SLOW_START: Duration = Duration::from_millis(500);
/// How long an ending agent waits for answers of upstream servers.
const DRAIN: Duration = Duration::from_millis(1500);

/// What the rest of the agent has of the names.
#[derive(Clone)]
pub(crate) struct Names {
    pub(crate) zone: Arc<Zone>,
    pub(crate) server: Arc<Server>,
    kept: Arc<Kept>,
    /// Tells the holder of the sockets that there is an agent.
    _holder: Arc<Option<UnixStream>>,
}

impl Names {
    /// Answers at the sockets, and tells `witness` of it; questions wait in them until
    /// the names are known, or for a second.
    ///
    /// # Errors
    /// If a flag makes no sense, or the kernel gives no thread.
    pub(crate) fn open(
        args: &Args,
        held: Held,
        witness: Arc<dyn Witness>,
        powerless: &Powerless,
    ) -> Result<Self> {
        let zone = Arc::new(Zone::new(zone_config(args))?);
        let config = ServerConfig {
            upstream: upstream(args),
            expand_search: args.dns_expand_search,
            backlog: Some(|socket| {
                let backlog = backlog(socket)?;
                Some((backlog.waiting, backlog.limit))
            }),
            witness: Some(witness),
        };
        let server = Server::new(Arc::clone(&zone), &config).context("DNS server")?;
        for work in server.threads(held.sockets) {
            powerless.run("dns", work)?;
        }
        let server = Arc::new(server);
        let ending = Arc::clone(&server);
        thread::at_end(move || ending.drain(DRAIN));
        let names = Self {
            kept: Arc::new(Kept::new(args.run_dir.join("names"))),
            zone,
            server,
            _holder: Arc::new(held.connection),
        };
        let early = names.clone();
        std::thread::Builder::new()
            .name("names-start".to_owned())
            .spawn(move || {
                std::thread::sleep(SLOW_START);
                early.restore();
            })?;
        Ok(names)
    }

    /// The API is away, or this start takes its time: the names are those that the last agent knew, if there
    /// was one.
    pub(crate) fn restore(&self) {
        if self.zone.is_known() {
            return;
        }
        match self.kept.restore(&self.zone) {
            Ok(true) => {
                info!(
                    names = self.zone.len(),
                    "answering with the names known last"
                );
                self.zone.set_known();
            }
            Ok(false) => {}
            Err(error) => warn!("the names known last: {error:#}"),
        }
    }

    /// From here on, names are written to a file whenever they change.
    ///
    /// # Errors
    /// If the kernel gives no thread.
    pub(crate) fn keep(&self) -> Result<()> {
        let (zone, kept) = (Arc::clone(&self.zone), Arc::clone(&self.kept));
        thread::start("names", move || kept.follow(&zone))
    }

    /// What a range of addresses is now.
    pub(crate) fn set_range(&self, range: IpNet, kind: Option<Range>) {
        let ours = matches!(kind, Some(Range::Pods | Range::Services));
        self.zone.set_range(range, ours);
    }

    /// A pod of this node came, with its search list, or went.
    pub(crate) fn set_search(&self, addresses: &[IpAddr], search: Option<&[String]>) {
        let search: Option<Arc<[Name]>> = search.map(|search| {
            let names: Result<Vec<Name>, _> = search.iter().map(|s| Name::parse(s)).collect();
            // A list that we do not understand is walked by the pod itself.
            names.unwrap_or_default().into()
        });
        for address in addresses {
            self.server.set_search(*address, search.clone());
        }
    }
}

/// How this node answers the cluster's names.
fn zone_config(args: &Args) -> ZoneConfig {
    ZoneConfig {
        domain: args.cluster_domain.clone(),
        servers: args.cluster_dns.clone(),
        ranges: [&args.cluster_cidr[..], &args.service_cidr[..]].concat(),
        pods: args.pod_names.into(),
        ttl: args.dns_ttl,
    }
}

/// Whom to ask for names outside of the cluster: the servers that were named, or
/// those of the node.
fn upstream(args: &Args) -> UpstreamConfig {
    let read = |path: &Path| fs::read(path).unwrap_or_default();
    let servers = match args.upstream_dns.as_slice() {
        [] => {
            let text = read(&args.resolv_conf);
            UpstreamConfig::parse_resolv_conf(&String::from_utf8_lossy(&text))
        }
        named => named.to_vec(),
    };
    let uses_tls = |server: &ripstop_dns::UpstreamServer| {
        matches!(server.transport, ripstop_dns::UpstreamTransport::Tls(_))
    };
    let stubs = args.stub_domain.iter().flat_map(|stub| &stub.servers);
    let roots = match servers.iter().chain(stubs).any(uses_tls) {
        true => read(&args.upstream_ca),
        false => Vec::new(),
    };
    let all = UpstreamConfig {
        servers,
        stubs: args.stub_domain.clone(),
        roots,
        cache_bytes: 0,
    };
    let count = |config: &UpstreamConfig| {
        config.servers.len() + config.stubs.iter().map(|s| s.servers.len()).sum::<usize>()
    };
    let before = count(&all);
    let others = all.without(&args.cluster_dns);
    if count(&others) < before {
        warn!("ignored among the upstream DNS servers: the cluster's own, which would ask itself");
    }
    others
}
