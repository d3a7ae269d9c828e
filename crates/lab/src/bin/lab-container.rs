//! What `ripstop lab-container` does, alone: the integration tests of this
//! crate start their containers with it.

use std::process::ExitCode;

fn main() -> ExitCode {
    ripstop_lab::container::main(std::env::args().skip(2))
}
