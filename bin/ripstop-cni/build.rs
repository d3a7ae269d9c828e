//! Links the plugin statically where the C library allows it: it is copied to
//! nodes whose libraries are others, and is started for every pod, and half of
//! the time of a start would be the loading of libraries.
//!
//! `-C target-feature=+crt-static` would do the same for the whole workspace,
//! macros included, which cannot be. So the linker finds, before everything
//! else, a folder in which each library that the standard library wants exists
//! as an archive only.

use std::env;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Names that the standard library links, and the archives that stand for them.
const LIBRARIES: [(&str, &str); 7] = [
    ("libgcc_s.a", "libgcc_eh.a"),
    ("libutil.a", "libutil.a"),
    ("librt.a", "librt.a"),
    ("libpthread.a", "libpthread.a"),
    ("libm.a", "libm.a"),
    ("libdl.a", "libdl.a"),
    ("libc.a", "libc.a"),
];

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let variable = |name| env::var(name).unwrap_or_default();
    let native = variable("HOST") == variable("TARGET");
    let gnu_linux =
        variable("CARGO_CFG_TARGET_OS") == "linux" && variable("CARGO_CFG_TARGET_ENV") == "gnu";
    let folder = PathBuf::from(variable("OUT_DIR")).join("archives");
    // Without static libraries (some distributions have them apart) the plugin
    // is linked as any other program.
    if native && gnu_linux && links_statically(&folder) && gather(&folder).is_some() {
        println!("cargo::rustc-link-search=native={}", folder.display());
        for argument in [
            "-static",
            "-no-pie",
            "-Wl,--start-group",
            "-lgcc",
            "-lgcc_eh",
            "-lc",
            "-Wl,--end-group",
        ] {
            println!("cargo::rustc-link-arg={argument}");
        }
    }
}

/// True if the C compiler makes a static program.
fn links_statically(folder: &Path) -> bool {
    let source = folder.with_extension("c");
    fs::write(&source, "int main(void) { return 0; }\n").is_ok()
        && Command::new("cc")
            .arg("-static")
            .arg(&source)
            .arg("-o")
            .arg(folder.with_extension("probe"))
            .output()
            .is_ok_and(|output| output.status.success())
}

/// Fills `folder` with links to the compiler's archives.
fn gather(folder: &Path) -> Option<()> {
    let _ = fs::remove_dir_all(folder);
    fs::create_dir_all(folder).ok()?;
    for (name, archive) in LIBRARIES {
        let output = Command::new("cc")
            .arg(format!("-print-file-name={archive}"))
            .output()
            .ok()?;
        let path = PathBuf::from(String::from_utf8(output.stdout).ok()?.trim());
        // The compiler repeats the bare name of what it does not find.
        if !path.is_absolute() {
            return None;
        }
        symlink(path, folder.join(name)).ok()?;
    }
    Some(())
}
