//! Pods of another plugin that were found running become ours, if people want that.
//!
//! All is looked at before anything is changed ([`fit`], [`ripstop_host::takeover`]);
//! a pod with anything that is not expected stays as it is, and is told of.

mod cache;
mod fit;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use ipnet::IpNet;
use ripstop_host::takeover::Found;
use ripstop_model::{LocalPod, Mac, ObjectKey, Pod};
use ripstop_netlink::Netlink;
use ripstop_netlink::netns::Netns;
use tracing::{info, warn};

use super::cni::{CniServer, Foreign, TakingOver};
use super::effects::Effects;
use super::feed::Feed;
use super::follow;
use cache::Cached;
use fit::Refusal;

/// Below libcni's folder.
const RESULTS: &str = "results";

/// Where runtimes remember what plugins did, and what our range is.
#[derive(Debug)]
pub(super) struct Adoption {
    results: PathBuf,
}

/// Those that can be adopted, and why others cannot.
#[derive(Debug, Default)]
struct Judged {
    fit: BTreeMap<ObjectKey, Foreign>,
    refused: BTreeMap<ObjectKey, Refusal>,
}

impl Adoption {
    /// `cache`: libcni's folder.
    pub(super) fn new(cache: &Path) -> Self {
        Self {
            results: cache.join(RESULTS),
        }
    }

    fn judge<'a>(&self, strangers: impl Iterator<Item = &'a Pod>, pods: &CniServer) -> Judged {
        let mut judged = Judged::default();
        let mut cached = cache::read(&self.results).unwrap_or_else(|error| {
            warn!(folder = %self.results.display(), %error, "what runtimes remember");
            Vec::new()
        });
        // A pod can have had another sandbox, with the same address.
        cached.sort_by_key(|one| !one.netns.exists());
        let ranges: Vec<IpNet> = pods.usage().into_iter().map(|(range, ..)| range).collect();
        for pod in strangers {
            let key = pod.key.clone();
            match self.look(pod, &cached, &ranges, pods) {
                Ok(foreign) => drop(judged.fit.insert(key, foreign)),
                Err(refusal) => drop(judged.refused.insert(key, refusal)),
            }
        }
        refuse_shared(&mut judged);
        judged
    }

    fn look(
        &self,
        pod: &Pod,
        cached: &[Cached],
        ranges: &[IpNet],
        pods: &CniServer,
    ) -> Result<Foreign, Refusal> {
        let cached = fit::find(pod, cached, &self.results.display().to_string())?;
        fit::check(cached, ranges)?;
        let failed = |error| Refusal::Netns {
            path: cached.netns.display().to_string(),
            error,
        };
        let netns = Netns::open(&cached.netns).map_err(failed)?;
        if netns.is_same(pods.node()).map_err(failed)? {
            let error = std::io::Error::other("is the node's own");
            return Err(failed(error));
        }
        let mut node = Netlink::new().map_err(fit::kernel)?;
        let mut inside = Netlink::in_netns(&netns).map_err(fit::kernel)?;
        let found = Found::look(&mut node, &mut inside, &cached.at.ifname)?;
        found.check(&mut node, &mut inside, &cached.addresses)?;
        let local = LocalPod {
            pod: pod.key.clone(),
            uid: Some(pod.uid.to_string()),
            container_id: cached.at.container_id.clone(),
            addresses: cached.addresses.clone(),
            host_ifindex: 0,
            host_ifname: String::new(),
            mac: Mac([0; 6]),
            host_ports: Vec::new(),
        };
        let (ifname, network) = (&cached.at.ifname, &cached.network);
        Foreign::new(local, ifname, network, netns, found)
            .ok_or_else(|| Refusal::Failed("its interface has no MAC".to_owned()))
    }
}

/// Who stays on a bridge looks there for who was beside it, by ARP: all go, or none.
fn refuse_shared(judged: &mut Judged) {
    let links = match Netlink::new().and_then(|mut netlink| netlink.links()) {
        Ok(links) => links,
        Err(error) => {
            for (key, _) in std::mem::take(&mut judged.fit) {
                let refusal = Refusal::Failed(error.to_string());
                judged.refused.insert(key, refusal);
            }
            return;
        }
    };
    let goes = |index: u32| {
        judged
            .fit
            .values()
            .any(|one| one.found().host().index == index)
    };
    let staying = links.iter().filter(|link| !goes(link.index));
    // By bridge, somebody who stays.
    let staying: BTreeMap<u32, &str> = staying
        .filter_map(|link| Some((link.master?, link.name.as_str())))
        .collect();
    let shared = |one: &Foreign| {
        let bridge = one.found().host().master?;
        let other = (*staying.get(&bridge)?).to_owned();
        let bridge = links.iter().find(|link| link.index == bridge)?.name.clone();
        Some(Refusal::Shared { bridge, other })
    };
    let refused: Vec<(ObjectKey, Refusal)> = judged
        .fit
        .iter()
        .filter_map(|(key, one)| Some((key.clone(), shared(one)?)))
        .collect();
    for (key, refusal) in refused {
        judged.fit.remove(&key);
        judged.refused.insert(key, refusal);
    }
}

/// Adopts what can be; the strangers that are left know why they are. All objects
/// have been listed.
pub(super) fn adopt(feed: &mut Feed, effects: &mut Effects) {
    let pods = effects.pods.clone();
    let Some(adoption) = effects.strangers.adoption() else {
        return;
    };
    let strangers = effects.strangers.keys();
    let strangers = strangers.filter_map(|key| feed.policies().pod(key));
    let Judged { fit, mut refused } = adoption.judge(strangers, &pods);
    let mut begun: Vec<(&ObjectKey, TakingOver<'_>)> = Vec::new();
    for (key, foreign) in &fit {
        match pods.begin_takeover(foreign) {
            Ok(taking) => {
                feed.adopt(taking.for_plan());
                begun.push((key, taking));
            }
            Err(error) => drop(refused.insert(key.clone(), Refusal::Failed(error))),
        }
    }
    if !begun.is_empty() {
        // What is in force on them is known, and in the kernel as far as others are
        // concerned, before they are ours.
        follow(feed, effects);
    }
    for (key, taking) in begun {
        let start = Instant::now();
        match taking.finish(&feed.tables().policy.pods) {
            Ok(()) => {
                let micros = start.elapsed().as_micros();
                info!(pod = %key, micros, "adopted: another plugin had attached it");
                effects.strangers.adopted(key);
            }
            Err(error) => {
                feed.adopt(taking.not_for_plan());
                refused.insert(key.clone(), Refusal::Failed(error));
            }
        }
    }
    follow(feed, effects);
    let refused = refused
        .into_iter()
        .map(|(key, refusal)| (key, refusal.to_string()));
    effects.refuse_strangers(refused.collect());
}
