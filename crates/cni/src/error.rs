use std::fmt;

use serde_json::{Value, json};

/// Error codes of the specification, section "Error"; from 100 on they are a
/// plugin's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    IncompatibleVersion = 1,
    UnsupportedField = 2,
    UnknownContainer = 3,
    InvalidEnvironment = 4,
    Io = 5,
    Decode = 6,
    InvalidConfig = 7,
    TryAgainLater = 11,
    NotAvailable = 50,
    NoConnectivity = 51,
    /// No address is free.
    AddressesExhausted = 100,
    /// The container has an interface of this name already.
    AlreadyAttached = 101,
    /// Another pod has the host port.
    HostPortTaken = 102,
    /// CHECK found something else than ADD made.
    Differs = 103,
    /// The kernel or the datapath refused.
    Refused = 104,
}

/// What a plugin prints when it fails.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    pub code: Code,
    /// One line, for people.
    pub msg: String,
    /// More of it; may be empty.
    pub details: String,
}

impl Error {
    pub fn new(code: Code, msg: impl Into<String>) -> Self {
        Self {
            code,
            msg: msg.into(),
            details: String::new(),
        }
    }

    #[must_use]
    pub fn details(self, details: impl Into<String>) -> Self {
        Self {
            details: details.into(),
            ..self
        }
    }

    /// The error object; `version` is what the runtime asked for.
    pub fn to_json(&self, version: &str) -> Value {
        let mut object = json!({
            "cniVersion": version,
            "code": self.code as u32,
            "msg": self.msg,
        });
        if !self.details.is_empty() {
            object["details"] = Value::from(self.details.as_str());
        }
        object
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (CNI error {})", self.msg, self.code as u32)?;
        if self.details.is_empty() {
            Ok(())
        } else {
            write!(f, ": {}", self.details)
        }
    }
}

impl std::error::Error for Error {}
