//! The agents of a lab: of which program they are, and when they end and begin.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::{Lab, eventually, ripstop};

/// What agents are the next time they are started: `ripstop lab up --agent` is
/// given a link.
#[derive(Debug)]
pub struct Program {
    link: PathBuf,
    _folder: TempDir,
}

impl Program {
    /// The `ripstop` under test.
    ///
    /// # Panics
    /// If the link cannot be made, here and below.
    pub fn this() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let link = folder.path().join("agent");
        symlink(ripstop(), &link).expect("a link");
        Self {
            link,
            _folder: folder,
        }
    }

    /// For `--agent`.
    pub fn link(&self) -> &str {
        self.link.to_str().expect("a path of text")
    }

    /// A file beside the link, which ends with it.
    pub fn beside(&self, name: &str) -> PathBuf {
        self.link.with_extension(name)
    }

    /// The next agents are this program.
    pub fn install(&self, program: &Path) {
        let new = self.beside("new");
        symlink(program, &new).expect("a link");
        fs::rename(&new, &self.link).expect("a link in place of another");
    }
}

/// A version with other kernel tables. `None`, with why, where it was not built.
pub fn next_version() -> Option<PathBuf> {
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/next/debug/ripstop");
    let found = built.canonicalize().ok();
    if found.is_none() {
        println!(
            "skipped: no {}; run `cargo xtask next-version`",
            built.display()
        );
    }
    found
}

impl Lab {
    /// Ends the agents without a word; others are started in their place.
    ///
    /// # Panics
    /// If one has ended already.
    pub fn kill_agents(&self) {
        for agent in self.agents() {
            kill(Pid::from_raw(agent), Signal::SIGKILL).expect("an agent");
        }
    }

    /// Likewise, and waits for them.
    ///
    /// # Panics
    /// If they do not become ready.
    pub fn restart_agents(&self) {
        let (before, agents) = (self.times_ready(), self.agents().len());
        self.kill_agents();
        self.await_ready(before + agents);
    }

    /// Waits until agents have been ready so many times since the lab began.
    ///
    /// # Panics
    /// If they do not become so.
    pub fn await_ready(&self, times: usize) {
        eventually("the next agents are ready", || {
            (self.times_ready() >= times).then_some(())
        });
    }

    /// How many times agents have become ready.
    pub fn times_ready(&self) -> usize {
        let logs = self.agent_logs();
        logs.matches("the network is as the API server").count()
    }

    /// What all agents have said.
    ///
    /// # Panics
    /// If there are no logs.
    pub fn agent_logs(&self) -> String {
        let nodes = fs::read_dir(self.root().join("nodes")).expect("nodes");
        let logs = nodes.flatten().map(|node| {
            let log = node.path().join("agent.log");
            fs::read_to_string(log).expect("an agent's log")
        });
        logs.collect()
    }
}
