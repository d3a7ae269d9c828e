//! `ripstop agent`: the network of one node.
//!
//! This file is the agent's wiring, in the order in which data flows: API,
//! planner, node, datapath, pods, names. Threads: `api` follows the API server,
//! `dns` answers names, `health` load balancers, `cni` and one per request attach
//! pods, `status` tells;
//! the main thread plans and is the only one that writes rows and routes.

mod adoption;
mod advice;
mod api;
mod args;
mod cni;
mod control;
mod dismantle;
mod effects;
mod engine;
mod facts;
mod feed;
mod health;
mod http;
mod learnt;
mod local_pods;
mod machine;
mod metrics;
pub(crate) mod names;
mod node_ports;
mod nodes;
mod policies;
mod privileges;
mod recent;
mod services;
mod status;
mod strangers;
mod switch;
mod thread;
mod verify;

use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use ripstop_datapath::PolicySettings;
use ripstop_host::routes::NodeRoutes;
use ripstop_host::uplink::{self, Uplink};
use ripstop_model::Node;
use ripstop_netlink::{Netlink, address, link, traffic};
use ripstop_plan::{PlanConfig, Planner};
use ripstop_watch::{ApiHealth, ApiState, Reporter};
use tracing::{debug, info, warn};

use crate::install::files::Folders;
use crate::install::made::Made;
use adoption::Adoption;
pub(crate) use advice::Advice;
pub(crate) use args::{Args, Mode};
use cni::{CniConfig, CniServer};
pub(crate) use control::{Ask, ask, ask_status};
pub(crate) use dismantle::{dismantle, is_ready};
use effects::Effects;
pub(crate) use engine::Kind;
use engine::Opener;
use facts::Facts;
use feed::{Feed, Gate};
use health::HealthServer;
use learnt::Learnt;
use local_pods::PodTeller;
pub(crate) use machine::Machine;
use names::Names;
pub(crate) use names::holder::{end_holder, holder_group};
use names::pods::PodAddresses;
use node_ports::NodePorts;
pub(crate) use nodes::NodeView;
pub(crate) use policies::{
    CheckView, DeniedView, DropView, DropsView, DryRunView, NameView, PodView, PoliciesView,
    PolicyAsk, PortsView, RowView, VerdictView, WouldDeny,
};
use privileges::Powerless;
pub(crate) use privileges::capabilities;
pub(crate) use services::{BackendView, EndpointView, FrontendView, ServiceView};
use status::{Counts, Sources};
pub(crate) use status::{Engine, Status};
use strangers::Strangers;
use switch::Switch;
pub(crate) use switch::Switched;
pub(crate) use verify::Verification;
use verify::Verifying;

/// Index of `lo` in every network namespace.
const LOOPBACK: u32 = 1;
const DNS_PORT: u16 = 53;
/// Between looks at the interfaces by which this node reaches others.
const LOOK: Duration = Duration::from_secs(10);

