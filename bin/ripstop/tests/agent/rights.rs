//! What the account in `deploy/` may do is what the agent does.

use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, Mutex};

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use ripstop_apiserver::Client;
use serde_json::{Value, json};
use tracing_subscriber::fmt::MakeWriter;

use crate::node::{TestNode, eventually};
use crate::read_object;

const DEPLOY: &str = include_str!("../../../../deploy/ripstop.yaml");

/// Objects of these are asked for when something of them is ignored, which no
/// test has for all of them: an Event needs their uid.
const REPORTED: [(&str, &str); 5] = [
    ("", "nodes"),
    ("discovery.k8s.io", "endpointslices"),
    ("networking.k8s.io", "servicecidrs"),
    ("networking.k8s.io", "networkpolicies"),
    ("policy.networking.k8s.io", "clusternetworkpolicies"),
];

/// Group, resource (with its subresource) and verb.
type Right = (String, String, String);

/// What the API servers of this process log.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

impl Log {
    /// Rights that were made use of. Agents of other tests in this process are
    /// agents as well.
    fn used(&self) -> BTreeSet<Right> {
        let log = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        log.lines().filter_map(used_by).collect()
    }
}

/// `... request method=GET uri=/api/v1/nodes?watch=true`
fn used_by(line: &str) -> Option<Right> {
    let (_, said) = line.split_once("request method=")?;
    let (method, uri) = said.split_once(" uri=")?;
    let (path, query) = uri.split_once('?').unwrap_or((uri, ""));
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let (group, rest) = match parts.as_slice() {
        ["api", _, rest @ ..] => ("", rest),
        ["apis", group, _, rest @ ..] => (*group, rest),
        _ => return None,
    };
    let rest = match rest {
        ["namespaces", _, rest @ ..] if !rest.is_empty() => rest,
        rest => rest,
    };
    let (resource, named) = match rest {
        [plural] => ((*plural).to_owned(), false),
        [plural, _] => ((*plural).to_owned(), true),
        [plural, _, sub] => (format!("{plural}/{sub}"), true),
        _ => return None,
    };
    let verb = match (method, named) {
        ("GET", true) => "get",
        ("GET", false) if query.contains("watch=true") => "watch",
        ("GET", false) => "list",
        ("POST", _) => "create",
        ("PUT", _) => "update",
        ("PATCH", _) => "patch",
        _ => "delete",
    };
    Some((group.to_owned(), resource, verb.to_owned()))
}

fn granted() -> BTreeSet<Right> {
    let objects: Vec<Value> = serde_saphyr::from_multiple(DEPLOY).unwrap();
    let role = objects.iter().find(|o| o["kind"] == "ClusterRole").unwrap();
    let words = |value: &Value| -> Vec<String> {
        let words = value.as_array().unwrap().iter();
        words.map(|w| w.as_str().unwrap().to_owned()).collect()
    };
    let mut granted = BTreeSet::new();
    for rule in role["rules"].as_array().unwrap() {
        for group in words(&rule["apiGroups"]) {
            for resource in words(&rule["resources"]) {
                for verb in words(&rule["verbs"]) {
                    let right = (group.clone(), resource.clone(), verb);
                    assert!(granted.insert(right.clone()), "{right:?} twice");
                }
            }
        }
    }
    granted
}

#[test]
fn the_account_may_do_what_the_agent_does_and_no_more() {
    let log = Log::default();
    tracing_subscriber::fmt()
        .with_env_filter("ripstop_apiserver=debug")
        .with_ansi(false)
        .with_writer(log.clone())
        .init();
    let node = TestNode::new("rights");
    let definition: CustomResourceDefinition = read_object(json!({
        "metadata": {"name": "clusternetworkpolicies.policy.networking.k8s.io"},
        "spec": {
            "group": "policy.networking.k8s.io",
            "scope": "Cluster",
            "names": {"kind": "ClusterNetworkPolicy", "plural": "clusternetworkpolicies"},
            "versions": [{"name": "v1alpha2", "served": true, "storage": true, "schema":
                {"openAPIV3Schema": {"type": "object",
                    "x-kubernetes-preserve-unknown-fields": true}}}],
        },
    }));
    // Something to report; told again by a second agent, it is the same Event.
    let client: Client = node.client();
    let twice = |name: &str| -> Service {
        read_object(json!({
            "metadata": {"name": name, "namespace": "default"},
            "spec": {"type": "ClusterIP", "ports": [{"port": 80}],
                "externalIPs": ["192.0.2.7"]},
        }))
    };
    client.create(&twice("first")).unwrap();
    client.create(&twice("second")).unwrap();
    let patched: Right = ("".into(), "events".into(), "patch".into());
    drop({
        let agent = node.start_agent();
        agent.until("synced", |s| s["synced"] == true);
        eventually("an Event", || {
            let created = ("".into(), "events".into(), "create".into());
            log.used().contains(&created)
        });
        eventually("the kind is waited for", || {
            log.used().contains(&(
                "apiextensions.k8s.io".into(),
                "customresourcedefinitions".into(),
                "watch".into(),
            ))
        });
        node.create(&definition);
        agent
    });
    let agent = node.start_agent();
    agent.until("synced", |s| s["synced"] == true);
    eventually("the Event counts once more", || {
        log.used().contains(&patched)
    });
    let last: [Right; 2] = [
        ("".into(), "nodes/status".into(), "patch".into()),
        (
            "policy.networking.k8s.io".into(),
            "clusternetworkpolicies".into(),
            "watch".into(),
        ),
    ];
    eventually("the condition is set, everything is followed", || {
        let used = log.used();
        last.iter().all(|right| used.contains(right))
    });
    let granted = granted();
    let used = log.used();
    let missing: Vec<_> = used.difference(&granted).collect();
    assert!(missing.is_empty(), "the account may not: {missing:?}");
    let reported = |right: &&Right| {
        let of = (right.0.as_str(), right.1.as_str());
        right.2 == "get" && REPORTED.contains(&of)
    };
    let unused: Vec<_> = granted.difference(&used).filter(|r| !reported(r)).collect();
    assert!(unused.is_empty(), "nobody needs: {unused:?}");
}
