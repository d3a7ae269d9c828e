//! `ripstop status`: what the agent of this node says of itself.

use std::fmt::Write;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::ValueEnum;
use ripstop_lab::text::count;

use crate::agent::{
    Advice, Ask, DeniedView, Engine, NodeView, PoliciesView, Status, Verification, ask, ask_status,
};
use crate::bundle;
use crate::run_dir::RunDir;

/// Arguments of `ripstop status`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    agent: RunDir,
    /// Compare kernel and plan, and fail if they differ.
    #[arg(long)]
    verify: bool,
    /// Write everything that a report of a fault needs to this file (.tar.gz): no
    /// keys, no tokens, no names that pods asked for.
    #[arg(long, value_name = "FILE", conflicts_with = "verify")]
    bundle: Option<PathBuf>,
    /// Output form.
    #[arg(long, short, value_enum, default_value_t = Output::Table)]
    output: Output,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    Table,
    Json,
}

/// Prints the status; exit status 1 if the agent has a problem, or kernel and plan
/// differ.
///
/// # Errors
/// If no agent answers.
pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let run_dir = args.agent.path()?;
    if let Some(file) = &args.bundle {
        let names = bundle::write(&run_dir, file)?;
        println!("{}: {} files", file.display(), names.len());
        return Ok(ExitCode::SUCCESS);
    }
    if args.verify {
        let found: Verification = ask(&run_dir, &Ask::Verify).context(
            "kernel and plan cannot be compared; if something of Ripstop's was removed from the \
             kernel, the agent puts it back with its next audit, within a minute",
        )?;
        match args.output {
            Output::Json => println!("{}", serde_json::to_string_pretty(&found)?),
            Output::Table => print!("{}", verified(&found)),
        }
        return Ok(match found.drift.is_empty() {
            true => ExitCode::SUCCESS,
            false => ExitCode::FAILURE,
        });
    }
    let status = ask_status(&run_dir)?;
    match args.output {
        Output::Json => println!("{}", serde_json::to_string_pretty(&status)?),
        Output::Table => print!("{}", table(&status)),
    }
    Ok(match &status.problem {
        None => ExitCode::SUCCESS,
        Some(_) => ExitCode::FAILURE,
    })
}

fn verified(found: &Verification) -> String {
    let mut text = String::new();
    for line in &found.drift {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "differs      {line}");
    }
    let Verification {
        frontends,
        pods,
        policy_rows,
        drift,
    } = found;
    let _ = writeln!(
        text,
        "verified     {frontends} frontends, {pods} pods and {policy_rows} rows of policies: \
         {} differ",
        drift.len()
    );
    if !drift.is_empty() {
        let _ = writeln!(
            text,
            "             -> the agent repairs this within a minute; if it comes back, find who \
             else changes it (kube-proxy, another plugin, a firewall's reload)"
        );
    }
    text
}

fn policies_line(policies: &PoliciesView) -> String {
    let PoliciesView {
        network_policies,
        cluster_network_policies,
        addresses,
        restricted,
        ..
    } = policies;
    format!(
        "{network_policies} network policies and {cluster_network_policies} of the cluster; \
         about {restricted} of {addresses} pod addresses here"
    )
}

/// How many other nodes answer, and those that do not.
fn nodes_lines(nodes: &[NodeView], line: &mut impl FnMut(&str, String)) {
    const SHOWN: usize = 10;
    let (answer, silent): (Vec<_>, Vec<_>) =
        nodes.iter().partition(|node| node.answered_us.is_some());
    let slowest = answer.iter().filter_map(|node| node.answered_us).max();
    let within = slowest.map_or_else(String::new, |us| {
        format!(" within {:.1} ms", f64::from(us) / 1e3)
    });
    line(
        "nodes",
        format!("{} of {} others answer{within}", answer.len(), nodes.len()),
    );
    for node in silent.iter().take(SHOWN) {
        let ranges = node.ranges.join(", ");
        line(
            "",
            format!(
                "{} ({}) does not answer: pods of {ranges} may be out of reach",
                node.name, node.address
            ),
        );
    }
    if silent.len() > SHOWN {
        line("", format!("and {} more", silent.len() - SHOWN));
    }
}

