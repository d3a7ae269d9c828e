//! The executable behind this crate's tests: with the arguments of
//! `ripstop lab-container` it is a container's process; called as a CNI plugin
//! it joins a pod to the node by a plain veth pair.

mod plugin;

use std::process::ExitCode;

fn main() -> ExitCode {
    if std::env::var_os("CNI_COMMAND").is_some() {
        return plugin::main();
    }
    ripstop_lab::container::main(std::env::args().skip(2))
}
