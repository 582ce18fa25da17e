//! Samples of what takes long: each is small, and over many seeds nothing is left out.

use std::collections::BTreeSet;

use crate::sample::{Random, Share};

fn chosen(count: usize, seed: u64, length: usize) -> Vec<usize> {
    Share::Sample { count, seed }.of((0..length).collect())
}

#[test]
fn a_sample_has_one_of_each_stretch_and_the_same_seed_chooses_the_same() {
    for seed in [0, 1, 0xffff_ffff, u64::MAX] {
        let sample = chosen(5, seed, 50);
        let stretches: Vec<usize> = sample.iter().map(|at| at / 10).collect();
        assert_eq!(stretches, [0, 1, 2, 3, 4], "{sample:?}");
        assert_eq!(sample, chosen(5, seed, 50));
    }
    assert_ne!(chosen(5, 1, 50), chosen(5, 2, 50));
}

#[test]
fn what_is_shorter_than_a_sample_is_taken_whole() {
    assert_eq!(Share::All.of(vec![1, 2, 3]), [1, 2, 3]);
    assert_eq!(chosen(5, 7, 3), [0, 1, 2]);
    assert_eq!(chosen(5, 7, 5), [0, 1, 2, 3, 4]);
    assert_eq!(chosen(5, 7, 0), [0usize; 0]);
    assert_eq!(chosen(0, 7, 3), [0usize; 0]);
}

#[test]
fn over_many_seeds_nothing_is_left_out() {
    for (count, length) in [(5, 400), (8, 31), (1, 10)] {
        let met: BTreeSet<usize> = (0..2000).flat_map(|seed| chosen(count, seed, length)).collect();
        assert_eq!(met.len(), length, "{count} of {length}");
    }
    let firsts: BTreeSet<usize> = (0..100).map(|seed| Random::of(seed).shuffled((0..7).collect())[0]).collect();
    assert_eq!(firsts.len(), 7);
}
