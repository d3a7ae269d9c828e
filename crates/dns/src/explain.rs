//! Why a name has the answer that it has: the walk through a search list, step
//! by step, with the object or the server that each answer comes from.

use std::time::Instant;

use hickory_proto::op::Message;
use serde::{Deserialize, Serialize};

use crate::find::{Found, find};
use crate::log::{Source, kind_name, rcode_name};
use crate::name::Name;
use crate::search;
use crate::table::{Key, object};
use crate::{Realm, Server, Zone};

/// One name that was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    pub name: String,
    /// The element of the search list that completed it.
    pub search: Option<String>,
    pub rcode: String,
    /// Data of the answer: type and value.
    pub answers: Vec<(String, String)>,
    /// Where the answer comes from, in words: an object of the API, the cache, a
    /// server, a rule.
    pub from: String,
}

/// All of them; the last one that has an answer decides.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explained {
    /// What was typed.
    pub question: String,
    #[serde(rename = "type")]
    pub kind: String,
    pub steps: Vec<Step>,
    pub micros: u64,
}

/// What there is at a name, in words.
fn describe(zone: &Zone, name: &Name) -> String {
    if !zone.is_known() {
        return "the cluster's names are not known yet".to_owned();
    }
    let table = zone.table();
    let service = |key: &Key| format!("Service {}", object(key));
    match find(zone, &table, name).0 {
        Found::Outside => "not a name of the cluster".to_owned(),
        Found::Nothing => nothing(zone, name),
        Found::Empty => "no object: there are names below it".to_owned(),
        Found::Apex => "the cluster domain".to_owned(),
        Found::Version => "the specification's version".to_owned(),
        Found::Server => "this server".to_owned(),
        Found::Pod(_) => "the address in the name".to_owned(),
        Found::Service(key, ripstop_plan::ServiceNames::Alias(_)) => {
            format!("{}, type ExternalName", service(key))
        }
        Found::Service(key, ripstop_plan::ServiceNames::Headless(headless)) => format!(
            "{}, headless, {} ready endpoints",
            service(key),
            headless.hosts.len()
        ),
        Found::Service(key, _) => format!("{}, its cluster addresses", service(key)),
        Found::Hosts(key, ..) => format!("{}, an endpoint", service(key)),
        Found::Ports(key, ..) => format!("{}, its ports", service(key)),
        Found::Pointers(address) => {
            let services: Vec<_> = table.at(address).map(|(key, _)| service(key)).collect();
            services.join(", ")
        }
    }
}

fn nothing(zone: &Zone, name: &Name) -> String {
    let below = name.below(&zone.domain).unwrap_or_default();
    if below < 3 || name.label(below - 1) != b"svc" {
        return "no such name".to_owned();
    }
    let key = name.span(below - 3, below - 1);
    let wanted = object(key);
    match zone.table().get(key) {
        Some(_) => format!("Service {wanted} has no such endpoint or port"),
        None => format!("no Service {wanted}, or headless without ready endpoints"),
    }
}

/// The question for `name`, as a message.
fn question(name: &Name, kind: u16) -> Vec<u8> {
    let mut packet = vec![0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    packet.extend_from_slice(name.wire());
    packet.extend_from_slice(&kind.to_be_bytes());
    packet.extend_from_slice(&[0, 1]);
    packet
}

/// Names that a resolver tries for `text`, in its order, with the element of the
/// search list of each.
fn walk(zone: &Zone, text: &str, search: &[Name], ndots: usize) -> Vec<(Name, Option<Name>)> {
    let Ok(name) = Name::parse(text) else {
        return Vec::new();
    };
    let whole = (name.clone(), None);
    if text.ends_with('.') {
        return vec![whole];
    }
    let through = search.iter().filter_map(|element| {
        let wanted = name.span(0, name.count());
        let place = search::meant(zone, element);
        let place = place.as_ref().unwrap_or(element);
        Some((Name::join(wanted, place.wire())?, Some(element.clone())))
    });
    match text.matches('.').count() >= ndots {
        true => std::iter::once(whole).chain(through).collect(),
        false => through.chain([whole]).collect(),
    }
}

impl Server {
    /// Resolves `text` as a pod with this search list would, one name after the
    /// other until one has data.
    pub fn explain(&self, text: &str, kind: u16, search: &[Name], ndots: usize) -> Explained {
        let start = Instant::now();
        let mut steps = Vec::new();
        for (name, element) in walk(&self.shared.zone, text, search, ndots) {
            let step = self.step(&name, element.as_ref(), kind);
            let found = step.rcode == "NOERROR" && !step.answers.is_empty();
            steps.push(step);
            if found {
                break;
            }
        }
        Explained {
            question: text.to_owned(),
            kind: kind_name(kind),
            steps,
            micros: start.elapsed().as_micros() as u64,
        }
    }

    fn step(&self, name: &Name, search: Option<&Name>, kind: u16) -> Step {
        let start = Instant::now();
        let (outcome, source, reply) = self.ask(question(name, kind));
        let origin = match source {
            Source::Table => None,
            Source::Cache => Some("this node's cache".to_owned()),
            Source::Stale => Some("this node's cache, past its time: no server answers".to_owned()),
            Source::Server => Some(format!(
                "an upstream server, {:.1} ms",
                start.elapsed().as_secs_f64() * 1e3
            )),
            Source::Nobody => Some("no upstream server answers".to_owned()),
            Source::Refused | Source::Dropped | Source::Limited => Some("refused".to_owned()),
        };
        let zone = &self.shared.zone;
        let from = match (outcome.realm, origin) {
            (Realm::Upstream, Some(origin)) => origin,
            (_, Some(origin)) => format!("{}; {origin}", describe(zone, name)),
            (_, None) => describe(zone, name),
        };
        let message = Message::from_vec(&reply).ok();
        let records = message.iter().flat_map(|m| &m.answers);
        Step {
            name: name.to_string(),
            search: search.map(ToString::to_string),
            rcode: rcode_name(outcome.rcode).to_owned(),
            answers: records
                .map(|record| (record.record_type().to_string(), record.data.to_string()))
                .collect(),
            from,
        }
    }
}

/// A type by its name, as people type it: `A`, `srv`, `TYPE65`.
pub fn kind_of(text: &str) -> Option<u16> {
    let upper = text.to_ascii_uppercase();
    if let Some(number) = upper.strip_prefix("TYPE") {
        return number.parse().ok();
    }
    let kind = upper.parse::<hickory_proto::rr::RecordType>().ok()?;
    Some(kind.into())
}
