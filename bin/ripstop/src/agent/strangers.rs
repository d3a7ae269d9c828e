//! Pods of this node that another plugin has attached, and that were found
//! running.
//!
//! They keep what they have, a link of the other plugin's by the host's stack, unless
//! they are adopted. Their addresses are not given to others, and people are told.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use ripstop_model::{ObjectKey, ObjectKind, ObjectRef, Pod, Problem, Reason};
use ripstop_plan::policy::PolicyPlanner;

use super::adoption::Adoption;
use super::cni::CniServer;

/// Those that were there when all pods were first known, less those that have gone or
/// have been adopted.
#[derive(Debug, Default)]
pub(super) struct Strangers {
    pods: BTreeMap<ObjectKey, Stranger>,
    problems: Vec<Problem>,
    /// If people want them to be adopted.
    adoption: Option<Arc<Adoption>>,
}

#[derive(Debug)]
struct Stranger {
    addresses: Vec<IpAddr>,
    /// Why it cannot be adopted.
    refusal: Option<String>,
}

impl Strangers {
    /// They are to be adopted where that is possible.
    pub(super) fn new(adoption: Adoption) -> Self {
        Self {
            adoption: Some(Arc::new(adoption)),
            ..Self::default()
        }
    }

    /// Finds them. A pod that this network attaches later is none.
    pub(super) fn find(&mut self, node: &str, planner: &PolicyPlanner, pods: &CniServer) {
        let ours: Vec<IpAddr> = pods.pods().into_iter().flat_map(|p| p.addresses).collect();
        let others = planner.pods().filter(|pod| is_stranger(pod, node, &ours));
        for pod in others {
            let stranger = Stranger {
                addresses: pod.addresses.to_vec(),
                refusal: None,
            };
            pods.keep_free(&stranger.addresses);
            self.pods.insert(pod.key.clone(), stranger);
        }
        self.describe();
    }

    /// Forgets those that are gone. True if there were any.
    pub(super) fn forget_gone(&mut self, planner: &PolicyPlanner, pods: &CniServer) -> bool {
        let before = self.pods.len();
        self.pods.retain(|key, stranger| {
            let stays = planner
                .pod(key)
                .is_some_and(|pod| !pod.ended && pod.addresses[..] == stranger.addresses[..]);
            if !stays {
                pods.give_back(&stranger.addresses);
            }
            stays
        });
        let gone = before != self.pods.len();
        if gone {
            self.describe();
        }
        gone
    }

    /// How to adopt them, if there are any and people want it.
    pub(super) fn adoption(&self) -> Option<Arc<Adoption>> {
        self.adoption.clone().filter(|_| !self.pods.is_empty())
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &ObjectKey> {
        self.pods.keys()
    }

    /// It is ours now, and so are its addresses.
    pub(super) fn adopted(&mut self, key: &ObjectKey) {
        self.pods.remove(key);
    }

    /// Why those that are left are. True if that is new.
    pub(super) fn refuse(&mut self, mut why: BTreeMap<ObjectKey, String>) -> bool {
        for (key, stranger) in &mut self.pods {
            stranger.refusal = why.remove(key);
        }
        let before = std::mem::take(&mut self.problems);
        self.describe();
        before != self.problems
    }

    pub(super) fn problems(&self) -> impl Iterator<Item = &Problem> {
        self.problems.iter()
    }

    fn describe(&mut self) {
        let problem = |(key, stranger): (&ObjectKey, &Stranger)| Problem {
            object: ObjectRef::new(ObjectKind::Pod, key.clone()),
            reason: Reason::NotAttached,
            message: stranger.describe(),
        };
        self.problems = self.pods.iter().map(problem).collect();
    }
}

impl Stranger {
    fn describe(&self) -> String {
        let addresses: Vec<_> = self.addresses.iter().map(IpAddr::to_string).collect();
        let refusal = match &self.refusal {
            Some(why) => format!(" It cannot be adopted: {why}."),
            None => String::new(),
        };
        format!(
            "it runs with address {}, which another network plugin gave it: policies are not in \
             force on it, and other nodes may not reach it.{refusal} Delete the pod, so that it \
             is made again and attached by this network",
            addresses.join(", "),
        )
    }
}

fn is_stranger(pod: &Pod, node: &str, ours: &[IpAddr]) -> bool {
    pod.node.as_deref() == Some(node)
        && !pod.host_network
        && !pod.ended
        && !pod.addresses.is_empty()
        && !pod.addresses.iter().any(|address| ours.contains(address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_a_stranger() {
        let ours = ["10.244.1.2".parse().unwrap()];
        let pod = |address: &str| Pod {
            addresses: [address.parse().unwrap()].into(),
            node: Some("node1".into()),
            ..Pod::new(ObjectKey::new("shop", "web"))
        };
        let other = pod("10.88.0.7");
        assert!(is_stranger(&other, "node1", &ours));
        assert!(!is_stranger(&other, "node2", &ours), "of another node");
        assert!(!is_stranger(&pod("10.244.1.2"), "node1", &ours), "attached");
        let host_network = Pod {
            host_network: true,
            ..other.clone()
        };
        assert!(!is_stranger(&host_network, "node1", &ours));
        let ended = Pod {
            ended: true,
            ..other.clone()
        };
        assert!(!is_stranger(&ended, "node1", &ours));
        let waiting = Pod {
            addresses: [].into(),
            ..other
        };
        assert!(
            !is_stranger(&waiting, "node1", &ours),
            "without an address yet"
        );
    }
}
