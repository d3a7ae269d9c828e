//! Which of the words that there are was meant.

/// The word with the fewest letters to change, if these are few.
pub(super) fn nearest<'w>(typed: &str, words: impl Iterator<Item = &'w str>) -> Option<&'w str> {
    let folded = typed.to_ascii_lowercase();
    let (distance, word) = words
        .map(|word| (distance(&folded, &word.to_ascii_lowercase()), word))
        .min()?;
    (distance <= typed.len() / 3).then_some(word)
}

/// Letters to insert, remove or replace (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut before = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let replaced = before + usize::from(from != *to);
            before = row[j + 1];
            row[j + 1] = replaced.min(before + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_meant() {
        let words = ["clusterDns", "clusterCidr", "nodeName"];
        for (typed, meant) in [
            ("clusterDNS", Some("clusterDns")),
            ("clusterCdir", Some("clusterCidr")),
            ("node-name", Some("nodeName")),
            ("replicas", None),
            ("", None),
        ] {
            assert_eq!(nearest(typed, words.into_iter()), meant, "{typed}");
        }
    }
}
