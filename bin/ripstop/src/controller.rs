//! `ripstop controller`: what a cluster needs once, beside an agent on each node.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use ipnet::IpNet;
use ripstop_plan::NodeRanges;
use ripstop_watch::Election;
use tokio::signal::unix::{SignalKind, signal};
use tracing::info;

use crate::agent;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How to reach the API server; in a pod, its service account is the default.
    #[arg(long)]
    kubeconfig: Option<PathBuf>,
    /// The API server's URL, in place of the kubeconfig's or the service account's.
    #[arg(long, value_name = "URL")]
    api_server: Option<String>,
    /// Ranges of all pods, at most one per family; nodes get parts of them.
    #[arg(long, value_delimiter = ',', required = true)]
    cluster_cidr: Vec<IpNet>,
    /// Length of the prefix of a node's IPv4 range.
    #[arg(long, default_value_t = 24)]
    node_prefix_v4: u8,
    /// Length of the prefix of a node's IPv6 range.
    #[arg(long, default_value_t = 64)]
    node_prefix_v6: u8,
    /// Namespace of the Lease that one of several controllers holds.
    #[arg(long, default_value = "kube-system")]
    namespace: String,
    /// What this controller is called in the Lease.
    #[arg(long, env = "POD_NAME")]
    identity: String,
}

/// Gives nodes without `spec.podCIDRs` ranges of the cluster's. Not to run beside
/// another one that does (kube-controller-manager's `--allocate-node-cidrs`).
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    agent::log();
    let ranges = NodeRanges::new(&args.cluster_cidr, args.node_prefix_v4, args.node_prefix_v6)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("runtime")?;
    runtime.block_on(async {
        let server = args.api_server.as_deref();
        let kubeconfig = args.kubeconfig.as_deref();
        let client = ripstop_watch::connect("ripstop-controller", kubeconfig, server).await?;
        let election = Election {
            namespace: args.namespace.clone(),
            name: "ripstop-controller".to_owned(),
            identity: args.identity.clone(),
        };
        let work = || {
            let (client, mut ranges) = (client.clone(), ranges.clone());
            async move {
                loop {
                    let mut allocate = |used: &[IpNet]| ranges.allocate(used);
                    ripstop_watch::give_ranges(client.clone(), &mut allocate).await;
                }
            }
        };
        // The first process of a container ends by signals that it asks for alone.
        let mut told = signal(SignalKind::terminate()).context("signals")?;
        let end = async {
            told.recv().await;
        };
        election.run(client.clone(), work, end).await;
        info!("the controller ends");
        Ok(ExitCode::SUCCESS)
    })
}
