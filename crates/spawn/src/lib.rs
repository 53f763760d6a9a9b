//! The one door to new threads and processes.
//!
//! Where there is none left (a pod, a cgroup or a user has a limit, and others use it up) the kernel says EAGAIN, or ENOMEM. That is
//! waited out for a while, since what is in the way ends, and then said by its name. Nothing here knows what is started.

use std::error::Error;
use std::io;
use std::process::{Child, Command};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Builder, JoinHandle, Scope, ScopedJoinHandle};
use std::time::{Duration, Instant};

/// How long something is waited for that others have to end for.
const PATIENCE: Duration = Duration::from_secs(10);
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(250);

/// There was no thread or process to be had, for all the waiting.
#[derive(Debug, thiserror::Error)]
#[error("no more threads and processes can be started")]
pub struct NoneLeft {
    source: io::Error,
}

impl NoneLeft {
    /// What the user can do about it.
    pub const HINT: &str = "a limit on processes is reached: raise the limit of the pod or container (`pids.max`) or of the \
                            user (`ulimit -u`), or run less beside the build";

    /// `error`, called by its name where it is a shortage that another process has waited out.
    pub fn named(error: io::Error) -> io::Error {
        match error.raw_os_error() {
            Some(libc::EAGAIN) => io::Error::other(NoneLeft { source: error }),
            _ => error,
        }
    }

    /// Whether it is `error` or among its causes.
    pub fn is_cause_of(error: &(dyn Error + 'static)) -> bool {
        let is_it = |error: &(dyn Error + 'static)| {
            let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
            error.is::<NoneLeft>() || inner.is_some_and(|inner| inner.is::<NoneLeft>())
        };
        std::iter::successors(Some(error), |error| (*error).source()).any(is_it)
    }
}

/// Calls `start` until it gives something, or fails for another reason than that there is no thread or process left, or
/// `cancelled` says so, or the waiting has been long enough.
///
/// # Errors
/// What `start` fails with; [`NoneLeft`] inside for what could not be had.
pub fn patiently<T>(cancelled: &dyn Fn() -> bool, mut start: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    let begun = Instant::now();
    let mut pause = FIRST_PAUSE;
    loop {
        match start() {
            Err(source) if !is_shortage(&source) => return Err(source),
            Err(source) if begun.elapsed() > PATIENCE || cancelled() => {
                return Err(io::Error::other(NoneLeft { source }));
            }
            Err(_) => {}
            Ok(started) => return Ok(started),
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

fn is_shortage(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::ENOMEM))
}

/// Starts a process, as [`patiently`].
pub fn process(command: &mut Command, cancelled: &dyn Fn() -> bool) -> io::Result<Child> {
    patiently(cancelled, || command.spawn())
}

/// Starts a thread, as [`patiently`].
pub fn thread<T: Send + 'static>(
    name: &str,
    cancelled: &dyn Fn() -> bool,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<JoinHandle<T>> {
    let work = Work::new(work);
    patiently(cancelled, || named(name).spawn(work.run()))
}

/// Starts a thread if there is one now: for what can do without, or whose caller is asked again.
pub fn thread_now<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<JoinHandle<T>> {
    named(name).spawn(work)
}

/// As [`thread`], in `scope`.
pub fn scoped<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    name: &str,
    cancelled: &dyn Fn() -> bool,
    work: impl FnOnce() -> T + Send + 'scope,
) -> io::Result<ScopedJoinHandle<'scope, T>> {
    let work = Work::new(work);
    patiently(cancelled, || named(name).spawn_scoped(scope, work.run()))
}

/// As [`thread_now`], in `scope`; without a thread the work is given back.
pub fn scoped_now<'scope, T: Send + 'scope, F: FnOnce() -> T + Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    name: &str,
    work: F,
) -> Result<ScopedJoinHandle<'scope, T>, F> {
    let work = Work::new(work);
    named(name).spawn_scoped(scope, work.run()).map_err(|_| work.take())
}

fn named(name: &str) -> Builder {
    Builder::new().name(name.to_owned())
}

/// Work that is still here when there was no thread for it: std drops what it cannot start.
struct Work<F>(Arc<Mutex<Option<F>>>);

impl<F> Work<F> {
    fn new(work: F) -> Work<F> {
        Work(Arc::new(Mutex::new(Some(work))))
    }

    fn take(&self) -> F {
        let work = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        work.expect("one thread is started for it, and nobody takes it back then")
    }

    /// What a thread is to do.
    fn run<T>(&self) -> impl FnOnce() -> T + use<F, T>
    where
        F: FnOnce() -> T,
    {
        let work = Work(self.0.clone());
        move || work.take()()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shortage() -> io::Error {
        io::Error::from_raw_os_error(libc::EAGAIN)
    }

    #[test]
    fn a_shortage_is_waited_out() {
        let mut left = 3;
        let started = patiently(&|| false, || {
            left -= 1;
            if left == 0 { Ok("started") } else { Err(shortage()) }
        });
        assert_eq!(started.unwrap(), "started");
    }

    #[test]
    fn a_shortage_that_stays_has_a_name_and_cancelling_ends_the_waiting() {
        let begun = Instant::now();
        let error = patiently(&|| true, || Err::<(), _>(shortage())).unwrap_err();
        assert!(begun.elapsed() < PATIENCE);
        assert!(NoneLeft::is_cause_of(&error), "{error:?}");
        assert_eq!(error.to_string(), "no more threads and processes can be started");
    }

    #[test]
    fn other_errors_are_not_waited_for() {
        let mut tries = 0;
        let error = patiently(&|| false, || {
            tries += 1;
            Err::<(), _>(io::Error::from(io::ErrorKind::NotFound))
        });
        assert_eq!((error.unwrap_err().kind(), tries), (io::ErrorKind::NotFound, 1));
        assert!(!NoneLeft::is_cause_of(&io::Error::from_raw_os_error(libc::EPERM)));
    }

    #[test]
    fn threads_give_what_they_made() {
        assert_eq!(thread("one", &|| false, || 1).unwrap().join().unwrap(), 1);
        let text = String::from("borrowed");
        let length =
            std::thread::scope(|scope| scoped(scope, "two", &|| false, || text.len()).unwrap().join().unwrap());
        assert_eq!(length, 8);
    }
}
