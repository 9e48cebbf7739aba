//! Pseudo-random numbers that are equal for equal seeds. Floor 6.

use std::time::Duration;

/// splitmix64: <https://prng.di.unimi.it/splitmix64.c>
#[derive(Clone, Copy, Debug)]
pub(super) struct Dice(u64);

impl Dice {
    /// The generator of a sidecar, or of anything else with a number.
    pub(super) fn new(seed: u64, number: u64) -> Self {
        let mut dice = Self(seed ^ number.wrapping_mul(0xd6e8_feb8_6659_fd93));
        dice.number();
        dice
    }

    pub(super) fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    /// A random duration from zero to below this one.
    pub(super) fn of(&mut self, span: Duration) -> Duration {
        let nanos = (span.as_nanos() * u128::from(self.number() >> 32)) >> 32;
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// True with a probability of `of` in a thousand.
    pub(super) fn per_mille(&mut self, of: u64) -> bool {
        self.number() % 1000 < of
    }
}
