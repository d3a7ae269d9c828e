//! The trait that every engine implements.

use std::net::IpAddr;

use ipnet::IpNet;
use ripstop_abi::ClassKey;
use ripstop_model::{LocalPod, ObjectKey};
use ripstop_plan::policy::PolicyTables;
use ripstop_plan::{Change, Tables};

use crate::compare_policies::policy_difference;
use crate::state::{Connection, Denials, FrontendState, TranslatedFlow};

/// A way to another node's pods after the host has resolved it against this
/// node's links: a neighbour on the uplink, or the remote VTEP on the tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NextHop {
    /// Uplink or VXLAN interface.
    pub ifindex: u32,
    /// Neighbour to resolve on that interface.
    pub gateway: IpAddr,
    /// Largest IP packet that fits, bytes. Longer ones go through the host's
    /// stack, which fragments or answers with "fragmentation needed".
    pub mtu: u32,
}

/// A route as engines get it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResolvedRoute {
    pub prefix: IpNet,
    /// `None` removes the route.
    pub next_hop: Option<NextHop>,
}

/// What an audit found different from the plan, and repaired.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Drift {
    /// One line per row: what it was and what it should have been.
    pub repaired: Vec<String>,
}

/// How far an audit has come that goes in parts; it begins with the default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Part(pub(crate) Place);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Place {
    /// All but classes of blocks, where these are many.
    #[default]
    Rest,
    /// Classes of blocks, from this one on.
    Classes(IpNet),
    /// What the kernel has of them, after this key: some may be of nobody.
    Keys(Option<ClassKey>),
}

/// What an engine says of itself (for `ripstop status` and metrics).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EngineStatus {
    /// `ebpf`, `nftables`, ...
    pub mode: &'static str,
    /// Table name, rows in use, limit.
    pub tables: Vec<(&'static str, u64, u64)>,
    /// Drop reason, packets or connections since the programs were first loaded.
    pub drops: Vec<(&'static str, u64)>,
    /// Pods of this node that began more connections than their share while the
    /// kernel's table of them filled up, and how many of their packets were dropped
    /// for that; of the last hour.
    pub crowding: Vec<(ObjectKey, u64)>,
    /// True if this start found programs and tables in the kernel and kept them.
    pub adopted: bool,
}

/// How policies are carried out. What is given at the start holds for
/// connections that begin from then on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PolicySettings {
    pub deny: Deny,
    /// Connections of pods that no policy is about are remembered too, for
    /// [`Datapath::connections`]. Costs them what others cost.
    pub observe: bool,
}

/// How a packet ends that policies deny.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Deny {
    /// Without an answer: the client waits until it gives up.
    #[default]
    Drop,
    /// TCP is reset, the rest gets an ICMP error "administratively prohibited".
    Reject,
}

/// Writes the plan's rows into the kernel. Every method is synchronous and
/// short; the agent calls them from one thread, in the order of the events.
///
/// An implementation compares with what it applied last and writes only the
/// difference, so that a packet never meets half a service.
pub trait Datapath: Send {
    /// Rows of one change. New backends first, then the frontends that point at
    /// them, then what is no longer used.
    ///
    /// # Errors
    /// [`Error::TableFull`] names the row that did not fit; the other rows of
    /// the change are in place.
    fn apply(&mut self, change: &Change) -> Result<(), Error>;

    /// Ways to other nodes' pods.
    ///
    /// # Errors
    /// As [`Datapath::apply`].
    fn apply_routes(&mut self, routes: &[ResolvedRoute]) -> Result<(), Error>;

    /// Takes a pod into the datapath: programs on its host-side link, its
    /// addresses in the tables, its host ports. Its link exists; nothing moves on it yet.
    /// Called before CNI ADD returns. Doing it again changes nothing. Until its
    /// addresses have policy rows, nothing passes but to and from this node.
    ///
    /// # Errors
    /// After an error nothing of the pod is left in the datapath.
    fn add_pod(&mut self, pod: &LocalPod) -> Result<(), Error>;

    /// Forgets a pod; one that is not known is no error. Its link may be gone.
    ///
    /// # Errors
    /// If the kernel refuses to remove a row; the remaining rows are removed.
    fn remove_pod(&mut self, pod: &LocalPod) -> Result<(), Error>;

    /// What of a pod is missing in the kernel, or different; changes nothing.
    ///
    /// # Errors
    /// If the kernel cannot be asked.
    fn check_pod(&self, pod: &LocalPod) -> Result<Option<String>, Error>;

    /// Takes in the packets of one more interface (a tunnel that came with a
    /// route). Doing it again changes nothing.
    ///
    /// # Errors
    /// If there is no such interface or it refuses the program.
    fn attach_uplink(&mut self, ifindex: u32) -> Result<(), Error>;

