//! Globs: `*` is any text, in a path without `/`; `**` is any text. Linear in the value's length for each literal.

use alloc::vec::Vec;

/// Longest glob, bytes.
pub(crate) const LONGEST: usize = 511;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token {
    Byte(u8),
    /// Any text without a slash.
    Star,
    /// Any text.
    Stars,
}

/// A compiled glob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glob {
    tokens: Vec<Token>,
    /// What stands on both sides of its only star, if it has one only.
    ends: Option<(Vec<u8>, Token, Vec<u8>)>,
    /// `/dir/**`, which is also for `/dir` itself.
    and_dir: bool,
}

impl Glob {
    /// Compiles it. `path`: a `*` stops at slashes, and `/dir/**` is for `/dir`, too. What is longer than 511 bytes
    /// is cut, and such a glob never gets here: [`crate::Pattern::check`] refuses it.
    pub fn new(text: &str, path: bool) -> Glob {
        let mut tokens = Vec::with_capacity(text.len());
        let mut rest = &text.as_bytes()[..text.len().min(LONGEST)];
        while let [byte, tail @ ..] = rest {
            rest = tail;
            if *byte != b'*' {
                tokens.push(Token::Byte(*byte));
                continue;
            }
            let stars = !path || rest.first() == Some(&b'*');
            while let [b'*', tail @ ..] = rest {
                rest = tail;
            }
            let star = if stars { Token::Stars } else { Token::Star };
            tokens.push(star);
        }
        let and_dir = path && (4..=LONGEST).contains(&text.len()) && text.ends_with("/**");
        let mut stars = tokens.iter().enumerate().filter(|(_, token)| !matches!(token, Token::Byte(_)));
        let ends = match (stars.next(), stars.next()) {
            (Some((at, star)), None) => {
                Some((bytes(tokens[..at].iter()), *star, bytes(tokens[at + 1..].iter())))
            }
            _ => None,
        };
        Glob { tokens, ends, and_dir }
    }

    /// The text that every value begins with, and what follows is a star.
    pub(crate) fn prefix(&self) -> Vec<u8> {
        let mut prefix = bytes(self.tokens.iter());
        if self.and_dir && prefix.len() + 1 == self.tokens.len() {
            prefix.pop(); // without the slash: the directory itself counts as well
        }
        prefix
    }

    /// The text that every value ends with.
    pub(crate) fn suffix(&self) -> Vec<u8> {
        let mut suffix = bytes(self.tokens.iter().rev());
        suffix.reverse();
        suffix
    }

    /// The one value that fits, if it has no star.
    pub(crate) fn whole(&self) -> Option<Vec<u8>> {
        let literal = bytes(self.tokens.iter());
        (literal.len() == self.tokens.len()).then_some(literal)
    }

    /// Whether all of `value` fits.
    pub fn matches(&self, value: &[u8]) -> bool {
        if let Some((prefix, star, suffix)) = &self.ends {
            let between = value.strip_prefix(&prefix[..]).and_then(|rest| rest.strip_suffix(&suffix[..]));
            return match between {
                Some(between) => *star == Token::Stars || !between.contains(&b'/'),
                None => self.and_dir && value == &prefix[..prefix.len() - 1],
            };
        }
        fits(&self.tokens, value) || (self.and_dir && fits(&self.tokens[..self.tokens.len() - 2], value))
    }
}

fn bytes<'a>(tokens: impl Iterator<Item = &'a Token>) -> Vec<u8> {
    let byte = |token: &Token| match token {
        Token::Byte(byte) => Some(*byte),
        _ => None,
    };
    tokens.map_while(byte).collect()
}

/// Whether `tokens` fit all of `value`.
fn fits(tokens: &[Token], value: &[u8]) -> bool {
    let stars = tokens.iter().position(|t| *t == Token::Stars);
    let mixed = stars.is_some_and(|at| tokens[at..].contains(&Token::Star));
    if mixed { at_once(tokens, value) } else { greedy(tokens, value) }
}

