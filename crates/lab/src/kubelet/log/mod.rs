//! What containers write, in files as the container runtime interface has them:
//! `TIME STREAM TAG TEXT`, one line each.
//! <https://github.com/kubernetes/design-proposals-archive/blob/main/node/kubelet-cri-logging.md>

mod read;
mod write;

pub(super) use read::{Filter, last_lines, stream};
pub(super) use write::{Log, pump};

use std::path::{Path, PathBuf};

/// A whole line, or its end.
const FULL: u8 = b'F';
/// A piece of a line that goes on.
const PARTIAL: u8 = b'P';

/// The file of one run of a container: `0.log`, `1.log`, ...
fn file(dir: &Path, run: i32) -> PathBuf {
    dir.join(format!("{run}.log"))
}

/// What was written before the present file got too large.
fn rotated(file: &Path) -> PathBuf {
    file.with_extension("log.1")
}
