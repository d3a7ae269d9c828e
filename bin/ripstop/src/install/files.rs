//! The files that a runtime looks for.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::json;

const PLUGIN: &str = "ripstop-cni";
/// containerd 1.x calls this plugin for each pod; what another package installed
/// is left alone.
const LOOPBACK: &str = "loopback";
/// Runtimes take the first of a folder by name.
const LIST: &str = "05-ripstop.conflist";

/// Where a runtime looks; nothing is written where it does not.
#[derive(Clone, Debug, Default)]
pub(crate) struct Folders {
    pub(crate) bin: Option<PathBuf>,
    pub(crate) conf: Option<PathBuf>,
}

impl Folders {
    /// Puts the plugin, which is beside this program, into its folder; says where.
    ///
    /// # Errors
    /// With the file that cannot be read or written.
    pub(crate) fn write_plugin(&self) -> Result<Option<PathBuf>> {
        let Some(folder) = &self.bin else {
            return Ok(None);
        };
        let exe = std::env::current_exe().context("path of this program")?;
        let plugin = exe.with_file_name(PLUGIN);
        let bytes = fs::read(&plugin).with_context(|| plugin.display().to_string())?;
        let to = folder.join(PLUGIN);
        replace(&to, &bytes, 0o755).with_context(|| to.display().to_string())?;
        let loopback = folder.join(LOOPBACK);
        match symlink(PLUGIN, &loopback) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                Err(error).with_context(|| loopback.display().to_string())
            }
            _ => Ok(Some(to)),
        }
    }

    /// Writes the network list; says where.
    ///
    /// # Errors
    /// With the file that cannot be written.
    pub(crate) fn write_list(&self, run_dir: &Path) -> Result<Option<PathBuf>> {
        let Some(folder) = &self.conf else {
            return Ok(None);
        };
        let to = folder.join(LIST);
        let list = format!("{:#}\n", list(run_dir));
        replace(&to, list.as_bytes(), 0o644).with_context(|| to.display().to_string())?;
        Ok(Some(to))
    }

    /// Removes all of it, the list first; says what was there.
    ///
    /// # Errors
    /// With the file that cannot be removed.
    pub(crate) fn remove(&self) -> Result<Vec<PathBuf>> {
        let list = self.conf.iter().map(|folder| folder.join(LIST));
        let plugin = self.bin.iter().map(|folder| folder.join(PLUGIN));
        let loopback = self.bin.iter().map(|folder| folder.join(LOOPBACK));
        let is_ours = |path: &PathBuf| fs::read_link(path).is_ok_and(|to| to == Path::new(PLUGIN));
        let mut removed = Vec::new();
        for path in list.chain(loopback.filter(is_ours)).chain(plugin) {
            match fs::remove_file(&path) {
                Ok(()) => removed.push(path),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error).with_context(|| path.display().to_string()),
            }
        }
        Ok(removed)
    }
}

/// What a runtime calls for each pod.
fn list(run_dir: &Path) -> serde_json::Value {
    json!({
        // For libcni before 1.2 (containerd 1.x, podman 4), which does not know
        // the list of versions; others take the newest of it.
        "cniVersion": "1.0.0",
        "cniVersions": ["1.0.0", "1.1.0"],
        "name": "ripstop",
        "plugins": [{
            "type": PLUGIN,
            "socket": run_dir.join("cni.sock"),
            "capabilities": {"portMappings": true, "dns": true}
        }]
    })
}

/// Replaces a file at once: whoever opens it has the old one or the new one. A
/// file that is right already is left alone.
fn replace(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    if fs::read(path).is_ok_and(|now| now == bytes) {
        return fs::set_permissions(path, Permissions::from_mode(mode));
    }
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    // Hidden: a runtime reads every *.conflist that it finds.
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let new = path.with_file_name(format!(".{name}.new"));
    fs::write(&new, bytes)?;
    fs::set_permissions(&new, Permissions::from_mode(mode))?;
    fs::File::open(&new)?.sync_all()?;
    fs::rename(&new, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_replaced_and_removed() {
        let dir = tempfile::tempdir().unwrap();
        let folders = Folders {
            bin: None,
            conf: Some(dir.path().join("net.d")),
        };
        assert_eq!(folders.remove().unwrap(), Vec::<PathBuf>::new());
        let path = folders
            .write_list(Path::new("/run/other"))
            .unwrap()
            .unwrap();
        let list: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        assert_eq!(list["plugins"][0]["socket"], "/run/other/cni.sock");
        folders.write_list(Path::new("/run/ripstop")).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains("/run/ripstop/cni.sock"), "{text}");
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o644
        );
        let there = fs::read_dir(dir.path().join("net.d")).unwrap().count();
        assert_eq!(there, 1, "nothing beside it");
        assert_eq!(folders.remove().unwrap(), [path]);
        assert_eq!(folders.write_plugin().unwrap(), None);
    }

    #[test]
    fn a_loopback_of_others_stays() {
        let dir = tempfile::tempdir().unwrap();
        let folders = Folders {
            bin: Some(dir.path().to_owned()),
            conf: None,
        };
        let path = dir.path().join(LOOPBACK);
        fs::write(&path, "of another package").unwrap();
        assert_eq!(folders.remove().unwrap(), Vec::<PathBuf>::new());
        fs::remove_file(&path).unwrap();
        symlink("bridge", &path).unwrap();
        assert_eq!(folders.remove().unwrap(), Vec::<PathBuf>::new());
    }
}
