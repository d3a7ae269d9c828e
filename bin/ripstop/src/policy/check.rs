//! `ripstop policy check`.

use std::fmt::Write;
use std::process::ExitCode;

use anyhow::Result;
use ripstop_plan::policy::Direction;
use serde_json::json;

use super::target::{Port, Side, Target, addresses};
use super::world::World;
use super::{Input, Output};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Who connects: [NAMESPACE/]NAME of a pod or of what makes it, or an
    /// address.
    #[arg(long, value_name = "POD|ADDRESS")]
    from: String,
    /// To whom. A Service is judged by the pods behind it: name one of those.
    #[arg(long, value_name = "POD|ADDRESS")]
    to: String,
    /// Port of the destination, TCP if nothing else is said: 80, 53/UDP, http.
    #[arg(long, value_name = "PORT[/PROTOCOL]")]
    port: String,
    #[command(flatten)]
    pub(super) input: Input,
}

/// The answer; exit status 1 for no.
pub(super) fn run(world: &World, args: &Args) -> Result<(String, ExitCode)> {
    let from = Target::parse(world, &args.from)?;
    let to = Target::parse(world, &args.to)?;
    let port = Port::parse(&args.port, &to)?;
    let (source, destination) = addresses(world, &from, &to)?;
    let ends = (source, destination);
    let egress = Side::new(&world.tables, &from, Direction::Egress, ends, port);
    // Of a pod that stands for several, another one is asked; it has the same
    // policies.
    let ends = (destination, source);
    let ingress = Side::new(&world.tables, &to, Direction::Ingress, ends, port);
    let allowed = egress.allowed && ingress.allowed;
    let text = match args.input.output {
        Output::Json => {
            let answer = json!({
                "from": from.name(),
                "to": to.name(),
                "port": port.number,
                "protocol": port.protocol.to_string(),
                "allowed": allowed,
                "egress": egress.json(),
                "ingress": ingress.json(),
            });
            format!("{answer:#}\n")
        }
        Output::Text => {
            let mut text = String::new();
            let word = if allowed { "yes" } else { "no" };
            let (from, to) = (from.name(), to.name());
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{word}: {from} to {to} {port}");
            for (what, side) in [
                (format!("egress of {from}"), egress),
                (format!("ingress of {to}"), ingress),
            ] {
                let word = if side.allowed { "allowed" } else { "denied" };
                let _ = writeln!(text, "  {what}: {word}: {}", side.by);
            }
            text
        }
    };
    let code = match allowed {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    };
    Ok((text, code))
}
