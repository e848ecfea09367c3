//! Whose job is next: stride scheduling over organizations.
//!
//! Pure. Every organization has a turn in virtual time, and whoever's turn is first
//! is next; being served moves it on, the less the more weight it has. Invariants: one
//! that comes anew is served before any other is served twice (at equal weights),
//! however much the others have waiting; nobody saves up turns while it has nothing
//! to wait for.

use std::collections::HashMap;

use slipway_domain::OrganizationId;

/// How far a service moves an organization of weight 1.
const STRIDE: u64 = 1 << 20;

/// The largest weight: with more, strides would be too short to tell apart.
pub const MAX_WEIGHT: u32 = 1000;

/// The turns of one queue.
#[derive(Debug, Default)]
pub struct Fair {
    turns: HashMap<OrganizationId, u64>,
    /// The turn that was served last.
    now: u64,
}

impl Fair {
    /// An organization has something that waits, and had nothing before.
    pub fn join(&mut self, organization: OrganizationId) {
        let turn = self.turns.entry(organization).or_default();
        *turn = (*turn).max(self.now);
    }

    /// Nothing of an organization waits any more. What it is ahead stays until the
    /// others have caught up, so that leaving and coming gains nothing.
    pub fn leave(&mut self, organization: &OrganizationId) {
        if self.turn(organization) <= self.now {
            self.turns.remove(organization);
        }
    }

    /// When it is the turn of an organization that waits.
    pub fn turn(&self, organization: &OrganizationId) -> u64 {
        self.turns.get(organization).copied().unwrap_or(self.now)
    }

    /// An organization is served.
    pub fn serve(&mut self, organization: OrganizationId, weight: u32) {
        let turn = self.turns.entry(organization).or_insert(self.now);
        // One that was held back, by a limit of its own, does not make up for it.
        self.now = self.now.max(*turn);
        *turn = self.now + stride(weight);
        if self.turns.len() > 2 * FEW {
            // Of those who left and were passed since; who waits is as well off anew.
            self.turns.retain(|_, turn| *turn > self.now);
        }
    }

    /// How many of `waiting` jobs of `other` come before the job that has `before`
    /// others of its own organization in front of it.
    pub fn ahead(
        &self,
        organization: (&OrganizationId, u32),
        before: usize,
        other: (&OrganizationId, u32),
        waiting: usize,
    ) -> usize {
        let at = self.turn(organization.0) + before as u64 * stride(organization.1);
        let from = self.turn(other.0);
        let served = at.saturating_sub(from).div_ceil(stride(other.1));
        usize::try_from(served).unwrap_or(usize::MAX).min(waiting)
    }
}

/// Turns kept of organizations that may have left, before they are looked through.
const FEW: usize = 1024;

fn stride(weight: u32) -> u64 {
    STRIDE / u64::from(weight.clamp(1, MAX_WEIGHT))
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn id(n: u128) -> OrganizationId {
        OrganizationId::from_uuid(Uuid::from_u128(n))
    }

    /// Serves `count` times whoever of `waiting` is next, and returns whom.
    fn serve(fair: &mut Fair, waiting: &[(u128, u32)], count: usize) -> Vec<u128> {
        let mut served = vec![];
        for _ in 0..count {
            let next = waiting.iter().min_by_key(|(n, _)| (fair.turn(&id(*n)), *n));
            let (n, weight) = *next.expect("somebody waits");
            fair.serve(id(n), weight);
            served.push(n);
        }
        served
    }

    #[test]
    fn who_comes_anew_is_next_however_long_another_was_served() {
        let mut fair = Fair::default();
        fair.join(id(1));
        serve(&mut fair, &[(1, 1)], 500);
        fair.join(id(2));
        assert_eq!(serve(&mut fair, &[(1, 1), (2, 1)], 6), [2, 1, 2, 1, 2, 1]);
    }

    #[test]
    fn service_is_in_proportion_to_weight() {
        let mut fair = Fair::default();
        (1..=3).for_each(|n| fair.join(id(n)));
        let served = serve(&mut fair, &[(1, 1), (2, 3), (3, 6)], 1000);
        let count = |who| served.iter().filter(|n| **n == who).count();
        assert_eq!((count(1), count(2), count(3)), (100, 300, 600));
        // Evenly, not one after the other.
        assert!(served.chunks(10).all(|part| part.contains(&1)));
    }

    #[test]
    fn nobody_gains_by_leaving_and_none_saves_up_turns() {
        let mut fair = Fair::default();
        fair.join(id(1));
        fair.join(id(2));
        fair.serve(id(1), 1);
        fair.leave(&id(1));
        fair.join(id(1));
        assert_eq!(serve(&mut fair, &[(1, 1), (2, 1)], 1), [2]);
        // 2 is away while 1 is served.
        fair.leave(&id(2));
        serve(&mut fair, &[(1, 1)], 100);
        fair.join(id(2));
        let served = serve(&mut fair, &[(1, 1), (2, 1)], 10);
        assert_eq!(served.iter().filter(|n| **n == 2).count(), 5);
    }

    #[test]
    fn who_was_held_back_by_a_limit_does_not_make_up_for_it() {
        let mut fair = Fair::default();
        fair.join(id(1));
        fair.join(id(2));
        // 1 waits, too, but may not have more.
        serve(&mut fair, &[(2, 1)], 100);
        let served = serve(&mut fair, &[(1, 1), (2, 1)], 10);
        // One that it is owed, and then in turn.
        assert_eq!(served, [1, 1, 2, 1, 2, 1, 2, 1, 2, 1]);
    }

    #[test]
    fn those_ahead_are_those_who_are_served_first() {
        let mut fair = Fair::default();
        let all = [(1, 1), (2, 2), (3, 5)];
        all.iter().for_each(|(n, _)| fair.join(id(*n)));
        serve(&mut fair, &all, 7);
        for (n, weight) in all {
            for before in 0..20 {
                let others = all.iter().filter(|(other, _)| *other != n);
                let ahead: usize = others
                    .map(|(other, w)| fair.ahead((&id(n), weight), before, (&id(*other), *w), 400))
                    .sum();
                let mut copy = Fair { turns: fair.turns.clone(), now: fair.now };
                let served = serve(&mut copy, &all, 400);
                let own = served.iter().enumerate().filter(|(_, who)| **who == n).nth(before);
                let place = own.expect("it is served").0;
                // Those whose turn is the same may come first or not.
                assert!(place.abs_diff(before + ahead) <= 2, "{n} {before}: {place} {ahead}");
            }
        }
    }
}
