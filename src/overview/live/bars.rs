//! A small history: values as they were, and bars of their heights.

use std::collections::VecDeque;

/// How many values are kept.
pub const KEPT: usize = 60;

/// What bars are made of, from the lowest to the highest.
#[derive(Clone, Copy, Debug)]
pub struct Glyphs([char; 8]);

impl Glyphs {
    /// Blocks.
    pub const UNICODE: Glyphs = Glyphs(['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█']);
    /// For terminals that have no others.
    pub const ASCII: Glyphs = Glyphs(['_', '.', '-', '=', '+', '*', '%', '#']);
}

/// The last values of something; None: it was not known.
#[derive(Clone, Debug, Default)]
pub struct Trace(VecDeque<Option<f64>>);

impl Trace {
    /// Adds the latest value.
    pub fn add(&mut self, value: Option<f64>) {
        self.0.truncate(KEPT - 1);
        self.0.push_front(value);
    }

    /// The latest value.
    pub fn latest(&self) -> Option<f64> {
        self.0.front().copied().flatten()
    }

    /// Bars from nothing to the highest value, which is taken to be `least` at the least. The latest one is on the right.
    pub fn above_nothing(&self, width: usize, least: f64, glyphs: Glyphs) -> String {
        self.bars(width, 0.0, self.extreme(width, f64::max).max(least), glyphs)
    }

    /// Bars from the lowest value to the highest, which span a tenth of the highest at the least: what hardly changes is flat.
    pub fn above_lowest(&self, width: usize, glyphs: Glyphs) -> String {
        let (low, high) = (self.extreme(width, f64::min), self.extreme(width, f64::max));
        self.bars(width, low, high.max(low + high / 10.0), glyphs)
    }

    fn extreme(&self, width: usize, choose: fn(f64, f64) -> f64) -> f64 {
        self.0.iter().take(width).flatten().copied().reduce(choose).unwrap_or(0.0)
    }

    fn bars(&self, width: usize, low: f64, high: f64, Glyphs(glyphs): Glyphs) -> String {
        let highest = glyphs.len() - 1;
        let bar = |value: f64| {
            let share = if high > low { (value - low) / (high - low) } else { 0.0 };
            glyphs.get(((share * highest as f64).round() as usize).min(highest)).copied().unwrap_or(' ')
        };
        let bars = (0..width).rev().map(|age| self.0.get(age).copied().flatten().map_or(' ', bar));
        bars.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trace(values: &[Option<f64>]) -> Trace {
        let mut trace = Trace::default();
        values.iter().for_each(|value| trace.add(*value));
        trace
    }

    #[test]
    fn the_latest_value_is_on_the_right() {
        let values = trace(&[Some(0.0), None, Some(50.0), Some(100.0)]);
        assert_eq!(values.above_nothing(6, 1.0, Glyphs::UNICODE), "  ▁ ▅█");
        assert_eq!(values.above_nothing(2, 1.0, Glyphs::ASCII), "+#");
        assert_eq!(values.above_nothing(0, 1.0, Glyphs::ASCII), "");
        assert_eq!(values.latest(), Some(100.0));
    }

    #[test]
    fn what_is_next_to_nothing_looks_like_it() {
        assert_eq!(trace(&[Some(0.0), Some(0.4)]).above_nothing(2, 10.0, Glyphs::UNICODE), "▁▁");
        assert_eq!(trace(&[Some(1000.0), Some(1001.0)]).above_lowest(2, Glyphs::UNICODE), "▁▁");
        assert_eq!(trace(&[Some(1000.0), Some(2000.0)]).above_lowest(2, Glyphs::UNICODE), "▁█");
        assert_eq!(trace(&[]).above_lowest(3, Glyphs::UNICODE), "   ");
    }

    #[test]
    fn a_minute_is_kept() {
        let values: Vec<Option<f64>> = (0..200).map(|value| Some(f64::from(value))).collect();
        assert_eq!(trace(&values).above_nothing(100, 1.0, Glyphs::ASCII).trim_start().len(), KEPT);
    }
}
