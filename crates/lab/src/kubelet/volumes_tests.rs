use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use serde_json::json;

use super::*;

struct Objects;

impl Sources for Objects {
    fn config_map(&self, _: &str, name: &str) -> Option<ConfigMap> {
        let map = json!({"data": {"a": "1", "b": "2"}, "binaryData": {"c": "/w=="}});
        (name == "settings").then(|| serde_json::from_value(map).unwrap())
    }
    fn secret(&self, _: &str, name: &str) -> Option<Secret> {
        let secret = json!({"data": {"key": "c2VjcmV0"}});
        (name == "login").then(|| serde_json::from_value(secret).unwrap())
    }
}

fn pod(volumes: serde_json::Value, mounts: serde_json::Value) -> Pod {
    serde_json::from_value(json!({
        "metadata": {"name": "web", "namespace": "shop", "labels": {"app": "x"}},
        "spec": {"volumes": volumes, "containers": [{"name": "c", "volumeMounts": mounts}]},
    }))
    .unwrap()
}

fn prepare_in(dir: &Path, pod: &Pod) -> Result<Vec<String>, String> {
    let facts = Facts {
        pod,
        node: "n",
        pod_ips: &[],
        host_ips: &[],
        allocatable: &BTreeMap::new(),
    };
    prepare(dir, &facts, &Objects).map_err(|error| error.to_string())
}

#[test]
fn every_kind() {
    let dir = tempfile::tempdir().unwrap();
    let pod = pod(
        json!([
            {"name": "cm", "configMap": {"name": "settings"}},
            {"name": "some", "configMap": {"name": "settings", "defaultMode": 0o400,
                "items": [{"key": "a", "path": "x/y"}]}},
            {"name": "sec", "secret": {"secretName": "login"}},
            {"name": "opt", "secret": {"secretName": "none", "optional": true}},
            {"name": "down", "downwardAPI": {"items":
                [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
            {"name": "all", "projected": {"sources": [
                {"configMap": {"name": "settings"}},
                {"serviceAccountToken": {"path": "token"}},
                {"secret": {"name": "login"}}]}},
            {"name": "tmp", "emptyDir": {}},
            {"name": "disk", "persistentVolumeClaim": {"claimName": "d"}},
        ]),
        json!([]),
    );
    assert_eq!(prepare_in(dir.path(), &pod).unwrap(), ["disk"]);
    let read = |path: &str| fs::read(dir.path().join(path)).unwrap();
    assert_eq!(read("cm/a"), b"1");
    assert_eq!(read("cm/c"), [0xff]);
    assert_eq!(read("some/x/y"), b"1");
    assert!(!dir.path().join("some/b").exists());
    let mode = fs::metadata(dir.path().join("some/x/y"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o400);
    assert_eq!(read("sec/key"), b"secret");
    assert_eq!(read("down/labels"), b"app=\"x\"");
    assert_eq!(
        (read("all/a"), read("all/key")),
        (b"1".to_vec(), b"secret".to_vec())
    );
    let mode = fs::metadata(dir.path().join("tmp"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o777);
}

#[test]
fn what_is_missing_is_named() {
    let dir = tempfile::tempdir().unwrap();
    for (volume, problem) in [
        (
            json!({"configMap": {"name": "none"}}),
            "configmap \"none\" not found",
        ),
        (
            json!({"secret": {"secretName": "none"}}),
            "secret \"none\" not found",
        ),
        (
            json!({"configMap": {"name": "settings", "items": [{"key": "z", "path": "z"}]}}),
            "couldn't find key z in configmap shop/settings",
        ),
    ] {
        let mut volume = volume;
        volume["name"] = "v".into();
        let error = prepare_in(dir.path(), &pod(json!([volume]), json!([]))).unwrap_err();
        assert_eq!(
            error,
            format!("MountVolume.SetUp failed for volume \"v\" : {problem}")
        );
    }
}

#[test]
fn mount_points() {
    let dir = tempfile::tempdir().unwrap();
    let binds = |mount: serde_json::Value| {
        let volumes = json!([{"name": "tmp", "emptyDir": {}},
                             {"name": "cm", "configMap": {"name": "settings"}}]);
        let pod = pod(volumes, json!([mount]));
        prepare_in(dir.path(), &pod).unwrap();
        let env = BTreeMap::from([("POD".to_owned(), "web".to_owned())]);
        mounts(
            dir.path(),
            &pod,
            &pod.spec.as_ref().unwrap().containers[0],
            &env,
        )
        .map(|mut binds| binds.remove(0))
        .map_err(|error| error.to_string())
    };
    let bind = binds(json!({"name": "tmp", "mountPath": "/data"})).unwrap();
    assert_eq!(
        (bind.source, bind.read_only),
        (dir.path().join("tmp"), false)
    );
    let bind = binds(json!({"name": "cm", "mountPath": "/etc/x", "subPath": "a"})).unwrap();
    assert_eq!(
        (bind.source, bind.read_only),
        (dir.path().join("cm/a"), true)
    );
    let sub = json!({"name": "tmp", "mountPath": "/d", "subPathExpr": "$(POD)/x"});
    assert!(binds(sub).unwrap().source.is_dir());
    assert!(dir.path().join("tmp/web/x").is_dir());
    for (mount, problem) in [
        (
            json!({"name": "tmp", "mountPath": "/d", "subPath": "../cm"}),
            "subPath \"../cm\" of volume \"tmp\" leads out of it",
        ),
        (
            json!({"name": "none", "mountPath": "/d"}),
            "container \"c\" mounts volume \"none\", which the pod does not have",
        ),
    ] {
        assert_eq!(binds(mount).unwrap_err(), problem);
    }
}
