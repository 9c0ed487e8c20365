//! The order of layer files in a directory: bytewise, but digits count as the number that they stand for, so that 10
//! comes behind 9.

use std::cmp::Ordering;

/// Compares two names.
pub(super) fn compare(one: &[u8], other: &[u8]) -> Ordering {
    let (mut left, mut right) = (one, other);
    while let (Some(first), Some(second)) = (left.first(), right.first()) {
        let order = if first.is_ascii_digit() && second.is_ascii_digit() {
            let ((digits, rest), (other_digits, other_rest)) = (number(left), number(right));
            (left, right) = (rest, other_rest);
            // Without zeros in front, the longer number is the greater.
            digits.len().cmp(&other_digits.len()).then_with(|| digits.cmp(other_digits))
        } else {
            (left, right) = (&left[1..], &right[1..]);
            first.cmp(second)
        };
        if order.is_ne() {
            return order;
        }
    }
    // Of two that count the same, as 1 and 01, any order will do that is always the same.
    left.len().cmp(&right.len()).then_with(|| one.cmp(other))
}

/// The number that a name begins with, without zeros in front, and what is behind it.
fn number(name: &[u8]) -> (&[u8], &[u8]) {
    let end = name.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(name.len());
    let (digits, rest) = name.split_at(end);
    let zeros = digits.iter().take_while(|digit| **digit == b'0').count();
    (&digits[zeros..], rest)
}

#[cfg(test)]
mod tests {
    use super::compare;

    #[test]
    fn numbers_count_as_numbers() {
        let mut names: Vec<String> = (0..130).map(|index| format!("layer-{index}.layer")).collect();
        let expected = names.clone();
        names.sort();
        assert_ne!(names, expected);
        names.sort_by(|one, other| compare(one.as_bytes(), other.as_bytes()));
        assert_eq!(names, expected);
    }

    #[test]
    fn the_order_is_total() {
        let sorted = ["", "0", "00", "a", "a-1", "a01", "a1", "a1b2", "a1b10", "a2", "a99999999999999999999999", "aa"];
        for (at, one) in sorted.iter().enumerate() {
            for (other_at, other) in sorted.iter().enumerate() {
                let order = compare(one.as_bytes(), other.as_bytes());
                assert_eq!(order, at.cmp(&other_at), "{one:?} and {other:?}");
            }
        }
    }
}
