//! Rules, compiled.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use crate::index::{Found, Index, Scratch};
use crate::path::BadPath;
use crate::{Condition, Facts, Key as Counted, Pattern, REGEXES, RULES, Rule, What};

/// Why rules cannot be compiled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// The rule's number.
    pub rule: usize,
    /// What is wrong, a clause.
    pub why: String,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}

/// Compiled rules; see the crate.
#[derive(Debug, Default)]
pub struct Program {
    rules: Vec<Compiled>,
    /// Rules by their most selective conditions, one index for each thing looked at.
    keys: Vec<Key>,
    /// Numbers of rules, sorted within each list.
    postings: Vec<u32>,
    /// Postings of the rules that no index can find.
    always: (u32, u32),
    reads_path: bool,
}

#[derive(Debug)]
struct Compiled {
    conditions: Vec<Asked>,
    asked: Vec<Counted>,
    last: bool,
}

#[derive(Debug)]
struct Asked {
    negated: bool,
    what: What,
    any: Index,
}

#[derive(Debug)]
struct Key {
    what: What,
    index: Index,
    /// Postings by the number of a pattern.
    lists: Vec<(u32, u32)>,
}

impl Program {
    /// Compiles rules.
    ///
    /// # Errors
    /// If there are too many, or a pattern of one cannot be looked for.
    pub fn new(rules: &[Rule]) -> Result<Program, Error> {
        if rules.len() > RULES {
            return Err(Error { rule: RULES, why: alloc::format!("there are more than {RULES} rules") });
        }
        let mut program = Program::default();
        let mut regexes: BTreeMap<&What, usize> = BTreeMap::new();
        let filed_by = most_selective(rules);
        for (number, rule) in rules.iter().enumerate() {
            let wrong = |why| Error { rule: number, why };
            let mut conditions = Vec::with_capacity(rule.conditions.len());
            for condition in &rule.conditions {
                for pattern in &condition.any {
                    pattern.check().map_err(wrong)?;
                    if matches!(pattern, Pattern::Regex(_)) {
                        *regexes.entry(&condition.what).or_default() += 1;
                    }
                }
                if regexes.get(&condition.what).is_some_and(|&n| n > REGEXES) {
                    return Err(wrong(alloc::format!("there are more than {REGEXES} regular expressions")));
                }
                program.reads_path |= condition.what == What::Path;
            }
            for (index, condition) in rule.conditions.iter().enumerate() {
                // What a rule is found by is known to hold.
                if filed_by[number] == Some(index) {
                    continue;
                }
                let any = Index::new(&condition.what, distinct(&condition.any)).map_err(wrong)?;
                conditions.push(Asked { negated: condition.negated, what: condition.what.clone(), any });
            }
            // Whatever costs least to find false is asked first.
            conditions.sort_by_key(|asked| cost(&asked.what));
            program.reads_path |= rule.asked.iter().any(|key| key.parts.contains(&What::Path));
            program.rules.push(Compiled { conditions, asked: rule.asked.clone(), last: rule.last });
        }
        program.file(rules, &filed_by)?;
        Ok(program)
    }

    /// Whether there is no rule.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Files every rule under its most selective condition.
    fn file(&mut self, rules: &[Rule], filed_by: &[Option<usize>]) -> Result<(), Error> {
        let mut filed: BTreeMap<&What, BTreeMap<&Pattern, Vec<u32>>> = BTreeMap::new();
        let mut always = Vec::new();
        for (number, (rule, best)) in (0u32..).zip(rules.iter().zip(filed_by)) {
            match best.and_then(|best| rule.conditions.get(best)) {
                None => always.push(number),
                Some(condition) => {
                    let lists = filed.entry(&condition.what).or_default();
                    for (pattern, _) in distinct(&condition.any) {
                        lists.entry(pattern).or_default().push(number);
                    }
                }
            }
        }
        self.always = self.post(&always);
        for (what, lists) in filed {
            let lists = networks_once(lists);
            let index = Index::new(what, lists.iter().zip(0..).map(|((pattern, _), id)| (*pattern, id)))
                .map_err(|why| Error { rule: 0, why })?;
            let lists = lists.into_iter().map(|(_, rules)| self.post(&rules)).collect();
            self.keys.push(Key { what: what.clone(), index, lists });
        }
        Ok(())
    }

    fn post(&mut self, rules: &[u32]) -> (u32, u32) {
        let start = self.postings.len() as u32;
        self.postings.extend_from_slice(rules);
        (start, self.postings.len() as u32)
    }

    /// Finds the rules that match, in order, up to the first that ends it: [`Scratch::hits`]. Nobody is asked about
    /// keys.
    ///
    /// # Errors
    /// If a rule looks at the path, and it cannot be read.
    pub fn evaluate(&self, facts: &Facts<'_>, scratch: &mut Scratch) -> Result<(), BadPath> {
        self.evaluate_asking(facts, scratch, &mut |_, _, _| true)
    }

