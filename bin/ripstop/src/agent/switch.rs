//! From one engine to the other while packets flow.
//!
//! The new engine is made and filled beside the old one, takes over the flows
//! that the old one translates, and only then the old one is dismantled. Both
//! lead to the same backends meanwhile: whichever meets a packet first is right.
//! Before the last flows are handed over the old one leaves new ones to the new
//! one, so that none begins which nobody hands over.

use std::cell::Cell;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ripstop_datapath::{Datapath, nftables};
use ripstop_plan::Tables;
use serde::{Deserialize, Serialize};
use tracing::{debug, info, warn};

use super::effects::Effects;
use super::engine::{Kind, Opener, Running};
use super::feed::Feed;

/// What a switch did.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Switched {
    pub(crate) from: String,
    pub(crate) to: String,
    /// Flows that the new engine took over.
    pub(crate) flows: usize,
    pub(crate) millis: u64,
}

/// Who can switch.
pub(crate) struct Switch {
    pub(crate) opener: Opener,
    pub(crate) running: Running,
    /// Something of a switch may be left.
    rest: Cell<Option<Rest>>,
}

/// When to look whether what is left is needed: less and less often, as each look
/// goes through the kernel's table of connections.
#[derive(Clone, Copy)]
struct Rest {
    due: Instant,
    pause: Duration,
}

impl Rest {
    const LONGEST: Duration = Duration::from_secs(60);

    fn now() -> Self {
        Self {
            due: Instant::now(),
            pause: Duration::from_secs(5),
        }
    }
}

impl Switch {
    /// Of a node on which an agent may have switched before.
    pub(crate) fn new(opener: Opener, running: Running) -> Self {
        Self {
            opener,
            running,
            rest: Cell::new(Some(Rest::now())),
        }
    }

    /// As people want it: remembered, and done if it is not so already.
    ///
    /// # Errors
    /// If there is no plan yet, or the kernel refuses the engine: then all is as
    /// it was.
    pub(crate) fn set(&self, to: Kind, feed: &Feed, effects: &mut Effects) -> Result<Switched> {
        ensure!(
            feed.is_synced(),
            "not every object has been seen yet: there is no plan to switch with"
        );
        let switched = self.to(to, feed.tables(), effects)?;
        self.opener.set(to)?;
        effects
            .counts
            .engine_reason("set by ripstop datapath set".to_owned());
        Ok(switched)
    }

    /// After a start: to the engine that is wanted, from the one that ran before.
    pub(crate) fn settle(&self, tables: &Tables, effects: &mut Effects) {
        let (wanted, reason) = match self.opener.wanted() {
            (Some(kind), reason) => (kind, reason),
            (None, _) => (Kind::Ebpf, "the kernel takes eBPF".to_owned()),
        };
        let now = self.kind();
        match self.to(wanted, tables, effects) {
            Ok(_) => effects.counts.engine_reason(reason),
            Err(error) => {
                warn!("{} stays: {error:#}", now.name());
                effects.counts.engine_reason(format!("{error:#}"));
            }
        }
    }

    /// How long nothing is to be tidied.
    pub(crate) fn idle(&self) -> Duration {
        let due = self.rest.get().map(|rest| rest.due);
        due.map_or(Duration::MAX, |due| {
            due.saturating_duration_since(Instant::now())
        })
    }

    /// What the last switch has left goes when nobody needs it.
    pub(crate) fn tidy(&self) {
        let Some(rest) = self.rest.get().filter(|_| self.idle().is_zero()) else {
            return;
        };
        let is_left = nftables::end_rest(&self.opener.node_addresses).unwrap_or_else(|error| {
            debug!(%error, "whether something of a switch is left");
            true
        });
        self.rest.set(is_left.then(|| Rest {
            due: Instant::now() + rest.pause,
            pause: (rest.pause * 2).min(Rest::LONGEST),
        }));
    }

    fn kind(&self) -> Kind {
        let running = self.running.lock();
        running
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .kind
    }

    fn to(&self, to: Kind, tables: &Tables, effects: &mut Effects) -> Result<Switched> {
        let started = Instant::now();
        let from = self.kind();
        let done = |flows| Switched {
            from: from.name().to_owned(),
            to: to.name().to_owned(),
            flows,
            millis: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
        };
        if from == to {
            return Ok(done(0));
        }
        let routes = effects.resolved_routes(tables)?;
        let mut new = self.opener.open_kind(to)?;
        effects.forget_audit();
        // From here on no pod comes or goes.
        let mut running = self
            .running
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let pods = effects.pods.pods();
        let filled = (|| -> Result<usize> {
            for engine in [&mut *running, &mut new] {
                engine.share_ports(true).context("ports")?;
            }
            new.take_flows(&running.flows().context("flows")?)?;
            new.apply_routes(&routes)?;
            new.audit(tables, &pods)?;
            // Those that began meanwhile, and no more do.
            running.retire()?;
            let flows = running.flows().context("flows")?;
            new.take_flows(&flows)?;
            let connections = running.connections().context("connections")?;
            new.take_connections(&connections)?;
            Ok(flows.len())
        })();
        let flows = match filled {
            Ok(flows) => flows,
            Err(error) => {
                let undone = new.engine.dismantle();
                if let Err(undone) = undone {
                    warn!("{} is not gone: {undone}", to.name());
                }
                let audited = running.audit(tables, &pods).map(drop);
                if let Err(undone) = audited.and(running.share_ports(false)) {
                    warn!("{} is not as it was: {undone}", from.name());
                }
                return Err(error.context(format!("filling {}", to.name())));
            }
        };
        self.opener.note_running(to)?;
        let old = std::mem::replace(&mut *running, new);
        let gone = old.engine.dismantle();
        let alone = running.share_ports(false);
        drop(running);
        self.rest.set(Some(Rest::now()));
        // It works; what is left of the other is not in its way.
        if let Err(error) = gone {
            warn!("something of {} is left: {error}", from.name());
        }
        if let Err(error) = alone {
            warn!("{} goes on with few ports: {error}", to.name());
        }
        let done = done(flows);
        info!(
            from = done.from,
            to = done.to,
            flows,
            millis = done.millis,
            "switched engines"
        );
        Ok(done)
    }
}
