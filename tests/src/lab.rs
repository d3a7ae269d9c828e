//! A lab of a test.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use ripstop_netlink::Netlink;
use ripstop_netlink::netns::Netns;
use serde_json::Value;

use crate::Leftovers;

/// What a command printed, and whether it succeeded.
#[derive(Debug)]
pub struct Printed {
    pub ok: bool,
    pub stdout: String,
    pub stderr: String,
}

impl Printed {
    /// Standard output of `what`.
    ///
    /// # Panics
    /// If it failed, with what it printed.
    pub(crate) fn must(self, what: &str) -> String {
        assert!(self.ok, "{what}:\n{}{}", self.stdout, self.stderr);
        self.stdout
    }
}

impl From<Output> for Printed {
    fn from(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Self {
            ok: output.status.success(),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        }
    }
}

/// The `ripstop` under test, built beside the test programs or one folder up.
///
/// # Panics
/// If it has not been built.
pub fn ripstop() -> PathBuf {
    let test = std::env::current_exe().expect("path of the test");
    let folders = test.ancestors().skip(1).take(2);
    let built = |folder: &&Path| folder.join("ripstop").exists();
    let folder = folders.filter(built).last().unwrap_or(&test);
    let path = folder.join("ripstop");
    assert!(
        folder.join("ripstop-cni").exists(),
        "no {}: run the tests with `cargo xtask test`, or `cargo build` first",
        path.display()
    );
    path
}

/// A lab with a name that no other test uses. Dropped, it is taken down, and the
/// test fails if anything of it is left.
#[derive(Debug)]
pub struct Lab {
    name: String,
}

impl Lab {
    /// A name, and no lab yet.
    pub fn unborn() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Self {
            name: format!("t{}-{number}", std::process::id()),
        }
    }

    /// `ripstop lab up ARGS`.
    ///
    /// # Panics
    /// If that fails, with what it printed.
    pub fn up(args: &[&str]) -> Self {
        let lab = Self::unborn();
        lab.must("up", args);
        lab
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// The lab's directory.
    pub fn root(&self) -> PathBuf {
        Path::new("/run/ripstop/lab").join(&self.name)
    }

    /// Runs `ripstop lab VERB --name NAME ARGS` to its end.
    ///
    /// # Panics
    /// If it cannot be started.
    pub fn run(&self, verb: &str, args: &[&str]) -> Printed {
        self.command(verb, args)
            .output()
            .expect("run ripstop")
            .into()
    }

    /// The same, not run yet.
    pub fn command(&self, verb: &str, args: &[&str]) -> Command {
        let mut command = Command::new(ripstop());
        command
            .args(["lab", verb, "--name", &self.name])
            .args(args)
            .stdin(Stdio::null());
        command
    }

    /// As [`Lab::run`]; returns standard output.
    ///
    /// # Panics
    /// If the command fails, with what it printed.
    pub fn must(&self, verb: &str, args: &[&str]) -> String {
        self.run(verb, args)
            .must(&format!("ripstop lab {verb} {args:?}"))
    }

    /// Runs a command in a pod (`NAME`, `deploy/NAME`) or node (`node/NAME`).
    ///
    /// # Panics
    /// If it fails.
    pub fn exec(&self, pod: &str, command: &[&str]) -> String {
        self.must("exec", &[&[pod, "--"], command].concat())
    }

    /// Asks the agent of a node: `ripstop WORDS --lab NAME --node NODE`.
    ///
    /// # Panics
    /// If ripstop cannot be started.
    pub fn agent(&self, node: &str, words: &[&str]) -> Printed {
        let output = Command::new(ripstop())
            .args(words)
            .args(["--lab", &self.name, "--node", node])
            .stdin(Stdio::null())
            .output();
        output.expect("run ripstop").into()
    }

    /// Runs kubectl against the lab's API.
    ///
    /// # Panics
    /// If kubectl cannot be started.
    pub fn try_kubectl(&self, args: &[&str]) -> Printed {
        let kubeconfig = self.root().join("kubeconfig");
        let output = Command::new("kubectl")
            .arg("--kubeconfig")
            .arg(kubeconfig)
            .args(args)
            .stdin(Stdio::null())
            // Its cache of discovery would be shared by tests and outlive them.
            .env("KUBECACHEDIR", self.root().join("kubectl-cache"))
            .output();
        output.expect("run kubectl (kubernetes-client)").into()
    }

    /// As [`Lab::try_kubectl`]; returns standard output.
    ///
    /// # Panics
    /// If the command fails.
    pub fn kubectl(&self, args: &[&str]) -> String {
        self.try_kubectl(args).must(&format!("kubectl {args:?}"))
    }

    /// An object, or a list of them, as JSON.
    ///
    /// # Panics
    /// If kubectl fails.
    pub fn get(&self, what: &[&str]) -> Value {
        let text = self.kubectl(&[&["get", "-o", "json"], what].concat());
        serde_json::from_str(&text).expect("JSON from kubectl")
    }

    /// The network namespace of the pod that has this address.
    ///
    /// # Panics
    /// If there is none.
    pub fn pod_netns(&self, address: IpAddr) -> Netns {
        let prefix = format!("{}.", self.name);
        let names = std::fs::read_dir("/run/netns")
            .expect("namespaces")
            .flatten();
        let mut spaces = names
            .filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix))
            // One that goes meanwhile is another pod's.
            .filter_map(|entry| Netns::open(entry.path()).ok());
        let its = spaces.find(|netns| {
            let there = Netlink::in_netns(netns).and_then(|mut its| its.addresses());
            there.is_ok_and(|all| all.iter().any(|one| one.address.addr() == address))
        });
        its.expect("the pod's namespace")
    }

    /// Process ids of the lab's agents, by their command lines.
    pub fn agents(&self) -> Vec<i32> {
        let run_dir = format!("{}/nodes/", self.root().display());
        Leftovers::processes(|command| command.contains(" agent ") && command.contains(&run_dir))
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let down = self.run("down", &[]);
        let left = Leftovers::of(&self.name);
        if std::thread::panicking() {
            return;
        }
        assert!(down.ok, "ripstop lab down: {}{}", down.stdout, down.stderr);
        assert!(left.is_empty(), "lab {} left {left:#?}", self.name);
    }
}
