//! Build checks that need values: what the parser found, and what only planning can see.

use std::cell::RefCell;
use std::collections::BTreeSet;

use dockerfile::lint::{Checks, Finding};
use dockerfile::{Diagnostic, Span};

use super::Unread;
use crate::{BuildError, Place, Request};

/// Collects findings while a plan is made.
pub(super) struct Findings {
    checks: Checks,
    list: RefCell<Vec<Diagnostic>>,
    /// What could not be looked at.
    pub unread: RefCell<Vec<Unread>>,
}

impl Findings {
    pub fn new(request: &Request) -> Findings {
        Findings {
            checks: request.spec.dockerfile.checks.clone(),
            list: RefCell::default(),
            unread: RefCell::default(),
        }
    }

    /// A finding that no comment at its place can leave out, as BuildKit has some.
    pub fn report(&self, finding: Finding<'_>, span: &Span) {
        self.report_with_comment(finding, span, None);
    }

    /// `comment` is what stands above the instruction: a `check=skip=…` in it counts.
    pub fn report_with_comment(&self, finding: Finding<'_>, span: &Span, comment: Option<&str>) {
        self.add(finding.at(span.clone()), comment);
    }

    /// As [`Findings::report_with_comment`], with what is to be done at this place.
    pub fn report_with_hint(&self, finding: Finding<'_>, span: &Span, comment: Option<&str>, hint: Option<String>) {
        self.add(Diagnostic { hint, ..finding.at(span.clone()) }, comment);
    }

    fn add(&self, diagnostic: Diagnostic, comment: Option<&str>) {
        let Some(rule) = diagnostic.rule else { return };
        let mut list = self.list.borrow_mut();
        if self.checks.with_comment(comment).reports(rule) && !list.contains(&diagnostic) {
            list.push(diagnostic);
        }
    }

    /// All findings in source order, those of the parser as far as they hold for the stages that are `built` (by index); `shells`
    /// are those of them whose base brings a SHELL.
    pub fn all(&self, request: &Request, built: &[usize], shells: &[usize]) -> Vec<Diagnostic> {
        let file = &request.spec.dockerfile;
        // Who sets a shell wants the shell form (BuildKit `dispatchCmd`).
        let meant = |d: &&Diagnostic| {
            let shell = file.stage_at(d.span.start).is_some_and(|stage| shells.contains(&stage));
            d.rule != Some("JSONArgsRecommended") || !shell
        };
        let parsed = file.warnings_for(built).into_iter().filter(meant).cloned();
        let mut all: Vec<Diagnostic> = parsed.chain(self.list.borrow().iter().cloned()).collect();
        all.sort_by_key(|d| d.span.start);
        all
    }

    /// The error that findings are with `error=true`.
    pub fn as_error(&self, all: &[Diagnostic]) -> Option<BuildError> {
        let first = all.first().filter(|_| self.checks.error)?;
        let rules: BTreeSet<&str> = all.iter().filter_map(|d| d.rule).collect();
        let rules = rules.into_iter().collect::<Vec<_>>().join(", ");
        Some(BuildError::Dockerfile {
            message: format!("lint violation found for rules: {rules}: {}", first.message),
            place: Place { span: first.span.clone() },
            hint: Some("`# check=error=true` makes every finding an error; `# check=skip=RULE` leaves one out".into()),
        })
    }
}
