//! `ripstop lab list`.

use std::process::ExitCode;

use anyhow::Result;
use ripstop_lab::lifecycle::{Record, State, labs, state};
use ripstop_lab::paths::LabPaths;
use ripstop_lab::text::table;
use serde_json::json;

use super::Output;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[arg(long, short, value_enum, default_value_t = Output::Text)]
    output: Output,
}

pub(super) fn run(args: &Args) -> Result<ExitCode> {
    let mut rows = vec![
        ["NAME", "STATE", "NODES", "API", "SINCE"]
            .map(str::to_owned)
            .to_vec(),
    ];
    let mut items = Vec::new();
    for name in labs() {
        let paths = LabPaths::new(&name);
        let state = match state(&paths)? {
            State::Running => "running",
            State::Dead => "dead",
            State::Absent => continue,
        };
        let record = Record::read(&paths).ok();
        let nodes = record.as_ref().map_or(0, |record| record.options.nodes);
        let (url, started) = record
            .map(|record| (record.url, record.started))
            .unwrap_or_default();
        items.push(json!({
            "name": name, "state": state, "nodes": nodes, "url": url, "started": started,
            "kubeconfig": paths.kubeconfig(),
        }));
        rows.push(vec![
            name,
            state.to_owned(),
            nodes.to_string(),
            url,
            started,
        ]);
    }
    match args.output {
        Output::Json => println!("{:#}", serde_json::Value::Array(items)),
        Output::Text if items.is_empty() => println!("no lab is up; start one: ripstop lab up"),
        Output::Text => print!("{}", table(&rows)),
    }
    Ok(ExitCode::SUCCESS)
}
