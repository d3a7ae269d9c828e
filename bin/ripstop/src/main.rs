//! `ripstop`: the agent of a node, the lab, and the verbs people type.

mod agent;
mod bundle;
mod config;
mod controller;
mod datapath;
mod dns;
mod install;
mod lab;
mod policy;
mod preflight;
mod run_dir;
mod service;
mod status;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The network of a Kubernetes cluster: pods, services, names, policies.
#[derive(Debug, Parser)]
#[command(name = "ripstop", version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the network of this node until told to stop.
    Agent(Box<agent::Args>),
    /// Give ranges of pod addresses to nodes that nobody else gives any.
    Controller(controller::Args),
    /// Make this node's runtime use the agent: plugin and network list.
    Install(install::Args),
    /// Leave nothing of an agent that has ended on this node.
    Uninstall(install::UninstallArgs),
    /// The agent's configuration file.
    Config(config::Args),
    /// What the agent of this node says of itself.
    Status(status::Args),
    /// What the engine of this node has in the kernel: frontends, backends, counters.
    Service(service::Args),
    /// What network policies allow and deny, on running nodes or by manifests.
    Policy(policy::Args),
    /// Which engine carries this node's services and pods, and another one.
    Datapath(datapath::Args),
    /// Ask for names as pods do, and see what pods asked for.
    Dns(dns::Args),
    /// What this kernel offers, and which engine it would get; changes nothing.
    Preflight(preflight::Args),
    /// A whole cluster network on this machine.
    Lab(lab::Args),
}

fn main() -> ExitCode {
    // Before the command line is looked at: this is the start of every container
    // of a lab, and its arguments are not for people.
    let mut args = std::env::args().skip(1);
    if args.next().as_deref() == Some(ripstop_lab::container::SUBCOMMAND) {
        return ripstop_lab::container::main(args);
    }
    // Nor is this one, which an agent starts.
    let mut args = std::env::args().skip(1);
    if args.next().as_deref() == Some(agent::names::holder::SUBCOMMAND) {
        return agent::names::holder::main(args);
    }
    let line = config::expand(std::env::args_os().collect());
    match line.and_then(|line| dispatch(Cli::parse_from(line).command)) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("ripstop: {}", describe(&error));
            ExitCode::FAILURE
        }
    }
}

fn dispatch(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Agent(args) => agent::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Controller(args) => controller::run(&args),
        Command::Install(args) => install::run(&args),
        Command::Uninstall(args) => install::uninstall(&args),
        Command::Config(args) => config::run(&args),
        Command::Status(args) => status::run(&args),
        Command::Service(args) => service::run(&args),
        Command::Policy(args) => policy::run(&args),
        Command::Datapath(args) => datapath::run(&args),
        Command::Dns(args) => dns::run(&args),
        Command::Preflight(args) => preflight::run(&args),
        Command::Lab(args) => lab::run(args),
    }
}

/// An error and its causes, each said once: many of ours have their cause in
/// their own text.
fn describe(error: &anyhow::Error) -> String {
    error
        .chain()
        .skip(1)
        .fold(error.to_string(), |mut text, cause| {
            let cause = cause.to_string();
            if !text.contains(&cause) {
                text.push_str(": ");
                text.push_str(&cause);
            }
            text
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_said_once() {
        let cause = std::io::Error::other("no such file");
        let error = anyhow::Error::new(cause).context("reading a: no such file");
        assert_eq!(describe(&error), "reading a: no such file");
        assert_eq!(
            describe(&error.context("lab x")),
            "lab x: reading a: no such file"
        );
    }
}
