//! Patterns of names, as redis has them: `*`, `?`, `[abc]`, `[^a-z]`, and a backslash before what stands for itself.

/// The longest pattern, in bytes: each byte of it may be compared with each byte of a name.
pub(crate) const MAX_PATTERN: usize = 512;

/// How many bytes of the pattern are looked at for one name at most; one that takes more does not match.
const MAX_STEPS: usize = 1 << 20;

/// Whether the pattern describes all of the name, and how much was compared to find out.
pub(crate) fn matches(pattern: &[u8], name: &[u8]) -> (bool, usize) {
    let (mut at, mut from, mut steps) = (0, 0, 0);
    // Where to go on if what follows the last star does not fit here.
    let mut again: Option<(usize, usize)> = None;
    loop {
        steps += 1;
        if steps > MAX_STEPS {
            return (false, steps);
        }
        if pattern.get(at) == Some(&b'*') {
            again = Some((at + 1, from));
            at += 1;
            continue;
        }
        let fits = match (pattern.get(at), name.get(from)) {
            (None, None) => return (true, steps),
            (Some(_), Some(&byte)) => one(&pattern[at..], byte, &mut steps),
            _ => None,
        };
        match (fits, again) {
            (Some(taken), _) => (at, from) = (at + taken, from + 1),
            (None, Some((after, begun))) if begun < name.len() => {
                again = Some((after, begun + 1));
                (at, from) = (after, begun + 1);
            }
            (None, _) => return (false, steps),
        }
    }
}

/// How much of the pattern describes this byte, if its front does.
fn one(pattern: &[u8], byte: u8, steps: &mut usize) -> Option<usize> {
    match pattern {
        [b'?', ..] => Some(1),
        [b'\\', literal, ..] => (*literal == byte).then_some(2),
        [b'[', rest @ ..] => set(rest, byte, steps).map(|taken| taken + 1),
        [literal, ..] => (*literal == byte).then_some(1),
        [] => None,
    }
}

/// The same for what follows an opening bracket. One that is never closed ends with the pattern.
fn set(pattern: &[u8], byte: u8, steps: &mut usize) -> Option<usize> {
    let negated = pattern.first() == Some(&b'^');
    let mut at = usize::from(negated);
    let mut found = false;
    loop {
        at += match &pattern[at..] {
            [] => break,
            [b']', ..] => {
                at += 1;
                break;
            }
            [b'\\', literal, ..] => {
                found |= *literal == byte;
                2
            }
            [from, b'-', to, ..] => {
                found |= (*from.min(to)..=*from.max(to)).contains(&byte);
                3
            }
            [literal, ..] => {
                found |= *literal == byte;
                1
            }
        };
    }
    *steps += at;
    (found != negated).then_some(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_those_of_redis() {
        for (pattern, name, is) in [
            ("", "", true),
            ("", "a", false),
            ("*", "", true),
            ("*", "anything", true),
            ("h?llo", "hello", true),
            ("h?llo", "hllo", false),
            ("h*llo", "heeello", true),
            ("h[ae]llo", "hallo", true),
            ("h[ae]llo", "hillo", false),
            ("h[^e]llo", "hallo", true),
            ("h[^e]llo", "hello", false),
            ("h[a-b]llo", "hbllo", true),
            ("h[b-a]llo", "hallo", true),
            ("h[a-b]llo", "hcllo", false),
            ("a\\*b", "a*b", true),
            ("a\\*b", "axb", false),
            ("[\\]]", "]", true),
            ("[a", "a", true),
            ("*a*b", "xaxxb", true),
            ("*a*b", "xaxxbc", false),
            ("user:*:name", "user:12:name", true),
            ("user:*:name", "user:12:age", false),
            ("\\", "\\", true),
            ("a**b", "ab", true),
        ] {
            assert_eq!(matches(pattern.as_bytes(), name.as_bytes()).0, is, "{pattern:?} of {name:?}");
        }
    }

    #[test]
    fn the_worst_pattern_ends() {
        let pattern = "*a".repeat(MAX_PATTERN / 2 - 1) + "b";
        for pattern in [pattern, format!("*[{}]", "b".repeat(MAX_PATTERN - 3))] {
            let (is, steps) = matches(pattern.as_bytes(), &vec![b'a'; 1 << 20]);
            assert!(!is && steps <= MAX_STEPS + MAX_PATTERN, "{steps}");
        }
        // Each byte of a set is looked at for each byte of a name.
        let (_, steps) = matches(format!("*[{}]", "b".repeat(500)).as_bytes(), &[b'a'; 1000]);
        assert!(steps > 500 * 1000, "{steps}");
    }
}
