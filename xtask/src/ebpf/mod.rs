//! `cargo xtask ebpf`: compiles the kernel programs into the object that is
//! committed. Everything that it needs is kept in `target/ebpf-tools`; the
//! toolchain itself is left as it is.

mod record;
mod source;
mod tools;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::run::checked;
use tools::Tools;

/// Where `crates/datapath` embeds it from.
const OBJECT: &str = "crates/datapath/src/ebpf/programs.bpf.o";
const TARGET: &str = "bpfel-unknown-none";
const CARGO: [&str; 8] = [
    "build",
    "--quiet",
    "--locked",
    "--release",
    "--target",
    TARGET,
    // The target has no compiled library: `core` is built with it, which stable
    // compilers do only for who asks like this.
    "-Z",
    "build-std=core",
];

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Change nothing: fail if the committed object is not what its source gives.
    #[arg(long)]
    check: bool,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let root = root();
    let tools = tools(&root)?;
    let built = build(&root, &tools, &[])?;
    let committed = root.join(OBJECT);
    let same = fs::read(&committed).is_ok_and(|bytes| bytes == built);
    if args.check {
        ensure!(
            same,
            "{OBJECT} is not what ebpf/ and crates/abi give with the compiler {}: \
             run `cargo xtask ebpf` and commit what it writes",
            tools.release
        );
        record::check(&root)?;
    } else {
        fs::write(&committed, &built).with_context(|| format!("write {}", committed.display()))?;
        record::write(&root, &tools.release, &folder(&root).join("programs.d"))?;
    }
    let what = if same { "up to date" } else { "written" };
    println!("{OBJECT}: {what}, {} bytes", built.len());
    Ok(())
}

/// The programs of the version that does not exist: see the feature `next-layout`
/// of `crates/abi`.
///
/// # Errors
/// If the compiler's tools cannot be had, or the compiler fails.
pub(crate) fn build_next() -> Result<Vec<u8>> {
    let root = root();
    build(&root, &tools(&root)?, &["--features", "next-layout"])
}

fn tools(root: &Path) -> Result<Tools> {
    Tools::prepare(&root.join("target/ebpf-tools"))
}

/// Compiles `ebpf/`. The bytes depend on the source and the compiler's version,
/// not on where either is: no path is in them, and no name is made from one
/// ([`Tools::rustc`]).
fn build(root: &Path, tools: &Tools, more: &[&str]) -> Result<Vec<u8>> {
    let flags = [
        format!("-Clinker={}", tools.linker.display()),
        format!("--remap-path-prefix={}=", root.display()),
    ];
    checked(
        Command::new(&tools.cargo)
            .current_dir(root.join("ebpf"))
            .args(CARGO)
            .args(more)
            .env("RUSTC_BOOTSTRAP", "1")
            .env("RUSTC", &tools.rustc)
            // Nothing of the outer cargo's, or of the user's own settings.
            .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"))
            .env("CARGO_TARGET_DIR", root.join("target/ebpf"))
            .env_remove("RUSTC_WRAPPER")
            .env_remove("RUSTUP_TOOLCHAIN"),
    )?;
    let built = folder(root).join("programs");
    fs::read(&built).with_context(|| format!("read {}", built.display()))
}

/// Where the compiler leaves the programs.
fn folder(root: &Path) -> PathBuf {
    root.join("target/ebpf").join(TARGET).join("release")
}

pub(crate) fn root() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest
        .parent()
        .expect("xtask is a folder of the repository")
        .to_owned()
}
