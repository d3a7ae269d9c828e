//! Services as the engine has them in the kernel, with what the plan knows of
//! their names and endpoints.

use std::collections::BTreeMap;
use std::net::IpAddr;

use anyhow::{Context, Result, ensure};
use ipnet::IpNet;
use ripstop_datapath::{BackendState, FrontendState};
use ripstop_model::{ObjectKey, SliceEndpoint};
use ripstop_plan::{Frontend, FrontendKind};
use serde::{Deserialize, Serialize};

use super::control::{Ask, Question};
use super::effects::{Effects, lock};
use super::feed::Feed;
use super::nodes;
use super::switch::Switch;
use super::verify::Verifying;

/// A service with its frontends.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ServiceView {
    /// Empty for frontends of no service: they should not be there.
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) frontends: Vec<FrontendView>,
    /// From the API's slices, also those that get nothing at the moment. Only
    /// where one service was asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) endpoints: Vec<EndpointView>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct FrontendView {
    pub(crate) address: IpAddr,
    pub(crate) port: u16,
    pub(crate) protocol: String,
    /// `ClusterIP`, `NodePort`, `LoadBalancer` or `ExternalIP`.
    pub(crate) kind: String,
    pub(crate) affinity_seconds: Option<u32>,
    pub(crate) affinities_held: u64,
    pub(crate) source_ranges: Vec<IpNet>,
    pub(crate) refused: u64,
    pub(crate) backends: Vec<BackendView>,
    /// What traffic from outside gets, if it gets others.
    pub(crate) outside: Option<Vec<BackendView>>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct BackendView {
    pub(crate) address: IpAddr,
    pub(crate) port: u16,
    pub(crate) connections: u64,
    /// Absent if the engine cannot say.
    pub(crate) bytes: Option<u64>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct EndpointView {
    pub(crate) address: IpAddr,
    pub(crate) pod: Option<String>,
    pub(crate) node: Option<String>,
    pub(crate) zone: Option<String>,
    pub(crate) ready: bool,
    pub(crate) serving: bool,
    pub(crate) terminating: bool,
}

/// Answers what has been asked since the last time.
pub(crate) fn answer(
    feed: &mut Feed,
    effects: &mut Effects,
    switch: &Switch,
    verifying: &mut Verifying,
) {
    for question in feed.take_questions() {
        answer_one(question, feed, effects, switch, verifying);
    }
}

fn answer_one(
    question: Question,
    feed: &mut Feed,
    effects: &mut Effects,
    switch: &Switch,
    verifying: &mut Verifying,
) {
    match question.ask.clone() {
        Ask::SetDatapath { engine } => {
            let done = switch.set(engine, feed, effects);
            effects.observe_again();
            verifying.begin_again();
            question.answer(done);
        }
        Ask::Services { namespace, name } => {
            let one = namespace
                .zip(name)
                .map(|(namespace, name)| ObjectKey { namespace, name });
            question.answer(services(feed, effects, one.as_ref()));
        }
        Ask::Verify => verifying.begin(question, feed, effects),
        Ask::Policy(ask) => question.answer(ask.answer(feed, effects)),
        Ask::Nodes => question.answer(Ok(nodes::planned(feed.tables()))),
        Ask::Status | Ask::DnsQuery(_) | Ask::DnsLog(_) | Ask::Machine => {
            question.answer::<()>(Err(anyhow::anyhow!("this is told elsewhere")));
        }
    }
}

fn services(feed: &Feed, effects: &Effects, one: Option<&ObjectKey>) -> Result<Vec<ServiceView>> {
    let states = lock(&effects.datapath)
        .services()
        .context("reading the kernel's services")?;
    let planned = &feed.tables().frontends;
    let mut all: BTreeMap<ObjectKey, ServiceView> = BTreeMap::new();
    for state in states {
        let row = planned.get(&state.frontend);
        let nobody = || ObjectKey::new("", "");
        let key = row.map_or_else(nobody, |row| row.service.clone());
        if one.is_none_or(|one| *one == key) {
            let kind = row.map(|row| row.kind);
            let view = all.entry(key.clone()).or_insert_with(|| empty(key));
            view.frontends.push(frontend(state, kind));
        }
    }
    if let Some(one) = one {
        let endpoints = feed.endpoints(one).map(endpoint).collect();
        let known = feed.has_service(one);
        ensure!(known || all.contains_key(one), "there is no service {one}");
        let view = all.entry(one.clone()).or_insert_with(|| empty(one.clone()));
        view.endpoints = endpoints;
    }
    Ok(all.into_values().collect())
}

fn empty(key: ObjectKey) -> ServiceView {
    ServiceView {
        namespace: key.namespace,
        name: key.name,
        frontends: Vec::new(),
        endpoints: Vec::new(),
    }
}

fn frontend(state: FrontendState, kind: Option<FrontendKind>) -> FrontendView {
    let Frontend {
        address,
        protocol,
        port,
    } = state.frontend;
    FrontendView {
        address,
        port,
        protocol: protocol.to_string(),
        kind: kind.map_or("", kind_name).to_owned(),
        affinity_seconds: state.affinity,
        affinities_held: state.affinities_held,
        source_ranges: state.source_ranges,
        refused: state.refused,
        backends: state.backends.into_iter().map(backend).collect(),
        outside: state
            .outside
            .map(|all| all.into_iter().map(backend).collect()),
    }
}

fn kind_name(kind: FrontendKind) -> &'static str {
    match kind {
        FrontendKind::ClusterIp => "ClusterIP",
        FrontendKind::NodePort => "NodePort",
        FrontendKind::LoadBalancer => "LoadBalancer",
        FrontendKind::ExternalIp => "ExternalIP",
    }
}

fn backend(state: BackendState) -> BackendView {
    BackendView {
        address: state.backend.address,
        port: state.backend.port,
        connections: state.connections,
        bytes: state.bytes,
    }
}

fn endpoint(endpoint: &SliceEndpoint) -> EndpointView {
    EndpointView {
        address: endpoint.address,
        pod: endpoint.pod.clone(),
        node: endpoint.node.clone(),
        zone: endpoint.zone.clone(),
        ready: endpoint.state.ready,
        serving: endpoint.state.serving,
        terminating: endpoint.state.terminating,
    }
}
