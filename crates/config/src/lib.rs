#![forbid(unsafe_code)]
//! The file: text to an immutable [`plan::Plan`].
//!
//! ```text
//! text --syntax--> KDL document --walk, driven by table--> typed directives --resolve--> Plan
//! ```
//!
//! `table` holds one [`table::Directive`] a directive: where it is allowed, what it takes, its limits,
//! default, doc and example. The parser, [`explain`] and `docs/directives.md` come from it.
//!
//! Every process of a platform calls [`parse`] on the same text and works from the [`Plan`] it gets.

mod advice;
pub mod diagnostic;
mod explain;
mod item;
pub mod lists;
mod log_format;
mod nearest;
pub mod overrides;
pub mod plan;
mod resolve;
mod syntax;
pub mod table;
mod value;
mod walk;

use std::fmt;
use std::path::PathBuf;

pub use diagnostic::{Diagnostic, Severity};
pub use explain::{directives, explain};
pub use plan::Plan;
pub use resolve::read_error_page;

/// A file that can be used.
#[derive(Clone, Debug)]
pub struct Checked {
    /// What it says.
    pub plan: Plan,
    findings: Findings,
    files: Vec<resolve::NamedFile>,
    risks: Vec<Diagnostic>,
}

/// A file that the platform's file names and that is not on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MissingFile {
    /// The file.
    pub path: PathBuf,
    /// The directive that names it.
    pub directive: String,
    /// Whether this build acts on that directive, so that `run` cannot do without the file.
    pub needed: bool,
}

/// Something to say of a file that the platform's file names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remark {
    /// As the platform's file names it.
    pub path: PathBuf,
    /// An error makes the file unusable.
    pub severity: Severity,
    /// It says that the file is not there.
    pub missing: bool,
    /// One sentence.
    pub message: String,
    /// What to do.
    pub help: String,
}

/// What `relais check` prints, and whether it exits with 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// For the terminal.
    pub text: String,
    /// Whether the file can be used.
    pub ok: bool,
}

/// A file that cannot be used, and why: its `Display` shows every finding.
#[derive(Clone, Debug)]
pub struct Rejected(Findings);

#[derive(Clone, Debug)]
struct Findings {
    file: String,
    text: String,
    diagnostics: Vec<Diagnostic>,
}

impl Findings {
    fn render(&self, colour: bool) -> String {
        diagnostic::render(&self.file, &self.text, &self.diagnostics, colour)
    }
}

impl Checked {
    /// Warnings, in the order of the file.
    pub fn diagnostics(&self) -> &[Diagnostic] {
        &self.findings.diagnostics
    }

    /// Warnings as an operator reads them; empty if there are none.
    pub fn render(&self, colour: bool) -> String {
        self.findings.render(colour)
    }
}

impl Checked {
    /// The files that the platform's file names and that are not on this machine now.
    pub fn missing_files(&self) -> Vec<MissingFile> {
        let missing = self.files.iter().filter(|file| !file.path.exists());
        missing
            .map(|file| MissingFile {
                path: file.path.clone(),
                directive: file.directive.clone(),
                needed: file.needed,
            })
            .collect()
    }
}

impl Rejected {
    /// Every finding, in the order of the file; at least one is an error.
    pub fn diagnostics(&self) -> &[Diagnostic] {
        &self.0.diagnostics
    }

    /// Every finding as an operator reads it.
    pub fn render(&self, colour: bool) -> String {
        self.0.render(colour)
    }
}

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl std::error::Error for Rejected {}

