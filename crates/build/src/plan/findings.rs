//! Build checks that need values: what the parser found, and what only planning can see.

use std::cell::RefCell;
use std::collections::BTreeSet;

use dockerfile::lint::{Checks, Finding, only_in_built_stages};
use dockerfile::{Diagnostic, Span};

use crate::{BuildError, Place, Request};

/// Collects findings while a plan is made.
pub(super) struct Findings {
    checks: Checks,
    list: RefCell<Vec<Diagnostic>>,
}

impl Findings {
    /// Options from the build argument `BUILDKIT_DOCKERFILE_CHECK`, else from the `# check=` directive.
    pub fn new(request: &Request) -> Result<Findings, BuildError> {
        let argument = request.build_args.get("BUILDKIT_DOCKERFILE_CHECK");
        let directive = request.dockerfile.check.as_ref();
        let text = argument.map(String::as_str).or_else(|| directive.map(|w| w.text.as_str())).unwrap_or_default();
        let span = directive.map_or(0..0, |w| w.span.clone());
        let checks = Checks::parse(text).map_err(|message| BuildError::dockerfile(&span, message))?;
        Ok(Findings { checks, list: RefCell::default() })
    }

    pub fn report(&self, finding: Finding<'_>, span: &Span) {
        let diagnostic = finding.at(span.clone());
        let mut list = self.list.borrow_mut();
        if self.checks.reports(finding.rule()) && !list.contains(&diagnostic) {
            list.push(diagnostic);
        }
    }

    /// All findings in source order; those of the parser only where their stage is built, for rules of which that is asked.
    ///
    /// # Errors
    /// When there is a finding and `error=true`.
    pub fn finish(self, request: &Request, built: &[Span]) -> Result<Vec<Diagnostic>, BuildError> {
        let in_built = |d: &Diagnostic| built.iter().any(|stage| stage.contains(&d.span.start));
        let counts = |d: &&Diagnostic| !d.rule.is_some_and(only_in_built_stages) || in_built(d);
        let wanted = |d: &&Diagnostic| d.rule.is_none_or(|rule| self.checks.reports(rule));
        let parsed = request.dockerfile.warnings.iter().filter(counts).filter(wanted).cloned();
        let mut all: Vec<Diagnostic> = parsed.chain(self.list.into_inner()).collect();
        all.sort_by_key(|d| d.span.start);
        match all.first() {
            Some(first) if self.checks.error => {
                let rules: BTreeSet<&str> = all.iter().filter_map(|d| d.rule).collect();
                let rules = rules.into_iter().collect::<Vec<_>>().join(", ");
                Err(BuildError::Dockerfile {
                    message: format!("lint violation found for rules: {rules}: {}", first.message),
                    place: Place { span: first.span.clone() },
                    hint: Some("`# check=error=true` makes every finding an error; `# check=skip=RULE` leaves one out".into()),
                })
            }
            _ => Ok(all),
        }
    }
}
