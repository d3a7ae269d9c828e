//! Volumes: directories of the pod, and where its containers see them.
//! <https://kubernetes.io/docs/concepts/storage/volumes/>

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Component, Path, PathBuf};

use k8s_openapi::api::core::v1::{
    Container, DownwardAPIVolumeFile, KeyToPath, Pod, Volume, VolumeProjection,
};

use super::expand::expand;
use super::facts::{ConfigError, Facts, Sources};
use crate::container::spec::Bind;

/// Mode of files that come from objects.
const DEFAULT_MODE: i32 = 0o644;

/// A volume cannot be made (yet).
#[derive(Debug, thiserror::Error)]
pub(super) enum VolumeError {
    #[error("MountVolume.SetUp failed for volume {volume:?} : {source}")]
    Config { volume: String, source: ConfigError },
    #[error("MountVolume.SetUp failed for volume {volume:?} : {source}")]
    Io { volume: String, source: io::Error },
    #[error("container {container:?} mounts volume {volume:?}, which the pod does not have")]
    Unknown { container: String, volume: String },
    #[error("subPath {path:?} of volume {volume:?} leads out of it")]
    SubPath { volume: String, path: String },
}

/// One file of a volume.
struct Content {
    path: String,
    bytes: Vec<u8>,
    mode: Option<i32>,
}

/// Makes the pod's volumes under `dir`. What is returned are the volumes whose
/// kind the lab does not have: they are empty directories, and people are told.
///
/// # Errors
/// The first volume that cannot be made.
pub(super) fn prepare(
    dir: &Path,
    facts: &Facts<'_>,
    sources: &impl Sources,
) -> Result<Vec<String>, VolumeError> {
    let mut substituted = Vec::new();
    for volume in volumes(facts.pod) {
        let name = || volume.name.clone();
        let io = |source| VolumeError::Io {
            volume: name(),
            source,
        };
        let target = dir.join(&volume.name);
        fs::create_dir_all(&target).map_err(io)?;
        let contents = contents(volume, facts, sources).map_err(|source| VolumeError::Config {
            volume: name(),
            source,
        })?;
        match contents {
            Some(files) => write(&target, &files).map_err(io)?,
            None => {
                own(&target, facts.pod).map_err(io)?;
                if volume.empty_dir.is_none() {
                    substituted.push(name());
                }
            }
        }
    }
    Ok(substituted)
}

fn volumes(pod: &Pod) -> impl Iterator<Item = &Volume> {
    pod.spec
        .iter()
        .flat_map(|spec| spec.volumes.iter().flatten())
}

/// A directory that the pod's users may write.
fn own(dir: &Path, pod: &Pod) -> io::Result<()> {
    let security = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.security_context.as_ref());
    let group = security
        .and_then(|s| s.fs_group)
        .and_then(|gid| u32::try_from(gid).ok());
    if let Some(gid) = group {
        chown(dir, None, Some(gid))?;
    }
    // With a group, what is made inside belongs to it too.
    let mode = if group.is_some() { 0o2777 } else { 0o777 };
    fs::set_permissions(dir, PermissionsExt::from_mode(mode))
}

fn write(dir: &Path, files: &[Content]) -> io::Result<()> {
    for file in files {
        let path = dir.join(inside(&file.path).ok_or(io::ErrorKind::InvalidInput)?);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(&path, &file.bytes)?;
        let mode = file
            .mode
            .and_then(|mode| u32::try_from(mode).ok())
            .unwrap_or(0o644);
        fs::set_permissions(&path, PermissionsExt::from_mode(mode))?;
    }
    Ok(())
}

/// A relative path that stays below where it starts.
fn inside(path: &str) -> Option<&Path> {
    let path = Path::new(path);
    path.components()
        .all(|c| matches!(c, Component::Normal(_) | Component::CurDir))
        .then_some(path)
}

/// The files of a volume, or `None` if it is a directory to write to.
fn contents(
    volume: &Volume,
    facts: &Facts<'_>,
    sources: &impl Sources,
) -> Result<Option<Vec<Content>>, ConfigError> {
    let reader = Reader { facts, sources };
    if let Some(from) = &volume.config_map {
        let files = reader.config_map(&from.name, from.items.as_deref(), from.optional)?;
        return Ok(Some(with_mode(files, from.default_mode)));
    }
    if let Some(from) = &volume.secret {
        let name = from.secret_name.as_deref().unwrap_or_default();
        let files = reader.secret(name, from.items.as_deref(), from.optional)?;
        return Ok(Some(with_mode(files, from.default_mode)));
    }
    if let Some(from) = &volume.downward_api {
        let files = reader.downward(from.items.as_deref().unwrap_or_default())?;
        return Ok(Some(with_mode(files, from.default_mode)));
    }
    if let Some(from) = &volume.projected {
        let mut files = Vec::new();
        for source in from.sources.iter().flatten() {
            files.extend(reader.projection(source)?);
        }
        return Ok(Some(with_mode(files, from.default_mode)));
    }
    Ok(None)
}

fn with_mode(mut files: Vec<Content>, default: Option<i32>) -> Vec<Content> {
    for file in &mut files {
        file.mode = file.mode.or(default).or(Some(DEFAULT_MODE));
    }
    files
}

struct Reader<'a, S> {
    facts: &'a Facts<'a>,
    sources: &'a S,
}