/// For globs without a `*` behind a `**`. Going back is never further than to the last star: a later one can take
/// whatever an earlier one could have, or stands behind a slash that ends what the earlier one can take.
fn greedy(tokens: &[Token], value: &[u8]) -> bool {
    let (mut t, mut v) = (0, 0);
    let mut back: Option<(usize, usize)> = None;
    loop {
        match tokens.get(t) {
            Some(Token::Byte(byte)) if value.get(v) == Some(byte) => {
                (t, v) = (t + 1, v + 1);
                continue;
            }
            Some(Token::Star | Token::Stars) => {
                t += 1;
                back = Some((t, v));
                continue;
            }
            None if v == value.len() => return true,
            _ => {}
        }
        let Some((after, at)) = back else { return false };
        match value.get(at) {
            Some(b'/') if tokens[after - 1] == Token::Star => return false,
            Some(_) => {
                back = Some((after, at + 1));
                (t, v) = (after, at + 1);
            }
            None => return false,
        }
    }
}

/// For all globs of up to [`LONGEST`] tokens: every place that could be reached is followed at once.
fn at_once(tokens: &[Token], value: &[u8]) -> bool {
    let mut now = [0u64; LONGEST / 64 + 1];
    reach(tokens, &mut now, 0);
    for &byte in value {
        let mut next = [0u64; LONGEST / 64 + 1];
        let mut some = false;
        for (word, bits) in now.iter().enumerate() {
            let mut bits = *bits;
            while bits != 0 {
                let at = word * 64 + bits.trailing_zeros() as usize;
                bits &= bits - 1;
                match tokens.get(at) {
                    Some(Token::Byte(want)) if *want == byte => reach(tokens, &mut next, at + 1),
                    Some(Token::Star) if byte != b'/' => reach(tokens, &mut next, at),
                    Some(Token::Stars) => reach(tokens, &mut next, at),
                    _ => continue,
                }
                some = true;
            }
        }
        if !some {
            return false;
        }
        now = next;
    }
    now[tokens.len() / 64] >> (tokens.len() % 64) & 1 == 1
}

/// Notes a place, and those that stars make reachable from it.
fn reach(tokens: &[Token], places: &mut [u64], mut at: usize) {
    loop {
        places[at / 64] |= 1 << (at % 64);
        match tokens.get(at) {
            Some(Token::Star | Token::Stars) => at += 1,
            _ => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// As one would define it.
    fn naive(tokens: &[Token], value: &[u8]) -> bool {
        match tokens.split_first() {
            None => value.is_empty(),
            Some((Token::Byte(byte), rest)) => value.first() == Some(byte) && naive(rest, &value[1..]),
            Some((Token::Star, rest)) => {
                let most = value.iter().position(|&b| b == b'/').unwrap_or(value.len());
                (0..=most).any(|n| naive(rest, &value[n..]))
            }
            Some((Token::Stars, rest)) => (0..=value.len()).any(|n| naive(rest, &value[n..])),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn a_glob_matches_what_its_definition_says(glob in "/?([ab/]|\\*|\\*\\*){0,9}", value in "/?[ab/]{0,12}") {
            let compiled = Glob::new(&glob, true);
            prop_assert_eq!(at_once(&compiled.tokens, value.as_bytes()), naive(&compiled.tokens, value.as_bytes()));
            let dir = glob.strip_suffix("/**").filter(|dir| !dir.is_empty() && compiled.and_dir);
            let whole = naive(&compiled.tokens, value.as_bytes())
                || dir.is_some_and(|dir| naive(&Glob::new(dir, true).tokens, value.as_bytes()));
            prop_assert_eq!(compiled.matches(value.as_bytes()), whole);
            prop_assert_eq!(fits(&compiled.tokens, value.as_bytes()), naive(&compiled.tokens, value.as_bytes()));
        }
    }

    #[test]
    fn stars_mean_what_operators_expect() {
        let path = |glob, value: &str| Glob::new(glob, true).matches(value.as_bytes());
        assert!(path("/manager/**", "/manager/html/x"));
        assert!(path("/manager/**", "/manager/"));
        assert!(path("/manager/**", "/manager"));
        assert!(!path("/manager/**", "/managers"));
        assert!(path("/img/*.png", "/img/a.png"));
        assert!(!path("/img/*.png", "/img/a/b.png"));
        assert!(path("/**.jsp", "/a/b.jsp"));
        assert!(path("/a/*/c/**", "/a/b/c/d"));
        assert!(path("/**", "/"));
        assert!(Glob::new("*.example", false).matches(b"a.b.example"));
        assert!(!Glob::new("*.example", false).matches(b"example"));
        assert!(Glob::new("Mozilla/*", false).matches(b"Mozilla/5.0 (x/y)"));
    }
}
