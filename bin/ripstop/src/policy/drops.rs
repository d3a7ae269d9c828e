//! `ripstop policy drops`.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use serde_json::json;

use super::Output;
use crate::agent::{Ask, DropView, DropsView, PolicyAsk, ask};
use crate::run_dir::RunDirs;

/// Between two looks at the kernel's counters.
const PAUSE: Duration = Duration::from_millis(500);

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    agents: RunDirs,
    /// Go on, and say what is stopped from now on.
    #[arg(long, short)]
    follow: bool,
    /// As JSON; with --follow a line for each.
    #[arg(long, short, value_enum, default_value_t = Output::Text)]
    output: Output,
}

pub(super) fn run(args: &Args) -> Result<(String, ExitCode)> {
    let agents = args.agents.paths()?;
    if args.follow {
        return follow(&agents, args.output);
    }
    let mut text = String::new();
    let mut all = Vec::new();
    for (node, run_dir) in &agents {
        let DropsView { drops, others } = drops(run_dir)?;
        if agents.len() > 1 && args.output == Output::Text {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{node}");
        }
        match args.output {
            Output::Json => all.push(json!({"node": node, "drops": drops, "others": others})),
            Output::Text => {
                drops.iter().for_each(|one| text += &line(one, one.packets));
                if drops.is_empty() {
                    text += "nothing was stopped\n";
                }
                if others > 0 {
                    let _ = writeln!(text, "{others:>8}  of which there was no room to say more");
                }
            }
        }
    }
    if args.output == Output::Json {
        text = format!("{:#}\n", json!(all));
    }
    Ok((text, ExitCode::SUCCESS))
}

fn drops(run_dir: &Path) -> Result<DropsView> {
    ask(run_dir, &Ask::Policy(PolicyAsk::Drops))
}

/// Says what is more than before, until it is told to stop.
fn follow(agents: &[(String, std::path::PathBuf)], output: Output) -> Result<(String, ExitCode)> {
    let mut before: BTreeMap<(String, DropView), u64> = BTreeMap::new();
    let mut first = true;
    loop {
        for (node, run_dir) in agents {
            // One that is being started again has no answer for a moment.
            let Ok(view) = drops(run_dir) else {
                anyhow::ensure!(!first, "no agent answers for {node}");
                continue;
            };
            for one in view.drops {
                let packets = one.packets;
                let kind = DropView { packets: 0, ..one };
                let known = before.insert((node.clone(), kind.clone()), packets);
                // A counter that began again.
                let known = known.filter(|known| *known <= packets).unwrap_or(0);
                let new = packets - known;
                if new == 0 || first {
                    continue;
                }
                match output {
                    Output::Text => print!("{}", line(&kind, new)),
                    Output::Json => {
                        let one = DropView {
                            packets: new,
                            ..kind
                        };
                        println!("{}", json!({"node": node, "drop": one}));
                    }
                }
            }
        }
        first = false;
        std::thread::sleep(PAUSE);
    }
}

fn line(drop: &DropView, packets: u64) -> String {
    let DropView {
        pod,
        direction,
        other,
        protocol,
        port,
        by,
        ..
    } = drop;
    let port = port.map_or(String::new(), |port| format!("{port}/"));
    let (from, to) = match direction.as_str() {
        "ingress" => (other, pod),
        _ => (pod, other),
    };
    format!("{packets:>8}  {from} to {to} {port}{protocol}: {direction} of {pod}: {by}\n")
}
