//! The control plane of the lab: everything between what a user applies and
//! what a node runs.
//!
//! Each controller is a pure function from the cached objects to a [`plan::Plan`];
//! `manager` runs them, `execute` writes. Behaviour is that of Kubernetes' own
//! controllers as far as this lab can mean it; where it differs, the controller's
//! file says so.

mod cache;
mod claim;
mod controller;
mod count;
mod daemon_set;
mod deployment;
mod endpoints;
mod execute;
mod garbage;
mod hash;
mod int_or_percent;
mod job;
mod load_balancer;
mod manager;
mod namespaces;
mod nodes;
mod object;
mod plan;
mod pod;
mod queue;
mod recorder;
mod replica_set;
mod revisions;
mod scheduler;
mod selector;
mod stateful_set;
mod world;

use std::time::Duration;

use ipnet::IpNet;
use ripstop_apiserver::Client;

pub(crate) use load_balancer::ingress;

use controller::Controller;
use manager::Manager;

/// What the control plane needs to know about its cluster.
#[derive(Clone, Debug)]
pub struct ControllerConfig {
    /// Ranges of all pods, one for each family; nodes get a /24 and a /64 each.
    /// Empty: nodes come with their `podCIDRs`.
    pub cluster_cidrs: Vec<IpNet>,
    /// Where load balancers' addresses come from, at most one range per family.
    /// Empty: nobody gives them any.
    pub lb_pools: Vec<IpNet>,
    /// PEM of the API server's authority, for `kube-root-ca.crt`.
    pub root_ca: Option<String>,
    /// How long a Job waits after its first failed pod; doubled with each in a row.
    pub job_backoff: Duration,
}

impl Default for ControllerConfig {
    fn default() -> Self {
        Self {
            cluster_cidrs: Vec::new(),
            lb_pools: Vec::new(),
            root_ca: None,
            job_backoff: Duration::from_secs(10),
        }
    }
}

/// Runs all controllers and the scheduler; never ends. What is missing when it
/// starts is made up for, so it may be stopped at any time.
pub async fn run(client: Client, config: ControllerConfig) {
    Manager::new(client, controllers(config)).run().await;
}

/// In the order in which a change passes through them.
fn controllers(config: ControllerConfig) -> Vec<Box<dyn Controller>> {
    let pools = config.lb_pools;
    let mut all: Vec<Box<dyn Controller>> = vec![
        Box::new(endpoints::EndpointSlices),
        Box::new(nodes::Nodes {
            cluster_cidrs: config.cluster_cidrs,
        }),
        Box::new(namespaces::NamespaceDefaults {
            root_ca: config.root_ca,
        }),
        Box::new(deployment::Deployments),
        Box::new(replica_set::ReplicaSets),
        Box::new(stateful_set::StatefulSets),
        Box::new(daemon_set::DaemonSets),
        Box::new(job::Jobs {
            first_backoff: config.job_backoff,
        }),
        Box::new(scheduler::Scheduler),
        Box::new(endpoints::LegacyEndpoints),
        Box::new(endpoints::MirroredEndpoints),
    ];
    if !pools.is_empty() {
        all.push(Box::new(load_balancer::LoadBalancers { pools }));
    }
    all.extend(garbage::GarbageCollector::all().map(|one| Box::new(one) as Box<dyn Controller>));
    all
}

#[cfg(test)]
mod tests;
