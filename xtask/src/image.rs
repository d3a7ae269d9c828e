//! `cargo xtask image`: the container image, which is the two programs on nothing.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use crate::run::{cargo, checked};

/// Programs that build images, the first that is there.
const BUILDERS: [&str; 3] = ["podman", "buildah", "docker"];

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only make the two programs, in target/image.
    #[arg(long)]
    programs: bool,
    /// Unoptimised ones: quickly compiled, for tests.
    #[arg(long)]
    debug: bool,
    /// Name of the image.
    #[arg(long, default_value = concat!("ripstop:", env!("CARGO_PKG_VERSION")))]
    tag: String,
    /// Who builds it: podman, buildah or docker.
    #[arg(long)]
    builder: Option<PathBuf>,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let folder = programs(args.debug)?;
    println!("{}: both programs, static", folder.display());
    if args.programs {
        return Ok(());
    }
    let builder = match &args.builder {
        Some(builder) => builder.clone(),
        None => builder().context("none of podman, buildah and docker is on the PATH")?,
    };
    let root = root();
    let mut build = std::process::Command::new(&builder);
    build
        .args(["build", "--tag", &args.tag, "--file"])
        .arg(root.join("deploy/Dockerfile"))
        .arg(&folder);
    checked(&mut build)
}

/// Makes the programs so that they need no library, in a folder of their own.
///
/// # Errors
/// If they do not compile, or the C library cannot be linked statically.
pub(crate) fn programs(debug: bool) -> Result<PathBuf> {
    let profile: &[&str] = if debug { &[] } else { &["--release"] };
    let folder = root().join("target/image");
    fs::create_dir_all(&folder)?;
    let built = root().join("target").join(match debug {
        true => "debug",
        false => "release",
    });
    // Only what is linked last has to know: the same libraries serve both kinds of
    // program, and nothing is compiled twice.
    checked(
        cargo()
            .args(["rustc", "--quiet", "--package=ripstop", "--bin=ripstop"])
            .args(profile)
            .args(["--", "-Ctarget-feature=+crt-static", "-Cstrip=debuginfo"]),
    )?;
    place(&built.join("ripstop"), &folder)?;
    // The plugin is static as it is; and the program for this machine is back.
    checked(cargo().args(["build", "--quiet"]).args(profile))?;
    place(&built.join("ripstop-cni"), &folder)?;
    Ok(folder)
}

/// Puts a program into the folder, if it needs nothing else.
fn place(program: &Path, folder: &Path) -> Result<()> {
    let bytes = fs::read(program).with_context(|| program.display().to_string())?;
    ensure!(
        !wants_a_loader(&bytes)?,
        "{} is not static: are the C library's archives installed (Debian: libc6-dev)?",
        program.display()
    );
    let to = folder.join(program.file_name().unwrap_or_default());
    let new = to.with_extension("new");
    // With its mode; whoever runs the old one keeps it.
    fs::copy(program, &new).with_context(|| new.display().to_string())?;
    fs::rename(&new, &to).with_context(|| to.display().to_string())
}

/// Whether a 64-bit ELF file names an interpreter (`PT_INTERP`, elf(5)).
fn wants_a_loader(file: &[u8]) -> Result<bool> {
    const PT_INTERP: u32 = 3;
    let number = |at: usize, bytes: usize| -> Option<u64> {
        let part = file.get(at..at + bytes)?;
        let value = part
            .iter()
            .rev()
            .fold(0, |sum, byte| sum << 8 | u64::from(*byte));
        Some(value)
    };
    if file.get(..6) != Some(b"\x7fELF\x02\x01") {
        bail!("no 64-bit little-endian ELF file");
    }
    let headers = || {
        let (start, size, count) = (number(32, 8)?, number(54, 2)?, number(56, 2)?);
        let offsets = (0..count).map(|index| usize::try_from(start + index * size).ok());
        offsets.collect::<Option<Vec<_>>>()
    };
    let headers = headers().context("ELF header")?;
    let kinds = headers.into_iter().map(|at| number(at, 4));
    let kinds: Option<Vec<_>> = kinds.collect();
    let kinds = kinds.context("program headers of the ELF file")?;
    Ok(kinds.contains(&u64::from(PT_INTERP)))
}

fn builder() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    let there = |name: &&&str| folders.iter().any(|folder| folder.join(*name).is_file());
    BUILDERS.iter().find(there).map(PathBuf::from)
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_that_need_others_are_known() {
        // This test is linked to libraries, as tests are.
        let this = fs::read(std::env::current_exe().unwrap()).unwrap();
        assert!(wants_a_loader(&this).unwrap());
        assert!(wants_a_loader(b"#!/bin/sh\n").is_err());
        assert!(wants_a_loader(b"\x7fELF\x02\x01").is_err());
    }
}
