//! Which part of something long is tried: one of each stretch of it, chosen by a seed, so that over many seeds every
//! part is met, and the same seed tries the same part again.

// Each program that includes this uses a part of it.
#![allow(dead_code)]

use std::time::{SystemTime, UNIX_EPOCH};

/// How much of it is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    /// Everything.
    All,
    /// One from each of `count` stretches of the same length.
    Sample { count: usize, seed: u64 },
}

impl Share {
    /// This share of all of them, in their order.
    pub fn of<T>(self, all: Vec<T>) -> Vec<T> {
        let Share::Sample { count, seed } = self else { return all };
        let count = count.min(all.len());
        let mut random = Random::of(seed);
        let starts: Vec<usize> = (0..=count).map(|stretch| stretch * all.len() / count.max(1)).collect();
        let chosen: Vec<usize> = starts.windows(2).map(|ends| ends[0] + random.below(ends[1] - ends[0])).collect();
        all.into_iter().enumerate().filter(|(at, _)| chosen.contains(at)).map(|(_, one)| one).collect()
    }
}

/// A seed that nobody chose.
pub fn any_seed() -> u64 {
    u64::from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().subsec_nanos())
}

/// Numbers that look random and follow from a seed: Steele's SplitMix64.
pub struct Random(u64);

impl Random {
    pub fn of(seed: u64) -> Random {
        Random(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// One of 0 to `bound` - 1. `bound` is not 0.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    /// From 0 to 1.
    pub fn fraction(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// The same things in another order.
    pub fn shuffled<T>(&mut self, mut all: Vec<T>) -> Vec<T> {
        for at in (1..all.len()).rev() {
            all.swap(at, self.below(at + 1));
        }
        all
    }
}
