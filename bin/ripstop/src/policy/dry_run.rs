//! `ripstop policy dry-run`.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use ripstop_lab::manifest;
use serde_json::{Value, json};

use super::Output;
use super::world::{Errors, cluster_policies};
use crate::agent::{Ask, DryRunView, PolicyAsk, WouldDeny, ask};
use crate::run_dir::RunDirs;

/// Between two looks at connections.
const PAUSE: Duration = Duration::from_millis(500);

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Policies to try: files, or folders of them; `-` for standard input. Without,
    /// those of the API that have the annotation ripstop.io/dry-run: "true".
    #[arg(long = "filename", short, value_name = "FILE|FOLDER")]
    filenames: Vec<PathBuf>,
    /// Namespace of policies that name none.
    #[arg(long, short, default_value = "default")]
    namespace: String,
    /// For how many seconds connections are looked at, with -f.
    #[arg(long = "for", default_value_t = 10, value_name = "SECONDS")]
    seconds: u64,
    #[command(flatten)]
    agents: RunDirs,
    #[arg(long, short, value_enum, default_value_t = Output::Text)]
    output: Output,
}

/// Exit status 1 if something would be denied.
pub(super) fn run(args: &Args) -> Result<(String, ExitCode)> {
    let policies = policies(args)?;
    let agents = args.agents.paths()?;
    let deadline = Instant::now() + Duration::from_secs(args.seconds);
    let mut whole = DryRunView::default();
    let mut most: BTreeMap<String, WouldDeny> = BTreeMap::new();
    loop {
        whole.connections = 0;
        for (_, run_dir) in &agents {
            let about = PolicyAsk::DryRun {
                policies: policies.clone(),
            };
            let view: DryRunView = ask(run_dir, &Ask::Policy(about))?;
            whole.policies = view.policies;
            whole.connections += view.connections;
            for one in view.denied {
                let seen = most.entry(line(&one)).or_insert_with(|| one.clone());
                seen.connections = seen.connections.max(one.connections);
            }
        }
        if policies.is_empty() || Instant::now() >= deadline {
            break;
        }
        std::thread::sleep(PAUSE);
    }
    whole.denied = most.into_values().collect();
    let code = match whole.denied.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    };
    let text = match args.output {
        Output::Json => format!("{}\n", serde_json::to_string_pretty(&whole)?),
        Output::Text => text(&whole),
    };
    Ok((text, code))
}

/// The policies of the files, checked.
fn policies(args: &Args) -> Result<Vec<Value>> {
    if args.filenames.is_empty() {
        return Ok(Vec::new());
    }
    let sources = manifest::read_all(&args.filenames).map_err(Errors)?;
    let manifests = manifest::check(&sources, vec![cluster_policies()]).map_err(Errors)?;
    let mut policies = Vec::new();
    for object in &manifests.objects {
        let mut value = object.value.clone();
        match object.kind.as_str() {
            "NetworkPolicy" => {
                let namespace = object.namespace.as_ref().unwrap_or(&args.namespace);
                value["metadata"]["namespace"] = json!(namespace);
            }
            "ClusterNetworkPolicy" => {}
            _ => continue,
        }
        policies.push(value);
    }
    ensure!(!policies.is_empty(), "there is no policy in these files");
    Ok(policies)
}

fn text(view: &DryRunView) -> String {
    let DryRunView {
        policies,
        connections,
        denied,
    } = view;
    if policies.is_empty() {
        return "no policy is being tried: none has the annotation ripstop.io/dry-run: \"true\"\n"
            .to_owned();
    }
    let mut text = format!("tried: {}\n", policies.join(", "));
    for one in denied {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{:>8}  {}", one.connections, line(one));
    }
    let _ = match denied.is_empty() {
        true => writeln!(text, "none of {connections} connections would be denied"),
        false => writeln!(text, "these connections would be denied"),
    };
    text
}

fn line(one: &WouldDeny) -> String {
    let WouldDeny {
        from,
        to,
        protocol,
        port,
        direction,
        by,
        ..
    } = one;
    let port = port.map_or(String::new(), |port| format!("{port}/"));
    let pod = if direction == "ingress" { to } else { from };
    format!("{from} to {to} {port}{protocol}: {direction} of {pod}: {by}")
}
