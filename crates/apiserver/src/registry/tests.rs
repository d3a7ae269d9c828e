use serde_json::json;

use super::*;
use crate::Reason;
use crate::kinds::Part;

fn registry() -> Registry {
    Registry::open(None, ClusterConfig::default()).unwrap()
}

fn core(registry: &Registry, plural: &str) -> Arc<Resource> {
    registry.resource("", "v1", plural).unwrap()
}

fn create(
    registry: &Registry,
    plural: &str,
    namespace: &str,
    object: Value,
) -> Result<Arc<Object>, Status> {
    let options = WriteOptions::default();
    registry
        .create(&core(registry, plural), namespace, object, &options)
        .map(|written| written.object)
}

fn named(name: &str) -> Value {
    json!({ "metadata": { "name": name } })
}

fn pod(name: &str, node: &str) -> Value {
    json!({
        "metadata": { "name": name },
        "spec": { "nodeName": node, "containers": [{ "name": "c", "image": "i" }] },
    })
}

fn delete(registry: &Registry, plural: &str, namespace: &str, name: &str) -> Deleted {
    let options = DeleteOptions::default();
    registry
        .delete(&core(registry, plural), namespace, name, &options)
        .unwrap()
}

#[test]
fn a_cluster_has_its_own_objects() {
    let config = ClusterConfig {
        api_endpoints: vec!["172.30.1.1:6443".parse().unwrap()],
        ..ClusterConfig::default()
    };
    let registry = Registry::open(None, config).unwrap();
    let service = registry
        .get(&core(&registry, "services"), "default", "kubernetes")
        .unwrap();
    assert_eq!(service.value["spec"]["clusterIP"], "10.96.0.1");
    assert_eq!(service.value["spec"]["ports"][0]["targetPort"], 6443);
    let slices = registry
        .resource("discovery.k8s.io", "v1", "endpointslices")
        .unwrap();
    let slice = registry.get(&slices, "default", "kubernetes").unwrap();
    assert_eq!(
        slice.value["endpoints"][0]["addresses"],
        json!(["172.30.1.1"])
    );
}

#[test]
fn service_ranges_come_and_go() {
    let config = ClusterConfig {
        service_cidrs: vec!["fd00:96::/126".parse().unwrap()],
        ..ClusterConfig::default()
    };
    let registry = Registry::open(None, config).unwrap();
    let own = registry
        .get(&core(&registry, "services"), "default", "kubernetes")
        .unwrap();
    assert_eq!(own.value["spec"]["clusterIP"], "fd00:96::1");
    let ranges = registry
        .resource("networking.k8s.io", "v1", "servicecidrs")
        .unwrap();
    let own = registry.get(&ranges, "", "kubernetes").unwrap();
    assert_eq!(own.value["spec"]["cidrs"], json!(["fd00:96::/126"]));

    let service = |name: &str| {
        let mut service = named(name);
        service["spec"] = json!({ "ports": [{ "port": 80 }] });
        let created = create(&registry, "services", "default", service);
        created.map(|service| service.value["spec"]["clusterIP"].clone())
    };
    assert!(service("a").is_ok() && service("b").is_ok());
    assert!(service("c").is_err(), "the range is full");
    let mut more = named("more");
    more["spec"] = json!({ "cidrs": ["fd00:97::/112"] });
    let options = WriteOptions::default();
    registry.create(&ranges, "", more, &options).unwrap();
    let address = service("c").unwrap();
    let address = address.as_str().unwrap();
    assert!(address.starts_with("fd00:97::"), "{address}");
    registry
        .delete(&ranges, "", "more", &DeleteOptions::default())
        .unwrap();
    assert!(service("d").is_err(), "the range has gone");
}