/// Runs the agent until it is told to stop; what it made in the kernel stays, as
/// it does when the agent is killed, and the next one takes it over.
///
/// # Errors
/// If the node's network cannot be set up, with what is in the way. Whoever
/// started the agent is to start it again.
pub(crate) fn run(args: &Args) -> Result<()> {
    let started = Instant::now();
    log();
    args.check()?;
    if let Some(file) = &args.config {
        info!(file = %file.display(), "configuration");
    }
    facts::make_run_dir(&args.run_dir)?;
    let (folders, mut made) = prepare_files(args)?;
    let sockets = names::holder::sockets(args)?;
    // From here on there are threads, and none that may more than it needs.
    let powerless = Powerless::start()?;
    privileges::drop()?;
    thread::end_when_told()?;

    // API -> planner
    let health = Arc::new(ApiHealth::default());
    let (events, inbox) = mpsc::channel();
    let gate = Arc::new(Gate::default());
    let (reporter, up) = api::follow(args, Arc::clone(&health), events.clone(), Arc::clone(&gate))?;
    let planner = Planner::new(PlanConfig {
        node: args.node_name.clone(),
        cluster_dns: args.cluster_dns.clone(),
        cluster_cidrs: args.cluster_cidr.clone(),
        service_cidrs: args.service_cidr.clone(),
        no_masquerade: args.no_masquerade.clone(),
        ..PlanConfig::default()
    });
    let learnt = Learnt::open(&args.run_dir, events.clone());
    let listener = learnt.listener();
    let mut feed = Feed::new(inbox, gate, planner, learnt);

    // Names, unknown until the API has told them
    let names = Names::open(args, sockets, listener, &powerless)?;
    feed.follow_pods(PodAddresses::new(&names.zone));

    // This node: a router that has the addresses of the cluster's DNS itself
    let mut facts = Facts::find(args, &mut feed)?;
    let known = started.elapsed();
    let mut netlink = Netlink::new().context("netlink")?;
    let uplinks = find_uplinks(&mut netlink, &facts.node)?;
    prepare_node(&mut netlink, &uplinks, args, &mut made)?;

    let mut node_ports = NodePorts {
        netlink: Netlink::new().context("netlink")?,
        wanted: args.nodeport_addresses.clone(),
        node: facts.node.clone(),
        cluster_dns: args.cluster_dns.clone(),
    };
    feed.configure(|plan| plan.node_port_addresses = node_ports.find());

    // Datapath and the pods in it
    let opener = Opener {
        mode: args.datapath,
        run_dir: args.run_dir.clone(),
        bpffs: args.bpffs.clone(),
        cgroup_root: args.cgroup_root.clone(),
        node_addresses: facts.node.addresses.clone(),
        uplinks: uplinks.iter().map(|uplink| uplink.index).collect(),
        policy: PolicySettings {
            deny: args.policy_deny.into(),
            observe: false,
        },
    };
    let opened_engine = opener.open()?;
    let running = Arc::new(Mutex::new(opened_engine.engine));
    let datapath: cni::SharedDatapath = Arc::clone(&running) as _;
    let opened = started.elapsed();
    let pods = CniServer::open(
        CniConfig {
            run_dir: args.run_dir.clone(),
            pod_cidrs: facts.node.pod_cidrs.clone(),
            mtu: uplinks[0].mtu,
        },
        Arc::clone(&datapath),
    )?;
    pods.follow_searches(&names);
    for pod in pods.tell_plan(PodTeller::new(events.clone())) {
        feed.adopt(pod);
    }
    let counts = Arc::new(Counts::default());
    counts.engine_reason(opened_engine.reason);
    let policy = opener.policy;
    let switch = Switch::new(opener, running);
    let routes = NodeRoutes::new(netlink, facts.node.addresses.clone());
    let mut effects = Effects::new(
        routes,
        Arc::clone(&datapath),
        Arc::clone(&pods),
        names.clone(),
        Arc::clone(&counts),
        HealthServer::start(args.healthz_port, Arc::clone(&counts), &powerless)?,
        policy,
    );
    effects.adopt_pods();
    if args.adopt_pods {
        effects.strangers = Strangers::new(Adoption::new(&args.cni_cache_dir));
    }
    let sources = Arc::new(Sources {
        node: args.node_name.clone(),
        started,
        api: Arc::clone(&health),
        datapath,
        pods: Arc::clone(&pods),
        names: names.clone(),
        counts: Arc::clone(&counts),
    });
    metrics::serve(
        Arc::clone(&sources),
        args.metrics_bind_address.0,
        &args.metrics_address,
        &powerless,
    )?;
    control::serve(&args.run_dir, Arc::clone(&sources), events)?;
    sources.look();

    // Planner -> routes, datapath, names
    let online = wait_for_objects(&mut feed, &health)?;
    match online {
        true => begin(&args.node_name, &mut feed, &mut effects, &reporter),
        false => names.restore(),
    }
    names.keep()?;
    serve_pods(args, pods)?;
    folders.write_list(&args.run_dir).context("network list")?;
    info!(
        known_ms = known.as_millis(),
        opened_ms = opened.as_millis(),
        ready_ms = started.elapsed().as_millis(),
        "the node is ready for pods"
    );
    // The thread that it is for lives as long as we do.
    let _ = up.send(());
    let mut verifying = Verifying::default();
    if !online {
        // What is in the kernel is not judged by a plan that is not complete.
        while !feed.is_synced() {
            feed.wait(recent::LOOK)?;
            sources.look();
            services::answer(&mut feed, &mut effects, &switch, &mut verifying);
        }
        facts.check(&feed)?;
        begin(&args.node_name, &mut feed, &mut effects, &reporter);
    }
    if opened_engine.left {
        switch.settle(feed.tables(), &mut effects);
    }
    let mut looked = Instant::now();
    loop {
        let idle = effects.idle().min(feed.dry_run.idle()).min(LOOK);
        let idle = idle.min(verifying.idle());
        if feed.wait(idle.min(feed.learnt.idle()))? {
            facts.check(&feed)?;
            follow(&mut feed, &mut effects);
            services::answer(&mut feed, &mut effects, &switch, &mut verifying);
        }
        if effects.is_audit_due() {
            feed.configure(|plan| plan.node_port_addresses = node_ports.find());
            follow(&mut feed, &mut effects);
        }
        if effects.audit(&feed) {
            sources.look();
            adoption::adopt(&mut feed, &mut effects);
        }
        verifying.go_on(&feed, &effects);
        switch.tidy();
        if feed.learnt.idle().is_zero() {
            feed.forget_names(|| policies::addresses_in_use(&effects));
            follow(&mut feed, &mut effects);
        }
        if looked.elapsed() >= LOOK {
            facts.check_uplinks(&uplinks)?;
            looked = Instant::now();
        }
        effects.observe(feed.dry_run.observes());
        policies::look(&mut feed, &effects);
        say_problems(&mut feed, &mut effects, &reporter);
    }
}

