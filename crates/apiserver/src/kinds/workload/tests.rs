use serde_json::{Value, json};

use super::super::testing::{accepts, create, refuses, refuses_update, with};

fn good(api: &str, kind: &str) -> Value {
    json!({
        "apiVersion": api,
        "kind": kind,
        "metadata": {"name": "w", "namespace": "default", "uid": "u-1"},
        "spec": {
            "selector": {"matchLabels": {"app": "w"}},
            "template": {
                "metadata": {"labels": {"app": "w"}},
                "spec": {"containers": [{"name": "c", "image": "i"}]},
            },
        },
    })
}

fn job() -> Value {
    let mut job = with(&good("batch/v1", "Job"), "/spec/selector", Value::Null);
    job["spec"]["template"]["spec"]["restartPolicy"] = json!("Never");
    job
}

#[test]
fn defaults() {
    let spec = |kind, api| create(kind, good(api, kind)).unwrap()["spec"].clone();
    let deployment = spec("Deployment", "apps/v1");
    assert_eq!(deployment["replicas"], 1);
    assert_eq!(deployment["progressDeadlineSeconds"], 600);
    assert_eq!(deployment["revisionHistoryLimit"], 10);
    assert_eq!(
        deployment["strategy"],
        json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "25%", "maxSurge": "25%"}})
    );
    let template = &deployment["template"]["spec"];
    assert_eq!(template["restartPolicy"], "Always");
    assert_eq!(template["containers"][0]["imagePullPolicy"], "Always");
    // What admission gives to pods is not in their template.
    assert_eq!(template.get("tolerations"), None);
    assert_eq!(template.get("serviceAccountName"), None);

    let stateful = spec("StatefulSet", "apps/v1");
    assert_eq!(stateful["podManagementPolicy"], "OrderedReady");
    assert_eq!(stateful["updateStrategy"]["rollingUpdate"]["partition"], 0);
    let daemon = spec("DaemonSet", "apps/v1");
    assert_eq!(
        daemon["updateStrategy"],
        json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1, "maxSurge": 0}})
    );
    assert_eq!(spec("ReplicaSet", "apps/v1")["replicas"], 1);
}

#[test]
fn a_job_selects_its_pods_by_uid() {
    let created = create("Job", job()).unwrap();
    let spec = &created["spec"];
    assert_eq!(spec["completions"], 1);
    assert_eq!(spec["parallelism"], 1);
    assert_eq!(spec["backoffLimit"], 6);
    assert_eq!(
        spec["selector"],
        json!({"matchLabels": {"batch.kubernetes.io/controller-uid": "u-1"}})
    );
    let labels = &spec["template"]["metadata"]["labels"];
    assert_eq!(labels["batch.kubernetes.io/job-name"], "w");
    assert_eq!(labels["controller-uid"], "u-1");
    assert_eq!(labels["app"], "w");
    // The same file again.
    super::super::testing::update("Job", job(), &created).unwrap();
}

