//! A real cluster of a test: the one that KUBECONFIG leads to.

use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::{Printed, write_manifest};

/// Set by `cargo xtask test --cluster`: a KUBECONFIG alone, which many have set
/// for other work, makes no test touch a cluster.
const WANTED: &str = "RIPSTOP_TEST_CLUSTER";
/// Names an image with busybox's `sh`, `httpd`, `wget` and `nslookup`.
const IMAGE: &str = "RIPSTOP_TEST_IMAGE";
const DEFAULT_IMAGE: &str = "registry.k8s.io/e2e-test-images/busybox:1.37.0-1";
/// For a node that pulls an image, or a controller that is slow: a limit for a
/// broken cluster, no measurement.
const LIMIT: Duration = Duration::from_secs(120);
const PAUSE: Duration = Duration::from_millis(500);

/// A namespace of the cluster that no other test uses. Dropped, it is deleted.
#[derive(Debug)]
pub struct Cluster {
    namespace: String,
}

impl Cluster {
    /// `None`, with the reason printed, where no cluster is to be tested.
    ///
    /// # Panics
    /// If the cluster does not take the namespace.
    pub fn find() -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let reason = match (std::env::var_os(WANTED), std::env::var_os("KUBECONFIG")) {
            (None, _) => "real clusters are tested by `cargo xtask test --cluster`",
            (_, None) => "KUBECONFIG is not set: no cluster to test",
            _ => "",
        };
        if !reason.is_empty() {
            eprintln!("skipped: {reason}");
            return None;
        }
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let cluster = Self {
            namespace: format!("ripstop-test-{}-{number}", std::process::id()),
        };
        cluster.kubectl(&["create", "namespace", &cluster.namespace]);
        Some(cluster)
    }

    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The image that pods of tests run.
    pub fn image() -> String {
        std::env::var(IMAGE).unwrap_or_else(|_| DEFAULT_IMAGE.to_owned())
    }

    /// Runs kubectl in the test's namespace.
    ///
    /// # Panics
    /// If kubectl cannot be started.
    pub fn try_kubectl(&self, args: &[&str]) -> Printed {
        let output = Command::new("kubectl")
            .args(["--namespace", &self.namespace])
            .args(args)
            .stdin(Stdio::null())
            .output();
        output.expect("run kubectl (kubernetes-client)").into()
    }

    /// As [`Cluster::try_kubectl`]; returns standard output.
    ///
    /// # Panics
    /// If the command fails.
    pub fn kubectl(&self, args: &[&str]) -> String {
        self.try_kubectl(args).must(&format!("kubectl {args:?}"))
    }

    /// Applies manifests.
    ///
    /// # Panics
    /// If the cluster refuses them.
    pub fn apply(&self, yaml: &str) {
        let file = write_manifest(yaml);
        self.kubectl(&["apply", "-f", file.path().to_str().expect("a path")]);
    }

    /// An object, or a list of them.
    ///
    /// # Panics
    /// If kubectl fails.
    pub fn get(&self, what: &[&str]) -> Value {
        let text = self.kubectl(&[&["get", "-o", "json"], what].concat());
        serde_json::from_str(&text).expect("JSON from kubectl")
    }

    /// Runs a shell's line in a pod.
    pub fn sh(&self, pod: &str, line: &str) -> Printed {
        self.try_kubectl(&["exec", pod, "--", "sh", "-c", line])
    }

    /// Waits until `holds` gives a value.
    ///
    /// # Panics
    /// If it gives none in two minutes; with what it said last.
    pub fn eventually<T>(&self, what: &str, mut holds: impl FnMut() -> Result<T, String>) -> T {
        let start = Instant::now();
        loop {
            match holds() {
                Ok(value) => return value,
                Err(said) => assert!(start.elapsed() < LIMIT, "not yet: {what}: {said}"),
            }
            std::thread::sleep(PAUSE);
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let gone = self.try_kubectl(&["delete", "namespace", &self.namespace, "--wait=false"]);
        if !gone.ok && !std::thread::panicking() {
            panic!("namespace {}: {}", self.namespace, gone.stderr);
        }
    }
}
