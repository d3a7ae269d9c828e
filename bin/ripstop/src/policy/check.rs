//! `ripstop policy check`.

use std::fmt::Write;
use std::process::ExitCode;

use anyhow::{Context, Result};
use ripstop_model::ObjectKey;
use ripstop_plan::policy::Direction;
use serde_json::{Value, json};

use super::target::{Port, Side, Target, addresses};
use super::world::World;
use super::{Output, Source, live};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Who connects: [NAMESPACE/]NAME of a pod or of what makes it, or an
    /// address.
    #[arg(long, value_name = "POD|ADDRESS")]
    pub(super) from: String,
    /// To whom; of a Service (service/[NAMESPACE/]NAME, in manifests) each pod
    /// behind it is asked, as policies see pods alone.
    #[arg(long, value_name = "POD|SERVICE|ADDRESS")]
    pub(super) to: String,
    /// Port of the destination, TCP if nothing else is said: 80, 53/UDP, http.
    #[arg(long, value_name = "PORT[/PROTOCOL]")]
    pub(super) port: String,
    #[command(flatten)]
    pub(super) source: Source,
}

/// What both ends say.
struct Answer {
    from: String,
    to: String,
    port: Port,
    egress: Side,
    ingress: Side,
}

/// The answer; exit status 1 for no.
pub(super) fn run(args: &Args) -> Result<(String, ExitCode)> {
    match args.source.world()? {
        Some(world) => offline(&world, args),
        None => live::check(args),
    }
}

fn offline(world: &World, args: &Args) -> Result<(String, ExitCode)> {
    let from = Target::parse(world, &args.from)?;
    let mut answers = Vec::new();
    let service = service(world, &args.to);
    match &service {
        Some(key) => {
            let service = world.services.get(key);
            let service = service.with_context(|| format!("no service {key} in the manifests"))?;
            for (pod, port) in service.behind(world, key, &args.port)? {
                answers.push(Answer::new(world, &from, &Target::Pod(pod), port)?);
            }
        }
        None => {
            let to = Target::parse(world, &args.to)?;
            let port = Port::parse(&args.port, &to)?;
            answers.push(Answer::new(world, &from, &to, port)?);
        }
    }
    let allowed = answers.iter().all(Answer::is_allowed);
    let text = match (args.source.output, &service) {
        (Output::Json, None) => format!("{:#}\n", answers[0].json()),
        (Output::Json, Some(key)) => {
            let pods: Vec<_> = answers.iter().map(Answer::json).collect();
            let whole = json!({"service": key.to_string(), "allowed": allowed, "pods": pods});
            format!("{whole:#}\n")
        }
        (Output::Text, _) => answers.iter().map(Answer::text).collect(),
    };
    let code = match allowed {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    };
    Ok((text, code))
}

/// The service that `text` names. A pod in a namespace called so comes first.
fn service(world: &World, text: &str) -> Option<ObjectKey> {
    let (kind, rest) = text.split_once('/')?;
    let is_pod = world.pods.contains_key(&ObjectKey::new(kind, rest));
    if is_pod || !["svc", "service"].contains(&kind) {
        return None;
    }
    Some(match rest.split_once('/') {
        Some((namespace, name)) => ObjectKey::new(namespace, name),
        None => ObjectKey::new(&world.namespace, rest),
    })
}

impl Answer {
    fn new(world: &World, from: &Target<'_>, to: &Target<'_>, port: Port) -> Result<Self> {
        let (source, destination) = addresses(world, from, to)?;
        let tables = &world.tables;
        Ok(Self {
            from: from.name(),
            to: to.name(),
            port,
            egress: Side::new(tables, from, Direction::Egress, (source, destination), port),
            // Of a pod that stands for several, another one is asked; it has
            // the same policies.
            ingress: Side::new(tables, to, Direction::Ingress, (destination, source), port),
        })
    }

    fn is_allowed(&self) -> bool {
        self.egress.allowed && self.ingress.allowed
    }

    fn json(&self) -> Value {
        json!({
            "from": self.from,
            "to": self.to,
            "port": self.port.number,
            "protocol": self.port.protocol.to_string(),
            "allowed": self.is_allowed(),
            "egress": self.egress.json(),
            "ingress": self.ingress.json(),
        })
    }

    fn text(&self) -> String {
        let Self { from, to, port, .. } = self;
        let word = if self.is_allowed() { "yes" } else { "no" };
        let mut text = format!("{word}: {from} to {to} {port}\n");
        for (what, end, side) in [
            ("egress", from, &self.egress),
            ("ingress", to, &self.ingress),
        ] {
            let word = if side.allowed { "allowed" } else { "denied" };
            // Writing to a string cannot fail.
            let _ = writeln!(text, "  {what} of {end}: {word}: {}", side.by);
        }
        text
    }
}
