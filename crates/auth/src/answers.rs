//! What sources answered, for as long as it holds.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::login::Credential;
use crate::source::AuthError;

/// How long an answer is used that says nothing of its end. ECR's logins live for hours, GCR's for one.
const ANSWER_LIFE: Duration = Duration::from_secs(600);

/// A credential is not used in its last seconds: the request has to arrive, too.
const MARGIN: Duration = Duration::from_secs(5);

pub(crate) type Answer = Result<Option<Credential>, AuthError>;

/// Answers by question. Clones share them.
pub(crate) struct Answers<Question>(Arc<Mutex<HashMap<Question, Known>>>);

struct Known {
    until: Instant,
    answer: Answer,
}

impl<Question: Eq + Hash> Answers<Question> {
    /// The answer that is known and still holds, or else a new one. "Nothing" and a failure are answers, too.
    pub(crate) fn get(&self, question: Question, ask: impl FnOnce() -> Answer) -> Answer {
        // The lock is held while somebody is asked: eight uploads need one answer, not eight.
        let mut known = self.locked();
        if let Some(known) = known.get(&question).filter(|known| Instant::now() < known.until) {
            return known.answer.clone();
        }
        let answer = ask();
        let until = end(&answer, Instant::now());
        known.insert(question, Known { until, answer: answer.clone() });
        answer
    }

    pub(crate) fn forget(&self) {
        self.locked().clear();
    }

    fn locked(&self) -> MutexGuard<'_, HashMap<Question, Known>> {
        // A panic elsewhere leaves it as it was: each change is one call.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// When to ask again after an answer that came `now`.
fn end(answer: &Answer, now: Instant) -> Instant {
    match answer {
        Ok(Some(Credential { expires: Some(expires), .. })) => {
            let life = expires.saturating_duration_since(now);
            now + (life - MARGIN.min(life / 2))
        }
        _ => now + ANSWER_LIFE,
    }
}

impl<Question> Clone for Answers<Question> {
    fn clone(&self) -> Answers<Question> {
        Answers(self.0.clone())
    }
}

impl<Question> Default for Answers<Question> {
    fn default() -> Answers<Question> {
        Answers(Arc::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::login::Login;
    use crate::secret::Secret;

    #[test]
    fn how_long_an_answer_is_used() {
        let now = Instant::now();
        let lives = |seconds| {
            let credential = Credential::new(Login::Identity { token: Secret::new("t") });
            Ok(Some(credential.expires_at(now + Duration::from_secs(seconds))))
        };
        let failed = Err(AuthError::of("a cloud", "no route"));
        for (answer, seconds) in
            [(lives(0), 0), (lives(4), 2), (lives(60), 55), (lives(43_200), 43_195), (Ok(None), 600), (failed, 600)]
        {
            assert_eq!(end(&answer, now) - now, Duration::from_secs(seconds), "{answer:?}");
        }
    }
}
