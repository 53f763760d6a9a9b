//! Build checks that need values: what the parser found, and what only planning can see.

use std::cell::RefCell;
use std::collections::BTreeSet;

use dockerfile::lint::{Checks, Finding};
use dockerfile::{Diagnostic, Span};

use crate::{BuildError, Place, Request};

/// Collects findings while a plan is made.
pub(super) struct Findings {
    checks: Checks,
    list: RefCell<Vec<Diagnostic>>,
}

impl Findings {
    pub fn new(request: &Request) -> Findings {
        Findings { checks: request.dockerfile.checks.clone(), list: RefCell::default() }
    }

    pub fn report(&self, finding: Finding<'_>, span: &Span) {
        let diagnostic = finding.at(span.clone());
        let mut list = self.list.borrow_mut();
        if self.checks.reports(finding.rule()) && !list.contains(&diagnostic) {
            list.push(diagnostic);
        }
    }

    /// All findings in source order, those of the parser as far as they hold for the stages that are `built` (by index); `shells`
    /// are those of them whose base brings a SHELL.
    ///
    /// # Errors
    /// When there is a finding and `error=true`.
    pub fn finish(self, request: &Request, built: &[usize], shells: &[usize]) -> Result<Vec<Diagnostic>, BuildError> {
        let file = &request.dockerfile;
        // Who sets a shell wants the shell form (BuildKit `dispatchCmd`).
        let meant = |d: &&Diagnostic| {
            let shell = file.stage_at(d.span.start).is_some_and(|stage| shells.contains(&stage));
            d.rule != Some("JSONArgsRecommended") || !shell
        };
        let parsed = file.warnings_for(built).into_iter().filter(meant).cloned();
        let mut all: Vec<Diagnostic> = parsed.chain(self.list.into_inner()).collect();
        all.sort_by_key(|d| d.span.start);
        match all.first() {
            Some(first) if self.checks.error => {
                let rules: BTreeSet<&str> = all.iter().filter_map(|d| d.rule).collect();
                let rules = rules.into_iter().collect::<Vec<_>>().join(", ");
                Err(BuildError::Dockerfile {
                    message: format!("lint violation found for rules: {rules}: {}", first.message),
                    place: Place { span: first.span.clone() },
                    hint: Some(
                        "`# check=error=true` makes every finding an error; `# check=skip=RULE` leaves one out".into(),
                    ),
                })
            }
            _ => Ok(all),
        }
    }
}
