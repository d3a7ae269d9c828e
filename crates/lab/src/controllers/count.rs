//! Counting, as the API's statuses want it.

/// The number of items, as the `int32` that statuses hold.
pub(crate) fn count<T>(items: impl Iterator<Item = T>) -> i32 {
    i32::try_from(items.count()).unwrap_or(i32::MAX)
}

/// A count that statuses leave out when it is zero.
pub(crate) fn nonzero(count: i32) -> Option<i32> {
    (count != 0).then_some(count)
}
