//! No client takes all that there is.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

/// Questions to upstream servers at a time, and TCP connections, of one client.
const PER_CLIENT: usize = 128;
/// Of all clients.
const ALL: usize = 2048;

/// What is under way, by client.
#[derive(Debug, Default)]
pub(crate) struct Limits(Arc<Mutex<UnderWay>>);

#[derive(Debug, Default)]
struct UnderWay {
    all: usize,
    clients: HashMap<IpAddr, usize>,
}

/// One thing of one client; dropped, another may come.
#[derive(Debug)]
pub(crate) struct Permit {
    limits: Arc<Mutex<UnderWay>>,
    client: IpAddr,
}

impl Limits {
    pub(crate) fn take(&self, client: IpAddr) -> Option<Permit> {
        let mut under_way = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if under_way.all >= ALL {
            return None;
        }
        let count = under_way.clients.entry(client).or_default();
        if *count >= PER_CLIENT {
            return None;
        }
        *count += 1;
        under_way.all += 1;
        Some(Permit {
            limits: Arc::clone(&self.0),
            client,
        })
    }

    pub(crate) fn under_way(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).all
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut under_way = self.limits.lock().unwrap_or_else(PoisonError::into_inner);
        under_way.all -= 1;
        if let Some(count) = under_way.clients.get_mut(&self.client) {
            *count -= 1;
            if *count == 0 {
                under_way.clients.remove(&self.client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_client_leaves_room_for_others() {
        let limits = Limits::default();
        let [greedy, other] = [1, 2].map(|n| IpAddr::from([10, 244, 0, n]));
        let mut permits: Vec<_> = std::iter::from_fn(|| limits.take(greedy)).collect();
        assert_eq!(permits.len(), PER_CLIENT);
        assert!(limits.take(other).is_some());
        permits.pop();
        assert!(limits.take(greedy).is_some());
        drop(permits);
        assert_eq!(limits.under_way(), 0);
        assert!(limits.0.lock().unwrap().clients.is_empty());
    }
}
