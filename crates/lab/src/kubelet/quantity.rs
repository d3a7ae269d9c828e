//! Amounts as Kubernetes writes them: `100m`, `64Mi`, `1e3`.
//! <https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/>

/// In billionths, which is the finest that the notation has.
pub(super) fn nanos(text: &str) -> Option<u128> {
    const UNIT: u128 = 1_000_000_000;
    let digits = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let fraction: String = fraction
        .chars()
        .chain("000000000".chars())
        .take(9)
        .collect();
    let whole: u128 = if whole.is_empty() {
        0
    } else {
        whole.parse().ok()?
    };
    let amount = whole
        .checked_mul(UNIT)?
        .checked_add(fraction.parse().ok()?)?;
    let (multiply, divide): (u128, u128) = match suffix {
        "" => (1, 1),
        "n" => (1, UNIT),
        "u" => (1, 1_000_000),
        "m" => (1, 1000),
        "k" => (1000, 1),
        "M" => (1000u128.pow(2), 1),
        "G" => (1000u128.pow(3), 1),
        "T" => (1000u128.pow(4), 1),
        "P" => (1000u128.pow(5), 1),
        "E" => (1000u128.pow(6), 1),
        "Ki" => (1 << 10, 1),
        "Mi" => (1 << 20, 1),
        "Gi" => (1 << 30, 1),
        "Ti" => (1 << 40, 1),
        "Pi" => (1 << 50, 1),
        "Ei" => (1 << 60, 1),
        exponent => {
            let exponent: i32 = exponent.strip_prefix(['e', 'E'])?.parse().ok()?;
            let power = 10u128.checked_pow(exponent.unsigned_abs())?;
            if exponent < 0 { (1, power) } else { (power, 1) }
        }
    };
    amount.checked_mul(multiply).map(|amount| amount / divide)
}

/// How many times `divisor` fits, rounded up, as a resourceFieldRef gives it.
pub(super) fn divide(amount: &str, divisor: &str) -> Option<u128> {
    // "0" is how an unset divisor is stored.
    let divisor = match nanos(divisor)? {
        0 => nanos("1")?,
        divisor => divisor,
    };
    Some(nanos(amount)?.div_ceil(divisor))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notations() {
        for (text, expected) in [
            ("1", Some(1_000_000_000)),
            ("100m", Some(100_000_000)),
            ("0.5", Some(500_000_000)),
            (".5", Some(500_000_000)),
            ("1Ki", Some(1024 * 1_000_000_000)),
            ("1e3", Some(1_000_000_000_000)),
            ("1E", Some(10u128.pow(27))),
            ("5e-1", Some(500_000_000)),
            ("", None),
            ("Mi", None),
            ("1X", None),
            ("-1", None),
        ] {
            assert_eq!(nanos(text), expected, "{text:?}");
        }
    }

    #[test]
    fn divided_and_rounded_up() {
        for (amount, divisor, expected) in [
            ("100m", "1", 1),
            ("100m", "0", 1),
            ("100m", "1m", 100),
            ("64Mi", "1Mi", 64),
            ("64Mi", "1", 67_108_864),
            ("1500m", "1", 2),
        ] {
            assert_eq!(
                divide(amount, divisor),
                Some(expected),
                "{amount} / {divisor}"
            );
        }
    }
}
