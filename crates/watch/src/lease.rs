//! One of several processes leads: the one that holds a Lease
//! (<https://kubernetes.io/docs/concepts/architecture/leases/#leader-election>,
//! with client-go's times).

use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use tokio::time::{sleep, timeout};
use tracing::{debug, info, warn};

/// A holder that has not said that it is there for so long is not.
const DURATION: Duration = Duration::from_secs(15);
/// A leader that could not say so for so long stops: another one may begin soon.
const DEADLINE: Duration = Duration::from_secs(10);
const RETRY: Duration = Duration::from_secs(2);

/// Who wants to lead, and by which Lease.
#[derive(Clone, Debug)]
pub struct Election {
    pub namespace: String,
    pub name: String,
    /// Of this process, unlike all others.
    pub identity: String,
}

/// What is known of the Lease. Clocks of machines differ: how long a holder has
/// been silent is measured here, since its Lease was last seen to change.
struct Seen {
    spec: Option<LeaseSpec>,
    at: Instant,
    /// The last attempt failed.
    refused: bool,
}

impl Election {
    /// Runs `work` whenever this process leads, and drops it when it does not
    /// lead any more. Until `end`, then the Lease is another's.
    pub async fn run<F: Future<Output = ()>>(
        &self,
        client: Client,
        work: impl FnMut() -> F,
        end: impl Future<Output = ()>,
    ) {
        let leases: Api<Lease> = Api::namespaced(client, &self.namespace);
        tokio::select! {
            () = self.lead(&leases, work) => {}
            () = end => match timeout(RETRY, self.release(&leases)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => debug!(%error, "the Lease ends by itself"),
                Err(_) => debug!("the Lease ends by itself"),
            },
        }
    }

    /// For ever.
    async fn lead<F: Future<Output = ()>>(&self, leases: &Api<Lease>, mut work: impl FnMut() -> F) {
        let mut seen = Seen::now(None);
        loop {
            if !self.holds(leases, &mut seen).await {
                sleep(RETRY).await;
                continue;
            }
            info!(identity = self.identity, "leading");
            tokio::select! {
                () = work() => {}
                () = self.renew(leases, &mut seen) => {
                    warn!("not leading any more: the Lease could not be renewed");
                }
            }
        }
    }

    /// Returns when the Lease is lost, or may soon be.
    async fn renew(&self, leases: &Api<Lease>, seen: &mut Seen) {
        let mut renewed = Instant::now();
        while renewed.elapsed() < DEADLINE {
            sleep(RETRY).await;
            let left = DEADLINE.saturating_sub(renewed.elapsed());
            let asked = Instant::now();
            match timeout(left, self.holds(leases, seen)).await {
                Ok(true) => renewed = asked,
                _ if self.is_others(seen) => return,
                _ => {}
            }
        }
    }

    fn is_others(&self, seen: &Seen) -> bool {
        let holder = seen.spec.as_ref().and_then(|s| s.holder_identity.as_ref());
        holder.is_some_and(|holder| !holder.is_empty() && *holder != self.identity)
    }

    /// Whether the Lease is ours, which it becomes if nobody else holds it.
    async fn holds(&self, leases: &Api<Lease>, seen: &mut Seen) -> bool {
        match self.try_hold(leases, seen).await {
            Ok(holds) => {
                seen.refused = false;
                holds
            }
            // Somebody else was faster.
            Err(kube::Error::Api(status)) if status.code == 409 => false,
            Err(error) => {
                // Said once: rights may come, the API may come back.
                if !std::mem::replace(&mut seen.refused, true) {
                    warn!(%error, "Lease {}/{}", self.namespace, self.name);
                }
                false
            }
        }
    }

    /// Gives up a Lease that is ours, so that the next one leads at once.
    async fn release(&self, leases: &Api<Lease>) -> kube::Result<()> {
        let Some(mut lease) = leases.get_opt(&self.name).await? else {
            return Ok(());
        };
        let Some(spec) = &mut lease.spec else {
            return Ok(());
        };
        if spec.holder_identity.as_ref() != Some(&self.identity) {
            return Ok(());
        }
        // As client-go has it: an empty name is refused.
        spec.holder_identity = None;
        spec.lease_duration_seconds = Some(1);
        let params = PostParams::default();
        leases.replace(&self.name, &params, &lease).await.map(drop)
    }

    async fn try_hold(&self, leases: &Api<Lease>, seen: &mut Seen) -> kube::Result<bool> {
        let Some(mut lease) = leases.get_opt(&self.name).await? else {
            let lease = Lease {
                metadata: ObjectMeta {
                    name: Some(self.name.clone()),
                    ..ObjectMeta::default()
                },
                spec: Some(self.spec(None, Timestamp::now())),
            };
            let made = leases.create(&PostParams::default(), &lease).await?;
            *seen = Seen::now(made.spec);
            return Ok(true);
        };
        if seen.spec != lease.spec {
            *seen = Seen::now(lease.spec.clone());
        }
        if self.is_others(seen) && seen.at.elapsed() < DURATION {
            return Ok(false);
        }
        // With its resourceVersion: of two that try, one is refused.
        lease.spec = Some(self.spec(lease.spec.as_ref(), Timestamp::now()));
        let held = leases
            .replace(&self.name, &PostParams::default(), &lease)
            .await?;
        *seen = Seen::now(held.spec);
        Ok(true)
    }

    fn spec(&self, before: Option<&LeaseSpec>, now: Timestamp) -> LeaseSpec {
        let ours = |spec: &&LeaseSpec| spec.holder_identity.as_ref() == Some(&self.identity);
        let same = before.filter(ours);
        let transitions = before.and_then(|spec| spec.lease_transitions).unwrap_or(0);
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
            acquire_time: same
                .and_then(|spec| spec.acquire_time.clone())
                .or(Some(MicroTime(now))),
            renew_time: Some(MicroTime(now)),
            lease_transitions: Some(match (same, before) {
                (None, Some(_)) => transitions + 1,
                _ => transitions,
            }),
            ..LeaseSpec::default()
        }
    }
}

impl Seen {
    fn now(spec: Option<LeaseSpec>) -> Self {
        Self {
            spec,
            at: Instant::now(),
            refused: false,
        }
    }
}
