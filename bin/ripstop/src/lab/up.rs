//! `ripstop lab up`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use clap::ValueEnum;
use ipnet::IpNet;
use ripstop_dns::UpstreamServer;
use ripstop_lab::api::Api;
use ripstop_lab::apply;
use ripstop_lab::lifecycle::{Found, Keep, Preflight, check_machine, look, start, tear_down};
use ripstop_lab::manifest::{self, Kinds, Manifests, Object};
use ripstop_lab::paths::LabPaths;
use ripstop_lab::plan::{IpFamily, LabOptions, LabPlan};
use ripstop_lab::ready::{self, Cluster, Outcome, Scope, is_ready, services_without_pods};
use ripstop_lab::text::{count, duration};
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use super::apply::checked;
use super::progress::Progress;
use super::{Files, Name, Output, block_on, status};
use crate::agent::Mode;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    name: Name,
    #[command(flatten)]
    files: Files,
    /// Number of nodes.
    #[arg(long, default_value_t = 3)]
    nodes: usize,
    /// Underlay subnets that the nodes are spread over; VXLAN carries between them.
    #[arg(long, default_value_t = 1)]
    subnets: usize,
    /// Families of nodes, pods and services.
    #[arg(long, value_enum, default_value_t = Families::Ipv4)]
    ip_family: Families,
    /// IPv6 beside IPv4: --ip-family dual.
    #[arg(long, conflicts_with = "ip_family")]
    dual_stack: bool,
    /// Spread the nodes over so many zones (label topology.kubernetes.io/zone).
    #[arg(long, default_value_t = 0)]
    zones: usize,
    /// Ranges of load balancers' addresses, at most one per family
    /// [default: 172.30.255.0/24,fd00:30:ff::/112]
    #[arg(long, value_name = "CIDR", value_delimiter = ',')]
    lb_pool: Vec<IpNet>,
    /// Where NodePorts answer, as of `ripstop agent`.
    #[arg(long, value_name = "CIDR|primary", value_delimiter = ',')]
    nodeport_addresses: Vec<String>,
    /// Destinations that see pods under their own addresses, as of `ripstop agent`.
    #[arg(long, value_name = "CIDR", value_delimiter = ',')]
    no_masquerade: Vec<IpNet>,
    /// Engine that carries services and pods.
    #[arg(long, value_enum)]
    datapath: Option<Mode>,
    /// Walk pods' search lists on the node, as of `ripstop agent`, and write the
    /// lists for it.
    #[arg(long)]
    dns_expand_search: bool,
    /// Which names of pods there are, as of `ripstop agent`.
    #[arg(
        long,
        value_name = "off|verified|always",
        default_value = "",
        hide_default_value = true
    )]
    pod_names: String,
    /// What becomes of packets that network policies deny, as of `ripstop agent`.
    #[arg(
        long,
        value_name = "drop|reject",
        default_value = "",
        hide_default_value = true
    )]
    policy_deny: String,
    /// Where names outside the cluster are asked for, as of `ripstop agent`; a server
    /// on the machine outside is at 172.31.0.2 and fd00:31::2.
    #[arg(long, value_name = "SERVER")]
    upstream_dns: Vec<UpstreamServer>,
    /// Executable of the agents, in place of this one: another version, or what
    /// starts one in a container.
    #[arg(long, value_name = "FILE")]
    agent: Option<PathBuf>,
    /// MTU of the underlay, bytes.
    #[arg(long, default_value_t = 1500)]
    mtu: u32,
    /// Keep initialDelaySeconds of probes also for stand-ins.
    #[arg(long)]
    real_probe_timing: bool,
    /// Wait until everything is ready.
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    wait: bool,
    /// How long to wait, seconds.
    #[arg(long, default_value_t = 120)]
    timeout: u64,
    #[arg(long, short, value_enum, default_value_t = Output::Text)]
    output: Output,
}

