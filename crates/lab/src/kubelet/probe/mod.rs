//! Probes: whether a container has started, serves, and still lives.
//! <https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#container-probes>

mod connect;
mod grpc;
mod http;
mod tally;
mod tcp;
mod tls;

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use ripstop_netlink::netns::Netns;

use super::exec::Enter;
use tally::{Pace, Tally};

pub(super) use http::get as http_get;

/// What probes say they are.
const USER_AGENT: &str = "kube-probe/1.37";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Startup,
    Readiness,
    Liveness,
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Startup => "Startup",
            Self::Readiness => "Readiness",
            Self::Liveness => "Liveness",
        })
    }
}

/// News from the probes of one run of a container.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum News {
    /// One attempt failed, and why.
    Failed(Kind, String),
    /// Enough attempts in a row had this result.
    Verdict(Kind, bool),
}

/// What is probed, and from where.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) container: Arc<Container>,
    pub(super) pod_ip: Option<IpAddr>,
    /// Probes come from the node, as kubelet's do.
    pub(super) node: Arc<Netns>,
    /// Into the container.
    pub(super) enter: Arc<Enter>,
    pub(super) stand_in: bool,
    /// Keep to the API's timing also for a stand-in.
    pub(super) real_timing: bool,
}

/// Runs all probes of a container until it is dropped or one of them condemns
/// the container.
pub(super) async fn run(target: Target, news: impl Fn(News) + Sync) {
    let container = target.container.clone();
    if let Some(probe) = &container.startup_probe {
        watch(Kind::Startup, probe, &target, &news).await;
    } else {
        news(News::Verdict(Kind::Startup, true));
    }
    let readiness = async {
        match &container.readiness_probe {
            Some(probe) => watch(Kind::Readiness, probe, &target, &news).await,
            None => news(News::Verdict(Kind::Readiness, true)),
        }
    };
    let liveness = async {
        if let Some(probe) = &container.liveness_probe {
            watch(Kind::Liveness, probe, &target, &news).await;
        }
    };
    futures::join!(readiness, liveness);
}

/// Returns when a startup probe succeeded, or when the container is to be killed
/// (which ends this task).
async fn watch(kind: Kind, probe: &Probe, target: &Target, news: &(impl Fn(News) + Sync)) {
    let quick = target.stand_in && !target.real_timing && kind != Kind::Liveness;
    let mut pace = Pace::new(probe, quick);
    let mut tally = Tally::new(probe);
    let mut reported = None;
    let delay = match (kind, target.stand_in && !target.real_timing) {
        // Nothing to learn just after the others have passed.
        (Kind::Liveness, true) => pace.next(true),
        _ => pace.initial_delay(),
    };
    tokio::time::sleep(delay).await;
    loop {
        let result = attempt(probe, target).await;
        let verdict = match &result {
            Err(_) if !pace.counts() => None,
            result => tally.add(result.is_ok()),
        };
        if let Err(problem) = result
            && pace.counts()
        {
            news(News::Failed(kind, problem));
        }
        if let Some(verdict) = verdict.filter(|_| verdict != reported) {
            reported = Some(verdict);
            news(News::Verdict(kind, verdict));
        }
        match (kind, verdict) {
            (Kind::Startup, Some(true)) => return,
            (Kind::Startup | Kind::Liveness, Some(false)) => std::future::pending().await,
            _ => {}
        }
        tokio::time::sleep(pace.next(verdict.is_some())).await;
    }
}

async fn attempt(probe: &Probe, target: &Target) -> Result<(), String> {
    let seconds = probe
        .timeout_seconds
        .and_then(|n| u64::try_from(n).ok())
        .unwrap_or(1)
        .max(1);
    let limit = Duration::from_secs(seconds);
    if let Some(exec) = &probe.exec {
        // There is no application in a stand-in that could be asked.
        if target.stand_in {
            return Ok(());
        }
        return exec_probe(exec.command.as_deref().unwrap_or_default(), target, limit).await;
    }
    let address = |host: Option<&str>, port: &IntOrString| address(target, host, port);
    if let Some(get) = &probe.http_get {
        let address = address(get.host.as_deref(), &get.port)?;
        // A stand-in has no certificate; that it answers is what counts.
        let tls = get.scheme.as_deref() == Some("HTTPS") && !target.stand_in;
        return http::probe(&target.node, address, get, tls, limit).await;
    }
    if let Some(socket) = &probe.tcp_socket {
        return tcp::probe(
            &target.node,
            address(socket.host.as_deref(), &socket.port)?,
            limit,
        )
        .await;
    }
    if let Some(grpc) = &probe.grpc {
        let address = address(None, &IntOrString::Int(grpc.port))?;
        let service = grpc.service.as_deref().unwrap_or_default();
        return grpc::probe(&target.node, address, service, limit).await;
    }
    // A probe without an action is not possible; the API refuses it.
    Ok(())
}

async fn exec_probe(command: &[String], target: &Target, limit: Duration) -> Result<(), String> {
    match target.enter.output(command, limit).await {
        Ok(done) if done.exit_code == 0 => Ok(()),
        Ok(done) => Err(done.output),
        Err(error) => Err(error.to_string()),
    }
}

/// Where a probe goes. The host, if given, is an address: names would be those
/// of the node, which has no resolver of its own in the lab.
pub(super) fn address(
    target: &Target,
    host: Option<&str>,
    port: &IntOrString,
) -> Result<SocketAddr, String> {
    let ip = match host.filter(|host| !host.is_empty()) {
        Some(host) => host
            .parse()
            .map_err(|_| format!("host {host:?} of the probe is not an IP address"))?,
        None => target
            .pod_ip
            .ok_or_else(|| "the pod has no address".to_owned())?,
    };
    let port = resolve(&target.container, port)
        .ok_or_else(|| format!("the container has no port {}", describe(port)))?;
    Ok(SocketAddr::new(ip, port))
}

fn describe(port: &IntOrString) -> String {
    match port {
        IntOrString::Int(number) => number.to_string(),
        IntOrString::String(name) => format!("{name:?}"),
    }
}

/// The number of a port that may be given by its name.
fn resolve(container: &Container, port: &IntOrString) -> Option<u16> {
    let number = match port {
        IntOrString::Int(number) => *number,
        IntOrString::String(name) => container
            .ports
            .iter()
            .flatten()
            .find(|port| port.name.as_ref() == Some(name))
            .map(|port| port.container_port)
            .or_else(|| name.parse().ok())?,
    };
    u16::try_from(number).ok().filter(|&number| number != 0)
}

/// The TCP ports at which the container's own probes look.
pub(super) fn ports(container: &Container) -> BTreeSet<u16> {
    let probes = [
        &container.startup_probe,
        &container.readiness_probe,
        &container.liveness_probe,
    ];
    let of = |probe: &Probe| {
        let at = |host: &Option<String>, port: &IntOrString| {
            host.is_none().then(|| resolve(container, port)).flatten()
        };
        [
            probe
                .http_get
                .as_ref()
                .and_then(|get| at(&get.host, &get.port)),
            probe
                .tcp_socket
                .as_ref()
                .and_then(|socket| at(&socket.host, &socket.port)),
            probe
                .grpc
                .as_ref()
                .and_then(|grpc| at(&None, &IntOrString::Int(grpc.port))),
        ]
    };
    probes
        .into_iter()
        .flatten()
        .flat_map(of)
        .flatten()
        .collect()
}
