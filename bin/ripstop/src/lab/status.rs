//! `ripstop lab status`.

use std::process::ExitCode;

use anyhow::Result;
use k8s_openapi::api::core::v1::{Node, Pod};
use ripstop_lab::api::Api;
use ripstop_lab::lifecycle::Record;
use ripstop_lab::paths::LabPaths;
use ripstop_lab::ready::{self, Cluster, is_ready};
use ripstop_lab::text::{count, table};
use serde_json::{Value, json};

use crate::agent::ask_status;

use super::{Name, Output, block_on};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    name: Name,
    #[arg(long, short, value_enum, default_value_t = Output::Text)]
    output: Output,
}

pub(super) fn run(args: &Args) -> Result<ExitCode> {
    let (name, paths) = (&args.name.name, args.name.running()?);
    let cluster = block_on(async {
        let api = Api::connect(&paths.kubeconfig()).await?;
        Ok(ready::read(&api).await?)
    })?;
    match args.output {
        Output::Json => println!("{:#}", json(name, &cluster)?),
        Output::Text => print!("{}", text(name, &cluster)?),
    }
    Ok(ExitCode::SUCCESS)
}

/// Facts of a node, in the order of the table's columns.
struct NodeRow {
    name: String,
    addresses: Vec<String>,
    pod_cidrs: Vec<String>,
    ready: bool,
    reason: String,
    pods: usize,
}

fn nodes(cluster: &Cluster) -> Vec<NodeRow> {
    let row = |((_, name), node): (&(String, String), &Node)| {
        let status = node.status.as_ref();
        let addresses = status
            .and_then(|s| s.addresses.as_ref())
            .into_iter()
            .flatten();
        let conditions = status
            .and_then(|s| s.conditions.as_ref())
            .into_iter()
            .flatten();
        let condition = conditions.into_iter().find(|c| c.type_ == "Ready");
        let on_it = |pod: &&Pod| pod.spec.as_ref().and_then(|s| s.node_name.as_ref()) == Some(name);
        NodeRow {
            name: name.clone(),
            addresses: addresses
                .filter(|address| address.type_ == "InternalIP")
                .map(|address| address.address.clone())
                .collect(),
            pod_cidrs: node
                .spec
                .as_ref()
                .and_then(|s| s.pod_cidrs.clone())
                .unwrap_or_default(),
            ready: condition.is_some_and(|c| c.status == "True"),
            reason: condition
                .and_then(|c| c.message.clone())
                .unwrap_or_default(),
            pods: cluster.pods.values().filter(on_it).count(),
        }
    };
    let mut rows: Vec<_> = cluster.nodes.iter().map(row).collect();
    // node10 after node9.
    rows.sort_by_key(|row| (row.name.len(), row.name.clone()));
    rows
}

/// The tables that people see.
pub(super) fn text(name: &str, cluster: &Cluster) -> Result<String> {
    let paths = LabPaths::new(name);
    let record = Record::read(&paths)?;
    let header = ["NODE", "ADDRESS", "POD CIDR", "AGENT", "ENGINE", "PODS"];
    let mut rows = vec![header.map(str::to_owned).to_vec()];
    for node in nodes(cluster) {
        let agent = match node.ready {
            true => "ready".to_owned(),
            false => format!("not ready: {}", node.reason),
        };
        let engine = engine(&paths, &node.name);
        rows.push(vec![
            node.name,
            node.addresses.join(","),
            node.pod_cidrs.join(","),
            agent,
            engine,
            node.pods.to_string(),
        ]);
    }
    let ready = cluster.pods.values().filter(|pod| is_ready(pod)).count();
    let completed = cluster
        .pods
        .values()
        .filter(|pod| phase(pod) == "Succeeded")
        .count();
    let mut text = format!("lab {name}, API at {}\n\n{}", record.url, table(&rows));
    text.push_str(&format!(
        "\n{}: {ready} ready, {completed} completed, {} not ready; {}\n",
        count(cluster.pods.len(), "pod"),
        cluster.pods.len() - ready - completed,
        count(cluster.services.len(), "service"),
    ));
    Ok(text)
}

/// The engine that the node's agent has; a dash if it does not answer.
fn engine(paths: &LabPaths, node: &str) -> String {
    ask_status(&paths.agent_dir(node))
        .map_or_else(|_| "-".to_owned(), |status| status.datapath.mode)
}

fn phase(pod: &Pod) -> &str {
    pod.status
        .as_ref()
        .and_then(|s| s.phase.as_deref())
        .unwrap_or("Pending")
}

/// The same for programs.
pub(super) fn json(name: &str, cluster: &Cluster) -> Result<Value> {
    let paths = LabPaths::new(name);
    let record = Record::read(&paths)?;
    let nodes: Vec<_> = nodes(cluster)
        .into_iter()
        .map(|node| {
            json!({
                "name": node.name, "addresses": node.addresses, "podCIDRs": node.pod_cidrs,
                "ready": node.ready, "engine": engine(&paths, &node.name), "pods": node.pods,
            })
        })
        .collect();
    let pods: Vec<_> = cluster
        .pods
        .iter()
        .map(|((namespace, name), pod)| {
            json!({
                "namespace": namespace, "name": name, "phase": phase(pod), "ready": is_ready(pod),
                "node": pod.spec.as_ref().and_then(|s| s.node_name.clone()),
                "address": pod.status.as_ref().and_then(|s| s.pod_ip.clone()),
            })
        })
        .collect();
    Ok(json!({
        "name": name, "url": record.url, "kubeconfig": paths.kubeconfig(),
        "started": record.started, "nodes": nodes, "pods": pods,
    }))
}
