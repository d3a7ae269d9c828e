//! What the node loop tells a container's process about itself.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::stand_in::StandIn;

/// One process to set up and become. Passed as a JSON file, as a runtime's
/// bundle is: it may hold secrets and be larger than an argument can be.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProcessSpec {
    /// Directory of the cgroup to join, made already.
    pub cgroup: Option<PathBuf>,
    /// Path of the pod's (or node's) network namespace.
    pub netns: PathBuf,
    pub surroundings: Surroundings,
    /// Ends up as the program's whole environment.
    pub env: BTreeMap<String, String>,
    /// `/` if absent. Made if it does not exist, as runtimes do.
    pub working_dir: Option<PathBuf>,
    pub user: Option<User>,
    /// Standard input is a terminal that becomes the controlling one.
    pub terminal: bool,
    /// Standard input is a socket on which the parent learns how the start went
    /// ([`super::notify`]); the program gets `/dev/null` in its place.
    pub notify: bool,
    pub run: Run,
}

/// Mount and host name (UTS) namespaces.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Surroundings {
    /// Of a container that starts.
    New(Root),
    /// Of a container that runs: the process id of its first process.
    Join { pid: u32 },
}

/// A root of the container's own, made from the machine's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Root {
    /// Programs that are to be another one than the machine's.
    pub applets: Option<Applets>,
    /// An empty directory to build the root on. What the container writes is
    /// kept in memory and goes when its last process does.
    pub scratch: PathBuf,
    /// The name that `hostname` gives. `None` (hostNetwork): the machine's.
    pub hostname: Option<String>,
    /// In order; a mount may be inside an earlier one.
    pub mounts: Vec<Bind>,
    pub read_only: bool,
}

/// Links to one program that does what its name says, as busybox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applets {
    pub program: PathBuf,
    /// Where the links are; absolute and without links in the paths.
    pub dirs: BTreeSet<PathBuf>,
    pub names: BTreeSet<String>,
}

/// A file or directory of the machine shown inside the container.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Bind {
    pub source: PathBuf,
    /// Absolute, in the container.
    pub target: PathBuf,
    pub read_only: bool,
    /// Left out silently if it cannot be mounted: file systems of the machine
    /// that programs may or may not need.
    pub optional: bool,
}

/// Who runs it: numbers, for the machine's names mean nothing to an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
}

/// What the process becomes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Run {
    /// A program of the machine; the first word is searched for in `PATH`.
    Program(Vec<String>),
    /// A server that takes the place of an image nobody has.
    StandIn(StandIn),
}
