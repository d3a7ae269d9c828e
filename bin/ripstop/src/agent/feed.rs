//! Events of the API, fed to the planner.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use k8s_openapi::jiff::Timestamp;
use ripstop_model::{Node, ObjectKey, ObjectRef, Problem, SliceEndpoint};
use ripstop_plan::policy::{Attribution, AttributionId, PolicyChange, PolicyPlanner};
use ripstop_plan::{PlanConfig, Planner, Tables, Update};
use ripstop_watch::{Event, ObjectEvent};

use super::control::Question;
use super::learnt::{Learnt, Told};
use super::local_pods::{LocalPods, PodInput};
use super::names::Names;
use super::names::pods::PodAddresses;
use super::policies::DryRun;

/// Events of one burst that are planned together at most.
const BURST: usize = 4096;

/// Events of the API that may wait for the main thread. Who follows the API waits
/// then, and with it the server: what all objects are at once is in no queue.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    waiting: Mutex<usize>,
    left: Condvar,
}

impl Gate {
    const MOST: usize = 1024;

    /// Waits until there is room for one more, and takes it.
    pub(crate) fn enter(&self) {
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let full = |waiting: &mut usize| *waiting >= Self::MOST;
        let waited = self.left.wait_while(waiting, full);
        *waited.unwrap_or_else(PoisonError::into_inner) += 1;
    }

    fn leave(&self) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        *waiting = waiting.saturating_sub(1);
        self.left.notify_one();
    }
}

/// What comes to the main thread.
#[derive(Debug)]
pub(crate) enum Input {
    Api(Event),
    Pod(PodInput),
    Ask(Question),
    /// An answer of the DNS server that is about names in policies.
    Name(Told),
}

/// The planner with the events that wait for it.
pub(crate) struct Feed {
    inbox: Receiver<Input>,
    gate: Arc<Gate>,
    asked: Vec<Question>,
    planner: Planner,
    locals: LocalPods,
    synced: bool,
    /// What is wrong with objects by themselves.
    problems: BTreeMap<ObjectRef, Vec<Problem>>,
    /// What is wrong with them beside others.
    planned_problems: BTreeSet<Problem>,
    problems_changed: bool,
    pods: Option<PodAddresses>,
    attributions: Attributions,
    /// Policies that are not planned, but tried.
    pub(crate) dry_run: DryRun,
    /// What domain names in policies stand for.
    pub(crate) learnt: Learnt,
    changed: Changed,
}

/// Who can have denied something: what is in force, and what was until lately,
/// as counters outlive the rules that they are of.
#[derive(Debug, Default)]
struct Attributions(HashMap<AttributionId, Arc<Attribution>>);

impl Attributions {
    /// Attributions that are kept beside twice as many as are in force.
    const KEPT: usize = 4096;

    fn take(&mut self, change: &PolicyChange, live: &BTreeMap<AttributionId, Arc<Attribution>>) {
        for (id, attribution) in &change.attributions {
            if let Some(attribution) = attribution {
                self.0.insert(*id, Arc::clone(attribution));
            }
        }
        if self.0.len() > 2 * live.len() + Self::KEPT {
            self.0.retain(|id, _| live.contains_key(id));
        }
    }
}

/// When endpoints changed, until the plan has changed with them. Objects that are
/// listed again change nothing: what waits for long is forgotten.
#[derive(Debug, Default)]
struct Changed(Vec<(Instant, Timestamp)>);

impl Changed {
    const PATIENCE: Duration = Duration::from_secs(2);
    const MOST: usize = 4096;

    fn add(&mut self, at: Timestamp) {
        if self.0.len() >= Self::MOST {
            self.0.retain(|(told, _)| told.elapsed() < Self::PATIENCE);
        }
        if self.0.len() < Self::MOST {
            self.0.push((Instant::now(), at));
        }
    }

    fn take(&mut self) -> Vec<Timestamp> {
        let all = std::mem::take(&mut self.0).into_iter();
        all.filter(|(told, _)| told.elapsed() < Self::PATIENCE)
            .map(|(_, at)| at)
            .collect()
    }
}

/// The thread that follows the API has ended, which it never does by itself.
#[derive(Debug, thiserror::Error)]
#[error("nobody follows the API server any more")]
pub(crate) struct Ended;

