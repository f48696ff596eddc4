//! Which backend: pure functions over what is known of each.

use crate::ewma::Ewma;

/// What is known of a backend at this moment.
#[derive(Debug, Clone, Copy)]
pub struct Seen {
    /// It may be asked.
    pub usable: bool,
    pub weight: u32,
    /// How much of its weight counts, from 0 to 1: one that has just come gets less.
    pub warmth: f32,
    pub pending: u32,
    pub ewma: Ewma,
}

impl Seen {
    #[expect(clippy::cast_precision_loss, reason = "weights and requests under way are small")]
    fn pending_per_weight(&self) -> f32 {
        (self.pending + 1) as f32 / (self.weight as f32 * self.warmth.max(0.01))
    }
}

/// Whose turn it is when backends have these weights: as even as can be, not one's turns all at once (nginx's smooth round robin).
pub fn schedule(weights: &[u32]) -> Vec<u16> {
    let divisor = weights.iter().copied().fold(0, common_divisor).max(1);
    let weights: Vec<i64> = weights.iter().map(|weight| i64::from(weight / divisor)).collect();
    let total: i64 = weights.iter().sum();
    let mut credit = vec![0; weights.len()];
    let mut turns = Vec::new();
    for _ in 0..total {
        for (credit, weight) in credit.iter_mut().zip(&weights) {
            *credit += weight;
        }
        let Some(most) = (0..credit.len()).max_by_key(|&at| (credit[at], std::cmp::Reverse(at))) else { break };
        credit[most] -= total;
        turns.push(u16::try_from(most).unwrap_or(u16::MAX));
    }
    turns
}

fn common_divisor(one: u32, other: u32) -> u32 {
    if other == 0 { one } else { common_divisor(other, one % other) }
}

/// The one whose turn it is, or the next that can be asked. A cold one gives some of its turns away: `random` decides, from 0 to 1.
pub fn in_turn(schedule: &[u16], turn: usize, random: f32, seen: impl Fn(usize) -> Seen) -> Option<usize> {
    let turns = (0..schedule.len()).map(|step| usize::from(schedule[(turn + step) % schedule.len()]));
    let mut cold = None;
    for at in turns {
        let one = seen(at);
        if one.usable && one.warmth >= random {
            return Some(at);
        }
        if one.usable && cold.is_none() {
            cold = Some(at);
        }
    }
    cold
}

/// The one with the fewest requests under way for its weight. Looking begins at `first`, so that equals share.
pub fn least_pending(count: usize, first: usize, seen: impl Fn(usize) -> Seen) -> Option<usize> {
    let mut best: Option<(f32, usize)> = None;
    for at in (0..count).map(|step| (first + step) % count) {
        let one = seen(at);
        let load = one.pending_per_weight();
        if one.usable && best.is_none_or(|(least, _)| load < least) {
            best = Some((load, at));
        }
    }
    best.map(|(_, at)| at)
}

/// Of two at random the one that will answer sooner. `random` gives a number below its argument.
pub fn of_two(
    count: usize,
    now_ms: u32,
    mut random: impl FnMut(usize) -> usize,
    seen: impl Fn(usize) -> Seen,
) -> Option<usize> {
    let (first, one) = anyone(count, None, &mut random, &seen)?;
    let Some((second, other)) = anyone(count, Some(first), &mut random, &seen) else { return Some(first) };
    // Where one was never measured, only what is under way can be compared.
    let costs = one.ewma.cost(now_ms).zip(other.ewma.cost(now_ms)).unwrap_or((1.0, 1.0));
    let is_sooner = one.pending_per_weight() * costs.0 <= other.pending_per_weight() * costs.1;
    Some(if is_sooner { first } else { second })
}

