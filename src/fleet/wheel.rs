//! A timer wheel: which sidecar has its next event before a time. Floor 6.

use std::time::Duration;

use crate::time::Time;

/// The length of a slot of the wheel.
pub(super) const SLOT: Duration = Duration::from_millis(500);
const SLOTS: usize = 8192;

/// The next time of each number. A number is planned again after each time that it was due.
pub(super) struct Wheel {
    /// When each number is due.
    due_at: Vec<Time>,
    /// The numbers that may be due in a slot. Each number is in one slot, or was due and is not planned again yet.
    slots: Vec<Vec<u32>>,
    /// The next slot to check.
    next: u64,
}

impl Wheel {
    /// A wheel for this many numbers, none of which is planned.
    pub(super) fn new(begin: Time, numbers: usize) -> Self {
        Self { due_at: vec![Time::NEVER; numbers], slots: vec![Vec::new(); SLOTS], next: slot_of(begin) }
    }

    /// Plans when this number is due.
    pub(super) fn plan(&mut self, number: u32, at: Time) {
        if let Some(due_at) = self.due_at.get_mut(number as usize) {
            *due_at = at;
        }
        self.insert(number, at);
    }

    /// A time beyond the span of the wheel goes to the farthest slot, and is planned again when that slot is checked.
    fn insert(&mut self, number: u32, at: Time) {
        let slot = slot_of(at).clamp(self.next, self.next + SLOTS as u64 - 1);
        if at != Time::NEVER
            && let Some(slot) = self.slots.get_mut(place(slot))
        {
            slot.push(number);
        }
    }

    /// The count of numbers that may be due in this slot.
    pub(super) fn crowd(&self, slot: u64) -> usize {
        self.slots.get(place(slot)).map_or(0, Vec::len)
    }

    /// Removes the numbers that are due before `until`, and appends them to `due`.
    pub(super) fn wake(&mut self, until: Time, due: &mut Vec<u32>) {
        let last = slot_of(until);
        while self.next < last {
            let slot = place(self.next);
            self.next += 1;
            let Some(numbers) = self.slots.get_mut(slot) else { break };
            let mut numbers = std::mem::take(numbers);
            for number in numbers.drain(..) {
                match self.due_at.get(number as usize).copied().unwrap_or(Time::NEVER) {
                    at if at < until => due.push(number),
                    at => self.insert(number, at),
                }
            }
            // The slot keeps its memory, unless a number went back to it.
            if let Some(slot) = self.slots.get_mut(slot).filter(|slot| slot.is_empty()) {
                *slot = numbers;
            }
        }
    }
}

fn slot_of(at: Time) -> u64 {
    at.as_nanos() / u64::try_from(SLOT.as_nanos()).unwrap_or(1)
}

fn place(slot: u64) -> usize {
    usize::try_from(slot % SLOTS as u64).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The wheel reaches as far as this.
    const REACH: Duration = SLOT.saturating_mul(SLOTS as u32);

    #[test]
    fn each_is_due_in_the_window_of_its_time_however_far_that_is() {
        let begin = Time::from_nanos(3_600_000_000_000);
        let times: Vec<Time> = (0..500_u32).map(|number| begin + REACH * number / 100 + SLOT / 3).collect();
        let mut wheel = Wheel::new(begin, times.len());
        for (number, at) in (0..).zip(&times) {
            wheel.plan(number, *at);
        }
        let mut from = begin;
        let mut woken = 0;
        for window in 1_u32.. {
            let until = from + SLOT * (1 + window % 60);
            let mut due: Vec<u32> = Vec::new();
            wheel.wake(until, &mut due);
            for number in &due {
                let at = times[*number as usize];
                assert!(from <= at && at < until, "{number} is due at {at:?}, and woken before {until:?}");
            }
            woken += due.len();
            from = until;
            if from > begin + REACH * 6 {
                break;
            }
        }
        assert_eq!(woken, times.len());
    }

    #[test]
    fn what_is_never_due_is_never_woken() {
        let begin = Time::from_nanos(0);
        let mut wheel = Wheel::new(begin, 1);
        wheel.plan(0, Time::NEVER);
        let mut due: Vec<u32> = Vec::new();
        wheel.wake(begin + REACH * 3, &mut due);
        assert!(due.is_empty(), "{due:?}");
    }
}
