use std::fmt;
use std::str::FromStr;

use serde_json::{Value, json};

use crate::{Code, Error};

/// A version of the specification that we speak. Later ones are greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    V0_3_1,
    V0_4_0,
    V1_0_0,
    V1_1_0,
}

impl Version {
    pub const ALL: [Self; 4] = [Self::V0_3_1, Self::V0_4_0, Self::V1_0_0, Self::V1_1_0];
    pub const NEWEST: Self = Self::V1_1_0;

    pub fn as_str(self) -> &'static str {
        match self {
            Self::V0_3_1 => "0.3.1",
            Self::V0_4_0 => "0.4.0",
            Self::V1_0_0 => "1.0.0",
            Self::V1_1_0 => "1.1.0",
        }
    }

    /// The answer to VERSION; `asked` is the runtime's `cniVersion`, if it gave one.
    pub fn result(asked: Option<&str>) -> Value {
        json!({
            "cniVersion": asked.unwrap_or(Self::NEWEST.as_str()),
            "supportedVersions": Self::ALL.map(Self::as_str),
        })
    }

    /// The version since which there is a command.
    pub fn of_command(command: &str) -> Self {
        match command {
            "CHECK" => Self::V0_4_0,
            "STATUS" | "GC" => Self::V1_1_0,
            _ => Self::V0_3_1,
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Version {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        Self::ALL
            .into_iter()
            .find(|version| version.as_str() == text)
            .ok_or_else(|| {
                let known = Self::ALL.map(Self::as_str).join(", ");
                Error::new(
                    Code::IncompatibleVersion,
                    format!("cniVersion {text:?} is not supported; these are: {known}"),
                )
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ordered_and_read_back() {
        assert!(Version::ALL.is_sorted());
        for version in Version::ALL {
            assert_eq!(version.to_string().parse::<Version>().unwrap(), version);
        }
        let error = "0.2.0".parse::<Version>().unwrap_err();
        assert_eq!(error.code, Code::IncompatibleVersion);
        assert!(
            error.msg.contains("0.3.1, 0.4.0, 1.0.0, 1.1.0"),
            "{}",
            error.msg
        );
    }
}
