//! Decisions into writes.

use std::collections::HashMap;

use k8s_openapi::api::core::v1::{Pod, PodCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use ripstop_apiserver::{CauseReason, Client, DeleteOptions, Propagation, Reason, Status};

use super::object::{Key, Kind, Object, for_kind, for_object};
use super::plan::{Action, Event, Removal, Report, Style, Target};

/// What became of one action.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// Written; the object as the API has it now.
    Written(Object),
    /// Done, and the watch will tell.
    Done,
    /// The rest of the plan has lost its ground: decide anew.
    Failed(Failure),
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// Somebody else changed the object in between.
    #[error("{0}")]
    Raced(Status),
    /// The object, or its namespace, is on its way out: nothing to do any more.
    #[error("{0}")]
    Gone(Status),
    /// The API would not have the new object.
    #[error("{0}")]
    CreateRefused(Status),
    #[error("{0}")]
    Refused(Status),
}

/// Executes the actions of one plan. Later writes of a plan build on its earlier
/// ones: the versions that those returned replace the ones decided on.
#[derive(Debug)]
pub(crate) struct Executor<'a> {
    client: &'a Client,
    versions: HashMap<(Kind, Key), String>,
    pub(crate) events: Vec<Event>,
    now: Timestamp,
}

impl<'a> Executor<'a> {
    pub(crate) fn new(client: &'a Client, now: Timestamp) -> Self {
        Self {
            client,
            versions: HashMap::new(),
            events: Vec::new(),
            now,
        }
    }

    pub(crate) fn execute(&mut self, action: Action) -> Outcome {
        match action {
            Action::Create { object, report } => self.create(&object, report),
            Action::Update(object) => {
                let object = self.rebase(object);
                let result =
                    for_object!(&object, inner => self.client.update(&**inner).map(Object::from));
                self.written(result)
            }
            Action::UpdateStatus(object) => {
                let object = self.rebase(object);
                let result = for_object!(&object, inner => self.client.update_status(&**inner).map(Object::from));
                self.written(result)
            }
            Action::Delete {
                target,
                how,
                report,
            } => self.delete(&target, how, report),
            Action::Bind { pod, node } => self.bind(&pod, &node),
            Action::Record(event) => {
                self.events.push(event);
                Outcome::Done
            }
        }
    }

    fn rebase(&self, object: Object) -> Object {
        let Some(version) = self.versions.get(&(object.kind(), object.key())) else {
            return object;
        };
        for_object!(object, inner => {
            let mut inner = (*inner).clone();
            inner.metadata.resource_version = Some(version.clone());
            Object::from(inner)
        })
    }

    fn written(&mut self, result: Result<Object, Status>) -> Outcome {
        match result {
            Ok(object) => {
                if let Some(version) = object.meta().resource_version.clone() {
                    self.versions.insert((object.kind(), object.key()), version);
                }
                Outcome::Written(object)
            }
            Err(status) => Outcome::Failed(match status.reason {
                Reason::Conflict => Failure::Raced(status),
                Reason::NotFound => Failure::Gone(status),
                _ => Failure::Refused(status),
            }),
        }
    }

    fn create(&mut self, object: &Object, report: Option<Report>) -> Outcome {
        let result = for_object!(object, inner => self.client.create(&**inner).map(Object::from));
        match result {
            Ok(created) => {
                self.events
                    .extend(report.map(|report| report.succeeded(Verb::Create, &created.key())));
                self.written(Ok(created))
            }
            Err(status) if is_terminating(&status) => Outcome::Failed(Failure::Gone(status)),
            Err(status) => {
                let name = object.key().name;
                self.events
                    .extend(report.map(|report| report.failed(Verb::Create, &name, &status)));
                Outcome::Failed(Failure::CreateRefused(status))
            }
        }
    }