/// Somebody but this one.
fn anyone(
    count: usize,
    but: Option<usize>,
    random: &mut impl FnMut(usize) -> usize,
    seen: &impl Fn(usize) -> Seen,
) -> Option<(usize, Seen)> {
    if count == 0 {
        return None;
    }
    let start = random(count);
    // A step that has no divisor in common with the count comes to everyone; which step it is is random too, so that the neighbour of
    // one that is away does not get all of its requests.
    let step = if count > 2 { coprime(count, 1 + random(count - 1)) } else { 1 };
    (0..count)
        .map(|at| (start + at * step) % count)
        .filter(|at| Some(*at) != but)
        .map(|at| (at, seen(at)))
        .find(|(_, one)| one.usable)
}

fn coprime(count: usize, step: usize) -> usize {
    let divides = |one: usize, other: usize| {
        let (mut one, mut other) = (one, other);
        while other != 0 {
            (one, other) = (other, one % other);
        }
        one
    };
    (step..count).find(|step| divides(count, *step) == 1).unwrap_or(1)
}

/// The same one for the same key: rendezvous hashing, weighted. `name` is a backend's, hashed. Where one goes, only its keys move.
pub fn by_key(count: usize, key: u64, name: impl Fn(usize) -> u64, seen: impl Fn(usize) -> Seen) -> Option<usize> {
    let mut best: Option<(f64, usize)> = None;
    for at in 0..count {
        let one = seen(at);
        let score = f64::from(one.weight) / -unit(mix(key ^ mix(name(at)))).ln();
        if one.usable && best.is_none_or(|(most, _)| score > most) {
            best = Some((score, at));
        }
    }
    best.map(|(_, at)| at)
}

/// A key as a number: FNV-1a, which is the same in every balancer and every version.
pub fn hash(bytes: &[u8]) -> u64 {
    mix(bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)))
}

