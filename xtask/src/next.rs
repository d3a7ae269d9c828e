//! `cargo xtask next-version`: ripstop with kernel tables of another form, in
//! `target/next`, for the tests of upgrades and downgrades.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result};

use crate::ebpf;
use crate::run::{cargo, checked};

/// What a build needs that was built already, and how it is taken: what cargo
/// writes into again is copied, the large rest is linked.
const KEPT: [(&str, &str); 3] = [
    (".fingerprint", "--no-dereference"),
    ("build", "--no-dereference"),
    ("deps", "--link"),
];

pub(crate) fn run() -> Result<()> {
    let root = ebpf::root();
    let next = root.join("target/next");
    fs::create_dir_all(next.join("debug"))?;
    let object = next.join("programs.bpf.o");
    let built = ebpf::build_next().context("programs with other tables")?;
    // One that is the same is not written: what is made of it would be built again.
    if fs::read(&object).ok().as_ref() != Some(&built) {
        fs::write(&object, built)?;
    }
    for (kept, how) in KEPT {
        let from = root.join("target/debug").join(kept);
        let to = next.join("debug").join(kept);
        if !to.exists() && from.exists() {
            let mut copy = Command::new("cp");
            checked(
                copy.args(["--recursive", "--preserve=mode,timestamps", how])
                    .args([&from, &to]),
            )?;
        }
    }
    checked(
        cargo()
            .current_dir(&root)
            .args(["build", "--quiet", "--package", "ripstop"])
            .args(["--features", "next-layout", "--target-dir"])
            .arg(&next),
    )
}