impl Feed {
    pub(crate) fn new(
        inbox: Receiver<Input>,
        gate: Arc<Gate>,
        mut planner: Planner,
        learnt: Learnt,
    ) -> Self {
        learnt.tell_all(planner.policies_mut());
        Self {
            inbox,
            gate,
            asked: Vec::new(),
            planner,
            locals: LocalPods::default(),
            synced: false,
            problems: BTreeMap::new(),
            planned_problems: BTreeSet::new(),
            problems_changed: false,
            pods: None,
            attributions: Attributions::default(),
            dry_run: DryRun::default(),
            learnt,
            changed: Changed::default(),
        }
    }

    /// Waits for an event or a question and takes in all that have come with it.
    /// False if there was none in time.
    pub(crate) fn wait(&mut self, timeout: Duration) -> Result<bool, Ended> {
        match self.inbox.recv_timeout(timeout) {
            Ok(event) => self.take(event),
            Err(RecvTimeoutError::Timeout) => return Ok(false),
            Err(RecvTimeoutError::Disconnected) => return Err(Ended),
        }
        for _ in 1..BURST {
            match self.inbox.try_recv() {
                Ok(event) => self.take(event),
                Err(_) => break,
            }
        }
        Ok(true)
    }

    /// Pods are told here as well; before the first event is taken in.
    pub(crate) fn follow_pods(&mut self, pods: Option<PodAddresses>) {
        self.pods = pods;
    }

    /// Every object has been listed: what is not known is not there.
    pub(crate) fn is_synced(&self) -> bool {
        self.synced
    }

    pub(crate) fn node(&self, name: &str) -> Option<&Node> {
        self.planner.node(name)
    }

    /// When endpoints changed of which was told just now, since the last call.
    pub(crate) fn take_changed(&mut self) -> Vec<Timestamp> {
        self.changed.take()
    }

    pub(crate) fn plan(&mut self) -> Update {
        let mut update = self.planner.take_update();
        if let Some(problems) = update.problems.take() {
            self.planned_problems = problems;
            self.problems_changed = true;
        }
        let live = &self.planner.tables().policy.attributions;
        self.attributions.take(&update.rows.policy, live);
        update
    }

    /// The policies of the cluster and what they select.
    pub(crate) fn policies(&self) -> &PolicyPlanner {
        self.planner.policies()
    }

    /// What an attribution stands for, also when it went not long ago.
    pub(crate) fn attribution(&self, id: AttributionId) -> Option<&Attribution> {
        self.attributions.0.get(&id).map(Arc::as_ref)
    }

    /// Whether there is nothing left to plan until something comes.
    pub(crate) fn is_settled(&self) -> bool {
        self.planner.policies().is_settled()
    }

    /// A pod of this node that was here before this agent.
    pub(crate) fn adopt(&mut self, pod: PodInput) {
        self.locals.take(pod, self.planner.policies_mut());
    }

    /// Listens to the names that policies name now; to be called before they are
    /// planned.
    pub(crate) fn follow_names(&mut self, names: &Names) {
        let planner = self.planner.policies_mut();
        self.learnt.follow_policies(&names.server, planner);
    }

    /// Forgets addresses of names that nobody told of lately and nobody uses.
    pub(crate) fn forget_names(&mut self, in_use: impl FnOnce() -> Option<BTreeSet<IpAddr>>) {
        self.learnt.look(self.planner.policies_mut(), in_use);
    }

    /// What has been planned is in the kernel.
    pub(crate) fn applied(&mut self) {
        self.locals.answer(self.planner.policies());
        self.learnt.applied();
    }

    /// Whether [`Feed::problems`] may have changed since the last call.
    pub(crate) fn take_problems_changed(&mut self) -> bool {
        std::mem::take(&mut self.problems_changed)
    }

    /// What of the objects is ignored.
    pub(crate) fn problems(&self) -> impl Iterator<Item = &Problem> {
        let own = self.problems.values().flatten();
        own.chain(&self.planned_problems)
    }

    pub(crate) fn node_port_addresses(&self) -> &[IpAddr] {
        &self.planner.config().node_port_addresses
    }

    pub(crate) fn tables(&self) -> &Tables {
        self.planner.tables()
    }

