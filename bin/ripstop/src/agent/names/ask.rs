//! What people ask of the DNS server: why a name has the answer that it has, and
//! what pods asked for.

use std::net::IpAddr;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use ripstop_dns::{Explained, Logged, Name, kind_of};
use ripstop_model::LocalPod;
use serde::{Deserialize, Serialize};

use super::Names;

/// As kubelet sets it for pods that use the cluster's names.
const NDOTS: usize = 5;

/// `ripstop dns query`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Query {
    pub(crate) name: String,
    pub(crate) kind: String,
    /// `NAMESPACE/POD`, or a namespace; without it the name is a full one.
    pub(crate) from: Option<String>,
}

/// `ripstop dns log`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Log {
    /// `NAMESPACE/POD` or an address; all clients without it.
    pub(crate) of: Option<String>,
}

/// A line of the log, with the pod that asked.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct LogLine {
    /// `NAMESPACE/POD`, if the client is a pod of this node.
    pub(crate) pod: Option<String>,
    #[serde(flatten)]
    pub(crate) question: Logged,
}

impl Query {
    pub(crate) fn answer(&self, names: &Names, pods: &[LocalPod]) -> Result<Explained> {
        let kind = kind_of(&self.kind).with_context(|| {
            format!(
                "--type {:?} is no record type (like A, AAAA, SRV, PTR)",
                self.kind
            )
        })?;
        if Name::parse(&self.name).is_err() {
            bail!("{:?} is no domain name", self.name);
        }
        let search = match &self.from {
            Some(from) => self.search(from, names, pods)?,
            None => Arc::from([]),
        };
        Ok(names.server.explain(&self.name, kind, &search, NDOTS))
    }

    /// The search list of a pod: its own if it is known, else the one that
    /// kubelet writes.
    fn search(&self, from: &str, names: &Names, pods: &[LocalPod]) -> Result<Arc<[Name]>> {
        let namespace = match from.split_once('/') {
            None => from,
            Some((namespace, _)) => {
                let pod = pods.iter().find(|pod| pod.pod.to_string() == from);
                let pod = pod.with_context(|| format!("pod {from} is not on this node"))?;
                let known = pod.addresses.iter().find_map(|ip| names.server.search(*ip));
                match known {
                    Some(search) if !search.is_empty() => return Ok(search),
                    _ => namespace,
                }
            }
        };
        let domain = &names.zone.config().domain;
        [
            format!("{namespace}.svc.{domain}"),
            format!("svc.{domain}"),
            domain.clone(),
        ]
        .iter()
        .map(|name| Name::parse(name).map_err(Into::into))
        .collect()
    }
}

impl Log {
    pub(crate) fn read(&self, names: &Names, pods: &[LocalPod]) -> Result<Vec<LogLine>> {
        let pod_at = |client: IpAddr| {
            let pod = pods.iter().find(|pod| pod.addresses.contains(&client))?;
            Some(pod.pod.to_string())
        };
        let clients: Option<Vec<IpAddr>> = match self.of.as_deref() {
            None => None,
            Some(of) => Some(
                match (of.parse(), pods.iter().find(|p| p.pod.to_string() == of)) {
                    (Ok(client), _) => vec![client],
                    (_, Some(pod)) => pod.addresses.clone(),
                    _ => {
                        bail!("{of:?} is neither an address nor a pod of this node (NAMESPACE/POD)")
                    }
                },
            ),
        };
        let log = names.server.stats().log(None).into_iter();
        let wanted = |line: &Logged| {
            clients
                .as_ref()
                .is_none_or(|all| all.contains(&line.client))
        };
        Ok(log
            .filter(wanted)
            .map(|question| LogLine {
                pod: pod_at(question.client),
                question,
            })
            .collect())
    }
}
