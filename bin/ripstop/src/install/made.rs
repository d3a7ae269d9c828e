//! What an agent has made outside of its run directory, for who has to undo it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use ripstop_host::uplink::Change;
use serde::{Deserialize, Serialize};

use super::files::Folders;

const FILE: &str = "made.json";

/// Everything that this agent and those before it were told to use.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Made {
    /// On `lo`.
    pub(crate) cluster_dns: BTreeSet<IpAddr>,
    pub(crate) bpffs: BTreeSet<PathBuf>,
    pub(crate) cgroup_roots: BTreeSet<PathBuf>,
    pub(crate) cni_bin_dirs: BTreeSet<PathBuf>,
    pub(crate) cni_conf_dirs: BTreeSet<PathBuf>,
    /// Interfaces that had no place for programs before.
    pub(crate) prepared: BTreeSet<String>,
    /// By name, as under `/proc/sys`.
    pub(crate) sysctls: BTreeMap<String, Setting>,
}

/// A setting of the kernel's that was changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Setting {
    /// What it was before anything was changed.
    pub(crate) before: String,
    pub(crate) ours: String,
}

impl Made {
    /// Nothing if there is no file.
    ///
    /// # Errors
    /// If it cannot be read.
    pub(crate) fn read(run_dir: &Path) -> Result<Self> {
        let path = run_dir.join(FILE);
        let read = match fs::read(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Self::default()),
            other => other.map_err(anyhow::Error::from),
        };
        read.and_then(|bytes| Ok(serde_json::from_slice(&bytes)?))
            .with_context(|| path.display().to_string())
    }

    pub(crate) fn with_folders(mut self, folders: &Folders) -> Self {
        self.cni_bin_dirs.extend(folders.bin.clone());
        self.cni_conf_dirs.extend(folders.conf.clone());
        self
    }

    /// Notes what is about to be changed; what it was at first stays noted.
    pub(crate) fn will_change(&mut self, changes: &[Change]) {
        for Change {
            name,
            before,
            value,
        } in changes
        {
            let noted = self.sysctls.entry(name.clone()).or_insert(Setting {
                before: before.clone(),
                ours: String::new(),
            });
            (*value).clone_into(&mut noted.ours);
        }
    }

    /// # Errors
    /// If the run directory cannot be written.
    pub(crate) fn write(&self, run_dir: &Path) -> Result<()> {
        let path = run_dir.join(FILE);
        let new = path.with_extension("json.new");
        let bytes = serde_json::to_vec(self)?;
        fs::write(&new, bytes)
            .and_then(|()| fs::rename(&new, &path))
            .with_context(|| path.display().to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_made_before_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let mut made = Made::read(dir.path()).unwrap();
        assert_eq!(made, Made::default());
        made.cluster_dns.insert("10.96.0.10".parse().unwrap());
        made.write(dir.path()).unwrap();
        let mut made = Made::read(dir.path()).unwrap();
        made.cluster_dns.insert("fd00:96::a".parse().unwrap());
        made.write(dir.path()).unwrap();
        assert_eq!(Made::read(dir.path()).unwrap().cluster_dns.len(), 2);
        // What a setting was before anybody changed it is what it goes back to.
        for before in ["0", "1"] {
            made.will_change(&[Change {
                name: "net/x".into(),
                before: before.into(),
                value: "2",
            }]);
        }
        assert_eq!(made.sysctls["net/x"].before, "0");
        fs::write(dir.path().join(FILE), "{").unwrap();
        assert!(Made::read(dir.path()).is_err());
    }
}
