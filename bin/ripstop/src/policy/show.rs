//! `ripstop policy show`.

use std::process::ExitCode;

use anyhow::{Result, bail};
use ripstop_model::Pod;
use ripstop_plan::policy::Direction;
use serde_json::{Value, json};

use super::target::Target;
use super::view::SideView;
use super::world::World;
use super::{Output, Source, live};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// [NAMESPACE/]NAME of a pod or of what makes it, or its address.
    pub(super) pod: String,
    /// The rows of the kernel as well: who may what, by address and port.
    #[arg(long, conflicts_with = "filenames")]
    pub(super) rows: bool,
    #[command(flatten)]
    pub(super) source: Source,
}

pub(super) fn run(args: &Args) -> Result<(String, ExitCode)> {
    match args.source.world()? {
        Some(world) => offline(&world, args),
        None => live::show(args),
    }
}

fn offline(world: &World, args: &Args) -> Result<(String, ExitCode)> {
    let Target::Pod(pod) = Target::parse(world, &args.pod)? else {
        bail!("{} is no address of a pod", args.pod);
    };
    let sides = [Direction::Ingress, Direction::Egress].map(|direction| {
        let in_force = world.planner.in_force(&pod.key, direction);
        (direction, in_force.as_ref().map(SideView::new))
    });
    let text = match args.source.output {
        Output::Json => format!("{:#}\n", as_json(pod, &sides)),
        Output::Text => as_text(pod, &sides),
    };
    Ok((text, ExitCode::SUCCESS))
}

type Sides = [(Direction, Option<SideView>); 2];

fn as_text(pod: &Pod, sides: &Sides) -> String {
    let why = match pod.host_network {
        true => "on the network of its node",
        false => "ended",
    };
    let sides = sides.iter().map(|(direction, side)| match side {
        Some(side) => side.text(*direction),
        None => format!("{direction}: {why}: no policy selects it\n"),
    });
    format!("{}\n{}", pod.key, sides.collect::<String>())
}

fn as_json(pod: &Pod, sides: &Sides) -> Value {
    let mut value = json!({"pod": pod.key.to_string()});
    for (direction, side) in sides {
        value[direction.to_string()] = json!(side);
    }
    value
}
