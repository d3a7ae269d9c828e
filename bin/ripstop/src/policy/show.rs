//! `ripstop policy show`.

use std::fmt::Write;
use std::process::ExitCode;

use anyhow::{Result, bail};
use ripstop_model::{Action, Pod};
use ripstop_plan::policy::{Attribution, Direction, InForce};
use serde_json::{Value, json};

use super::target::{Target, nothing};
use super::world::World;
use super::{Input, Output};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// [NAMESPACE/]NAME of a pod or of what makes it.
    pod: String,
    #[command(flatten)]
    pub(super) input: Input,
}

pub(super) fn run(world: &World, args: &Args) -> Result<(String, ExitCode)> {
    let Target::Pod(pod) = Target::parse(world, &args.pod)? else {
        bail!("{} is no address of a pod", args.pod);
    };
    let sides = [Direction::Ingress, Direction::Egress].map(|direction| {
        let in_force = world.planner.in_force(&pod.key, direction);
        (direction, in_force)
    });
    let text = match args.input.output {
        Output::Json => format!("{:#}\n", as_json(pod, &sides)),
        Output::Text => as_text(pod, &sides),
    };
    Ok((text, ExitCode::SUCCESS))
}

type Sides = [(Direction, Option<InForce>); 2];

fn word(action: Action) -> &'static str {
    match action {
        Action::Accept => "accept",
        Action::Deny => "deny",
        Action::Pass => "pass",
    }
}

fn otherwise(in_force: &InForce) -> String {
    match in_force.isolated_by.is_empty() {
        true => nothing(),
        false => {
            let by = in_force.isolated_by.clone();
            Attribution::Isolated { by }.to_string()
        }
    }
}

fn as_text(pod: &Pod, sides: &Sides) -> String {
    let mut text = format!("{}\n", pod.key);
    for (direction, in_force) in sides {
        // Writing to a string cannot fail.
        let Some(in_force) = in_force else {
            let why = if pod.host_network {
                "on the network of its node"
            } else {
                "ended"
            };
            let _ = writeln!(text, "{direction}: {why}: no policy selects it");
            continue;
        };
        let _ = writeln!(text, "{direction}");
        let is_baseline = |by: &Attribution| {
            use ripstop_model::Tier::Baseline;
            matches!(by, Attribution::ClusterNetworkPolicy { tier: Baseline, .. })
        };
        let isolated = !in_force.isolated_by.is_empty();
        for rule in &in_force.rules {
            let skipped = match isolated && is_baseline(&rule.by) {
                true => " (not asked: NetworkPolicies select the pod)",
                false => "",
            };
            let _ = writeln!(
                text,
                "  {:<6} {}, {}: {}{skipped}",
                word(rule.action),
                rule.peers,
                rule.ports,
                rule.by
            );
        }
        if in_force.is_open {
            continue;
        }
        let verdict = if isolated { "deny" } else { "accept" };
        let _ = writeln!(
            text,
            "  {verdict:<6} everything else: {}",
            otherwise(in_force)
        );
    }
    text
}

fn as_json(pod: &Pod, sides: &Sides) -> Value {
    let side = |(direction, in_force): &(Direction, Option<InForce>)| {
        let value = in_force.as_ref().map(|in_force| {
            let rules = in_force.rules.iter().map(|rule| {
                json!({
                    "action": word(rule.action),
                    "peers": rule.peers,
                    "ports": rule.ports,
                    "by": rule.by.to_string(),
                })
            });
            let isolated_by = in_force.isolated_by.iter().map(ToString::to_string);
            json!({
                "rules": rules.collect::<Vec<_>>(),
                "isolatedBy": isolated_by.collect::<Vec<_>>(),
            })
        });
        (direction.to_string(), value.unwrap_or(Value::Null))
    };
    let mut value = json!({"pod": pod.key.to_string()});
    for (direction, rules) in sides.iter().map(side) {
        value[direction] = rules;
    }
    value
}
