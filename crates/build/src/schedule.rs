//! Goals reached as soon as what they need is there and the machine has room for them.
//!
//! What a goal is, only [`Goals`] knows. A goal that nobody demands is never reached.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::Scope;

/// What a goal needs of the machine while somebody works on it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Resource {
    /// A processor: work on files.
    Processor,
    /// Room for a process, which may do nothing but wait.
    Process,
}

/// How many goals may be worked on at a time, by what they need, and altogether. 0 counts as 1.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    pub processors: usize,
    pub processes: usize,
    pub altogether: usize,
}

/// What is to be done, in numbers from 0.
pub trait Goals: Sync {
    fn count(&self) -> usize;

    /// Told that a goal is demanded, once for each; gives the goals that it needs.
    fn demanded(&self, goal: usize) -> Vec<usize>;

    fn resource(&self, goal: usize) -> Resource;

    /// Reaches a goal; all that it needs is there. `Break` lets nobody begin anything more.
    fn reach(&self, goal: usize) -> ControlFlow<()>;

    /// Whether nobody is to begin anything more.
    fn is_stopped(&self) -> bool;
}

/// Reaches `wanted` and all that these need, those with lower numbers first where there is a choice. False where somebody stopped it.
///
/// # Panics
/// When a goal's work does, after the others have ended, and when goals need each other in a circle.
pub fn run(goals: &impl Goals, wanted: &[usize], room: Room) -> bool {
    let mut board = Board { goals: vec![Goal::default(); goals.count()], ..Board::default() };
    wanted.iter().for_each(|goal| board.demand(goals, *goal));
    let schedule = Schedule { goals, room, board: Mutex::new(board), changed: Condvar::new() };
    std::thread::scope(|scope| schedule.work(scope));
    let board = schedule.board();
    !board.is_halted && board.left == 0
}

#[derive(Clone, Default)]
struct Goal {
    is_demanded: bool,
    is_reached: bool,
    /// How many of what it needs are not there yet.
    missing: usize,
    /// Who needs it.
    needed_by: Vec<usize>,
}

#[derive(Default)]
struct Board {
    goals: Vec<Goal>,
    /// Goals that could be begun.
    ready: BTreeSet<usize>,
    /// Demanded and not reached.
    left: usize,
    /// By [`Resource`]: goals that are worked on.
    running: [usize; 2],
    /// Threads, and those of them that wait.
    threads: usize,
    idle: usize,
    is_halted: bool,
}

impl Board {
    fn demand(&mut self, goals: &impl Goals, goal: usize) {
        let mut waiting = vec![goal];
        while let Some(goal) = waiting.pop() {
            if std::mem::replace(&mut self.goals[goal].is_demanded, true) {
                continue;
            }
            self.left += 1;
            let mut needs = goals.demanded(goal);
            needs.sort_unstable();
            needs.dedup();
            for need in &needs {
                if !self.goals[*need].is_reached {
                    self.goals[goal].missing += 1;
                    self.goals[*need].needed_by.push(goal);
                }
            }
            if self.goals[goal].missing == 0 {
                self.ready.insert(goal);
            }
            waiting.extend(needs);
        }
    }

    /// The first goal for which there is room.
    fn next(&self, goals: &impl Goals, room: Room) -> Option<usize> {
        let most = [room.processors.max(1), room.processes.max(1)];
        if self.running.iter().sum::<usize>() >= room.altogether.max(1) {
            return None;
        }
        let has_room = |goal: &&usize| {
            let resource = goals.resource(**goal) as usize;
            self.running[resource] < most[resource]
        };
        self.ready.iter().find(has_room).copied()
    }

    fn reached(&mut self, goal: usize) {
        self.left -= 1;
        self.goals[goal].is_reached = true;
        for other in std::mem::take(&mut self.goals[goal].needed_by) {
            self.goals[other].missing -= 1;
            if self.goals[other].missing == 0 {
                self.ready.insert(other);
            }
        }
    }
}

struct Schedule<'g, G> {
    goals: &'g G,
    room: Room,
    board: Mutex<Board>,
    changed: Condvar,
}

/// Lets the others end when the work of a goal panics: that is our bug, and they must not wait for ever.
struct HaltOnPanic<'s, 'g, G: Goals>(&'s Schedule<'g, G>);

impl<G: Goals> Drop for HaltOnPanic<'_, '_, G> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.board().is_halted = true;
            self.0.changed.notify_all();
        }
    }
}

