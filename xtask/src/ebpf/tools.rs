//! What compiling for BPF takes beside the compiler: a linker, and the source
//! of the standard library at the place where cargo looks for it.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::{TARGET, source};
use crate::run::checked;

const LINKER: &str = "bpf-linker";
pub(super) const LINKER_VERSION: &str = "0.13.0";

pub(crate) struct Tools {
    /// The compiler's.
    pub(crate) release: String,
    pub(crate) cargo: PathBuf,
    /// The compiler, with a sysroot of our own. What it compiles for the kernel has
    /// the same symbols wherever the repository is.
    pub(crate) rustc: PathBuf,
    pub(crate) linker: PathBuf,
}

/// The compiler that is installed.
pub(crate) struct Compiler {
    pub(crate) sysroot: PathBuf,
    /// Such as `1.95.0`.
    pub(crate) release: String,
    /// Target triple of this machine.
    host: String,
    /// Major version.
    llvm: String,
}

impl Tools {
    /// Finds or makes everything; what is there from an earlier run stays.
    pub(crate) fn prepare(directory: &Path) -> Result<Self> {
        let compiler = Compiler::installed()?;
        let directory = directory.join(&compiler.release);
        fs::create_dir_all(&directory)?;
        let library = source::find(&compiler, &directory)?;
        Ok(Self {
            cargo: compiler.sysroot.join("bin/cargo"),
            rustc: with_library(&compiler, &library, &directory)?,
            linker: linker(&compiler, &directory)?,
            release: compiler.release,
        })
    }
}

impl Compiler {
    fn installed() -> Result<Self> {
        let sysroot = output(Command::new("rustc").args(["--print", "sysroot"]))?;
        let version = output(Command::new("rustc").arg("-vV"))?;
        let field = |name: &str| {
            let value = version.lines().find_map(|line| line.strip_prefix(name));
            value
                .map(|v| v.trim().to_owned())
                .with_context(|| format!("rustc -vV has no {name}"))
        };
        let llvm = field("LLVM version:")?;
        Ok(Self {
            sysroot: sysroot.trim().into(),
            release: field("release:")?,
            host: field("host:")?,
            llvm: llvm.split('.').next().unwrap_or(&llvm).to_owned(),
        })
    }
}

/// A compiler whose sysroot has the library's source: links to the real one, so
/// that nothing is added to that.
fn with_library(compiler: &Compiler, library: &Path, directory: &Path) -> Result<PathBuf> {
    let sysroot = directory.join("sysroot");
    let rustlib = sysroot.join("lib/rustlib");
    let host = Path::new("lib/rustlib").join(&compiler.host);
    let source = library
        .parent()
        .context("the library's source is in a folder")?;
    fs::create_dir_all(rustlib.join("src"))?;
    link(&compiler.sysroot.join("bin"), &sysroot.join("bin"))?;
    link(&compiler.sysroot.join(&host), &sysroot.join(&host))?;
    link(source, &rustlib.join("src/rust"))?;
    let rustc = directory.join("rustc");
    let real = compiler.sysroot.join("bin/rustc");
    // Cargo tells crates of one name apart by what it hashes their paths to, and
    // symbols have that in their names. Of those for the kernel no two have one name.
    let script = format!(
        "#!/bin/sh\n\
         case \" $* \" in *' --target {TARGET} '*)\n\
         for word do\n\
         case $word in metadata=*) word=metadata=ripstop ;; esac\n\
         shift\n\
         set -- \"$@\" \"$word\"\n\
         done ;;\n\
         esac\n\
         exec '{}' --sysroot '{}' \"$@\"\n",
        real.display(),
        sysroot.display()
    );
    // In the place of an older one, not into it: where folders are copied by hard
    // links it is another folder's, too.
    let new = rustc.with_extension("new");
    fs::write(&new, script)?;
    fs::set_permissions(&new, fs::Permissions::from_mode(0o755))?;
    fs::rename(&new, &rustc)?;
    Ok(rustc)
}

/// The linker, built against the compiler's own LLVM.
fn linker(compiler: &Compiler, directory: &Path) -> Result<PathBuf> {
    let linker = directory.join("bin").join(LINKER);
    if linker.exists() {
        return Ok(linker);
    }
    let lib = compiler.sysroot.join("lib");
    let prefix = format!("libLLVM.so.{}.", compiler.llvm);
    let shared = fs::read_dir(&lib)
        .with_context(|| format!("read {}", lib.display()))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| {
            path.file_name()
                .is_some_and(|n| n.to_string_lossy().starts_with(&prefix))
        });
    let Some(shared) = shared else {
        bail!(
            "{} has no {prefix}*: this needs a compiler from rustup",
            lib.display()
        );
    };
    let llvm = directory.join("llvm");
    fs::create_dir_all(llvm.join("lib"))?;
    link(&shared, &llvm.join("lib/libLLVM.so"))?;
    println!("building {LINKER} {LINKER_VERSION} (once)");
    checked(
        Command::new(compiler.sysroot.join("bin/cargo"))
            .args([
                "install",
                LINKER,
                "--version",
                LINKER_VERSION,
                "--locked",
                "--quiet",
            ])
            .args([
                "--no-default-features",
                "--features",
                &format!("llvm-{}", compiler.llvm),
            ])
            .arg("--root")
            .arg(directory)
            .env("LLVM_PREFIX", &llvm)
            .env(
                "CARGO_ENCODED_RUSTFLAGS",
                [
                    format!("-Lnative={}", llvm.join("lib").display()),
                    format!("-Clink-arg=-Wl,-rpath,{}", lib.display()),
                ]
                .join("\x1f"),
            ),
    )?;
    Ok(linker)
}

/// A symbolic link in the place of any other.
pub(crate) fn link(to: &Path, at: &Path) -> Result<()> {
    if fs::symlink_metadata(at).is_ok() {
        fs::remove_file(at).with_context(|| format!("remove {}", at.display()))?;
    }
    symlink(to, at).with_context(|| format!("link {}", at.display()))
}

/// What a command prints.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output = command
        .output()
        .with_context(|| format!("run {command:?}"))?;
    if !output.status.success() {
        bail!(
            "{command:?}: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(String::from_utf8(output.stdout)?)
}
