//! Timing in turns.

use std::time::{Duration, Instant};

/// Something that is timed.
pub trait Contender {
    /// Does it this many times.
    fn run(&mut self, times: u64);
}

/// Nanoseconds for one time, for each contender and each round.
pub fn in_turns(contenders: &mut [&mut dyn Contender], rounds: u32, turn: Duration) -> Vec<Vec<f64>> {
    let times: Vec<u64> = contenders
        .iter_mut()
        .map(|contender| times_within(*contender, turn))
        .collect();
    let mut samples = vec![Vec::new(); contenders.len()];
    for _ in 0..rounds {
        for ((contender, times), samples) in contenders.iter_mut().zip(&times).zip(&mut samples) {
            samples.push(time(*contender, *times).as_nanos() as f64 / *times as f64);
        }
    }
    samples
}

/// How many times fit into a turn. This also warms up.
fn times_within(contender: &mut dyn Contender, turn: Duration) -> u64 {
    let mut times = 1;
    loop {
        let taken = time(contender, times);
        if taken >= turn / 2 {
            let exact = times as f64 * turn.as_secs_f64() / taken.as_secs_f64();
            return (exact as u64).max(1);
        }
        times *= 2;
    }
}

fn time(contender: &mut dyn Contender, times: u64) -> Duration {
    let start = Instant::now();
    contender.run(times);
    start.elapsed()
}

/// The values below which a quarter, a half and three quarters of the samples are.
pub fn quartiles(samples: impl Iterator<Item = f64>) -> [f64; 3] {
    let mut sorted: Vec<f64> = samples.collect();
    sorted.sort_by(f64::total_cmp);
    [1, 2, 3].map(|quarter| sorted.get(sorted.len() * quarter / 4).copied().unwrap_or(f64::NAN))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quartiles_are_taken_from_the_sorted_samples() {
        assert_eq!(quartiles([5.0, 1.0, 4.0, 2.0, 3.0].into_iter()), [2.0, 3.0, 4.0]);
        assert_eq!(quartiles([7.0].into_iter()), [7.0, 7.0, 7.0]);
    }

    #[test]
    fn everybody_gets_as_many_turns() {
        struct Counter(u64);
        impl Contender for Counter {
            fn run(&mut self, times: u64) {
                self.0 += std::hint::black_box(times);
            }
        }
        let (mut one, mut two) = (Counter(0), Counter(0));
        let samples = in_turns(&mut [&mut one, &mut two], 3, Duration::from_nanos(10));
        assert_eq!(samples.iter().map(Vec::len).collect::<Vec<_>>(), [3, 3]);
        assert!(one.0 >= 4 && two.0 >= 4);
    }
}
