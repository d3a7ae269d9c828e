//! Numbers that a manifest may write as a number or as a percentage.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// Which way a percentage of a whole is rounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Round {
    Up,
    Down,
}

/// `25%` of `total`, or the number itself. A text that is no percentage counts
/// as nothing; the API does not let one in.
pub(crate) fn scaled(value: &IntOrString, total: i32, round: Round) -> i32 {
    match value {
        IntOrString::Int(number) => *number,
        IntOrString::String(text) => {
            let Some(percent) = text.strip_suffix('%').and_then(|n| n.parse::<i64>().ok()) else {
                return 0;
            };
            let product = i64::from(total) * percent;
            let whole = match round {
                Round::Up => (product + 99).div_euclid(100),
                Round::Down => product.div_euclid(100),
            };
            i32::try_from(whole).unwrap_or(i32::MAX)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages_round_as_asked() {
        let quarter = IntOrString::String("25%".into());
        for (total, up, down) in [(0, 0, 0), (1, 1, 0), (3, 1, 0), (4, 1, 1), (10, 3, 2)] {
            assert_eq!(scaled(&quarter, total, Round::Up), up, "{total}");
            assert_eq!(scaled(&quarter, total, Round::Down), down, "{total}");
        }
        assert_eq!(scaled(&IntOrString::Int(7), 3, Round::Up), 7);
        assert_eq!(scaled(&IntOrString::String("many".into()), 3, Round::Up), 0);
    }
}
