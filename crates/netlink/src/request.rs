use netlink_packet_core::{
    NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkHeader,
    NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;

/// One thing that the kernel shall do, and its name for error messages.
#[derive(Clone, Debug)]
pub struct Request {
    message: RouteNetlinkMessage,
    flags: u16,
    operation: String,
    ignore: fn(i32) -> bool,
}

impl Request {
    fn new(message: RouteNetlinkMessage, flags: u16, operation: String) -> Self {
        Self {
            message,
            flags: NLM_F_REQUEST | flags,
            operation,
            ignore: |_| false,
        }
    }

    /// Makes an object that must not exist yet.
    pub(crate) fn create(message: RouteNetlinkMessage, operation: String) -> Self {
        Self::new(message, NLM_F_CREATE | NLM_F_EXCL, operation)
    }

    /// Makes an object or overwrites the one that is there.
    pub(crate) fn replace(message: RouteNetlinkMessage, operation: String) -> Self {
        Self::new(message, NLM_F_CREATE | NLM_F_REPLACE, operation)
    }

    /// Changes or deletes an object.
    pub(crate) fn change(message: RouteNetlinkMessage, operation: String) -> Self {
        Self::new(message, 0, operation)
    }

    /// Reads one object.
    pub(crate) fn get(message: RouteNetlinkMessage, operation: String) -> Self {
        Self::new(message, 0, operation)
    }

    /// Reads all objects of a kind.
    pub(crate) fn dump(message: RouteNetlinkMessage, operation: &str) -> Self {
        Self::new(message, NLM_F_DUMP, operation.to_owned())
    }

    /// For deletions: an object that is gone already is no error.
    #[must_use]
    pub fn if_exists(mut self) -> Self {
        self.ignore = |errno| {
            matches!(
                errno,
                libc::ENODEV | libc::ENOENT | libc::ESRCH | libc::EADDRNOTAVAIL | libc::ENXIO
            )
        };
        self
    }

    /// For creations: an object that is there already is left as it is.
    #[must_use]
    pub fn unless_exists(mut self) -> Self {
        self.ignore = |errno| errno == libc::EEXIST;
        self
    }

    pub(crate) fn with_flags(mut self, flags: u16) -> Self {
        self.flags |= flags;
        self
    }

    /// What it does, in words, with the object's name.
    pub fn operation(&self) -> &str {
        &self.operation
    }

    pub(crate) fn ignores(&self, errno: i32) -> bool {
        (self.ignore)(errno)
    }

    /// Appends the message to `buffer`.
    pub(crate) fn emit(&self, buffer: &mut Vec<u8>, sequence: u32, extra_flags: u16) {
        let mut header = NetlinkHeader::default();
        header.flags = self.flags | extra_flags;
        header.sequence_number = sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::from(self.message.clone()));
        message.finalize();
        let start = buffer.len();
        // Messages that follow one another are aligned to 4 bytes (NLMSG_ALIGN).
        buffer.resize(start + message.buffer_len().next_multiple_of(4), 0);
        message.serialize(&mut buffer[start..]);
    }
}