    /// What has been asked since the last call.
    pub(crate) fn take_questions(&mut self) -> Vec<Question> {
        std::mem::take(&mut self.asked)
    }

    /// Endpoints of a service, whatever their state.
    pub(crate) fn endpoints(&self, service: &ObjectKey) -> impl Iterator<Item = &SliceEndpoint> {
        self.planner.endpoints(service)
    }

    pub(crate) fn has_service(&self, service: &ObjectKey) -> bool {
        self.planner.service(service).is_some()
    }

    /// Changes what the plan depends on beside objects.
    pub(crate) fn configure(&mut self, change: impl FnOnce(&mut PlanConfig)) {
        let mut config = self.planner.config().clone();
        change(&mut config);
        if config != *self.planner.config() {
            self.planner.configure(config);
        }
    }

    fn take(&mut self, input: Input) {
        if let (Input::Api(Event::Pod(event)), Some(pods)) = (&input, &mut self.pods) {
            pods.take(event);
        }
        let planner = &mut self.planner;
        let event = match input {
            Input::Api(event) => {
                self.gate.leave();
                event
            }
            Input::Pod(pod) => return self.locals.take(pod, planner.policies_mut()),
            Input::Ask(question) => return self.asked.push(question),
            Input::Name(told) => return self.learnt.take(told, planner.policies_mut()),
        };
        match event {
            Event::Service(ObjectEvent::Applied(service)) => planner.upsert_service(service),
            Event::Service(ObjectEvent::Deleted(key)) => planner.remove_service(&key),
            Event::Service(ObjectEvent::Listed(keys)) => {
                planner.retain_services(|key| keys.contains(key));
            }
            Event::Slice(ObjectEvent::Applied(slice)) => planner.upsert_slice(slice),
            Event::Slice(ObjectEvent::Deleted(key)) => planner.remove_slice(&key),
            Event::Slice(ObjectEvent::Listed(keys)) => {
                planner.retain_slices(|key| keys.contains(key));
            }
            Event::Node(ObjectEvent::Applied(node)) => planner.upsert_node(node),
            Event::Node(ObjectEvent::Deleted(name)) => {
                planner.policies_mut().remove_node(&name);
                planner.remove_node(&name);
            }
            Event::Node(ObjectEvent::Listed(names)) => {
                planner
                    .policies_mut()
                    .retain_nodes(|name| names.contains(name));
                planner.retain_nodes(|name| names.contains(name));
            }
            Event::ServiceCidr(ObjectEvent::Applied(cidr)) => planner.upsert_service_cidr(cidr),
            Event::ServiceCidr(ObjectEvent::Deleted(name)) => planner.remove_service_cidr(&name),
            Event::ServiceCidr(ObjectEvent::Listed(names)) => {
                planner.retain_service_cidrs(|name| names.contains(name));
            }
            Event::NodeIdentity(node) => planner.policies_mut().upsert_node(node),
            Event::Pod(ObjectEvent::Applied(pod)) => planner.policies_mut().upsert_pod(pod),
            Event::Pod(ObjectEvent::Deleted(key)) => planner.policies_mut().remove_pod(&key),
            Event::Pod(ObjectEvent::Listed(keys)) => {
                planner.policies_mut().retain_pods(|key| keys.contains(key));
            }
            Event::Namespace(ObjectEvent::Applied(one)) => {
                planner.policies_mut().upsert_namespace(one);
            }
            Event::Namespace(ObjectEvent::Deleted(name)) => {
                planner.policies_mut().remove_namespace(&name);
            }
            Event::Namespace(ObjectEvent::Listed(names)) => {
                planner
                    .policies_mut()
                    .retain_namespaces(|name| names.contains(name));
            }
            Event::NetworkPolicy(event) => self.dry_run.network(event, planner.policies_mut()),
            Event::ClusterNetworkPolicy(event) => {
                self.learnt.policy(&event);
                self.dry_run.cluster(event, planner.policies_mut());
            }
            Event::EndpointsChanged(at) => self.changed.add(at),
            Event::Problems(object, problems) => {
                self.problems_changed = true;
                match problems.is_empty() {
                    true => drop(self.problems.remove(&object)),
                    false => drop(self.problems.insert(object, problems)),
                }
            }
            Event::Synced => self.synced = true,
        }
    }
}