#[test]
fn a_namespace_goes_with_its_content() {
    let registry = registry();
    create(&registry, "namespaces", "", named("a")).unwrap();
    create(&registry, "configmaps", "a", named("c")).unwrap();
    create(&registry, "pods", "a", pod("p", "node1")).unwrap();
    let Deleted::Marked(marked) = delete(&registry, "namespaces", "", "a") else {
        panic!("a pod is still stopping");
    };
    assert_eq!(marked.value["status"]["phase"], "Terminating");
    let left = registry.storage.list("configmaps", Some("a")).0;
    assert!(left.is_empty());
    let refused = create(&registry, "configmaps", "a", named("d")).unwrap_err();
    assert_eq!(refused.reason, Reason::Forbidden);
    assert!(
        refused.message.contains("it is being terminated"),
        "{refused}"
    );
    // The node has stopped the pod.
    let now = DeleteOptions {
        grace_seconds: Some(0),
        ..DeleteOptions::default()
    };
    registry
        .delete(&core(&registry, "pods"), "a", "p", &now)
        .unwrap();
    let gone = registry
        .get(&core(&registry, "namespaces"), "", "a")
        .unwrap_err();
    assert_eq!(gone.reason, Reason::NotFound);

    create(&registry, "namespaces", "", named("b")).unwrap();
    create(&registry, "configmaps", "b", named("c")).unwrap();
    assert!(matches!(
        delete(&registry, "namespaces", "", "b"),
        Deleted::Removed(_)
    ));
    let options = DeleteOptions::default();
    let forbidden = registry.delete(&core(&registry, "namespaces"), "", "default", &options);
    assert_eq!(forbidden.unwrap_err().reason, Reason::Forbidden);
}

#[test]
fn deletions_go_on_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal");
    {
        let registry = Registry::open(Some(&path), ClusterConfig::default()).unwrap();
        create(&registry, "namespaces", "", named("a")).unwrap();
        create(&registry, "configmaps", "a", named("c")).unwrap();
        // As if the process had ended right after marking.
        let namespaces = core(&registry, "namespaces");
        let found = registry.get(&namespaces, "", "a").unwrap();
        let mut marked = found.value.clone();
        marked["metadata"]["deletionTimestamp"] = json!(now());
        assert!(registry.commit_mark(&namespaces, &found, marked).is_ok());
    }
    let registry = Registry::open(Some(&path), ClusterConfig::default()).unwrap();
    assert!(
        registry
            .get(&core(&registry, "namespaces"), "", "a")
            .is_err()
    );
}

#[test]
fn finalizers_hold_an_object() {
    let registry = registry();
    let mut object = named("c");
    object["metadata"]["finalizers"] = json!(["example.com/hold"]);
    create(&registry, "configmaps", "default", object).unwrap();
    assert!(matches!(
        delete(&registry, "configmaps", "default", "c"),
        Deleted::Marked(_)
    ));
    let resource = core(&registry, "configmaps");
    let options = WriteOptions::default();
    let update = Update {
        resource: &resource,
        namespace: "default",
        name: "c",
        part: Part::Main,
        or_create: false,
        options: &options,
    };
    let release = |current: Option<&Object>| {
        let mut value = current.unwrap().value.clone();
        value["metadata"]["finalizers"] = json!([]);
        Ok(value)
    };
    registry.update(&update, release).unwrap();
    assert!(registry.get(&resource, "default", "c").is_err());
}

#[test]
fn pages_show_one_state() {
    let registry = registry();
    for index in 0..10 {
        create(
            &registry,
            "configmaps",
            "default",
            named(&format!("c{index}")),
        )
        .unwrap();
    }
    let resource = core(&registry, "configmaps");
    let mut options = ListOptions {
        limit: 4,
        ..ListOptions::default()
    };
    let mut names = Vec::new();
    loop {
        let page = registry.list(&resource, Some("default"), &options).unwrap();
        names.extend(page.objects.iter().map(|object| object.name().to_owned()));
        // What happens meanwhile is not seen.
        let last = 10 - names.len().div_ceil(4);
        delete(&registry, "configmaps", "default", &format!("c{last}"));
        let new = named(&format!("new{last}"));
        create(&registry, "configmaps", "default", new).unwrap();
        match page.token {
            Some(token) => options.token = Some(token),
            None => break,
        }
    }
    let expected: Vec<_> = (0..10).map(|index| format!("c{index}")).collect();
    assert_eq!(names, expected);
    options.token = Some("nonsense".to_owned());
    assert!(registry.list(&resource, None, &options).is_err());
}