/// Every bit of the number decides about every bit of the result (splitmix64).
fn mix(number: u64) -> u64 {
    let number = (number ^ number >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ number >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ number >> 31
}

/// Between 0 and 1, neither of them.
#[expect(clippy::cast_precision_loss, reason = "it has 53 bits")]
fn unit(number: u64) -> f64 {
    ((number >> 11) as f64 + 0.5) / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PLAIN: Seen = Seen { usable: true, weight: 1, warmth: 1.0, pending: 0, ewma: Ewma::NONE };

    #[test]
    fn turns_are_dealt_by_weight_and_evenly() {
        for (weights, expected) in [
            (vec![1, 1, 1], vec![0, 1, 2]),
            (vec![5, 1, 1], vec![0, 0, 1, 0, 2, 0, 0]),
            (vec![20, 10], vec![0, 1, 0]),
            (vec![], vec![]),
        ] {
            assert_eq!(schedule(&weights), expected, "{weights:?}");
        }
    }

    #[test]
    fn a_turn_of_one_that_is_away_is_taken_by_the_next() {
        let away = |gone: &'static [usize]| move |at: usize| Seen { usable: !gone.contains(&at), ..PLAIN };
        let turns = schedule(&[1, 1, 1]);
        assert_eq!(in_turn(&turns, 4, 0.5, away(&[])), Some(1));
        assert_eq!(in_turn(&turns, 4, 0.5, away(&[1])), Some(2));
        assert_eq!(in_turn(&turns, 4, 0.5, away(&[0, 1, 2])), None);
        assert_eq!(in_turn(&[], 4, 0.5, away(&[])), None);
    }

    #[test]
    fn a_cold_one_gets_few_turns_unless_it_is_the_only_one() {
        let cold = |at: usize| Seen { warmth: if at == 0 { 0.1 } else { 1.0 }, ..PLAIN };
        assert_eq!(in_turn(&[0, 1], 0, 0.05, cold), Some(0));
        assert_eq!(in_turn(&[0, 1], 0, 0.5, cold), Some(1));
        assert_eq!(in_turn(&[0], 0, 0.5, cold), Some(0));
    }

    #[test]
    fn the_fewest_requests_under_way_count_by_weight() {
        let pending = |counts: [u32; 3], weights: [u32; 3]| {
            move |at: usize| Seen { pending: counts[at], weight: weights[at], ..PLAIN }
        };
        assert_eq!(least_pending(3, 0, pending([3, 1, 2], [1, 1, 1])), Some(1));
        assert_eq!(least_pending(3, 0, pending([3, 1, 2], [10, 1, 1])), Some(0));
        assert_eq!(least_pending(3, 2, pending([0, 0, 0], [1, 1, 1])), Some(2), "equals share");
        assert_eq!(least_pending(0, 0, pending([0, 0, 0], [1, 1, 1])), None);
    }

    #[test]
    fn of_two_the_sooner_is_taken() {
        let slow = Ewma::NONE.observe(90_000, 0);
        let fast = Ewma::NONE.observe(1000, 0);
        let cases: [(Seen, Seen, usize); 4] = [
            (Seen { ewma: slow, ..PLAIN }, Seen { ewma: fast, ..PLAIN }, 1),
            (Seen { ewma: slow, ..PLAIN }, Seen { ewma: fast, pending: 200, ..PLAIN }, 0),
            // Never measured: neither flooded nor shunned.
            (Seen { ewma: slow, pending: 2, ..PLAIN }, Seen { pending: 1, ..PLAIN }, 1),
            (Seen { ewma: slow, ..PLAIN }, Seen { usable: false, ..PLAIN }, 0),
        ];
        for (one, other, expected) in cases {
            for start in 0..2 {
                let seen = |at: usize| if at == 0 { one } else { other };
                assert_eq!(of_two(2, 0, |_| start, seen), Some(expected), "{one:?} {other:?}");
            }
        }
    }

    proptest! {
        #[test]
        fn whoever_is_chosen_can_be_asked(usable in prop::collection::vec(any::<bool>(), 0..12), seed: u64, now: u32) {
            let mut state = seed;
            let mut random = move |below: usize| {
                state = mix(state.wrapping_add(0x9e37_79b9_7f4a_7c15));
                usize::try_from(state % below as u64).unwrap()
            };
            let seen = |at: usize| Seen { usable: usable[at], ..PLAIN };
            let weights = vec![1; usable.len()];
            let first = if usable.is_empty() { 0 } else { random(usable.len()) };
            for chosen in [
                in_turn(&schedule(&weights), first, 0.5, seen),
                least_pending(usable.len(), first, seen),
                of_two(usable.len(), now, &mut random, seen),
                by_key(usable.len(), seed, |at| at as u64, seen),
            ] {
                prop_assert_eq!(chosen.is_some(), usable.contains(&true));
                prop_assert!(chosen.is_none_or(|at| usable[at]));
            }
        }

        #[test]
        fn only_the_keys_of_one_that_goes_move(keys in prop::collection::vec(any::<u64>(), 1..50), gone in 0usize..5) {
            let name = |at: usize| hash(format!("10.0.0.{at}:80").as_bytes());
            for key in keys {
                let before = by_key(5, key, name, |_| PLAIN).unwrap();
                let after = by_key(5, key, name, |at| Seen { usable: at != gone, ..PLAIN }).unwrap();
                prop_assert!(before == after || before == gone);
            }
        }
    }

    #[test]
    fn keys_are_spread_by_weight() {
        let name = |at: usize| hash(format!("10.0.0.{at}:80").as_bytes());
        let mut counts = [0u32; 3];
        for key in 0..40_000u64 {
            let weight = |at: usize| Seen { weight: [1, 1, 2][at], ..PLAIN };
            counts[by_key(3, hash(&key.to_be_bytes()), name, weight).unwrap()] += 1;
        }
        let near = |count: u32, expected: u32| count.abs_diff(expected) < expected / 10;
        assert!(near(counts[0], 10_000) && near(counts[1], 10_000) && near(counts[2], 20_000), "{counts:?}");
    }
}
