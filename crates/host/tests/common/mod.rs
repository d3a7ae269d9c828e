//! Namespaces that go away with the test.

use std::ops::Deref;

use ripstop_netlink::netns::Netns;

/// A namespace with a name of this process's own, removed when dropped.
#[derive(Debug)]
pub(crate) struct TestNetns {
    name: String,
    netns: Netns,
}

impl TestNetns {
    pub(crate) fn new(name: &str) -> Self {
        let name = format!("ripstop-test-{}.{name}", std::process::id());
        let netns = Netns::create(&name).expect("root makes network namespaces");
        Self { name, netns }
    }
}

impl Deref for TestNetns {
    type Target = Netns;
    fn deref(&self) -> &Netns {
        &self.netns
    }
}

impl Drop for TestNetns {
    fn drop(&mut self) {
        if let Err(error) = Netns::remove(&self.name) {
            eprintln!("{}: {error}", self.name);
        }
    }
}
