//! Near misses.

/// The candidate that `name` was probably meant to be: at most one edit in three characters away, swapped neighbours and
/// the case of letters counting as one edit. Among equals the one with the same letters, since letters in the wrong order are
/// likelier than a wrong letter; then the first.
pub(crate) fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let length = name.chars().count();
    if length > 128 {
        return None;
    }
    let limit = length.div_ceil(3).max(1);
    let lower = name.to_lowercase();
    let letters = |s: &str| {
        let mut all: Vec<char> = s.chars().collect();
        all.sort_unstable();
        all
    };
    let mine = letters(name);
    candidates
        .into_iter()
        .filter(|c| c.chars().count().abs_diff(length) <= limit && *c != name)
        .filter_map(|c| {
            let d = if c.to_lowercase() == lower {
                0
            } else {
                strsim::damerau_levenshtein(name, c)
            };
            (d <= limit && d < length).then(|| (d, letters(c) != mine, c))
        })
        .min_by_key(|(d, other, _)| (*d, *other))
        .map(|(_, _, c)| c.to_owned())
}

/// Names so much alike that the one is probably a misspelling of the other: one letter too many, too few or another, two letters
/// swapped, or nothing but their case.
pub(crate) fn nearly_the_same(a: &str, b: &str) -> bool {
    if a == b || a.len().min(b.len()) < 3 || a.len().abs_diff(b.len()) > 1 {
        return false;
    }
    // One change leaves the first letter or the last; most names differ in both.
    let (x, y) = (a.as_bytes(), b.as_bytes());
    let alike = x.first() == y.first() || x.last() == y.last();
    a.eq_ignore_ascii_case(b) || (a.len().min(b.len()) > 3 && alike && strsim::osa_distance(a, b) == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_was_meant() {
        let c = ["push", "pop", "log", "loop", "rax"];
        assert_eq!(nearest("psuh", c).as_deref(), Some("push"));
        assert_eq!(nearest("PUSH", c).as_deref(), Some("push"));
        assert_eq!(nearest("rxa", c).as_deref(), Some("rax"));
        assert_eq!(nearest("u46", ["u16", "u64"]).as_deref(), Some("u64"));
        assert_eq!(nearest("x", c), None);
        assert_eq!(nearest("entirely", c), None);
        assert_eq!(nearest("push", c), None);
    }

    #[test]
    fn nearly_the_same_is_one_change() {
        for (a, b) in [
            ("SIZES", "SIZE"),
            ("taks", "task"),
            ("atsk", "task"),
            ("xask", "task"),
            ("Pid", "pid"),
        ] {
            assert!(nearly_the_same(a, b) && nearly_the_same(b, a), "{a} {b}");
        }
        for (a, b) in [
            ("task", "task"),
            ("cur", "cpu"),
            ("pit", "pid"),
            ("jiffies", "task"),
            ("tsak1", "task"),
        ] {
            assert!(!nearly_the_same(a, b), "{a} {b}");
        }
    }
}
