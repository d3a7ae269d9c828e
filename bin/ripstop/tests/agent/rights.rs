//! What the accounts in the manifests may do is what agent and controller do.

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
    /// Rights that agents, or controllers, made use of: of all tests in this
    /// process.
    fn used_by(&self, client: &str) -> BTreeSet<Right> {
        let log = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        let lines = log.lines().filter(|line| line.contains(client));
        lines.filter_map(used_by).collect()
    }

    fn used(&self) -> BTreeSet<Right> {
        self.used_by("ripstop-agent/")
    }
}

/// `... request client=... method=GET uri=/api/v1/nodes?watch=true`
fn used_by(line: &str) -> Option<Right> {
    let (_, said) = line.split_once(" method=")?;
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

/// What the roles of this name allow, everywhere or in a namespace.
fn granted(name: &str) -> BTreeSet<Right> {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_ripstop"))
        .args(["install", "--print", "--allocate-node-cidrs"])
        .args(["--api-server", "https://192.0.2.1:6443"])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let objects: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap();
    let words = |value: &Value| -> Vec<String> {
        let words = value.as_array().unwrap().iter();
        words.map(|w| w.as_str().unwrap().to_owned()).collect()
    };
    let mut granted = BTreeSet::new();
    let roles = objects.iter().filter(|object| {
        let kind = object["kind"].as_str().unwrap();
        matches!(kind, "ClusterRole" | "Role") && object["metadata"]["name"] == name
    });
    for rule in roles.flat_map(|role| role["rules"].as_array().unwrap()) {
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
    let granted = granted("ripstop");
    let used = log.used();
    let missing: Vec<_> = used.difference(&granted).collect();
    assert!(missing.is_empty(), "the account may not: {missing:?}");
    let reported = |right: &&Right| {
        let of = (right.0.as_str(), right.1.as_str());
        right.2 == "get" && REPORTED.contains(&of)
    };
    let unused: Vec<_> = granted.difference(&used).filter(|r| !reported(r)).collect();
    assert!(unused.is_empty(), "nobody needs: {unused:?}");

    let granted = self::granted("ripstop-controller");
    node.create_node("late", 40, &[]);
    let _controller = node.start_controller("one");
    eventually("the controller does all that it may", || {
        log.used_by("ripstop-controller/") == granted
    });
}