#[test]
fn wrong_deployments() {
    let same = "spec.template.metadata.labels: Invalid value: {\"app\":\"w\"}: `selector` does not match template `labels`";
    refuses(
        "Deployment",
        &good("apps/v1", "Deployment"),
        &[
            (
                "/spec/selector",
                Value::Null,
                "spec.selector: Required value",
            ),
            (
                "/spec/selector",
                json!({}),
                "spec.selector: Invalid value: {}: empty selector is invalid for deployment",
            ),
            ("/spec/selector", json!({"matchLabels": {"app": "x"}}), same),
            (
                "/spec/replicas",
                json!(-1),
                "spec.replicas: Invalid value: -1: must be greater than or equal to 0",
            ),
            (
                "/spec/replicas",
                json!("two"),
                "Deployment in version \"v1\" cannot be handled as a Deployment: json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32",
            ),
            (
                "/spec/template/spec/containers",
                json!([]),
                "spec.template.spec.containers: Required value",
            ),
            (
                "/spec/template/spec/restartPolicy",
                json!("Never"),
                "spec.template.spec.restartPolicy: Unsupported value: \"Never\": supported values: \"Always\"",
            ),
            (
                "/spec/strategy",
                json!({"type": "Recreate", "rollingUpdate": {}}),
                "spec.strategy.rollingUpdate: Forbidden: may not be specified when strategy `type` is 'Recreate'",
            ),
            (
                "/spec/strategy",
                json!({"type": "Blue"}),
                "spec.strategy.type: Unsupported value: \"Blue\": supported values: \"Recreate\", \"RollingUpdate\"",
            ),
            (
                "/spec/strategy",
                json!({"rollingUpdate": {"maxUnavailable": 0, "maxSurge": "0%"}}),
                "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: 0: may not be 0 when `maxSurge` is 0",
            ),
            (
                "/spec/strategy",
                json!({"rollingUpdate": {"maxUnavailable": "101%"}}),
                "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: \"101%\": must not be greater than 100%",
            ),
            (
                "/spec/progressDeadlineSeconds",
                json!(0),
                "spec.progressDeadlineSeconds: Invalid value: 0: must be greater than minReadySeconds",
            ),
        ],
    );
    accepts(
        "Deployment",
        &good("apps/v1", "Deployment"),
        &[
            ("/spec/replicas", json!(0)),
            ("/spec/strategy", json!({"type": "Recreate"})),
            (
                "/spec/strategy",
                json!({"rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}),
            ),
            (
                "/spec/selector",
                json!({"matchExpressions": [{"key": "app", "operator": "In", "values": ["w"]}]}),
            ),
        ],
    );
}

#[test]
fn selectors_do_not_change() {
    for (api, kind) in [
        ("apps/v1", "Deployment"),
        ("apps/v1", "ReplicaSet"),
        ("apps/v1", "DaemonSet"),
    ] {
        refuses_update(
            kind,
            &with(
                &good(api, kind),
                "/spec/template/metadata/labels/x",
                json!("y"),
            ),
            &[(
                "/spec/selector",
                json!({"matchLabels": {"x": "y"}}),
                "spec.selector: Invalid value: {\"matchLabels\":{\"x\":\"y\"}}: field is immutable",
            )],
        );
    }
    let forbidden = "spec: Forbidden: updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden";
    refuses_update(
        "StatefulSet",
        &good("apps/v1", "StatefulSet"),
        &[
            ("/spec/serviceName", json!("x"), forbidden),
            ("/spec/podManagementPolicy", json!("Parallel"), forbidden),
        ],
    );
}

#[test]
fn wrong_others() {
    refuses(
        "StatefulSet",
        &good("apps/v1", "StatefulSet"),
        &[
            (
                "/metadata/name",
                json!("a.b"),
                "metadata.name: Invalid value: \"a.b\": must not contain dots",
            ),
            (
                "/spec/podManagementPolicy",
                json!("X"),
                "spec.podManagementPolicy: Unsupported value: \"X\": supported values: \"OrderedReady\", \"Parallel\"",
            ),
        ],
    );
    refuses(
        "DaemonSet",
        &good("apps/v1", "DaemonSet"),
        &[
            (
                "/spec/updateStrategy",
                json!({"rollingUpdate": {"maxUnavailable": 0}}),
                "spec.updateStrategy.rollingUpdate.maxUnavailable: Invalid value: 0: cannot be 0 when maxSurge is 0",
            ),
            (
                "/spec/replicas",
                json!(1),
                "DaemonSet in version \"v1\" cannot be handled as a DaemonSet: strict decoding error: unknown field \"spec.replicas\"",
            ),
        ],
    );
    refuses(
        "Job",
        &job(),
        &[
            (
                "/spec/template/spec/restartPolicy",
                Value::Null,
                "spec.template.spec.restartPolicy: Required value: valid values: \"OnFailure\", \"Never\"",
            ),
            (
                "/spec/parallelism",
                json!(-1),
                "spec.parallelism: Invalid value: -1: must be greater than or equal to 0",
            ),
            (
                "/spec",
                with(
                    &with(&job(), "/spec/completionMode", json!("Indexed")),
                    "/spec/parallelism",
                    json!(2),
                )["spec"]
                    .clone(),
                "spec.completions: Required value: when completion mode is Indexed",
            ),
        ],
    );
    refuses_update(
        "Job",
        &job(),
        &[(
            "/spec/completions",
            json!(5),
            "spec.completions: Invalid value: 5: field is immutable",
        )],
    );
}
