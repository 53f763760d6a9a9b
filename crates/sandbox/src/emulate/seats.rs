//! How many calls may wait at a time, each with a thread of the supervisor's.
//!
//! A user of the step cannot take the places of the others: root always finds some.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use super::place::lock;

/// Of one kind.
const MOST: usize = 256;
/// Of one user other than root, and of all of them.
const MOST_OF_ONE: usize = MOST / 2;
const MOST_OF_USERS: usize = MOST / 4 * 3;

#[derive(Clone, Default)]
pub struct Seats(Arc<Mutex<HashMap<u32, usize>>>);

/// The right to wait, until it is dropped.
pub struct Seat {
    seats: Seats,
    user: u32,
}

impl Seats {
    /// None where the user has too many already, or all together have.
    pub fn take(&self, user: u32) -> Option<Seat> {
        let mut taken = lock(&self.0);
        let all: usize = taken.values().sum();
        let of = |user| taken.get(&user).copied().unwrap_or_default();
        let is_too_much = user != 0 && (of(user) >= MOST_OF_ONE || all - of(0) >= MOST_OF_USERS);
        if all >= MOST || is_too_much {
            return None;
        }
        *taken.entry(user).or_default() += 1;
        drop(taken);
        Some(Seat { seats: self.clone(), user })
    }
}

fn give_back(taken: &mut HashMap<u32, usize>, user: u32) {
    let left = taken.get_mut(&user).map_or(0, |own| {
        *own -= 1;
        *own
    });
    if left == 0 {
        taken.remove(&user);
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        give_back(&mut lock(&self.seats.0), self.user);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_finds_places_whatever_the_users_do() {
        let seats = Seats::default();
        let all_of = |user| -> Vec<Seat> { std::iter::from_fn(|| seats.take(user)).take(MOST + 1).collect() };
        let one = all_of(1000);
        assert_eq!(one.len(), MOST_OF_ONE);
        let other = all_of(1001);
        assert_eq!(one.len() + other.len(), MOST_OF_USERS);
        let root = all_of(0);
        assert_eq!(root.len(), MOST - MOST_OF_USERS);
        assert!(seats.take(1002).is_none());
        drop((one, other, root));
        assert!(lock(&seats.0).is_empty());
        assert_eq!(all_of(0).len(), MOST);
    }
}
