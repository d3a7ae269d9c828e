//! Labs for measuring, by the commands that users type.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// A running lab; dropped, it is taken down.
#[derive(Debug)]
pub(crate) struct Lab {
    ripstop: PathBuf,
    name: String,
}

impl Lab {
    /// `ripstop lab up` with more arguments; returns when all pods are Ready.
    pub(crate) fn up<S: AsRef<OsStr>>(binaries: &Path, name: &str, args: &[S]) -> Result<Self> {
        let lab = Self {
            ripstop: binaries.join("ripstop"),
            name: format!("{name}-{}", std::process::id()),
        };
        let mut command = Command::new(&lab.ripstop);
        command.args(["lab", "up", "--name", &lab.name]).args(args);
        let output = command.output().context("run ripstop lab up")?;
        checked(&output, "ripstop lab up")?;
        Ok(lab)
    }

    /// Standard output of `ripstop lab VERB --name NAME ARGS`.
    pub(crate) fn run(&self, verb: &str, args: &[&str]) -> Result<String> {
        let output = self.command(verb, args).output().context("run ripstop")?;
        checked(&output, &format!("ripstop lab {verb}"))
    }

    /// The same, left running.
    pub(crate) fn spawn(&self, verb: &str, args: &[&str]) -> Result<Child> {
        self.command(verb, args)
            .stdout(Stdio::null())
            .spawn()
            .context("run ripstop")
    }

    /// The same, with pipes to it.
    pub(crate) fn piped(&self, verb: &str, args: &[&str]) -> Result<Child> {
        self.command(verb, args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("run ripstop")
    }

    /// `ripstop datapath set` on every node; what it says.
    pub(crate) fn switch(&self, engine: &str) -> Result<String> {
        let mut command = Command::new(&self.ripstop);
        command.args(["datapath", "set", engine, "--all", "--lab", &self.name]);
        let output = command.output().context("run ripstop datapath")?;
        Ok(checked(&output, "ripstop datapath set")?.trim().to_owned())
    }

    fn command(&self, verb: &str, args: &[&str]) -> Command {
        let mut command = Command::new(&self.ripstop);
        command
            .args(["lab", verb, "--name", &self.name])
            .args(args)
            .stdin(Stdio::null());
        command
    }

    /// Name under `/run/netns` of a node.
    pub(crate) fn netns(&self, node: &str) -> String {
        format!("{}.{node}", self.name)
    }

    /// An object of the lab's API, by kubectl.
    pub(crate) fn get(&self, what: &[&str]) -> Result<Value> {
        let kubeconfig = self.run("kubeconfig", &[])?;
        let output = Command::new("kubectl")
            .args(["--kubeconfig", kubeconfig.trim(), "get", "-o", "json"])
            .args(what)
            .output()
            .context("run kubectl")?;
        Ok(serde_json::from_str(&checked(&output, "kubectl get")?)?)
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if let Err(error) = self.run("down", &[]) {
            eprintln!("lab {} is still there: {error:#}", self.name);
        }
    }
}

fn checked(output: &Output, what: &str) -> Result<String> {
    if !output.status.success() {
        bail!(
            "{what} failed ({}): {}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
