//! Jobs.

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;

use super::Cluster;
use crate::controllers::pod;

fn job(cluster: &Cluster, more: &str) {
    cluster.apply::<Job>(&format!(
        "{{apiVersion: batch/v1, kind: Job, metadata: {{namespace: default, name: work}}, \
         spec: {{{more} \
         template: {{spec: {{restartPolicy: Never, containers: [{{name: c, image: one}}]}}}}}}}}"
    ));
}

fn condition(cluster: &Cluster) -> Vec<(String, String)> {
    let conditions = cluster
        .get::<Job>("work")
        .status
        .unwrap()
        .conditions
        .unwrap_or_default();
    let is_true = conditions.into_iter().filter(|one| one.status == "True");
    is_true
        .map(|one| (one.type_, one.reason.unwrap()))
        .collect()
}

fn counts(cluster: &Cluster) -> (i32, i32, i32) {
    let status = cluster.get::<Job>("work").status.unwrap();
    let n = |count: Option<i32>| count.unwrap_or(0);
    (n(status.active), n(status.succeeded), n(status.failed))
}

#[test]
fn runs_as_many_as_it_may_until_enough_have_succeeded() {
    let mut cluster = Cluster::new(2);
    cluster.behaviour.ends.insert("work-".to_owned(), true);
    job(&cluster, "completions: 5, parallelism: 2,");
    cluster.invariant = Some(Box::new(|client| {
        let pods = client.list::<Pod>(Some("default"));
        assert!(pods.iter().filter(|pod| pod::is_active(pod)).count() <= 2);
    }));
    cluster.settle();
    assert_eq!(counts(&cluster), (0, 5, 0));
    assert_eq!(cluster.pods("work-").len(), 5);
    let reason = "CompletionsReached".to_owned();
    assert_eq!(condition(&cluster)[1], ("Complete".to_owned(), reason));
    assert!(
        cluster
            .get::<Job>("work")
            .status
            .unwrap()
            .completion_time
            .is_some()
    );
    assert_eq!(cluster.events("work").last().unwrap().0, "Completed");
}

#[test]
fn retries_slower_and_slower_and_gives_up() {
    let mut cluster = Cluster::new(1);
    cluster.behaviour.ends.insert("work-".to_owned(), false);
    job(&cluster, "completions: 1, parallelism: 1, backoffLimit: 2,");
    cluster.settle();
    assert_eq!(counts(&cluster), (0, 0, 1));
    cluster.advance(9);
    assert_eq!(counts(&cluster), (0, 0, 1));
    cluster.advance(2);
    assert_eq!(counts(&cluster), (0, 0, 2));
    cluster.advance(19);
    assert_eq!(
        counts(&cluster),
        (0, 0, 2),
        "twice as long after the second"
    );
    cluster.advance(2);
    assert_eq!(counts(&cluster), (0, 0, 3));
    let failed = ("Failed".to_owned(), "BackoffLimitExceeded".to_owned());
    assert_eq!(condition(&cluster)[1], failed);
    cluster.advance(3600);
    assert_eq!(cluster.pods("work-").len(), 3);
}

#[test]
fn a_deadline_ends_it() {
    let mut cluster = Cluster::new(1);
    job(
        &cluster,
        "completions: 1, parallelism: 1, activeDeadlineSeconds: 60,",
    );
    cluster.settle();
    assert_eq!(counts(&cluster), (1, 0, 0));
    cluster.advance(61);
    assert!(cluster.pods("work-").is_empty());
    let failed = ("Failed".to_owned(), "DeadlineExceeded".to_owned());
    assert_eq!(condition(&cluster)[1], failed);
}

#[test]
fn indexed_pods_know_their_index() {
    let mut cluster = Cluster::new(2);
    cluster.behaviour.ends.insert("work-0-".to_owned(), true);
    cluster.behaviour.ends.insert("work-2-".to_owned(), true);
    job(
        &cluster,
        "completions: 4, parallelism: 3, completionMode: Indexed,",
    );
    cluster.settle();
    let status = cluster.get::<Job>("work").status.unwrap();
    assert_eq!(status.completed_indexes.as_deref(), Some("0,2"));
    assert_eq!(counts(&cluster), (2, 2, 0));
    let pod = &cluster.pods("work-3-")[0];
    let spec = pod.spec.as_ref().unwrap();
    assert_eq!(spec.hostname.as_deref(), Some("work-3"));
    assert_eq!(
        spec.containers[0].env.as_ref().unwrap()[0].name,
        "JOB_COMPLETION_INDEX"
    );
    let annotations = pod.metadata.annotations.as_ref().unwrap();
    assert_eq!(annotations["batch.kubernetes.io/job-completion-index"], "3");

    cluster.behaviour.ends.insert("work-".to_owned(), true);
    cluster.settle();
    let status = cluster.get::<Job>("work").status.unwrap();
    assert_eq!(status.completed_indexes.as_deref(), Some("0-3"));
}

#[test]
fn suspended_and_resumed() {
    let mut cluster = Cluster::new(1);
    job(&cluster, "completions: 1, parallelism: 1, suspend: true,");
    cluster.settle();
    assert!(cluster.pods("work-").is_empty());
    assert_eq!(
        condition(&cluster),
        [("Suspended".to_owned(), "JobSuspended".to_owned())]
    );
    cluster.modify::<Job>("work", |job| {
        job.spec.as_mut().unwrap().suspend = Some(false)
    });
    cluster.settle();
    assert_eq!(counts(&cluster), (1, 0, 0));
    assert!(condition(&cluster).is_empty());
}

#[test]
fn a_finished_job_goes_when_its_time_is_over() {
    let mut cluster = Cluster::new(1);
    cluster.behaviour.ends.insert("work-".to_owned(), true);
    job(
        &cluster,
        "completions: 1, parallelism: 1, ttlSecondsAfterFinished: 100,",
    );
    cluster.settle();
    cluster.advance(99);
    assert_eq!(cluster.pods("work-").len(), 1);
    cluster.advance(2);
    assert!(cluster.client.get::<Job>(Some("default"), "work").is_none());
    assert!(cluster.pods("work-").is_empty(), "with its pods");
}