impl<S: Sources> Reader<'_, S> {
    fn config_map(
        &self,
        name: &str,
        items: Option<&[KeyToPath]>,
        optional: Option<bool>,
    ) -> Result<Vec<Content>, ConfigError> {
        let found = self
            .sources
            .config_map(self.facts.namespace(), name)
            .map(|map| {
                let text = map.data.unwrap_or_default().into_iter();
                let bytes = map.binary_data.unwrap_or_default().into_iter();
                text.map(|(key, value)| (key, value.into_bytes()))
                    .chain(bytes.map(|(key, value)| (key, value.0)))
                    .collect()
            });
        self.select("configmap", name, items, optional, found)
    }

    fn secret(
        &self,
        name: &str,
        items: Option<&[KeyToPath]>,
        optional: Option<bool>,
    ) -> Result<Vec<Content>, ConfigError> {
        let found = self
            .sources
            .secret(self.facts.namespace(), name)
            .map(|secret| {
                secret
                    .data
                    .unwrap_or_default()
                    .into_iter()
                    .map(|(key, value)| (key, value.0))
                    .collect()
            });
        self.select("secret", name, items, optional, found)
    }

    fn select(
        &self,
        kind: &'static str,
        name: &str,
        items: Option<&[KeyToPath]>,
        optional: Option<bool>,
        found: Option<BTreeMap<String, Vec<u8>>>,
    ) -> Result<Vec<Content>, ConfigError> {
        let optional = optional == Some(true);
        let Some(mut data) = found else {
            return match optional {
                true => Ok(Vec::new()),
                false => Err(ConfigError::NoObject {
                    kind,
                    name: name.to_owned(),
                }),
            };
        };
        let Some(items) = items.filter(|items| !items.is_empty()) else {
            let all = data.into_iter();
            return Ok(all
                .map(|(path, bytes)| Content {
                    path,
                    bytes,
                    mode: None,
                })
                .collect());
        };
        let mut files = Vec::new();
        for item in items {
            match data.remove(&item.key) {
                Some(bytes) => {
                    files.push(Content {
                        path: item.path.clone(),
                        bytes,
                        mode: item.mode,
                    });
                }
                None if optional => {}
                None => {
                    return Err(ConfigError::NoKey {
                        kind,
                        namespace: self.facts.namespace().to_owned(),
                        name: name.to_owned(),
                        key: item.key.clone(),
                    });
                }
            }
        }
        Ok(files)
    }

    fn downward(&self, items: &[DownwardAPIVolumeFile]) -> Result<Vec<Content>, ConfigError> {
        items
            .iter()
            .map(|item| {
                let text = match (&item.field_ref, &item.resource_field_ref) {
                    (Some(field), _) => self.facts.field(field)?,
                    (None, Some(resource)) => self.facts.resource(resource, None)?,
                    (None, None) => String::new(),
                };
                Ok(Content {
                    path: item.path.clone(),
                    bytes: text.into_bytes(),
                    mode: item.mode,
                })
            })
            .collect()
    }

    /// Service account tokens are left out: the lab's API knows certificates only.
    fn projection(&self, source: &VolumeProjection) -> Result<Vec<Content>, ConfigError> {
        if let Some(from) = &source.config_map {
            return self.config_map(&from.name, from.items.as_deref(), from.optional);
        }
        if let Some(from) = &source.secret {
            return self.secret(&from.name, from.items.as_deref(), from.optional);
        }
        if let Some(from) = &source.downward_api {
            return self.downward(from.items.as_deref().unwrap_or_default());
        }
        Ok(Vec::new())
    }
}

/// Where `container` sees the volumes that were made under `dir`.
///
/// # Errors
/// For a volume that the pod does not have, or a path that leads out of one.
pub(super) fn mounts(
    dir: &Path,
    pod: &Pod,
    container: &Container,
    env: &BTreeMap<String, String>,
) -> Result<Vec<Bind>, VolumeError> {
    let mut binds = Vec::new();
    for mount in container.volume_mounts.iter().flatten() {
        let volume = volumes(pod)
            .find(|volume| volume.name == mount.name)
            .ok_or_else(|| VolumeError::Unknown {
                container: container.name.clone(),
                volume: mount.name.clone(),
            })?;
        let mut source = dir.join(&volume.name);
        let expression = mount
            .sub_path_expr
            .as_deref()
            .map(|path| expand(path, &[env]));
        if let Some(path) = expression.or_else(|| mount.sub_path.clone()) {
            source.push(inside(&path).ok_or_else(|| VolumeError::SubPath {
                volume: mount.name.clone(),
                path: path.clone(),
            })?);
            // As kubelet does: a directory, if nothing is there.
            if !source.exists() {
                let made = fs::create_dir_all(&source).and_then(|()| own(&source, pod));
                made.map_err(|source| VolumeError::Io {
                    volume: mount.name.clone(),
                    source,
                })?;
            }
        }
        let from_objects = volume.config_map.is_some()
            || volume.secret.is_some()
            || volume.downward_api.is_some()
            || volume.projected.is_some();
        binds.push(Bind {
            source,
            target: PathBuf::from(&mount.mount_path),
            read_only: from_objects || mount.read_only == Some(true),
            optional: false,
        });
    }
    Ok(binds)
}

#[cfg(test)]
#[path = "volumes_tests.rs"]
mod tests;