/// Reads the text of a file; `file` is its name, for messages. Looks at nothing but the text.
///
/// # Errors
///
/// [`Rejected`] holds every error of the file, and its warnings.
pub fn parse(file: &str, text: &str) -> Result<Checked, Rejected> {
    let (source, document, mut diagnostics) = syntax::read(text);
    let mut resolved = resolve::Resolved { plan: None, files: Vec::new(), risks: Vec::new() };
    if let Some(document) = document {
        let (items, mut found) = walk::walk(&source, &document, table::Section::File);
        diagnostics.append(&mut found);
        resolved = resolve::resolve(&items, &mut diagnostics);
    }
    diagnostic::sort(&mut diagnostics);
    let sound = diagnostics.iter().all(|d| d.severity != Severity::Error);
    let findings = Findings { file: file.to_owned(), text: source.text, diagnostics };
    match resolved.plan {
        Some(plan) if sound => Ok(Checked { plan, findings, files: resolved.files, risks: resolved.risks }),
        _ => Err(Rejected(findings)),
    }
}

/// `relais check FILE`: everything there is to say about the text, files missing on this machine
/// included, and a last line with the verdict.
pub fn check(file: &str, text: &str, colour: bool) -> Report {
    check_with(file, text, colour, |_| Vec::new())
}

/// As [`check`], with what `look` says of files that the plan names and this crate does not understand.
pub fn check_with(file: &str, text: &str, colour: bool, look: impl FnOnce(&Plan) -> Vec<Remark>) -> Report {
    let (findings, ok) = match parse(file, text) {
        Ok(checked) => {
            let mut findings = checked.findings;
            findings.diagnostics.extend(checked.risks);
            let remarks = look(&checked.plan);
            let mut ok = remarks.iter().all(|remark| remark.severity != Severity::Error);
            for remark in &remarks {
                let named = checked.files.iter().find(|file| *file.path == *remark.path);
                let span = named.map_or(0..0, |file| file.span.clone());
                let said = Diagnostic::new(remark.severity, span, remark.message.clone());
                findings.diagnostics.push(said.help(remark.help.clone()));
            }
            for file in &checked.files {
                if remarks.iter().any(|remark| *remark.path == *file.path && remark.missing) {
                    continue;
                }
                if !file.path.exists() {
                    findings.diagnostics.push(file.note());
                } else if let Err(why) = file.read(&checked.plan) {
                    let help = "what is wrong in it would keep the plan from being put in force";
                    findings.diagnostics.push(Diagnostic::error(file.span.clone(), why).help(help));
                    ok = false;
                }
            }
            let unfit: Vec<_> = checked.files.iter().filter_map(resolve::NamedFile::unfit).collect();
            ok &= unfit.is_empty();
            findings.diagnostics.extend(unfit);
            (findings, ok)
        }
        Err(Rejected(findings)) => (findings, false),
    };
    let mut findings = findings;
    diagnostic::sort(&mut findings.diagnostics);
    let counted = |severity, one: &str| {
        let number = findings.diagnostics.iter().filter(|d| d.severity == severity).count();
        match number {
            0 => None,
            1 => Some(format!("1 {one}")),
            _ => Some(format!("{number} {one}s")),
        }
    };
    let counts: Vec<String> =
        [(Severity::Error, "error"), (Severity::Warning, "warning"), (Severity::Note, "note")]
            .into_iter()
            .filter_map(|(severity, one)| counted(severity, one))
            .collect();
    let counts = if counts.is_empty() { String::new() } else { format!(" ({})", counts.join(", ")) };
    let verdict = if ok { "good" } else { "not usable" };
    Report { text: format!("{}{file}: {verdict}{counts}\n", findings.render(colour)), ok }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Here and not with the table's other tests, because only the walk takes a directive by itself.
    #[test]
    fn every_example_of_the_table_is_what_its_row_allows() {
        for row in table::all() {
            for section in row.inside {
                let (source, document, diagnostics) = syntax::read(row.example);
                assert!(diagnostics.is_empty(), "{}: {diagnostics:?}", row.title());
                let (items, diagnostics) = walk::walk(&source, &document.expect("a document"), *section);
                let own = |d: &Diagnostic| !d.message.contains(" has no `") || d.span.start > 0;
                let wrong: Vec<_> = diagnostics.iter().filter(|d| own(d)).collect();
                assert!(wrong.is_empty(), "{}: {wrong:?}", row.title());
                assert!(items.len() == 1 && items[0].row.title() == row.title(), "{}", row.title());
            }
        }
    }
}
