//! Which engine the node has, and why.

use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result, ensure};
use ripstop_datapath::ebpf::{self, EbpfEngine};
use ripstop_datapath::nftables::{self, NftEngine};
use ripstop_datapath::{
    Connection, Datapath, Denials, Drift, EngineStatus, Error, FrontendState, Part, PolicySettings,
    ResolvedRoute, TranslatedFlow,
};
use ripstop_host::routes::is_tunnel;
use ripstop_model::LocalPod;
use ripstop_netlink::Netlink;
use ripstop_plan::policy::PolicyTables;
use ripstop_plan::{Change, Tables};
use tracing::warn;

use super::args::Mode;

/// An engine by name.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize, clap::ValueEnum,
)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    Ebpf,
    Nftables,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ebpf => "ebpf",
            Self::Nftables => "nftables",
        }
    }
}

/// The engine that is asked for, and what it runs on.
#[derive(Clone, Debug)]
pub(crate) struct Opener {
    pub(crate) mode: Mode,
    pub(crate) run_dir: PathBuf,
    pub(crate) bpffs: PathBuf,
    pub(crate) cgroup_root: PathBuf,
    pub(crate) node_addresses: Vec<IpAddr>,
    pub(crate) uplinks: Vec<u32>,
    pub(crate) policy: PolicySettings,
}

/// The engine that the node has, shared with the rest of the agent.
pub(crate) type Running = Arc<Mutex<Current>>;

/// What was opened.
pub(crate) struct Opened {
    pub(crate) engine: Current,
    /// An earlier agent left it; it is not said that it is wanted.
    pub(crate) left: bool,
    /// Why this one: what was asked for, and what the kernel said to it.
    pub(crate) reason: String,
}

impl Opener {
    /// The engine to begin with. One that another engine was left by goes on
    /// first, so that the change between them can be a switch: see
    /// [`Opener::wanted`].
    ///
    /// # Errors
    /// If the kernel refuses every engine that may be, or something is in the way.
    pub(crate) fn open(&self) -> Result<Opened> {
        if let Some(kind) = self.left_by() {
            match self.open_kind(kind) {
                Ok(engine) => {
                    let reason = "it ran before this start".to_owned();
                    return Ok(Opened {
                        engine,
                        left: true,
                        reason,
                    });
                }
                Err(Error::Unsupported { reason }) if kind == Kind::Ebpf => {
                    self.give_up_if_working(&reason)?;
                }
                Err(error) => warn!("{}, which ran before this start: {error}", kind.name()),
            }
        }
        let (engine, reason) = match self.wanted() {
            (Some(kind), reason) => (self.open_kind(kind)?, reason),
            (None, _) => match self.open_kind(Kind::Ebpf) {
                Ok(engine) => (engine, "the kernel takes eBPF".to_owned()),
                Err(Error::Unsupported { reason }) => {
                    warn!("nftables instead of eBPF, which this kernel refuses: {reason}");
                    let engine = self.open_kind(Kind::Nftables)?;
                    (engine, format!("the kernel refuses eBPF: {reason}"))
                }
                Err(error) => return Err(error.into()),
            },
        };
        self.note_running(engine.kind)?;
        Ok(Opened {
            engine,
            left: false,
            reason,
        })
    }

    /// Programs of another version that work are not given up for another engine,
    /// with all that they know, because ours do not load.
    ///
    /// # Errors
    /// If there are some, and nobody asked for the other engine.
    fn give_up_if_working(&self, reason: &str) -> Result<()> {
        if !ebpf::is_attached(&self.bpffs)? {
            return Ok(());
        }
        ensure!(
            self.wanted().0 == Some(Kind::Nftables),
            "the programs of this version do not load on this kernel: {reason}. Those of the \
             version before it stay attached and go on as they are; nothing was changed. Go back \
             to that version, or give up its connections with --datapath nftables"
        );
        warn!("the programs of another version are removed, with the connections that they know");
        ebpf::remove(&self.bpffs).context("programs of another version")
    }

    /// What people want: by `ripstop datapath set`, or else by the flag. `None` is
    /// the best that the kernel takes.
    pub(crate) fn wanted(&self) -> (Option<Kind>, String) {
        let set = fs::read_to_string(self.set_file()).ok();
        if let Some(kind) = set.as_deref().and_then(kind) {
            return (Some(kind), "set by ripstop datapath set".to_owned());
        }
        let flag = |kind: Kind| (Some(kind), format!("--datapath {}", kind.name()));
        match self.mode {
            Mode::Auto => (None, String::new()),
            Mode::Ebpf => flag(Kind::Ebpf),
            Mode::Nftables => flag(Kind::Nftables),
        }
    }

    /// Opens the engine, whatever was asked for.
    pub(crate) fn open_kind(&self, kind: Kind) -> Result<Current, Error> {
        let mut engine: Box<dyn Datapath> = match kind {
            Kind::Ebpf => Box::new(EbpfEngine::open(ebpf::Config {
                bpffs: self.bpffs.clone(),
                cgroup_root: self.cgroup_root.clone(),
                node_addresses: self.node_addresses.clone(),
                uplinks: self.uplinks(),
                limits: ebpf::Limits::default(),
            })?),
            Kind::Nftables => Box::new(NftEngine::open(nftables::Config {
                node_addresses: self.node_addresses.clone(),
                connections: None,
            })?),
        };
        engine.set_policy_settings(self.policy)?;
        Ok(Current { kind, engine })
    }

