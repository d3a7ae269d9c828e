//! `ripstop dns`: names as pods see them.

use std::process::ExitCode;

use clap::{Subcommand, ValueEnum};
use ripstop_dns::Explained;

use crate::agent::names::ask::{Log, LogLine, Query};
use crate::agent::{Ask, ask};
use crate::run_dir::RunDir;

/// Arguments of `ripstop dns`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
    #[arg(long, short, global = true, value_enum, default_value_t)]
    output: Output,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Resolve a name and say where the answer comes from.
    Query {
        /// Name, as an application would ask for it.
        name: String,
        /// Type of record.
        #[arg(long = "type", short = 't', default_value = "A")]
        kind: String,
        /// As this pod of the node (NAMESPACE/POD), or as one of a namespace.
        #[arg(long)]
        from: Option<String>,
        #[command(flatten)]
        agent: RunDir,
    },
    /// The last questions of the node's pods.
    Log {
        /// Only of this pod (NAMESPACE/POD) or address.
        #[arg(long)]
        from: Option<String>,
        #[command(flatten)]
        agent: RunDir,
    },
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Output {
    #[default]
    Table,
    Json,
}

/// Exit status 1 if the name has no data.
///
/// # Errors
/// If no agent answers, or the question makes no sense.
pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    match &args.command {
        Command::Query {
            name,
            kind,
            from,
            agent,
        } => {
            let query = Query {
                name: name.clone(),
                kind: kind.clone(),
                from: from.clone(),
            };
            let explained: Explained = ask(&agent.path()?, &Ask::DnsQuery(query))?;
            match args.output {
                Output::Json => println!("{}", serde_json::to_string_pretty(&explained)?),
                Output::Table => print!("{}", steps(&explained)),
            }
            let found = explained
                .steps
                .last()
                .is_some_and(|step| !step.answers.is_empty());
            Ok(match found {
                true => ExitCode::SUCCESS,
                false => ExitCode::FAILURE,
            })
        }
        Command::Log { from, agent } => {
            let log = Ask::DnsLog(Log { of: from.clone() });
            let lines: Vec<LogLine> = ask(&agent.path()?, &log)?;
            match args.output {
                Output::Json => println!("{}", serde_json::to_string_pretty(&lines)?),
                Output::Table => lines.iter().for_each(|line| println!("{}", log_line(line))),
            }
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn steps(explained: &Explained) -> String {
    let mut text = String::new();
    for step in &explained.steps {
        let through = match &step.search {
            Some(element) => format!(" (search {element})"),
            None => String::new(),
        };
        text.push_str(&format!(
            "{}{through}\n    {} {}: {}\n",
            step.name, explained.kind, step.rcode, step.from
        ));
        for (kind, data) in &step.answers {
            text.push_str(&format!("    {kind:<6} {data}\n"));
        }
    }
    text.push_str(&format!("{} µs\n", explained.micros));
    text
}

fn log_line(line: &LogLine) -> String {
    let question = &line.question;
    let seconds = question.at / 1000;
    let client = line
        .pod
        .clone()
        .unwrap_or_else(|| question.client.to_string());
    format!(
        "{:02}:{:02}:{:02}.{:03} {client} {} {} {} {} {} µs",
        seconds / 3600 % 24,
        seconds / 60 % 60,
        seconds % 60,
        question.at % 1000,
        question.name,
        question.kind,
        question.rcode,
        format!("{:?}", question.source).to_lowercase(),
        question.micros
    )
}
