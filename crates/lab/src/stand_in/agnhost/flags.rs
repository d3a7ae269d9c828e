//! Command lines as Go's flag libraries read them: `--name value`,
//! `--name=value`, and `--name` alone for a switch.

use super::super::Failure;

/// A command line taken apart.
#[derive(Debug, PartialEq)]
pub(super) struct Flags<'a> {
    values: Vec<(&'a str, &'a str)>,
    pub(super) positional: Vec<&'a str>,
}

impl<'a> Flags<'a> {
    /// `names` are the flags with a value, `switches` those that may have none.
    ///
    /// # Errors
    /// For an unknown flag, or one without its value.
    pub(super) fn parse(
        args: &'a [String],
        names: &[&str],
        switches: &[&str],
    ) -> Result<Self, Failure> {
        let mut flags = Self {
            values: Vec::new(),
            positional: Vec::new(),
        };
        let mut rest = args.iter().map(String::as_str);
        while let Some(arg) = rest.next() {
            let Some(flag) = arg.strip_prefix("--").or_else(|| arg.strip_prefix('-')) else {
                flags.positional.push(arg);
                continue;
            };
            let (name, value) = match flag.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (flag, None),
            };
            let value = if switches.contains(&name) {
                value.unwrap_or("true")
            } else if names.contains(&name) {
                let missing = || Failure::Usage(format!("flag needs an argument: --{name}"));
                value.or_else(|| rest.next()).ok_or_else(missing)?
            } else {
                return Err(Failure::Usage(format!("unknown flag: --{name}")));
            };
            flags.values.push((name, value));
        }
        Ok(flags)
    }

    /// The last value given.
    pub(super) fn text(&self, name: &str) -> Option<&'a str> {
        self.values
            .iter()
            .rev()
            .find(|(n, _)| *n == name)
            .map(|&(_, value)| value)
    }

    /// # Errors
    /// If the value is not `true` or `false`.
    pub(super) fn switch(&self, name: &str, default: bool) -> Result<bool, Failure> {
        self.text(name).map_or(Ok(default), |value| {
            value
                .parse()
                .map_err(|_| invalid(name, value, "true or false"))
        })
    }

    /// A port; `-1` (agnhost's way) means none.
    ///
    /// # Errors
    /// If the value is neither.
    pub(super) fn port(&self, name: &str, default: u16) -> Result<Option<u16>, Failure> {
        match self.text(name) {
            None => Ok(Some(default)),
            Some("-1") => Ok(None),
            Some(value) => {
                let port = value.parse().ok().filter(|&port| port != 0);
                port.map(Some)
                    .ok_or_else(|| invalid(name, value, "a port from 1 to 65535"))
            }
        }
    }
}

pub(super) fn invalid(name: &str, value: &str, wanted: &str) -> Failure {
    Failure::Usage(format!(
        "invalid argument {value:?} for --{name}: must be {wanted}"
    ))
}

/// A duration as Go writes it: `5s`, `1m30s`, `250ms`.
pub(super) fn duration(text: &str) -> Option<std::time::Duration> {
    let mut total = 0.0;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(rest.len());
        let (number, tail) = rest.split_at(digits);
        let unit_end = tail
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_end);
        let seconds = match (unit, text) {
            ("h", _) => 3600.0,
            ("m", _) => 60.0,
            ("s", _) | ("", "0") => 1.0,
            ("ms", _) => 1e-3,
            ("us" | "µs", _) => 1e-6,
            ("ns", _) => 1e-9,
            _ => return None,
        };
        total += number.parse::<f64>().ok()? * seconds;
        rest = tail;
    }
    (!text.is_empty()).then(|| std::time::Duration::from_secs_f64(total))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        line.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn flags_as_go_reads_them() {
        let line = words("--http-port 80 --udp-port=-1 --close host:1");
        let flags = Flags::parse(&line, &["http-port", "udp-port"], &["close"]).unwrap();
        assert_eq!(flags.port("http-port", 8080).unwrap(), Some(80));
        assert_eq!(flags.port("udp-port", 8081).unwrap(), None);
        assert!(flags.switch("close", false).unwrap());
        assert!(!flags.switch("http", false).unwrap());
        assert_eq!(flags.positional, ["host:1"]);
    }

    #[test]
    fn bad_flags_say_what_is_wrong() {
        for (line, message) in [
            ("--nope", "unknown flag: --nope"),
            ("--port", "flag needs an argument: --port"),
            (
                "--port 0",
                "invalid argument \"0\" for --port: must be a port from 1 to 65535",
            ),
        ] {
            let line = words(line);
            let error = Flags::parse(&line, &["port"], &[])
                .and_then(|flags| flags.port("port", 1))
                .unwrap_err();
            assert_eq!(error.to_string(), message);
        }
    }

    #[test]
    fn durations() {
        for (text, millis) in [
            ("5s", Some(5000)),
            ("1m30s", Some(90_000)),
            ("250ms", Some(250)),
            ("1.5s", Some(1500)),
            ("0", Some(0)),
            ("5", None),
            ("s", None),
            ("", None),
        ] {
            let found = duration(text).map(|d| d.as_millis());
            assert_eq!(found, millis, "{text:?}");
        }
    }
}