    /// Reads the kernel back, compares it with the desired rows and pods, and
    /// repairs what differs. On start this is also how state is adopted.
    ///
    /// # Errors
    /// If tables cannot be read.
    fn audit(&mut self, desired: &Tables, pods: &[LocalPod]) -> Result<Drift, Error>;

    /// The same in parts, so that changes need not wait for the whole: some
    /// milliseconds each, however many blocks policies have. `desired` and `pods`
    /// are those of now each time, and all changes of them have been applied. Gives
    /// the part that comes next, or `None` after the last one. What another program
    /// changes behind the part that is looked at is found the next time.
    ///
    /// # Errors
    /// As [`Datapath::audit`].
    fn audit_part(
        &mut self,
        desired: &Tables,
        pods: &[LocalPod],
        _part: Part,
    ) -> Result<(Drift, Option<Part>), Error> {
        Ok((self.audit(desired, pods)?, None))
    }

    /// The policy rows against those desired, without touching either, in parts as
    /// [`Datapath::audit_part`]: one line for each that differs.
    ///
    /// # Errors
    /// If tables cannot be read.
    fn verify_part(
        &self,
        desired: &Tables,
        _part: Part,
    ) -> Result<(Vec<String>, Option<Part>), Error> {
        let found = self.policies()?;
        Ok((policy_difference(&desired.policy, &found), None))
    }

    fn status(&self) -> EngineStatus;

    /// All frontends with their backends and counters, read from the kernel.
    /// Sorted by frontend.
    ///
    /// # Errors
    /// If tables cannot be read.
    fn services(&self) -> Result<Vec<FrontendState>, Error>;

    /// The flows that are being translated, for the engine that takes over.
    ///
    /// # Errors
    /// If tables cannot be read.
    fn flows(&self) -> Result<Vec<TranslatedFlow>, Error>;

    /// Goes on with another engine's flows: their next packet may come at once.
    /// Called twice in a switch: before the pods come in (an engine may learn from
    /// it that there is another one), and after that with all flows.
    ///
    /// # Errors
    /// If the kernel takes a flow neither now nor later; the others are in
    /// place.
    fn take_flows(&mut self, flows: &[TranslatedFlow]) -> Result<(), Error>;

    /// How policies are carried out, from now on.
    ///
    /// # Errors
    /// If the kernel cannot be told.
    fn set_policy_settings(&mut self, settings: PolicySettings) -> Result<(), Error>;

    /// The policy rows as the kernel has them; attributions are left empty.
    ///
    /// # Errors
    /// If tables cannot be read.
    fn policies(&self) -> Result<PolicyTables, Error>;

    /// What policies stopped. Counts only grow while a row lives.
    ///
    /// # Errors
    /// If tables cannot be read.
    fn denials(&self) -> Result<Denials, Error>;

    /// Connections of this node's pods that go on now. Those of pods that no
    /// policy is about are among them only under [`PolicySettings::observe`].
    ///
    /// # Errors
    /// If tables cannot be read.
    fn connections(&self) -> Result<Vec<Connection>, Error>;

    /// The same, and those that have ended not long ago: under
    /// [`PolicySettings::observe`], who asks every 5 s sees each that began, unless
    /// there are so many that the kernel's table has no room.
    ///
    /// # Errors
    /// If tables cannot be read.
    fn observed(&self) -> Result<Vec<Connection>, Error>;

    /// Another engine begins flows beside this one, or does not any more. As long as
    /// that is so, flows that begin get ports that the other one never gives; when this
    /// returns none is about to get another one.
    ///
    /// # Errors
    /// If the kernel cannot be told.
    fn share_ports(&mut self, share: bool) -> Result<(), Error>;

    /// Another engine has everything, and is about to get the flows of this one:
    /// from here on new flows are left to it. An audit takes that back.
    ///
    /// # Errors
    /// If the kernel refuses; some new flows may then still be this engine's.
    fn retire(&mut self) -> Result<(), Error>;

    /// Goes on with connections that another engine knew, after its pods and
    /// policies are in place: else answers to some would be denied.
    ///
    /// # Errors
    /// If the kernel takes one not; the others are in place.
    fn take_connections(&mut self, connections: &[Connection]) -> Result<(), Error>;

    /// Removes everything of this engine from the kernel: after another one has
    /// taken over, or to leave the node without any. Goes on after an error.
    ///
    /// # Errors
    /// The first thing that could not be removed.
    fn dismantle(self: Box<Self>) -> Result<(), Error>;
}

/// What can go wrong in an engine.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the kernel refuses this engine: {reason}")]
    Unsupported { reason: String },
    #[error("port {port} of the node, wanted by pod {pod}, is held by pod {holder}")]
    PortTaken {
        port: String,
        pod: ObjectKey,
        holder: ObjectKey,
    },
    #[error("table {table} is full ({limit} rows): {row} did not fit")]
    TableFull {
        table: &'static str,
        limit: u64,
        row: String,
    },
    #[error("{operation}: {source}")]
    Kernel {
        operation: String,
        source: std::io::Error,
    },
}