    fn delete(&mut self, target: &Target, how: Removal, report: Option<Report>) -> Outcome {
        let options = DeleteOptions {
            grace_seconds: (how == Removal::AtOnce).then_some(0),
            propagation: match how {
                Removal::Foreground => Propagation::Foreground,
                Removal::Graceful | Removal::AtOnce => Propagation::Background,
            },
            uid: Some(target.uid.clone()),
            ..DeleteOptions::default()
        };
        let Key { name, .. } = &target.key;
        let result = for_kind!(target.kind, K => {
            self.client.delete_with::<K>(target.key.scope(), name, &options)
        });
        match result {
            Ok(()) => {
                self.events
                    .extend(report.map(|report| report.succeeded(Verb::Delete, &target.key)));
                Outcome::Done
            }
            // Gone already, or another of the same name: as wanted.
            Err(status) if matches!(status.reason, Reason::NotFound | Reason::Conflict) => {
                Outcome::Done
            }
            Err(status) => {
                self.events
                    .extend(report.map(|report| report.failed(Verb::Delete, name, &status)));
                Outcome::Failed(Failure::Refused(status))
            }
        }
    }

    /// The node, and the condition that says so.
    fn bind(&mut self, pod: &Key, node: &str) -> Outcome {
        let bound = self.client.modify::<Pod>(pod.scope(), &pod.name, |pod| {
            let spec = pod.spec.get_or_insert_default();
            spec.node_name.get_or_insert_with(|| node.to_owned());
        });
        let told = bound.and_then(|_| {
            self.client
                .modify_status::<Pod>(pod.scope(), &pod.name, |pod| {
                    let conditions = pod
                        .status
                        .get_or_insert_default()
                        .conditions
                        .get_or_insert_default();
                    conditions.retain(|condition| condition.type_ != "PodScheduled");
                    conditions.push(PodCondition {
                        type_: "PodScheduled".to_owned(),
                        status: "True".to_owned(),
                        last_transition_time: Some(Time(self.now)),
                        ..PodCondition::default()
                    });
                })
        });
        self.written(told.map(Object::from))
    }
}

/// Nothing can be made in a namespace that is being deleted.
fn is_terminating(status: &Status) -> bool {
    let causes = status.details.iter().flat_map(|details| &details.causes);
    status.reason == Reason::NotFound
        || causes
            .into_iter()
            .any(|cause| cause.reason == CauseReason::NamespaceTerminating)
}

#[derive(Clone, Copy, Debug)]
enum Verb {
    Create,
    Delete,
}

impl Report {
    fn succeeded(self, verb: Verb, object: &Key) -> Event {
        let (reason, verb, done) = match verb {
            Verb::Create => ("SuccessfulCreate", "create", "Created"),
            Verb::Delete => ("SuccessfulDelete", "delete", "Deleted"),
        };
        let name = &object.name;
        let message = match self.style {
            Style::Plain => format!("{done} pod: {name}"),
            Style::StatefulSet => {
                let set = self.regarding.name.as_deref().unwrap_or_default();
                format!("{verb} Pod {name} in StatefulSet {set} successful")
            }
        };
        self.event(false, reason, message)
    }

    fn failed(self, verb: Verb, object: &str, status: &Status) -> Event {
        let (reason, verb, doing) = match verb {
            Verb::Create => ("FailedCreate", "create", "Error creating"),
            Verb::Delete => ("FailedDelete", "delete", "Error deleting"),
        };
        let message = match self.style {
            Style::Plain => format!("{doing}: {status}"),
            Style::StatefulSet => {
                let set = self.regarding.name.as_deref().unwrap_or_default();
                format!("{verb} Pod {object} in StatefulSet {set} failed error: {status}")
            }
        };
        self.event(true, reason, message)
    }

    fn event(self, warning: bool, reason: &'static str, message: String) -> Event {
        let Self {
            component,
            regarding,
            ..
        } = self;
        Event {
            component,
            regarding,
            warning,
            reason,
            message,
        }
    }
}