impl<G: Goals> Schedule<'_, G> {
    fn board(&self) -> MutexGuard<'_, Board> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The life of one thread. It starts another where there is work for it.
    fn work<'scope>(&'scope self, scope: &'scope Scope<'scope, '_>) {
        let mut board = self.board();
        board.threads += 1;
        loop {
            board.is_halted |= self.goals.is_stopped();
            if board.is_halted || board.left == 0 {
                self.changed.notify_all();
                return;
            }
            let Some(goal) = board.next(self.goals, self.room) else {
                let is_stuck = board.ready.is_empty() && board.running == [0, 0];
                assert!(!is_stuck, "goals that need each other are left");
                board.idle += 1;
                board = self.changed.wait(board).unwrap_or_else(PoisonError::into_inner);
                board.idle -= 1;
                continue;
            };
            board.ready.remove(&goal);
            let resource = self.goals.resource(goal);
            board.running[resource as usize] += 1;
            let is_more = board.idle == 0 && board.next(self.goals, self.room).is_some();
            drop(board);
            if is_more {
                // Without a thread this one does it later.
                drop(spawn::scoped_now(scope, "build", || self.work(scope)));
            }
            let flow = {
                let _halts = HaltOnPanic(self);
                self.goals.reach(goal)
            };
            board = self.board();
            board.running[resource as usize] -= 1;
            match flow {
                ControlFlow::Continue(()) => board.reached(goal),
                ControlFlow::Break(()) => board.is_halted = true,
            }
            self.changed.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    use std::time::Duration;

    use super::*;

    /// Goals that note when they were reached.
    struct Noted {
        needs: Vec<Vec<usize>>,
        fails: Option<usize>,
        panics: Option<usize>,
        reached: Mutex<Vec<usize>>,
        now: AtomicUsize,
        most: AtomicUsize,
        stopped: AtomicBool,
    }

    fn noted(needs: &[&[usize]]) -> Noted {
        Noted {
            needs: needs.iter().map(|needs| needs.to_vec()).collect(),
            fails: None,
            panics: None,
            reached: Mutex::default(),
            now: AtomicUsize::new(0),
            most: AtomicUsize::new(0),
            stopped: AtomicBool::new(false),
        }
    }

    impl Noted {
        fn order(&self) -> Vec<usize> {
            self.reached.lock().unwrap().clone()
        }
    }

    impl Goals for Noted {
        fn count(&self) -> usize {
            self.needs.len()
        }

        fn demanded(&self, goal: usize) -> Vec<usize> {
            self.needs[goal].clone()
        }

        fn resource(&self, goal: usize) -> Resource {
            if goal.is_multiple_of(2) { Resource::Processor } else { Resource::Process }
        }

        fn reach(&self, goal: usize) -> ControlFlow<()> {
            assert!(self.needs[goal].iter().all(|need| self.order().contains(need)), "{goal} came too early");
            self.most.fetch_max(self.now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            std::thread::sleep(Duration::from_millis(5));
            self.now.fetch_sub(1, Ordering::SeqCst);
            assert!(self.panics != Some(goal), "a fault of ours, wanted by this test");
            if self.fails == Some(goal) {
                return ControlFlow::Break(());
            }
            self.reached.lock().unwrap().push(goal);
            ControlFlow::Continue(())
        }

        fn is_stopped(&self) -> bool {
            self.stopped.load(Ordering::Relaxed)
        }
    }

    const ALONE: Room = Room { processors: 4, processes: 4, altogether: 1 };
    const WIDE: Room = Room { processors: 4, processes: 4, altogether: 8 };

    #[test]
    fn what_is_demanded_is_reached_in_order() {
        for room in [ALONE, WIDE] {
            let goals = noted(&[&[], &[0], &[0], &[1, 2], &[], &[4]]);
            assert!(run(&goals, &[3], room));
            let order = goals.order();
            assert_eq!((order.len(), order[0], order[3]), (4, 0, 3), "{order:?}");
        }
    }

    #[test]
    fn no_more_at_a_time_than_there_is_room_for() {
        let none: &[usize] = &[];
        for (room, most) in [(ALONE, 1), (WIDE, 8), (Room { processors: 1, processes: 2, altogether: 8 }, 3)] {
            let goals = noted(&[none; 24]);
            assert!(run(&goals, &(0..24).collect::<Vec<_>>(), room));
            assert_eq!(goals.order().len(), 24);
            let seen = goals.most.load(Ordering::SeqCst);
            assert!(seen <= most && (most == 1 || seen > 1), "{seen} of {most}");
        }
    }

    #[test]
    fn nothing_begins_after_a_failure() {
        let goals = Noted { fails: Some(1), ..noted(&[&[], &[0], &[1], &[2]]) };
        assert!(!run(&goals, &[3], WIDE));
        assert_eq!(goals.order(), [0]);
        let stopped = noted(&[&[]]);
        stopped.stopped.store(true, Ordering::Relaxed);
        assert!(!run(&stopped, &[0], WIDE));
        assert!(stopped.order().is_empty());
    }

    #[test]
    fn a_panic_goes_on_and_leaves_nobody_waiting() {
        for room in [ALONE, WIDE] {
            let goals = Noted { panics: Some(1), ..noted(&[&[], &[], &[1], &[0, 2]]) };
            let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run(&goals, &[3], room)));
            assert!(ended.is_err());
        }
    }
}
