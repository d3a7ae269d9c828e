//! What domain names in policies stand for: learnt from the answers that this
//! node's DNS server gives, before those who asked have them.
//!
//! The DNS threads see each answer. If it is about a name that some policy of the
//! cluster names, and not in force yet, the main thread is told, plans it, and
//! lets the answer go when it is in the kernel. An address is forgotten when its
//! time is over and no connection uses it.

mod book;
mod journal;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

use ripstop_dns::{Found, Ready, Server, Witness};
use ripstop_model::{ClusterNetworkPolicy, DomainPattern, DomainSet, Peer};
use ripstop_plan::policy::PolicyPlanner;
use ripstop_watch::ObjectEvent;
use tokio::sync::oneshot;
use tracing::warn;

use super::feed::Input;
use book::{Book, Seconds};
use journal::Journal;

/// An address may be used for so long after its time to live: programs connect a
/// moment after they asked, and some keep answers for half a minute whatever their
/// time to live (Java's default).
const GRACE: Seconds = 30;
/// What the agent before this one had learnt may have been told again since it was
/// written.
const RESTORED: Seconds = 120;
/// An address with connections is looked at again after so long.
const HOLD: Seconds = 30;
/// Between looks whether something is to be forgotten or written.
const PAUSE: Duration = Duration::from_secs(5);

/// An answer on its way to a pod.
#[derive(Debug)]
pub(crate) struct Told {
    found: Found,
    /// Dropped or rung, the answer goes on.
    in_force: Option<oneshot::Sender<()>>,
}

/// The main thread's part.
#[derive(Debug)]
pub(crate) struct Learnt {
    shared: Arc<Listener>,
    journal: Journal,
    /// What policies name, by policy.
    policies: BTreeMap<String, Vec<DomainPattern>>,
    policies_changed: bool,
    waiting: Vec<Told>,
    looked: Instant,
    warned: bool,
}

/// The DNS threads' part.
#[derive(Debug)]
pub(crate) struct Listener {
    started: Instant,
    main: Sender<Input>,
    listens: AtomicBool,
    renewed: AtomicBool,
    state: RwLock<State>,
}

#[derive(Debug, Default)]
struct State {
    wanted: DomainSet,
    book: Book,
}

impl Learnt {
    /// Goes on with what the agent before this one had learnt.
    pub(crate) fn open(run_dir: &Path, main: Sender<Input>) -> Self {
        let (journal, known) = Journal::open(&run_dir.join("learnt"));
        let mut state = State::default();
        for (name, addresses) in &known {
            for (address, seconds) in addresses {
                state.book.learn(name, &[*address], RESTORED.max(*seconds));
            }
            // So the kernel has it, unless that was lost: then it comes with the plan.
            state.book.set_in_force(name);
        }
        Self {
            shared: Arc::new(Listener {
                started: Instant::now(),
                main,
                listens: AtomicBool::new(false),
                renewed: AtomicBool::new(false),
                state: RwLock::new(state),
            }),
            journal,
            policies: BTreeMap::new(),
            policies_changed: false,
            waiting: Vec::new(),
            looked: Instant::now(),
            warned: false,
        }
    }

    pub(crate) fn listener(&self) -> Arc<dyn Witness> {
        Arc::clone(&self.shared) as _
    }

    /// Tells a planner all that is known.
    pub(crate) fn tell_all(&self, planner: &mut PolicyPlanner) {
        let state = self.shared.read();
        for (name, addresses) in state.book.all() {
            planner.set_name(name, addresses.into_keys().collect());
        }
    }

    /// What policies name decides which names are learnt; whether they are enforced
    /// or only tried, and on which pods, does not matter.
    pub(crate) fn policy(&mut self, event: &ObjectEvent<ClusterNetworkPolicy, String>) {
        let changed = match event {
            ObjectEvent::Applied(policy) => {
                let patterns = domains(policy);
                match patterns.is_empty() {
                    true => self.policies.remove(&policy.name).is_some(),
                    false => {
                        let new = Some(patterns.clone());
                        self.policies.insert(policy.name.clone(), patterns) != new
                    }
                }
            }
            ObjectEvent::Deleted(name) => self.policies.remove(name).is_some(),
            ObjectEvent::Listed(names) => {
                let before = self.policies.len();
                self.policies.retain(|name, _| names.contains(name));
                self.policies.len() < before
            }
        };
        self.policies_changed |= changed;
    }

    /// Before a plan with new policies: listens to what they name, and asks the DNS
    /// server what it said of that lately.
    pub(crate) fn follow_policies(&mut self, server: &Server, planner: &mut PolicyPlanner) {
        if !std::mem::take(&mut self.policies_changed) {
            return;
        }
        let wanted: DomainSet = self.policies.values().flatten().collect();
        let mut state = self.shared.write();
        let has_more = wanted.has_more_than(&state.wanted);
        let listens = !wanted.is_empty();
        state.wanted = wanted;
        drop(state);
        self.shared.listens.store(listens, Ordering::Release);
        if !has_more {
            return;
        }
        let mut said = Vec::new();
        server.recall(|found| said.extend(self.shared.wanted(found)));
        for found in said {
            let in_force = None;
            self.take(Told { found, in_force }, planner);
        }
    }