fn table(status: &Status) -> String {
    let mut text = String::new();
    let mut line = |what: &str, value: String| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{what:<12} {value}");
    };
    let api = match (status.api.as_str(), status.synced) {
        ("up", true) => "up".to_owned(),
        (state, true) => format!("{state}; the network stays as it was"),
        (state, false) => format!("{state}; not every object seen yet"),
    };
    line(
        "node",
        format!(
            "{}, agent {} (pid {}), up {} s",
            status.node, status.version, status.pid, status.uptime_seconds
        ),
    );
    line("API", api);
    for (kind, error) in &status.api_errors {
        line("", format!("{kind}: {error}"));
    }
    let kept = match status.datapath.adopted {
        true => ", found in the kernel and kept",
        false => "",
    };
    let Engine { mode, reason, .. } = &status.datapath;
    line("datapath", format!("{mode} ({reason}){kept}"));
    for table in &status.datapath.tables {
        // What has no limit of ours counts as large as the kernel can number.
        let limit = match table.limit {
            limit if limit >= u64::from(u32::MAX) => String::new(),
            limit => format!(" of {limit}"),
        };
        line("", format!("{:<16} {:>7}{limit}", table.name, table.rows));
    }
    for (reason, count) in status.datapath.drops.iter().filter(|(_, n)| **n > 0) {
        line("dropped", format!("{count} {reason}"));
    }
    for (pod, count) in &status.datapath.crowding {
        line("", format!("{count} connection_share of {pod}"));
    }
    line("pods", status.pods.to_string());
    for adopted in &status.adopted {
        let addresses: Vec<_> = adopted.addresses.iter().map(IpAddr::to_string).collect();
        line(
            "",
            format!(
                "adopted {} ({}) from network {}",
                adopted.pod,
                addresses.join(", "),
                adopted.network
            ),
        );
    }
    for range in &status.pod_ranges {
        let full = match range.used < range.available {
            true => "",
            false => ": no other pod can start here",
        };
        line(
            "",
            format!(
                "{:<20} {} of {} addresses used{full}",
                range.range, range.used, range.available
            ),
        );
    }
    if let Some(policies) = &status.policies {
        line("policies", policies_line(policies));
        for denied in &policies.denied {
            let DeniedView {
                pod,
                direction,
                by,
                packets,
            } = denied;
            line(
                "",
                format!("denied {packets} packets, {direction} of {pod}: {by}"),
            );
        }
    }
    if let Some(nodes) = &status.nodes {
        nodes_lines(nodes, &mut line);
    }
    let asked: Vec<String> = status
        .dns
        .counts
        .by_source
        .iter()
        .map(|(source, count)| format!("{count} {}", format!("{source:?}").to_lowercase()))
        .collect();
    line(
        "names",
        format!(
            "{} services; {} questions ({})",
            status.names,
            status.dns.counts.questions,
            asked.join(", ")
        ),
    );
    for (client, questions) in &status.dns.limited {
        line(
            "",
            format!("{client} asked more than its part: {questions} questions thrown away"),
        );
    }
    for server in &status.dns.upstream {
        let health = if server.healthy {
            "answers"
        } else {
            "does not answer"
        };
        line(
            "",
            format!(
                "{} {health}: asked {} times, {} in vain",
                server.server, server.asked, server.failed
            ),
        );
    }
    line(
        "audits",
        format!(
            "{}, {} repaired",
            status.audits.runs,
            count(status.audits.repaired as usize, "row")
        ),
    );
    for repaired in &status.audits.last {
        line("", repaired.clone());
    }
    for ignored in &status.ignored {
        line(
            "ignored",
            format!("{}: {}", ignored.object, ignored.message),
        );
    }
    if status.degraded.is_empty() {
        line("state", "nothing is degraded".to_owned());
    }
    for Advice {
        text, what_to_do, ..
    } in &status.degraded
    {
        line("DEGRADED", text.clone());
        line("", format!("-> {what_to_do}"));
    }
    text
}
