//! The standard library's source, of exactly the compiler's version: cargo
//! refuses any other, and another would give other bytes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::tools::{Compiler, output};
use crate::run::checked;

/// Debian's suite with compilers newer than its release's.
const SUITE: &str = "trixie-backports";
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// The folder `library`: rustup's, else one fetched earlier, else rustup's after
/// asking for it, else Debian's package.
pub(crate) fn find(compiler: &Compiler, directory: &Path) -> Result<PathBuf> {
    let of_rustup = compiler.sysroot.join("lib/rustlib/src/rust/library");
    let unpacked = directory.join("rust-src");
    let of_debian = unpacked
        .join("usr/src")
        .join(format!("rustc-{}", compiler.release));
    let candidates = [of_rustup, of_debian.join("library")];
    let found = || {
        candidates
            .iter()
            .find(|path| path.join("Cargo.lock").exists())
            .cloned()
    };
    if let Some(found) = found() {
        return Ok(found);
    }
    println!("fetching the standard library's source (once)");
    let rustup = Command::new("rustup")
        .args(["component", "add", "rust-src"])
        .output();
    let rustup = match rustup {
        Ok(output) if output.status.success() => "it added something else".to_owned(),
        Ok(output) => String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        Err(error) => error.to_string(),
    };
    if let Some(found) = found() {
        return Ok(found);
    }
    let debian = unpack_debian(compiler, directory, &unpacked);
    found().with_context(|| {
        format!(
            "the standard library's source of {} cannot be had.\n\
             rustup component add rust-src: {rustup}\n\
             rust-src of {SUITE}: {}",
            compiler.release,
            debian
                .err()
                .map_or("has no library".into(), |error| format!("{error:#}"))
        )
    })
}

/// Debian's `rust-src`, unpacked and not installed. The package lists are our
/// own, so that the system never upgrades from that suite.
fn unpack_debian(compiler: &Compiler, directory: &Path, unpacked: &Path) -> Result<()> {
    let apt = directory.join("apt");
    fs::create_dir_all(apt.join("lists/partial"))?;
    fs::create_dir_all(apt.join("cache/archives/partial"))?;
    let sources = apt.join("sources.list");
    let mirror = mirror()?;
    fs::write(
        &sources,
        format!("deb [signed-by={KEYRING}] {mirror} {SUITE} main\n"),
    )?;
    let with_lists = |program: &str| {
        let mut command = Command::new(program);
        command.current_dir(&apt);
        for option in [
            format!("Dir::Etc::SourceList={}", sources.display()),
            "Dir::Etc::SourceParts=/dev/null".into(),
            format!("Dir::State::Lists={}", apt.join("lists").display()),
            format!("Dir::Cache={}", apt.join("cache").display()),
            "APT::Sandbox::User=root".into(),
            "Acquire::Languages=none".into(),
        ] {
            command.args(["-o", &option]);
        }
        command
    };
    output(with_lists("apt-get").args(["--quiet", "update"]))?;
    // Lines of `package | version | origin`.
    let versions = output(with_lists("apt-cache").args(["madison", "rust-src"]))?;
    let prefix = format!("{}+", compiler.release);
    let versions: Vec<&str> = versions
        .lines()
        .filter_map(|line| Some(line.split('|').nth(1)?.trim()))
        .collect();
    let Some(version) = versions.iter().find(|version| version.starts_with(&prefix)) else {
        bail!("it has {versions:?}, not {}", compiler.release);
    };
    let package = format!("rust-src={version}");
    output(with_lists("apt-get").args(["--quiet", "download", &package]))?;
    let archive = fs::read_dir(&apt)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .context("apt-get download left no package")?;
    checked(
        Command::new("dpkg-deb")
            .arg("-x")
            .arg(&archive)
            .arg(unpacked),
    )?;
    fs::remove_file(archive)?;
    Ok(())
}

/// The mirror that this machine gets its packages from.
fn mirror() -> Result<String> {
    let targets = output(Command::new("apt-get").args([
        "indextargets",
        "--format",
        "$(REPO_URI) $(RELEASE)",
        "Created-By: Packages",
    ]))?;
    targets
        .lines()
        .filter_map(|line| line.split_once(' '))
        .find(|(_, release)| !release.contains('-'))
        .map(|(mirror, _)| mirror.to_owned())
        .context("apt knows no Debian mirror (`apt-get indextargets` lists none)")
}
