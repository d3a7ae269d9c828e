//! What a lab left on the machine, if anything.

use std::fs;
use std::path::Path;

/// Objects whose names say that they are a lab's.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Leftovers {
    pub namespaces: Vec<String>,
    pub mounts: Vec<String>,
    pub cgroups: Vec<String>,
    pub processes: Vec<i32>,
    pub files: Vec<String>,
}

impl Leftovers {
    /// Looks for everything of the lab `name`.
    pub fn of(name: &str) -> Self {
        let root = format!("/run/ripstop/lab/{name}");
        let in_root = |text: &str| text.contains(&format!("{root}/")) || text.ends_with(&root);
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let points = mounts.lines().filter_map(|line| line.split(' ').nth(1));
        let cgroups = mounts.lines().filter_map(|line| {
            let mut fields = line.split(' ').skip(1);
            let path = Path::new(fields.next()?).join(format!("ripstop.{name}"));
            (fields.next()? == "cgroup2" && path.exists()).then(|| path.display().to_string())
        });
        Self {
            namespaces: fs::read_dir("/run/netns")
                .into_iter()
                .flatten()
                .flatten()
                .map(|entry| entry.file_name().to_string_lossy().into_owned())
                .filter(|namespace| namespace.starts_with(&format!("{name}.")))
                .collect(),
            mounts: points
                .filter(|point| in_root(point))
                .map(str::to_owned)
                .collect(),
            cgroups: cgroups.collect(),
            processes: Self::processes(|command| in_root(command)),
            files: Some(root.clone())
                .filter(|root| Path::new(root).exists())
                .into_iter()
                .collect(),
        }
    }

    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Ids of the processes whose command line, words parted by spaces, is wanted.
    pub fn processes(wanted: impl Fn(&str) -> bool) -> Vec<i32> {
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        let ids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        ids.filter(|id: &i32| {
            let command = fs::read_to_string(format!("/proc/{id}/cmdline")).unwrap_or_default();
            wanted(&command.replace('\0', " "))
        })
        .collect()
    }
}