/// Plans what came, and does it.
fn follow(feed: &mut Feed, effects: &mut Effects) {
    feed.follow_names(&effects.names);
    loop {
        let update = feed.plan();
        if !update.is_empty() {
            effects.apply(update, feed);
            effects.counts.measures.programmed(&feed.take_changed());
        }
        // What a change still needs of what it replaces goes with the next one.
        if feed.is_settled() {
            break;
        }
    }
    feed.applied();
}

/// Says on standard error what happens; `RIPSTOP_LOG` says how much of it.
pub(crate) fn log() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("RIPSTOP_LOG")
        // The client library repeats what we say once.
        .unwrap_or_else(|_| "info,kube_runtime=off,kube_client=off".into());
    // A second subscriber, of a test, stays.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .try_init();
}

/// Notes what will have to be undone one day, and puts the plugin where the
/// runtime looks for it.
fn prepare_files(args: &Args) -> Result<(Folders, Made)> {
    let folders = Folders {
        bin: args.cni_bin_dir.clone(),
        conf: args.cni_conf_dir.clone(),
    };
    let mut made = Made::read(&args.run_dir)?.with_folders(&folders);
    made.cluster_dns.extend(&args.cluster_dns);
    made.bpffs.insert(args.bpffs.clone());
    made.cgroup_roots.insert(args.cgroup_root.clone());
    made.write(&args.run_dir)?;
    folders.write_plugin().context("plugin")?;
    Ok((folders, made))
}

fn find_uplinks(netlink: &mut Netlink, node: &Node) -> Result<Vec<Uplink>> {
    let uplinks = uplink::find(netlink, &node.addresses).context("uplinks")?;
    anyhow::ensure!(
        !uplinks.is_empty(),
        "no interface is up that has one of this node's addresses {:?} or a default route",
        node.addresses
    );
    Ok(uplinks)
}

/// Forwarding, a place for programs on uplinks, whichever engine it is, and the
/// cluster DNS addresses on `lo`. What is changed is noted before.
fn prepare_node(
    netlink: &mut Netlink,
    uplinks: &[Uplink],
    args: &Args,
    made: &mut Made,
) -> Result<()> {
    made.will_change(&uplink::changes(uplinks)?);
    for uplink in uplinks {
        if !netlink.is_prepared(uplink.index)? {
            made.prepared.insert(uplink.name.clone());
        }
    }
    made.write(&args.run_dir)?;
    uplink::prepare_node(uplinks)?;
    for uplink in uplinks {
        // Now, while there are no pods: it stops the interface for a moment.
        if let Err(error) = netlink.execute([traffic::prepare(uplink.index).unless_exists()]) {
            debug!(uplink = uplink.name, %error, "no programs can be put on this interface");
        }
    }
    let mut requests = vec![link::up(LOOPBACK)];
    let dns = args.cluster_dns.iter();
    requests.extend(dns.map(|ip| address::add_host_scope(LOOPBACK, (*ip).into()).unless_exists()));
    netlink.execute(requests).context("cluster DNS addresses")
}

/// Waits for the first complete list. False if the API is away: then the node
/// works with what is in the kernel.
fn wait_for_objects(feed: &mut Feed, health: &ApiHealth) -> Result<bool> {
    while !feed.is_synced() {
        feed.wait(Duration::from_millis(100))?;
        if matches!(health.state(), ApiState::Away(_)) {
            warn!("going on with what is in the kernel until the API server answers");
            return Ok(false);
        }
    }
    Ok(true)
}

/// From here on the kernel follows the plan.
fn begin(node: &str, feed: &mut Feed, effects: &mut Effects, reporter: &Reporter) {
    feed.follow_names(&effects.names);
    let update = feed.plan();
    effects.start(update, feed);
    effects.find_strangers(node, feed);
    // What was listed had changed before there was anybody to measure it.
    drop(feed.take_changed());
    follow(feed, effects);
    adoption::adopt(feed, effects);
    effects.counts.synced();
    say_problems(feed, effects, reporter);
}

/// Tells of what is newly ignored: here, in the status, and on the object.
fn say_problems(feed: &mut Feed, effects: &mut Effects, reporter: &Reporter) {
    if !(feed.take_problems_changed() | effects.take_problems_changed()) {
        return;
    }
    let problems = feed.problems().chain(effects.problems()).cloned().collect();
    for problem in effects.counts.new_problems(problems) {
        warn!("ignored: {problem}");
        if !reporter.report(problem) {
            debug!("too much is ignored for an event each");
        }
    }
}

/// The socket comes last: who can connect to it can have pods attached.
fn serve_pods(args: &Args, pods: Arc<CniServer>) -> Result<()> {
    let path = dismantle::socket(&args.run_dir);
    let listener =
        CniServer::listen(&path).with_context(|| format!("CNI socket {}", path.display()))?;
    thread::start("cni", move || pods.run(&listener))
}