impl Args {
    pub(super) fn name(&self) -> &str {
        &self.name.name
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Families {
    Ipv4,
    Ipv6,
    Dual,
}

/// How long workloads wait for all nodes. They are applied then all the same.
const NODES_READY: Duration = Duration::from_secs(5);

/// What to do once the lab is up.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wait {
    pub(super) ready: bool,
    pub(super) timeout: Duration,
}

impl Args {
    fn options(&self) -> LabOptions {
        LabOptions {
            name: self.name.name.clone(),
            nodes: self.nodes,
            subnets: self.subnets,
            ip_family: match self.ip_family {
                _ if self.dual_stack => IpFamily::Dual,
                Families::Ipv4 => IpFamily::Ipv4,
                Families::Ipv6 => IpFamily::Ipv6,
                Families::Dual => IpFamily::Dual,
            },
            zones: self.zones,
            lb_pool: self.lb_pool.clone(),
            nodeport_addresses: self.nodeport_addresses.clone(),
            no_masquerade: self.no_masquerade.clone(),
            datapath: self.datapath.map(Mode::flag).unwrap_or_default(),
            dns_expand_search: self.dns_expand_search,
            pod_names: self.pod_names.clone(),
            policy_deny: self.policy_deny.clone(),
            upstream_dns: self.upstream_dns.iter().map(ToString::to_string).collect(),
            agent: self.agent.clone(),
            mtu: self.mtu,
            real_probe_timing: self.real_probe_timing,
        }
    }
}

pub(super) fn run(args: Args) -> Result<ExitCode> {
    let begin = Instant::now();
    let mut options = args.options();
    if let Some(agent) = &mut options.agent {
        // A link may lead to another version later.
        *agent = std::path::absolute(&*agent)
            .and_then(|path| path.metadata().map(|_| path))
            .with_context(|| format!("--agent {}", agent.display()))?;
    }
    let sources = checked(manifest::read_all(&args.files.files))?;
    let manifests = checked(manifest::check(&sources, Vec::new()))?;
    let wait = Wait {
        ready: args.wait,
        timeout: Duration::from_secs(args.timeout),
    };
    let outcome = bring_up(&options, &manifests, wait)?;
    report(&options, &outcome, begin.elapsed(), args.wait, args.output)
}

/// Everything between the checks and a lab that is ready. A failure leaves
/// nothing behind; objects that do not become ready in time are no failure of
/// this kind, but are in the outcome.
pub(super) fn bring_up(options: &LabOptions, manifests: &Manifests, wait: Wait) -> Result<Outcome> {
    let paths = LabPaths::new(&options.name);
    let (machine, found) = preconditions(options)?;
    let progress = Progress::new();
    progress.show(format!("starting lab {}", options.name));
    if ripstop_lab::rootless::is_inside() {
        eprintln!(
            "lab {}: without root: no eBPF (nftables instead), no control groups, \
             and containers run as no other user",
            options.name
        );
    }
    let started = start(options, &machine)?;
    if found == Found::Objects {
        eprintln!(
            "lab {}: going on with the objects that an earlier one left",
            options.name
        );
    }
    let result = block_on(async {
        tokio::select! {
            outcome = fill(&paths, options, manifests, wait, &progress) => outcome,
            () = interrupted() => bail!("interrupted"),
        }
    });
    drop(progress);
    result.map_err(|error| {
        let keep = match found {
            Found::Objects => Keep::Objects,
            Found::Nothing => Keep::Nothing,
        };
        // Its log goes with it.
        let log = last_lines(&paths.daemon_log());
        let end = match tear_down(&paths, keep) {
            Ok(_) => "it is down again".to_owned(),
            Err(errors) => format!("taking it down failed as well: {}", errors[0]),
        };
        error.context(format!(
            "lab {} at {} did not come up; {end}{log}",
            options.name, started.url
        ))
    })
}

/// Applies the manifests to a lab that has begun, and waits.
async fn fill(
    paths: &LabPaths,
    options: &LabOptions,
    manifests: &Manifests,
    wait: Wait,
    progress: &Progress,
) -> Result<Outcome> {
    let api = Api::connect(&paths.kubeconfig()).await?;
    // Pods wait for nodes, or the scheduler would give them all to the one that
    // is ready first; what pods need does not.
    let (needed, workloads) = manifests.split();
    let kinds = &manifests.kinds;
    let (applied, nodes) = tokio::join!(
        apply_all(&api, needed, kinds),
        ready::wait(&api, options.nodes, Scope::Nodes, NODES_READY, |_, _| {}),
    );
    applied?;
    nodes?;
    apply_all(&api, workloads, kinds).await?;
    if !wait.ready {
        return Ok(Outcome {
            cluster: ready::read(&api).await?,
            pending: Vec::new(),
        });
    }
    let show = |cluster: &Cluster, left: &[ready::Pending]| {
        progress.show(summary(cluster, left));
    };
    let mut outcome = ready::wait(&api, options.nodes, Scope::All, wait.timeout, show).await?;
    ready::add_warnings(&api, &mut outcome.pending).await?;
    Ok(outcome)
}

/// Waits for Ctrl-C, or for being told to end.
async fn interrupted() {
    let ended = || signal(SignalKind::terminate());
    match ended() {
        Ok(mut ended) => tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            _ = ended.recv() => {}
        },
        // Without signals an interrupted `up` leaves its lab to `down`.
        Err(_) => std::future::pending().await,
    }
}

