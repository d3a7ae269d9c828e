//! Whether the API server answers.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use tracing::{info, warn};

/// What the watch knows about the API server; says in the log when it goes
/// away and when it is back, once each.
#[derive(Debug, Default)]
pub struct ApiHealth(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    answered: bool,
    /// Last error of the kinds that currently fail.
    failing: BTreeMap<&'static str, String>,
}

/// State of the API server as this node sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ApiState {
    /// No answer yet, and no error.
    Connecting,
    Up,
    /// What went wrong last, by kind of object.
    Away(BTreeMap<&'static str, String>),
}

impl ApiHealth {
    pub fn state(&self) -> ApiState {
        let inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match (inner.failing.is_empty(), inner.answered) {
            (false, _) => ApiState::Away(inner.failing.clone()),
            (true, true) => ApiState::Up,
            (true, false) => ApiState::Connecting,
        }
    }

    pub(crate) fn answers(&self, kind: &'static str) {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        inner.answered = true;
        if inner.failing.remove(kind).is_some() && inner.failing.is_empty() {
            info!("the API server answers again");
        }
    }

    pub(crate) fn fails(&self, kind: &'static str, error: String) {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if inner.failing.is_empty() {
            warn!(
                %error,
                "the API server cannot be followed ({kind}); \
                 the network stays as it is, trying again"
            );
        }
        inner.failing.insert(kind, error);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_up_when_no_kind_fails() {
        let health = ApiHealth::default();
        assert_eq!(health.state(), ApiState::Connecting);
        health.answers("Service");
        assert_eq!(health.state(), ApiState::Up);
        health.fails("Node", "refused".to_owned());
        health.answers("Service");
        let failing = BTreeMap::from([("Node", "refused".to_owned())]);
        assert_eq!(health.state(), ApiState::Away(failing));
        health.answers("Node");
        assert_eq!(health.state(), ApiState::Up);
    }
}
