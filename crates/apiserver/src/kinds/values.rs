//! Values with a syntax of their own: amounts, times, base64.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::jiff::Timestamp;
use serde_json::Value;

/// A resource amount. A bare number becomes the string that the API writes.
///
/// # Errors
/// If it is no number with an optional suffix (`m`, `k`, `Mi`, `e3`, ...).
pub(super) fn quantity(value: &mut Value) -> Result<(), String> {
    match value {
        Value::Number(number) => {
            *value = Value::from(number.to_string());
            Ok(())
        }
        Value::String(text) if is_quantity(text) => Ok(()),
        _ => Err(format!(
            "Invalid value: {value}: quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
        )),
    }
}

fn is_quantity(text: &str) -> bool {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let end = unsigned
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(unsigned.len());
    let (number, suffix) = unsigned.split_at(end);
    if !number.contains(|c: char| c.is_ascii_digit()) || number.matches('.').count() > 1 {
        return false;
    }
    let exponent = |digits: &str| {
        let digits = digits.strip_prefix(['+', '-']).unwrap_or(digits);
        !digits.is_empty() && digits.bytes().all(|c| c.is_ascii_digit())
    };
    matches!(
        suffix,
        "" | "n"
            | "u"
            | "m"
            | "k"
            | "M"
            | "G"
            | "T"
            | "P"
            | "E"
            | "Ki"
            | "Mi"
            | "Gi"
            | "Ti"
            | "Pi"
            | "Ei"
    ) || suffix.strip_prefix(['e', 'E']).is_some_and(exponent)
}

/// The number that an amount stands for; `None` if it is none.
pub(super) fn amount(text: &str) -> Option<f64> {
    let end = text
        .find(|c: char| !c.is_ascii_digit() && !matches!(c, '.' | '+' | '-'))
        .unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let number: f64 = number.parse().ok()?;
    let factor = match suffix {
        "" => 1.0,
        "n" => 1e-9,
        "u" => 1e-6,
        "m" => 1e-3,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        "P" => 1e15,
        "E" => 1e18,
        "Ki" => 1024.0,
        "Mi" => 1024f64.powi(2),
        "Gi" => 1024f64.powi(3),
        "Ti" => 1024f64.powi(4),
        "Pi" => 1024f64.powi(5),
        "Ei" => 1024f64.powi(6),
        _ => 10f64.powi(suffix.strip_prefix(['e', 'E'])?.parse().ok()?),
    };
    Some(number * factor)
}

/// How exactly a time is written.
#[derive(Clone, Copy, Debug)]
pub(super) enum Precision {
    Seconds,
    Microseconds,
}

/// A time of RFC 3339, rewritten in UTC.
///
/// # Errors
/// If it is none.
pub(super) fn time(value: &mut Value, precision: Precision) -> Result<(), String> {
    let Some(text) = value.as_str() else {
        return Err(format!(
            "json: cannot unmarshal {value} into Go value of type string"
        ));
    };
    let Ok(instant) = text.parse::<Timestamp>() else {
        return Err(format!(
            "parsing time {text:?} as \"2006-01-02T15:04:05Z07:00\": cannot parse {text:?}"
        ));
    };
    let written = match precision {
        Precision::Seconds => instant.strftime("%Y-%m-%dT%H:%M:%SZ"),
        Precision::Microseconds => instant.strftime("%Y-%m-%dT%H:%M:%S%.6fZ"),
    };
    *value = Value::from(written.to_string());
    Ok(())
}

/// Base64 of the standard alphabet, padded.
///
/// # Errors
/// If it is none.
pub(super) fn bytes(value: &Value) -> Result<(), String> {
    let Some(text) = value.as_str() else {
        return Err(format!(
            "json: cannot unmarshal {value} into Go value of type []byte"
        ));
    };
    match STANDARD.decode(text) {
        Ok(_) => Ok(()),
        Err(error) => Err(format!("illegal base64 data: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities() {
        for right in [
            "0", "1", "1.5", ".5", "100m", "1Ki", "2e3", "2E-3", "-1", "+1Gi", "1E",
        ] {
            assert!(quantity(&mut Value::from(right)).is_ok(), "{right}");
        }
        for wrong in ["", "m", "1.2.3", "1x", "1KB", "1 Gi", "e3", "2e", "."] {
            assert!(quantity(&mut Value::from(wrong)).is_err(), "{wrong}");
        }
        let mut number = Value::from(2);
        quantity(&mut number).unwrap();
        assert_eq!(number, "2");
    }

    #[test]
    fn times_are_rewritten() {
        for (given, precision, written) in [
            (
                "2026-01-02T03:04:05Z",
                Precision::Seconds,
                "2026-01-02T03:04:05Z",
            ),
            (
                "2026-01-02T03:04:05.9+01:00",
                Precision::Seconds,
                "2026-01-02T02:04:05Z",
            ),
            (
                "2026-01-02T03:04:05Z",
                Precision::Microseconds,
                "2026-01-02T03:04:05.000000Z",
            ),
        ] {
            let mut value = Value::from(given);
            time(&mut value, precision).unwrap();
            assert_eq!(value, written);
        }
        for wrong in ["", "yesterday", "2026-13-01T00:00:00Z"] {
            assert!(
                time(&mut Value::from(wrong), Precision::Seconds).is_err(),
                "{wrong}"
            );
        }
    }

    #[test]
    fn base64_is_checked() {
        assert!(bytes(&Value::from("YQ==")).is_ok());
        assert!(bytes(&Value::from("YQ")).is_err());
        assert!(bytes(&Value::from(1)).is_err());
    }
}
