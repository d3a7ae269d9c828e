//! What the machine has, and waiting for what it does.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tempfile::{NamedTempFile, TempDir};

/// A published application's manifests (`online-boutique/...`, `guestbook/...`),
/// which are not part of this repository. `None`, with the reason printed, where
/// they are not beside it.
pub fn published(file: &str) -> Option<PathBuf> {
    let root = std::env::var_os("RIPSTOP_MANIFESTS").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/manifests"),
        PathBuf::from,
    );
    let path = root.join(file);
    if path.exists() {
        return Some(path);
    }
    eprintln!(
        "skipped: no {} (RIPSTOP_MANIFESTS names another folder)",
        path.display()
    );
    None
}

/// A place for a program that containers of a lab are to run: they have an empty
/// `/tmp` and `/run` of their own. It ends with its owner.
///
/// # Panics
/// If it cannot be made.
pub fn visible_folder() -> TempDir {
    let folder = TempDir::new_in("/var/tmp").expect("a folder in /var/tmp");
    let all = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(folder.path(), all).expect("its mode");
    folder
}

/// A file that ends with the test.
///
/// # Panics
/// If it cannot be written.
pub fn write_manifest(yaml: &str) -> NamedTempFile {
    let mut file = NamedTempFile::with_suffix(".yaml").expect("a temporary file");
    file.write_all(yaml.as_bytes()).expect("a temporary file");
    file
}

/// Waits until `holds` gives a value. The time is a limit for a broken product,
/// no measurement.
///
/// # Panics
/// If it gives none for 120 s.
pub fn eventually<T>(what: &str, mut holds: impl FnMut() -> Option<T>) -> T {
    const LIMIT: Duration = Duration::from_secs(120);
    let start = Instant::now();
    loop {
        if let Some(value) = holds() {
            return value;
        }
        assert!(start.elapsed() < LIMIT, "not within {LIMIT:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
