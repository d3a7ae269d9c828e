//! The verbs that ask running agents.

use std::fmt::Write;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use ripstop_plan::policy::Direction;
use serde::de::DeserializeOwned;

use super::{Output, Source, check, show};
use crate::agent::{
    Ask, CheckView, NameView, PodView, PolicyAsk, PortsView, RowView, VerdictView, ask,
};

/// Prefixes of a row that are said; the JSON has all.
const SOME: usize = 6;

/// What the agents answer that can, with the node's name; at least one.
fn answers<T: DeserializeOwned>(source: &Source, about: &PolicyAsk) -> Result<Vec<(String, T)>> {
    let about = Ask::Policy(about.clone());
    let mut answers = Vec::new();
    let mut failure = None;
    for (node, run_dir) in source.agents.paths()? {
        match ask(&run_dir, &about) {
            Ok(answer) => answers.push((node, answer)),
            Err(error) => failure = Some(error),
        }
    }
    match (answers.is_empty(), failure) {
        (true, Some(error)) => Err(error),
        _ => Ok(answers),
    }
}

pub(super) fn show(args: &show::Args) -> Result<(String, ExitCode)> {
    let pod = args.source.full(&args.pod);
    let views: Vec<(String, PodView)> = answers(&args.source, &PolicyAsk::Show { pod })?;
    let (node, view) = views.into_iter().next().context("no agent answers")?;
    if args.source.output == Output::Json {
        return Ok((json(&view)?, ExitCode::SUCCESS));
    }
    let addresses: Vec<_> = view.addresses.iter().map(ToString::to_string).collect();
    let mut text = format!("{} ({}) on {node}\n", view.pod, addresses.join(", "));
    if !view.known {
        text += "its object is not known yet: nothing passes\n";
    }
    text += &view.ingress.text(Direction::Ingress);
    text += &view.egress.text(Direction::Egress);
    view.names.iter().for_each(|name| text += &name_text(name));
    match view.drift.as_slice() {
        [] => text += "kernel: as planned\n",
        drift => drift.iter().for_each(|line| {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "kernel: differs: {line}");
        }),
    }
    if args.rows {
        view.rows.iter().for_each(|row| text += &row_text(row));
    }
    let code = match view.drift.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    };
    Ok((text, code))
}

fn name_text(view: &NameView) -> String {
    let addresses = view.addresses.iter().map(|one| {
        let seconds = Duration::from_secs(one.seconds);
        format!("{} ({seconds:?})", one.address)
    });
    let addresses: Vec<_> = addresses.collect();
    format!("name: {} is {}\n", view.name, addresses.join(", "))
}

fn row_text(row: &RowView) -> String {
    let more = row.others.len().saturating_sub(SOME);
    let mut others = row.others[..row.others.len().min(SOME)].join(", ");
    if more > 0 {
        // Writing to a string cannot fail.
        let _ = write!(others, " and {more} more");
    }
    let mut text = format!("{} of {}: {others}\n", row.direction, row.address);
    let protocols = [("TCP", &row.tcp), ("UDP", &row.udp), ("SCTP", &row.sctp)];
    let verdicts = protocols
        .into_iter()
        .flat_map(|(name, all)| all.iter().map(move |one| (name, one)));
    for (protocol, view) in verdicts.chain([("other", &row.other)]) {
        let PortsView { ports, allowed, by } = view;
        let word = if *allowed { "accept" } else { "deny" };
        let _ = writeln!(text, "  {protocol:<5} {ports:<11} {word:<6} {by}");
    }
    text
}

/// Exit status 1 for no; also if nobody knows of one end.
pub(super) fn check(args: &check::Args) -> Result<(String, ExitCode)> {
    let about = PolicyAsk::Check {
        from: args.source.full(&args.from),
        to: args.source.full(&args.to),
        port: args.port.clone(),
    };
    let views: Vec<(String, CheckView)> = answers(&args.source, &about)?;
    let mut views = views.into_iter().map(|(_, view)| view);
    let mut whole = views.next().context("no agent answers")?;
    for view in views {
        // Each end is of one node, whose agent knows.
        for (known, other) in [
            (&mut whole.egress, view.egress),
            (&mut whole.ingress, view.ingress),
        ] {
            if known.allowed.is_none() {
                *known = other;
            }
        }
    }
    let both = [&whole.egress, &whole.ingress];
    let allowed = both.iter().all(|one| one.allowed == Some(true));
    let denied = both.iter().any(|one| one.allowed == Some(false));
    let code = match allowed {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    };
    if args.source.output == Output::Json {
        return Ok((json(&whole)?, code));
    }
    let CheckView {
        from,
        to,
        port,
        protocol,
        ..
    } = &whole;
    let word = match (allowed, denied) {
        (true, _) => "yes",
        (_, true) => "no",
        _ => "not known",
    };
    let mut text = format!("{word}: {from} to {to} {port}/{protocol}\n");
    for (what, end, view) in [
        ("egress", from, &whole.egress),
        ("ingress", to, &whole.ingress),
    ] {
        let VerdictView { allowed, by } = view;
        let word = match allowed {
            Some(true) => "allowed",
            Some(false) => "denied",
            None => "not known here",
        };
        let _ = writeln!(text, "  {what} of {end}: {word}: {by}");
    }
    Ok((text, code))
}

fn json(value: &impl serde::Serialize) -> Result<String> {
    Ok(format!("{}\n", serde_json::to_string_pretty(value)?))
}
