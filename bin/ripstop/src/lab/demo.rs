//! `ripstop lab demo`.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use ripstop_lab::api::Api;
use ripstop_lab::demo::{self, MANIFEST, Shop, Step};
use ripstop_lab::enter::way_in;
use ripstop_lab::lifecycle::{Keep, tear_down};
use ripstop_lab::manifest::{self, Source};
use ripstop_lab::paths::LabPaths;
use ripstop_lab::plan::LabOptions;
use ripstop_lab::probe::from_pod;
use ripstop_lab::ready::{self, Scope};
use ripstop_lab::text::duration;
use serde_json::json;

use super::apply::checked;
use super::block_on;
use super::up::{Wait, bring_up};
use crate::agent::Mode;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Name of the lab.
    #[arg(long, default_value = "demo", value_parser = super::lab_name)]
    name: String,
    /// Engine that carries services and pods.
    #[arg(long, value_enum)]
    datapath: Option<Mode>,
    /// Take the lab down afterwards.
    #[arg(long)]
    down: bool,
}

impl Args {
    pub(super) fn name(&self) -> &str {
        &self.name
    }
}

/// How long the lab may take to be ready, and an attempt to be answered.
const READY: Duration = Duration::from_secs(60);
const ANSWER: Duration = Duration::from_secs(3);

pub(super) fn run(args: &Args) -> Result<ExitCode> {
    let begin = Instant::now();
    let paths = LabPaths::new(&args.name);
    let source = Source {
        name: "shop.yaml".to_owned(),
        text: MANIFEST.to_owned(),
    };
    let manifests = checked(manifest::check(&[source], Vec::new()))?;
    let options = LabOptions {
        name: args.name.clone(),
        datapath: args.datapath.map(Mode::flag).unwrap_or_default(),
        ..LabOptions::default()
    };
    println!(
        "A cluster of {} nodes and a small shop on it (examples/shop.yaml):",
        options.nodes
    );
    let outcome = bring_up(
        &options,
        &manifests,
        Wait {
            ready: true,
            timeout: READY,
        },
    )?;
    if let Some(pending) = outcome.pending.first() {
        bail!(
            "{} is not ready: {}; see: ripstop lab status --name {}",
            pending.what,
            pending.why,
            args.name
        );
    }
    let pods = outcome.cluster.pods.len();
    line(
        true,
        "up",
        &format!("{} nodes, {pods} pods, all ready", options.nodes),
        begin.elapsed(),
    );
    let good = block_on(walk(&paths, options.nodes, &outcome.cluster))?;
    if args.down {
        tear_down(&paths, Keep::Nothing).map_err(|errors| {
            let all: Vec<String> = errors.iter().map(ToString::to_string).collect();
            anyhow::anyhow!("taking the lab down: {}", all.join("; "))
        })?;
        println!("The lab is down; nothing of it is left.");
    } else {
        next(&paths, &args.name);
    }
    Ok(if good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// All lines of the walk; true if each was as it should be.
async fn walk(paths: &LabPaths, nodes: usize, cluster: &ready::Cluster) -> Result<bool> {
    let shop = Shop::find(cluster)?;
    let environment = way_in(paths, &shop.client().place)?.env;
    let mut good = true;
    for step in shop.steps(&environment)? {
        good &= take(paths, &step).await?;
    }
    // One replica is left: the others must not be asked any more.
    const SCALE: &str = "/apis/apps/v1/namespaces/default/deployments/web/scale";
    let api = Api::connect(&paths.kubeconfig()).await?;
    let scaled = shop.replicas();
    api.merge(SCALE, &json!({"spec": {"replicas": 1}})).await?;
    let one = loop {
        let cluster = ready::wait(&api, nodes, Scope::All, READY, |_, _| {})
            .await?
            .cluster;
        let shop = Shop::find(&cluster)?;
        if shop.replicas() == 1 {
            break shop;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    good &= take(paths, &one.shared("a removed replica is not asked again")).await?;
    api.merge(SCALE, &json!({"spec": {"replicas": scaled}}))
        .await?;
    ready::wait(&api, nodes, Scope::All, READY, |_, _| {}).await?;
    Ok(good)
}

/// Tries a step and prints its line.
async fn take(paths: &LabPaths, step: &Step) -> Result<bool> {
    let exe = std::env::current_exe()?;
    let findings = from_pod(paths, &exe, &step.from, step.checks.clone(), ANSWER).await?;
    let tried = step
        .checks
        .first()
        .map(|check| check.describe())
        .unwrap_or_default();
    let judged = demo::judge(step, &findings);
    let (good, answer) = match judged {
        Ok(answer) => (true, format!("{tried} -> {answer}")),
        Err(why) => (
            false,
            format!("from {}: {tried}: {why}", step.from.place.pod),
        ),
    };
    // Of many attempts the slowest: they ran at the same time.
    let slowest = findings
        .iter()
        .map(|finding| finding.micros)
        .max()
        .unwrap_or_default();
    line(good, step.title, &answer, Duration::from_micros(slowest));
    Ok(good)
}

fn line(good: bool, title: &str, answer: &str, took: Duration) {
    let mark = if good { "ok    " } else { "FAILED" };
    println!("{mark} {title:<38} {answer} ({})", duration(took));
}

fn next(paths: &LabPaths, name: &str) {
    println!(
        "\nIt is yours now:\n  \
         export KUBECONFIG={}; kubectl get pods,svc -o wide\n  \
         ripstop lab probe --name {name}            # every pod to every pod and service\n  \
         ripstop lab exec --name {name} deploy/client -- getent hosts web\n  \
         ripstop lab down --name {name}             # nothing is left",
        paths.kubeconfig().display()
    );
}
