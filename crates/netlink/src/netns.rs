//! Network namespaces by path, as container runtimes name them.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};

/// Where `ip netns` and container runtimes keep named namespaces.
pub const RUN_NETNS: &str = "/run/netns";

/// An open network namespace; the namespace lives at least as long as this.
#[derive(Debug)]
pub struct Netns {
    file: File,
    path: PathBuf,
}

impl Netns {
    /// Opens the namespace that `path` names.
    ///
    /// # Errors
    /// If there is no such file or it cannot be opened.
    pub fn open(path: impl Into<PathBuf>) -> io::Result<Self> {
        let path = path.into();
        Ok(Self {
            file: File::open(&path)?,
            path,
        })
    }

    /// The namespace of the calling thread.
    ///
    /// # Errors
    /// If `/proc` is not mounted.
    pub fn current() -> io::Result<Self> {
        Self::open("/proc/thread-self/ns/net")
    }

    /// Makes an empty namespace and binds it to `/run/netns/NAME`, where
    /// `ip netns` shows it.
    ///
    /// # Errors
    /// [`io::ErrorKind::AlreadyExists`] if the name is taken; else what the
    /// kernel said. Nothing is left behind after an error.
    pub fn create(name: &str) -> io::Result<Self> {
        let path = Path::new(RUN_NETNS).join(name);
        std::fs::create_dir_all(RUN_NETNS)?;
        File::options().write(true).create_new(true).open(&path)?;
        let bound = std::thread::scope(|scope| {
            // A thread of its own: unshare would otherwise move the caller.
            scope
                .spawn(|| -> io::Result<()> {
                    unshare(CloneFlags::CLONE_NEWNET)?;
                    mount(
                        Some("/proc/thread-self/ns/net"),
                        &path,
                        None::<&str>,
                        MsFlags::MS_BIND,
                        None::<&str>,
                    )?;
                    Ok(())
                })
                .join()
                .unwrap_or_else(|_| Err(io::Error::other("namespace thread panicked")))
        });
        if let Err(error) = bound.and_then(|()| Self::open(&path).map(drop)) {
            let _ = std::fs::remove_file(&path);
            return Err(error);
        }
        Self::open(path)
    }

    /// Unbinds `/run/netns/NAME`. The namespace ends when its last process,
    /// socket and open file do. One that is gone already is no error.
    ///
    /// # Errors
    /// If the mount is busy or the file cannot be removed.
    pub fn remove(name: &str) -> io::Result<()> {
        let path = Path::new(RUN_NETNS).join(name);
        match umount2(&path, MntFlags::MNT_DETACH) {
            // EINVAL: a plain file, left by a creation that was cut short.
            Ok(()) | Err(nix::Error::EINVAL | nix::Error::ENOENT) => {}
            Err(error) => return Err(error.into()),
        }
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// True if both are the same namespace, whatever their paths.
    ///
    /// # Errors
    /// If one of them cannot be looked at.
    pub fn is_same(&self, other: &Self) -> io::Result<bool> {
        let (one, other) = (self.file.metadata()?, other.file.metadata()?);
        Ok((one.dev(), one.ino()) == (other.dev(), other.ino()))
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Runs `f` with the calling thread inside this namespace, then returns the
    /// thread to where it was. Sockets that `f` opens stay in the namespace.
    ///
    /// # Errors
    /// If the namespace cannot be entered.
    ///
    /// # Panics
    /// If the thread cannot return: going on in a wrong namespace would be worse.
    pub fn run<T>(&self, f: impl FnOnce() -> T) -> io::Result<T> {
        /// Returns the thread also when `f` panics.
        struct Return(File);
        impl Drop for Return {
            fn drop(&mut self) {
                setns(&self.0, CloneFlags::CLONE_NEWNET).expect("a namespace that we came from");
            }
        }
        let home = Return(File::open("/proc/thread-self/ns/net")?);
        setns(&self.file, CloneFlags::CLONE_NEWNET)?;
        let result = f();
        drop(home);
        Ok(result)
    }
}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}