    /// An answer that is not in force, or was not when it was told.
    pub(crate) fn take(&mut self, told: Told, planner: &mut PolicyPlanner) {
        let Found {
            names,
            addresses,
            ttl,
        } = &told.found;
        let seconds = Seconds::from(*ttl) + GRACE;
        let mut state = self.shared.write();
        for name in names {
            if state
                .book
                .learn(name, addresses, self.shared.now() + seconds)
            {
                self.journal.add(name, addresses, seconds);
                planner.set_name(name, state.book.addresses(name));
            }
        }
        let (.., refused) = state.book.sizes();
        if refused > 0 && !std::mem::replace(&mut self.warned, true) {
            warn!("policies' names have more addresses than can be kept: some are not learnt");
        }
        drop(state);
        self.waiting.push(told);
    }

    /// What was planned is in the kernel: answers go on.
    pub(crate) fn applied(&mut self) {
        if self.waiting.is_empty() {
            return;
        }
        let mut state = self.shared.write();
        for told in self.waiting.drain(..) {
            for name in &told.found.names {
                state.book.set_in_force(name);
            }
            // Who does not wait any more has been answered.
            let _ = told.in_force.map(|in_force| in_force.send(()));
        }
    }

    /// How long until [`Learnt::look`] has something to do.
    pub(crate) fn idle(&self) -> Duration {
        match self.shared.read().book.is_empty() {
            true => Duration::MAX,
            false => PAUSE.saturating_sub(self.looked.elapsed()),
        }
    }

    /// Forgets what has ended, if it is time to. `in_use` says which addresses have
    /// connections; `None` if it cannot be told: then nothing is forgotten.
    pub(crate) fn look(
        &mut self,
        planner: &mut PolicyPlanner,
        in_use: impl FnOnce() -> Option<BTreeSet<IpAddr>>,
    ) {
        if !self.idle().is_zero() {
            return;
        }
        self.looked = Instant::now();
        let now = self.shared.now();
        let ended = self.shared.read().book.has_ended(now);
        if ended && let Some(in_use) = in_use() {
            let mut state = self.shared.write();
            for name in state.book.forget(now, &in_use, HOLD) {
                planner.set_name(&name, state.book.addresses(&name));
            }
        }
        let state = self.shared.read();
        let (_, addresses, _) = state.book.sizes();
        if self.shared.renewed.swap(false, Ordering::Relaxed) || self.journal.is_long(addresses) {
            let mut all = state.book.all();
            for until in all.values_mut().flat_map(BTreeMap::values_mut) {
                *until = until.saturating_sub(now);
            }
            self.journal.rewrite(&all);
        }
    }

    /// Names that some patterns mean, with addresses and the seconds for which these
    /// hold.
    pub(crate) fn names(
        &self,
        patterns: &DomainSet,
    ) -> BTreeMap<String, BTreeMap<IpAddr, Seconds>> {
        let (state, now) = (self.shared.read(), self.shared.now());
        let all = state.book.all().into_iter();
        let meant = all.filter(|(name, _)| patterns.matches(name));
        let left = |(address, until): (IpAddr, Seconds)| (address, until.saturating_sub(now));
        meant
            .map(|(name, of)| (name.to_owned(), of.into_iter().map(left).collect()))
            .collect()
    }

    /// Numbers of names and of their addresses.
    pub(crate) fn sizes(&self) -> (usize, usize) {
        let (names, addresses, _) = self.shared.read().book.sizes();
        (names, addresses)
    }
}

impl Listener {
    fn now(&self) -> Seconds {
        self.started.elapsed().as_secs()
    }

    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// What of an answer is to be learnt.
    fn wanted(&self, mut found: Found) -> Option<Found> {
        let state = self.read();
        found.names.retain(|name| state.wanted.matches(name));
        // Such answers mean "nowhere": this host, or nobody.
        found.addresses.retain(|address| {
            !(address.is_loopback() || address.is_unspecified() || address.is_multicast())
        });
        (!found.names.is_empty() && !found.addresses.is_empty()).then_some(found)
    }
}

impl Witness for Listener {
    fn listens(&self) -> bool {
        self.listens.load(Ordering::Acquire)
    }

    fn tell(&self, found: Found) -> Option<Ready> {
        let found = self.wanted(found)?;
        let until = self.now() + Seconds::from(found.ttl) + GRACE;
        let state = self.read();
        let mut names = found.names.iter();
        if names.all(|name| state.book.renew(name, &found.addresses, until)) {
            drop(state);
            self.renewed.store(true, Ordering::Relaxed);
            return None;
        }
        drop(state);
        let (in_force, ready) = oneshot::channel();
        let in_force = Some(in_force);
        let told = Told { found, in_force };
        self.main.send(Input::Name(told)).ok().map(|()| ready)
    }
}

/// The domain names of a policy.
fn domains(policy: &ClusterNetworkPolicy) -> Vec<DomainPattern> {
    let rules = policy.egress.iter();
    let peers = rules.flat_map(|rule| rule.rule.peers.iter().flatten());
    let patterns = peers.filter_map(|peer| match peer {
        Peer::Domain(pattern) => Some(pattern.clone()),
        _ => None,
    });
    patterns.collect()
}
