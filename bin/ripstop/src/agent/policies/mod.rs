//! What people ask about policies: answered from the engine's own rows, with the
//! names that the plan has for them.

mod check;
mod drops;
mod dry_run;
mod rows;
mod show;
mod summary;

use std::collections::BTreeSet;
use std::net::IpAddr;

use anyhow::{Context, Result};
use ripstop_model::{ObjectKey, Pod};
use ripstop_plan::policy::{Attribution, AttributionId, PolicyPlanner};
use serde::{Deserialize, Serialize};

use super::effects::{Effects, lock};
use super::feed::Feed;
pub(crate) use check::{CheckView, VerdictView};
pub(crate) use drops::{DropView, DropsView};
pub(crate) use dry_run::{DryRun, DryRunView, WouldDeny, look};
pub(crate) use rows::{PortsView, RowView};
pub(crate) use show::{NameView, PodView};
pub(crate) use summary::{DeniedView, PoliciesView};

/// What can be asked about policies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "about")]
pub(crate) enum PolicyAsk {
    /// What is in force on a pod of this node: NAMESPACE/NAME or its address.
    Show { pod: String },
    /// Would one end reach the other: pods or addresses, and 80, 53/UDP or a name.
    Check {
        from: String,
        to: String,
        port: String,
    },
    /// What was stopped.
    Drops,
    /// What these policies would deny; without any, those of the API that are
    /// only tried.
    DryRun { policies: Vec<serde_json::Value> },
    /// How much there is of everything.
    Summary,
}

impl PolicyAsk {
    pub(crate) fn answer(&self, feed: &mut Feed, effects: &Effects) -> Result<serde_json::Value> {
        let value = match self {
            Self::Show { pod } => serde_json::to_value(show::show(feed, effects, pod)?),
            Self::Check { from, to, port } => {
                serde_json::to_value(check::check(feed, effects, from, to, port)?)
            }
            Self::Drops => serde_json::to_value(drops::drops(feed, effects)?),
            Self::DryRun { policies } => {
                serde_json::to_value(dry_run::dry_run(feed, effects, policies)?)
            }
            Self::Summary => serde_json::to_value(summary::summary(feed, effects)?),
        };
        Ok(value?)
    }
}

/// A pod or an address, as people name it.
enum End<'a> {
    Pod(&'a Pod),
    Address(IpAddr),
}

impl<'a> End<'a> {
    /// `NAMESPACE/NAME` or an address; the address of a pod is the pod.
    fn parse(planner: &'a PolicyPlanner, text: &str) -> Result<Self> {
        if let Ok(address) = text.parse::<IpAddr>() {
            use ripstop_plan::policy::Holder;
            let pod = match planner.holder(address) {
                Some(Holder::Pod(key)) => planner.pod(key),
                _ => None,
            };
            return Ok(pod.map_or(Self::Address(address), Self::Pod));
        }
        let (namespace, name) = text
            .split_once('/')
            .with_context(|| format!("{text:?} is neither NAMESPACE/NAME nor an address"))?;
        let key = ObjectKey::new(namespace, name);
        let pod = planner.pod(&key);
        pod.map(Self::Pod)
            .with_context(|| format!("there is no pod {key}"))
    }

    fn name(&self) -> String {
        match self {
            Self::Pod(pod) => pod.key.to_string(),
            Self::Address(address) => address.to_string(),
        }
    }
}

/// Addresses of a pod as this node has them, or as its object says.
fn addresses(planner: &PolicyPlanner, pod: &Pod) -> Vec<IpAddr> {
    match planner.local_addresses(&pod.key) {
        [] => pod.addresses.to_vec(),
        local => local.to_vec(),
    }
}

/// Whose an address is.
fn name_of(planner: &PolicyPlanner, address: IpAddr) -> Option<String> {
    planner.holder(address).map(|holder| holder.to_string())
}

/// What an id of the kernel's rows stands for.
fn attribution(feed: &Feed, id: AttributionId) -> String {
    const ALWAYS: [Attribution; 3] = [
        Attribution::Itself,
        Attribution::Default,
        Attribution::NoConnection,
    ];
    let always = || ALWAYS.iter().find(|one| one.id() == id);
    match feed.attribution(id).or_else(always) {
        Some(known) => known.to_string(),
        None => "a rule that is no more".to_owned(),
    }
}

/// The other ends of the connections that pods of this node have opened. `None` if
/// the kernel cannot be asked.
pub(crate) fn addresses_in_use(effects: &Effects) -> Option<BTreeSet<IpAddr>> {
    match lock(&effects.datapath).connections() {
        Ok(connections) => Some(connections.iter().map(|one| one.server.ip()).collect()),
        Err(error) => {
            tracing::warn!("connections, for names in policies: {error}");
            None
        }
    }
}