    /// The same; `ask` is asked about each key of a rule whose conditions hold: the rule's number, the key's, and its
    /// value. A rule with a key that the request does not have does not match.
    ///
    /// # Errors
    /// If a rule looks at the path, and it cannot be read.
    pub fn evaluate_asking(
        &self,
        facts: &Facts<'_>,
        scratch: &mut Scratch,
        ask: &mut dyn FnMut(u32, usize, &[u8]) -> bool,
    ) -> Result<(), BadPath> {
        let Scratch { worked, lists, hits, found } = scratch;
        hits.clear();
        lists.clear();
        worked.forget();
        if self.reads_path {
            worked.read_path(facts)?;
        }
        if self.always.0 < self.always.1 {
            lists.push(self.always);
        }
        for key in &self.keys {
            let mut post = |id: u32| {
                lists.push(key.lists[id as usize]);
                false
            };
            if key.what == What::Src {
                key.index.address(facts.src, &mut post);
            } else {
                worked.values(&key.what, facts, &mut |value| key.index.value(value, found, &mut post));
            }
        }
        let mut next = 0;
        while let Some(number) = self.next(lists, next) {
            next = number + 1;
            let rule = &self.rules[number as usize];
            if rule.conditions.iter().all(|asked| asked.holds(facts, worked, found)) {
                let mut yes = true;
                // All are asked, also where one has said no: each counts.
                for (at, key) in rule.asked.iter().enumerate() {
                    yes &= worked.key(key, facts, &mut |value| ask(number, at, value));
                }
                if !yes {
                    continue;
                }
                hits.push(number);
                if rule.last {
                    break;
                }
            }
        }
        Ok(())
    }

    /// The lowest number in the lists that is not below `from`.
    fn next(&self, lists: &mut [(u32, u32)], from: u32) -> Option<u32> {
        let mut lowest = None;
        for (start, end) in lists.iter_mut() {
            while *start < *end && self.postings[*start as usize] < from {
                *start += 1;
            }
            if *start < *end {
                let number = self.postings[*start as usize];
                lowest = Some(lowest.map_or(number, |lowest: u32| lowest.min(number)));
            }
        }
        lowest
    }
}

/// The condition that each rule is filed under: the one whose patterns the fewest rules look for.
fn most_selective(rules: &[Rule]) -> Vec<Option<usize>> {
    let mut wanted: BTreeMap<(&What, &Pattern), u32> = BTreeMap::new();
    for condition in rules.iter().flat_map(|rule| &rule.conditions).filter(|c| can_file(c)) {
        for (pattern, _) in distinct(&condition.any) {
            *wanted.entry((&condition.what, pattern)).or_default() += 1;
        }
    }
    let crowd =
        |c: &Condition| c.any.iter().filter_map(|p| wanted.get(&(&c.what, p))).max().copied().unwrap_or(0);
    let best = |rule: &Rule| {
        let could = rule.conditions.iter().enumerate().filter(|(_, c)| can_file(c));
        could.min_by_key(|(_, c)| (crowd(c), cost(&c.what))).map(|(index, _)| index)
    };
    rules.iter().map(best).collect()
}

/// Two spellings of one network have one list.
fn networks_once(lists: BTreeMap<&Pattern, Vec<u32>>) -> Vec<(&Pattern, Vec<u32>)> {
    let mut once: Vec<(&Pattern, Vec<u32>)> = Vec::with_capacity(lists.len());
    let mut seen: BTreeMap<Pattern, usize> = BTreeMap::new();
    for (pattern, rules) in lists {
        let Pattern::Net(address, prefix) = pattern else {
            once.push((pattern, rules));
            continue;
        };
        match seen.get(&canonical(*address, *prefix)) {
            Some(&at) => {
                once[at].1.extend(rules);
                once[at].1.sort_unstable();
                once[at].1.dedup();
            }
            None => {
                seen.insert(canonical(*address, *prefix), once.len());
                once.push((pattern, rules));
            }
        }
    }
    once
}

/// A network with its host bits cleared.
fn canonical(address: core::net::IpAddr, prefix: u8) -> Pattern {
    use core::net::IpAddr;
    Pattern::Net(
        match address.to_canonical() {
            IpAddr::V4(ip) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0);
                IpAddr::V4((u32::from(ip) & mask).into())
            }
            IpAddr::V6(ip) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(prefix.min(128))).unwrap_or(0);
                IpAddr::V6((u128::from(ip) & mask).into())
            }
        },
        prefix,
    )
}

impl Asked {
    fn holds(&self, facts: &Facts<'_>, worked: &mut crate::facts::Worked, found: &mut Found) -> bool {
        let is = if self.what == What::Src {
            self.any.address(facts.src, &mut |_| true)
        } else {
            worked.values(&self.what, facts, &mut |value| self.any.value(value, found, &mut |_| true))
        };
        is != self.negated
    }
}

/// Whether an index can find the rules of this condition.
fn can_file(condition: &Condition) -> bool {
    !condition.negated && !condition.any.contains(&Pattern::Any)
}

fn cost(what: &What) -> u8 {
    match what {
        What::Method | What::Tls | What::Scheme | What::Port => 0,
        What::Host | What::Src | What::Sni => 1,
        What::Path => 2,
        What::Header(_) | What::Cookie(_) | What::Query(_) => 3,
    }
}

/// Patterns, each once, numbered.
fn distinct(patterns: &[Pattern]) -> Vec<(&Pattern, u32)> {
    let mut sorted: Vec<&Pattern> = patterns.iter().collect();
    sorted.sort_unstable();
    sorted.dedup();
    sorted.into_iter().zip(0..).collect()
}
