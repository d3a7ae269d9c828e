//! All controllers on the real store, with a stand-in for the node loop. Time
//! stands still unless a test moves it; nothing waits for the clock.

mod cluster;
mod daemons;
mod jobs;
mod life;
mod load_balancers;
mod manifests;
mod rollouts;
mod scheduling;
mod services;
mod sets;

use cluster::Cluster;
