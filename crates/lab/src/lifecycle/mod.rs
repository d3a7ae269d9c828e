//! The life of a lab on the machine: what has to be there before, whether one
//! runs, and how it ends without a trace.

mod preflight;
mod record;
mod start;
mod teardown;

pub use preflight::{Preflight, Problem, check_machine};
pub use record::{Lock, Record, RecordError, State, labs, state};
pub use start::{Found, StartError, Started, look, start};
pub use teardown::{Keep, Removed, TeardownError, tear_down};
