//! The pods of this node: from the runtime to the planner, and back to the
//! runtime when what is in force on a pod is in the kernel.

use std::collections::HashMap;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use ripstop_cni_types::Attachment;
use ripstop_model::{LocalPod, ObjectKey};
use ripstop_plan::policy::PolicyPlanner;

use super::feed::Input;

/// How long ADD waits for the pod's object. The kubelet has it from the API as we
/// do, but by a watch of its own, so either may be first; in a burst by more than
/// a moment. Afterwards the runtime is better served with an answer than with an
/// error, after which it makes everything anew: the pod is attached and closed,
/// and opens when its object comes.
const PATIENCE: Duration = Duration::from_secs(5);

/// What is told of an attachment.
#[derive(Debug)]
pub(crate) enum PodInput {
    Added {
        at: Attachment,
        pod: LocalPod,
        /// Told when its rows are in the kernel.
        planned: Option<Sender<()>>,
    },
    Removed(Attachment),
}

/// The way to the main thread, which plans.
#[derive(Clone, Debug)]
pub(crate) struct PodTeller(Sender<Input>);

impl PodTeller {
    pub(crate) fn new(main: Sender<Input>) -> Self {
        Self(main)
    }

    /// A pod has come, closed. Returns when it is as open as its policies say;
    /// false if that takes too long.
    pub(crate) fn added(&self, at: Attachment, pod: LocalPod) -> bool {
        let (planned, wait): (_, Receiver<()>) = channel();
        let planned = Some(planned);
        let told = self
            .0
            .send(Input::Pod(PodInput::Added { at, pod, planned }));
        told.is_ok() && wait.recv_timeout(PATIENCE).is_ok()
    }

    pub(crate) fn removed(&self, at: Attachment) {
        // Without a main thread there is no plan to change.
        let _ = self.0.send(Input::Pod(PodInput::Removed(at)));
    }
}

/// What the planner has been told.
#[derive(Debug, Default)]
pub(crate) struct LocalPods {
    /// By pod; the newest attachment is the last.
    pods: HashMap<ObjectKey, Vec<Local>>,
    keys: HashMap<Attachment, ObjectKey>,
    waiting: Vec<(ObjectKey, Sender<()>)>,
}

#[derive(Debug)]
struct Local {
    at: Attachment,
    pod: LocalPod,
}

impl LocalPods {
    pub(crate) fn take(&mut self, input: PodInput, planner: &mut PolicyPlanner) {
        match input {
            PodInput::Added { at, pod, planned } => {
                let key = key_of(&pod);
                self.forget(&at, planner);
                self.keys.insert(at.clone(), key.clone());
                let attached = self.pods.entry(key.clone()).or_default();
                attached.push(Local { at, pod });
                self.tell(&key, planner);
                self.waiting.extend(planned.map(|planned| (key, planned)));
            }
            PodInput::Removed(at) => self.forget(&at, planner),
        }
    }

    /// The plan is in the kernel: who waits for a pod of it is told.
    pub(crate) fn answer(&mut self, planner: &PolicyPlanner) {
        self.waiting.retain(|(key, planned)| {
            let wait = self.pods.contains_key(key) && !planner.is_known(key);
            if !wait {
                // Who does not wait any more has been answered.
                let _ = planned.send(());
            }
            wait
        });
    }

    fn forget(&mut self, at: &Attachment, planner: &mut PolicyPlanner) {
        let Some(key) = self.keys.remove(at) else {
            return;
        };
        if let Some(attached) = self.pods.get_mut(&key) {
            attached.retain(|one| one.at != *at);
        }
        self.tell(&key, planner);
    }

    /// A pod that starts anew can have a new container before its last one is
    /// gone: the new one is the pod then. All interfaces of a container are.
    fn tell(&mut self, key: &ObjectKey, planner: &mut PolicyPlanner) {
        let Some(attached) = self.pods.get(key) else {
            return;
        };
        let Some(newest) = attached.last() else {
            self.pods.remove(key);
            planner.remove_local_pod(key);
            return;
        };
        let same = |one: &&Local| one.at.container_id == newest.at.container_id;
        let addresses = attached.iter().filter(same);
        let addresses = addresses.flat_map(|one| &one.pod.addresses).copied();
        let addresses = addresses.collect();
        if is_container(&newest.pod) {
            planner.add_local_container(&newest.at.container_id, addresses);
        } else {
            planner.add_local_pod(key, newest.pod.uid.as_deref(), addresses);
        }
    }
}

/// No pod of Kubernetes: no object will ever say more of it.
fn is_container(pod: &LocalPod) -> bool {
    pod.pod.namespace.is_empty() || pod.pod.name.is_empty()
}

/// Under which the planner has it.
pub(crate) fn key_of(pod: &LocalPod) -> ObjectKey {
    match is_container(pod) {
        true => ObjectKey::new("", pod.container_id.clone()),
        false => pod.pod.clone(),
    }
}