/// The end of a log, for an error message.
fn last_lines(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    let last = &lines[lines.len().saturating_sub(5)..];
    last.iter().map(|line| format!("\n  {line}")).collect()
}

/// Checks all that can be checked before anything is made, and reports all of
/// it at once.
fn preconditions(options: &LabOptions) -> Result<(Preflight, Found)> {
    LabPlan::new(options)?;
    let machine = check_machine();
    let found = look(&LabPaths::new(&options.name));
    match (machine, found) {
        (Ok(machine), Ok(found)) => Ok((machine, found)),
        (machine, found) => {
            let problems = machine.err().unwrap_or_default();
            let lines: Vec<_> = problems
                .iter()
                .map(ToString::to_string)
                .chain(found.err().map(|error| error.to_string()))
                .collect();
            Err(anyhow!("{}", lines.join("\nripstop: ")))
        }
    }
}

async fn apply_all(api: &Api, objects: &[Object], kinds: &Kinds) -> Result<()> {
    let outcomes = apply::apply(api, objects, kinds).await;
    let errors: Vec<_> = outcomes
        .iter()
        .filter_map(|outcome| outcome.result.as_ref().err())
        .flatten()
        .map(ToString::to_string)
        .collect();
    if errors.is_empty() {
        return Ok(());
    }
    bail!("the API refused objects:\n{}", errors.join("\n"))
}

fn summary(cluster: &Cluster, left: &[ready::Pending]) -> String {
    let ready = cluster.pods.values().filter(|pod| is_ready(pod)).count();
    let mut text = format!("{ready} of {} ready", count(cluster.pods.len(), "pod"));
    if let Some(first) = left.first() {
        text.push_str(&format!("; waiting for {}: {}", first.what, first.why));
    }
    text
}

fn report(
    options: &LabOptions,
    outcome: &Outcome,
    took: Duration,
    waited: bool,
    output: Output,
) -> Result<ExitCode> {
    let ready = outcome.pending.is_empty();
    if output == Output::Json {
        let mut value = status::json(&options.name, &outcome.cluster)?;
        value["ready"] = (waited && ready).into();
        value["seconds"] = took.as_secs_f64().into();
        value["pending"] = outcome
            .pending
            .iter()
            .map(|pending| json!({"what": pending.what, "why": pending.why}))
            .collect();
        println!("{value:#}");
    } else {
        print!("{}", status::text(&options.name, &outcome.cluster)?);
        println!();
        for service in services_without_pods(&outcome.cluster) {
            println!("note: the selector of service {service} matches no pod");
        }
        if !waited {
            println!("started after {}, not waited for", duration(took));
        } else if ready {
            println!("ready after {}", duration(took));
        } else {
            eprintln!("not ready after {}:", duration(took));
            for pending in &outcome.pending {
                eprintln!("  {}: {}", pending.what, pending.why);
            }
        }
        print!("{}", next_steps(&options.name));
    }
    Ok(match ready {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

/// What to type next.
pub(super) fn next_steps(name: &str) -> String {
    let flag = match name {
        "default" => String::new(),
        name => format!(" --name {name}"),
    };
    let kubeconfig = LabPaths::new(name).kubeconfig();
    format!(
        "\nnext:\n  \
         export KUBECONFIG={}; kubectl get pods,svc -A -o wide\n  \
         ripstop lab probe{flag}\n  \
         ripstop lab down{flag}\n",
        kubeconfig.display()
    )
}
