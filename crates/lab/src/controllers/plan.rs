//! Decisions as values: what a controller wants done.

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::jiff::Timestamp;

use super::object::{Cached, Key, Kind, Object, reference};

/// What to do now, in order, and when to look again.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Plan {
    pub(crate) actions: Vec<Action>,
    /// Something changes by time alone (a pod becomes available, a deadline passes).
    pub(crate) again_at: Option<Timestamp>,
}

/// One write. An update carries the version that it was decided on, so that it
/// fails and is decided anew if somebody else wrote in between.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Action {
    Create {
        object: Object,
        report: Option<Report>,
    },
    Update(Object),
    UpdateStatus(Object),
    Delete {
        target: Target,
        how: Removal,
        report: Option<Report>,
    },
    /// Give the pod a node.
    Bind {
        pod: Key,
        node: String,
    },
    Record(Event),
}

/// How an object is deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Removal {
    /// With its own grace period; what it owns goes afterwards.
    #[default]
    Graceful,
    /// Without waiting for anyone.
    AtOnce,
    /// What it owns goes first.
    Foreground,
}

/// Which object, exactly: a later one of the same name is another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) kind: Kind,
    pub(crate) key: Key,
    pub(crate) uid: String,
}

impl Target {
    pub(crate) fn of(object: &Object) -> Self {
        let uid = object.meta().uid.clone().unwrap_or_default();
        Self {
            kind: object.kind(),
            key: object.key(),
            uid,
        }
    }
}

/// An event to record about another object when a write has succeeded or
/// failed: "Created pod: web-x7k2p".
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Report {
    pub(crate) component: &'static str,
    pub(crate) regarding: ObjectReference,
    /// How the kind phrases it.
    pub(crate) style: Style,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    /// "Created pod: x": ReplicaSet, DaemonSet, Job.
    Plain,
    /// "create Pod x in StatefulSet y successful".
    StatefulSet,
}

impl Report {
    pub(crate) fn on<K: Cached>(component: &'static str, owner: &K) -> Self {
        Self {
            component,
            regarding: reference(owner),
            style: Style::Plain,
        }
    }
}

/// What `kubectl describe` shows under Events.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Event {
    pub(crate) component: &'static str,
    pub(crate) regarding: ObjectReference,
    pub(crate) warning: bool,
    pub(crate) reason: &'static str,
    pub(crate) message: String,
}

impl Event {
    pub(crate) fn normal<K: Cached>(
        component: &'static str,
        object: &K,
        reason: &'static str,
        message: impl Into<String>,
    ) -> Self {
        let regarding = reference(object);
        Self {
            component,
            regarding,
            warning: false,
            reason,
            message: message.into(),
        }
    }

    pub(crate) fn warning<K: Cached>(
        component: &'static str,
        object: &K,
        reason: &'static str,
        message: impl Into<String>,
    ) -> Self {
        Self {
            warning: true,
            ..Self::normal(component, object, reason, message)
        }
    }
}

impl Plan {
    pub(crate) fn create(&mut self, object: impl Into<Object>, report: Option<Report>) {
        self.actions.push(Action::Create {
            object: object.into(),
            report,
        });
    }

    pub(crate) fn update(&mut self, object: impl Into<Object>) {
        self.actions.push(Action::Update(object.into()));
    }

    pub(crate) fn update_status(&mut self, object: impl Into<Object>) {
        self.actions.push(Action::UpdateStatus(object.into()));
    }

    pub(crate) fn delete(&mut self, object: &Object, report: Option<Report>) {
        let target = Target::of(object);
        self.actions.push(Action::Delete {
            target,
            how: Removal::Graceful,
            report,
        });
    }

    pub(crate) fn remove(&mut self, object: &Object, how: Removal) {
        let target = Target::of(object);
        self.actions.push(Action::Delete {
            target,
            how,
            report: None,
        });
    }

    pub(crate) fn record(&mut self, event: Event) {
        self.actions.push(Action::Record(event));
    }

    /// Look again at this time, or earlier if that is already asked for.
    pub(crate) fn look_again(&mut self, at: Option<Timestamp>) {
        self.again_at = self.again_at.into_iter().chain(at).min();
    }
}