    /// Remembers what is to be after every start.
    ///
    /// # Errors
    /// If the run directory cannot be written.
    pub(crate) fn set(&self, kind: Kind) -> Result<()> {
        write(self.set_file(), kind)
    }

    /// Remembers whose state is in the kernel.
    ///
    /// # Errors
    /// If the run directory cannot be written.
    pub(crate) fn note_running(&self, kind: Kind) -> Result<()> {
        write(self.running_file(), kind)
    }

    fn left_by(&self) -> Option<Kind> {
        kind(&fs::read_to_string(self.running_file()).ok()?)
    }

    fn set_file(&self) -> PathBuf {
        self.run_dir.join("datapath")
    }

    fn running_file(&self) -> PathBuf {
        self.run_dir.join("datapath.running")
    }

    /// With the tunnels that are there by now.
    fn uplinks(&self) -> Vec<u32> {
        let links = Netlink::new().and_then(|mut netlink| netlink.links());
        let links = links.unwrap_or_else(|error| {
            warn!(%error, "tunnels are not known");
            Vec::new()
        });
        let tunnels = links.iter().filter(|link| is_tunnel(&link.name));
        let tunnels = tunnels.map(|link| link.index);
        self.uplinks.iter().copied().chain(tunnels).collect()
    }
}

fn kind(text: &str) -> Option<Kind> {
    [Kind::Ebpf, Kind::Nftables]
        .into_iter()
        .find(|kind| kind.name() == text.trim())
}

fn write(path: PathBuf, kind: Kind) -> Result<()> {
    let new = path.with_extension("new");
    fs::write(&new, kind.name())
        .and_then(|()| fs::rename(&new, &path))
        .with_context(|| path.display().to_string())
}

/// The engine of this moment. Who holds the lock around it has the same one until
/// it lets go.
pub(crate) struct Current {
    pub(crate) kind: Kind,
    pub(crate) engine: Box<dyn Datapath>,
}

impl Datapath for Current {
    fn apply(&mut self, change: &Change) -> Result<(), Error> {
        self.engine.apply(change)
    }

    fn apply_routes(&mut self, routes: &[ResolvedRoute]) -> Result<(), Error> {
        self.engine.apply_routes(routes)
    }

    fn add_pod(&mut self, pod: &LocalPod) -> Result<(), Error> {
        self.engine.add_pod(pod)
    }

    fn remove_pod(&mut self, pod: &LocalPod) -> Result<(), Error> {
        self.engine.remove_pod(pod)
    }

    fn check_pod(&self, pod: &LocalPod) -> Result<Option<String>, Error> {
        self.engine.check_pod(pod)
    }

    fn attach_uplink(&mut self, ifindex: u32) -> Result<(), Error> {
        self.engine.attach_uplink(ifindex)
    }

    fn audit(&mut self, desired: &Tables, pods: &[LocalPod]) -> Result<Drift, Error> {
        self.engine.audit(desired, pods)
    }

    fn audit_part(
        &mut self,
        desired: &Tables,
        pods: &[LocalPod],
        part: Part,
    ) -> Result<(Drift, Option<Part>), Error> {
        self.engine.audit_part(desired, pods, part)
    }

    fn verify_part(
        &self,
        desired: &Tables,
        part: Part,
    ) -> Result<(Vec<String>, Option<Part>), Error> {
        self.engine.verify_part(desired, part)
    }

    fn status(&self) -> EngineStatus {
        self.engine.status()
    }

    fn services(&self) -> Result<Vec<FrontendState>, Error> {
        self.engine.services()
    }

    fn flows(&self) -> Result<Vec<TranslatedFlow>, Error> {
        self.engine.flows()
    }

    fn take_flows(&mut self, flows: &[TranslatedFlow]) -> Result<(), Error> {
        self.engine.take_flows(flows)
    }

    fn share_ports(&mut self, share: bool) -> Result<(), Error> {
        self.engine.share_ports(share)
    }

    fn retire(&mut self) -> Result<(), Error> {
        self.engine.retire()
    }

    fn take_connections(&mut self, connections: &[Connection]) -> Result<(), Error> {
        self.engine.take_connections(connections)
    }

    fn set_policy_settings(&mut self, settings: PolicySettings) -> Result<(), Error> {
        self.engine.set_policy_settings(settings)
    }

    fn policies(&self) -> Result<PolicyTables, Error> {
        self.engine.policies()
    }

    fn denials(&self) -> Result<Denials, Error> {
        self.engine.denials()
    }

    fn connections(&self) -> Result<Vec<Connection>, Error> {
        self.engine.connections()
    }

    fn observed(&self) -> Result<Vec<Connection>, Error> {
        self.engine.observed()
    }

    fn dismantle(self: Box<Self>) -> Result<(), Error> {
        self.engine.dismantle()
    }
}
