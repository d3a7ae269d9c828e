//! A node with an engine and very many endpoints.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use anyhow::Result;
use ripstop_plan::{PlanConfig, Planner};

use super::now;
use super::objects::{self, ENDPOINTS};
use super::probe::Probe;
use crate::rig::{Engine, Rig, Server};

/// How many services there are, and what each of them has.
#[derive(Clone, Copy, Debug)]
pub(super) struct Size {
    pub(super) services: usize,
    pub(super) endpoints: usize,
    /// Clients outside can reach them, too.
    pub(super) outside: bool,
}

impl Size {
    /// So few endpoints that all of them are real.
    pub(super) fn is_small(&self) -> bool {
        self.endpoints <= ENDPOINTS
    }

    /// For the report.
    pub(super) fn at(&self) -> &'static str {
        if self.outside {
            " at two addresses for clients outside, too,"
        } else {
            ""
        }
    }
}

/// A node with that many services.
pub(super) struct World<E> {
    // First, so that what runs in the rig ends before it.
    probe: Probe,
    _servers: [Server; 2],
    pub(super) rig: Rig<E>,
    planner: Planner,
    pub(super) size: Size,
    /// Of the last service.
    endpoints: Vec<IpAddr>,
    /// Resident before there were objects, bytes.
    empty: f64,
}

impl<E: Engine> World<E> {
    pub(super) fn new(bench: &str, size: Size) -> Result<Self> {
        let rig = Rig::new(&format!("services{}", size.services))?;
        let servers = [rig.serve(bench, 1)?, rig.serve(bench, 2)?];
        let probe = Probe::new(rig.client(bench, &["load-probe"])?)?;
        let planner = Planner::new(PlanConfig {
            node: "node".into(),
            service_cidrs: vec!["10.96.0.0/12".parse()?],
            cluster_cidrs: vec!["10.244.0.0/16".parse()?],
            ..PlanConfig::default()
        });
        Ok(Self {
            probe,
            _servers: servers,
            rig,
            planner,
            size,
            endpoints: objects::endpoints(size.endpoints),
            empty: resident()?,
        })
    }

    /// Gives the planner all objects; how long until the last service is reached,
    /// or, where nearly all endpoints are nowhere, until all is written.
    pub(super) fn fill(&mut self) -> Result<Duration> {
        let Size {
            services, outside, ..
        } = self.size;
        let objects: Vec<_> = (0..services)
            .map(|n| {
                (
                    objects::service(n, outside),
                    objects::slices(n, &self.endpoints),
                )
            })
            .collect();
        let start = now()?;
        for (service, slices) in objects {
            self.planner.upsert_service(service);
            for slice in slices {
                self.planner.upsert_slice(slice);
            }
        }
        self.apply()?;
        let end = if self.size.is_small() {
            self.probe.reached_any(objects::address(services - 1))?
        } else {
            now()?
        };
        Ok(end - start)
    }

    /// The last service has this endpoint alone; how long until a connection
    /// reaches it.
    pub(super) fn lead_to(&mut self, pod: usize) -> Result<Duration> {
        let last = self.size.services - 1;
        let slice = objects::slice_of(last, &[objects::pod(pod)], 0);
        let start = now()?;
        self.planner.upsert_slice(slice);
        self.apply()?;
        let end = self
            .probe
            .reached(objects::address(last), objects::pod(pod))?;
        Ok(end - start)
    }

    /// Another pod in the place of one of the last service's endpoints; how long
    /// until that is written.
    pub(super) fn replace(&mut self, turn: usize) -> Result<Duration> {
        // Anywhere: this is coprime to numbers of endpoints.
        let at = turn * 7919 % self.endpoints.len();
        self.endpoints[at] = objects::nowhere(self.size.endpoints + turn);
        let slice = objects::slice_of(self.size.services - 1, &self.endpoints, at);
        let start = now()?;
        self.planner.upsert_slice(slice);
        self.apply()?;
        Ok(now()? - start)
    }

    fn apply(&mut self) -> Result<()> {
        let update = self.planner.take_update();
        Ok(self.rig.run(|engine| engine.apply(&update.rows))??)
    }

    /// Of this process, and of the tables that it has in the kernel.
    pub(super) fn memory(&self) -> Result<String> {
        // By number: threads have descriptors of their own.
        let mut tables = BTreeMap::new();
        for entry in std::fs::read_dir("/proc/self/fdinfo")? {
            let info = std::fs::read_to_string(entry?.path()).unwrap_or_default();
            let [id, memory] = ["map_id:", "memlock:"].map(|name| field(&info, name));
            if let (Some(id), Some(memory)) = (id, memory) {
                tables.insert(id as u64, memory);
            }
        }
        let tables = tables.values().fold(0.0, |sum, one| sum + one);
        Ok(format!(
            "{:.1} MB resident with the plan ({:.1} MB before), {:.1} MB of maps",
            resident()? / 1e6,
            self.empty / 1e6,
            tables / 1e6
        ))
    }
}

/// Of this process, bytes.
fn resident() -> Result<f64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    Ok(field(&status, "VmRSS:").unwrap_or(0.0) * 1024.0)
}

fn field(text: &str, name: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}