#[test]
fn generated_names_and_dry_runs() {
    let registry = registry();
    let object = json!({ "metadata": { "generateName": "web-" } });
    let made = create(&registry, "configmaps", "default", object).unwrap();
    assert!(
        made.name().starts_with("web-") && made.name().len() == 9,
        "{}",
        made.name()
    );
    let nameless = create(
        &registry,
        "configmaps",
        "default",
        json!({ "metadata": {} }),
    );
    assert!(
        nameless
            .unwrap_err()
            .message
            .contains("name or generateName is required")
    );
    let options = WriteOptions {
        dry_run: true,
        ..WriteOptions::default()
    };
    let resource = core(&registry, "configmaps");
    registry
        .create(&resource, "default", named("dry"), &options)
        .unwrap();
    assert!(registry.get(&resource, "default", "dry").is_err());
}

fn definition() -> Value {
    json!({
        "metadata": { "name": "widgets.example.com" },
        "spec": {
            "group": "example.com",
            "scope": "Namespaced",
            "names": { "plural": "widgets", "kind": "Widget" },
            "versions": [
                { "name": "v1", "served": true, "storage": true, "schema": { "openAPIV3Schema": {
                    "type": "object", "properties": { "spec": {
                        "type": "object", "required": ["color"], "properties": {
                            "color": { "type": "string" },
                            "size": { "type": "integer", "default": 3 },
                        },
                    } },
                } } },
                { "name": "v1beta1", "served": true, "storage": false, "schema": { "openAPIV3Schema": {
                    "type": "object", "x-kubernetes-preserve-unknown-fields": true } } },
            ],
        },
    })
}

#[test]
fn custom_resources_come_and_go_with_their_definition() {
    let registry = registry();
    let definitions = registry
        .resource(crd::GROUP, "v1", "customresourcedefinitions")
        .unwrap();
    let options = WriteOptions::default();
    assert!(registry.resource("example.com", "v1", "widgets").is_none());
    let made = registry
        .create(&definitions, "", definition(), &options)
        .unwrap();
    assert_eq!(
        made.object.value["status"]["conditions"][1]["type"],
        "Established"
    );

    let widgets = registry.resource("example.com", "v1", "widgets").unwrap();
    let widget = |spec: Value| json!({ "metadata": { "name": "w" }, "spec": spec });
    let invalid = registry
        .create(&widgets, "default", widget(json!({})), &options)
        .unwrap_err();
    assert_eq!(
        invalid.message,
        "Widget.example.com \"w\" is invalid: spec.color: Required value"
    );
    let spec = json!({ "color": "red", "unknown": 1 });
    let made = registry
        .create(&widgets, "default", widget(spec), &options)
        .unwrap();
    assert_eq!(
        made.object.value["spec"],
        json!({ "color": "red", "size": 3 })
    );
    assert_eq!(made.object.value["metadata"]["generation"], 1);

    // Another version shows the same object under its own name.
    let beta = registry
        .resource("example.com", "v1beta1", "widgets")
        .unwrap();
    let seen = registry.get(&beta, "default", "w").unwrap();
    assert_eq!(seen.value["apiVersion"], "example.com/v1beta1");
    assert_eq!(seen.value["spec"]["color"], "red");

    let gone = DeleteOptions::default();
    registry
        .delete(&definitions, "", "widgets.example.com", &gone)
        .unwrap();
    assert!(registry.resource("example.com", "v1", "widgets").is_none());
    assert!(
        registry
            .storage
            .list("widgets.example.com", None)
            .0
            .is_empty()
    );
}

#[test]
fn service_addresses_are_given_and_returned() {
    let registry = registry();
    let service = |name: &str, address: Value| {
        json!({
            "metadata": { "name": name },
            "spec": { "clusterIP": address, "ports": [{ "port": 80 }] },
        })
    };
    let first = create(&registry, "services", "default", service("a", Value::Null)).unwrap();
    let address = first.value["spec"]["clusterIP"].clone();
    assert!(address.as_str().unwrap().starts_with("10.96."));
    let taken = create(
        &registry,
        "services",
        "default",
        service("b", address.clone()),
    );
    assert!(
        taken
            .unwrap_err()
            .message
            .contains("provided IP is already allocated")
    );
    delete(&registry, "services", "default", "a");
    create(&registry, "services", "default", service("b", address)).unwrap();
}
