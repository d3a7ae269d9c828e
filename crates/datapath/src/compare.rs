//! The kernel's services against the plan's, without touching either.

use std::collections::BTreeMap;
use std::fmt::Debug;

use ripstop_plan::{Backend, Frontend, FrontendRow, Outside};

use crate::{BackendState, FrontendState};

/// One line for each thing that is not as planned: frontend, what there is, what
/// should be.
pub fn difference(
    planned: &BTreeMap<Frontend, FrontendRow>,
    found: &[FrontendState],
) -> Vec<String> {
    let mut lines = Vec::new();
    let mut there: BTreeMap<Frontend, &FrontendState> = BTreeMap::new();
    for state in found {
        if there.insert(state.frontend, state).is_some() {
            lines.push(format!("frontend {}: there twice", state.frontend));
        }
    }
    for (frontend, row) in planned {
        match there.remove(frontend) {
            Some(state) => compare(row, state, &mut lines),
            None => lines.push(format!("frontend {frontend}: missing ({})", row.service)),
        }
    }
    let extra = there.into_keys();
    lines.extend(extra.map(|frontend| format!("frontend {frontend}: of no service")));
    lines
}

fn compare(row: &FrontendRow, state: &FrontendState, lines: &mut Vec<String>) {
    let mut differ = |what: &str, found: &dyn Debug, planned: &dyn Debug| {
        let (frontend, service) = (state.frontend, &row.service);
        lines.push(format!(
            "frontend {frontend} ({service}): {what} {found:?}, planned {planned:?}"
        ));
    };
    let found = backends(&state.backends);
    if found != *row.backends {
        differ("backends", &names(&found), &names(&row.backends));
    }
    // Nobody comes from outside to a loopback address.
    if !state.frontend.address.is_loopback() {
        let found = state.outside.as_deref().map(backends);
        let found = found.unwrap_or_else(|| row.backends.to_vec());
        let planned = match &row.outside {
            Outside::Cluster => &row.backends,
            Outside::Local(local) => local,
        };
        if found != **planned {
            differ("backends for outside", &names(&found), &names(planned));
        }
    }
    if state.affinity != row.affinity {
        differ("affinity", &state.affinity, &row.affinity);
    }
    if state.source_ranges != row.source_ranges {
        differ("source ranges", &state.source_ranges, &row.source_ranges);
    }
}

fn backends(states: &[BackendState]) -> Vec<Backend> {
    let mut all: Vec<_> = states.iter().map(|state| state.backend).collect();
    all.sort_unstable();
    all
}

fn names(backends: &[Backend]) -> Vec<String> {
    let name = |b: &Backend| std::net::SocketAddr::new(b.address, b.port).to_string();
    backends.iter().map(name).collect()
}

#[cfg(test)]
mod tests {
    use ripstop_model::{ObjectKey, Protocol};

    use super::*;

    fn frontend(port: u16) -> Frontend {
        Frontend {
            address: "10.96.0.1".parse().unwrap(),
            protocol: Protocol::Tcp,
            port,
        }
    }

    fn backend(host: u8) -> Backend {
        Backend {
            address: [10, 244, 0, host].into(),
            port: 8080,
        }
    }

    fn row(hosts: &[u8]) -> FrontendRow {
        FrontendRow {
            backends: hosts.iter().map(|host| backend(*host)).collect(),
            ..FrontendRow::new(ObjectKey::new("shop", "web"))
        }
    }

    fn state(port: u16, hosts: &[u8]) -> FrontendState {
        let backends = hosts.iter().map(|host| BackendState {
            backend: backend(*host),
            connections: 0,
            bytes: None,
        });
        FrontendState {
            frontend: frontend(port),
            backends: backends.collect(),
            outside: None,
            affinity: None,
            affinities_held: 0,
            source_ranges: Vec::new(),
            refused: 0,
        }
    }

    #[test]
    fn what_is_as_planned_gives_no_line() {
        let planned = BTreeMap::from([(frontend(80), row(&[1, 2])), (frontend(81), row(&[]))]);
        let found = [state(80, &[2, 1]), state(81, &[])];
        assert_eq!(difference(&planned, &found), [""; 0]);
    }

    #[test]
    fn each_difference_is_named() {
        let local = FrontendRow {
            outside: Outside::Local(vec![backend(1)].into()),
            affinity: Some(60),
            ..row(&[1, 2])
        };
        let planned = BTreeMap::from([(frontend(80), row(&[1])), (frontend(81), local)]);
        let found = [state(81, &[1, 2]), state(82, &[])];
        assert_eq!(
            difference(&planned, &found),
            [
                "frontend 10.96.0.1:80/TCP: missing (shop/web)",
                "frontend 10.96.0.1:81/TCP (shop/web): backends for outside \
                 [\"10.244.0.1:8080\", \"10.244.0.2:8080\"], planned [\"10.244.0.1:8080\"]",
                "frontend 10.96.0.1:81/TCP (shop/web): affinity None, planned Some(60)",
                "frontend 10.96.0.1:82/TCP: of no service",
            ]
        );
    }
}
