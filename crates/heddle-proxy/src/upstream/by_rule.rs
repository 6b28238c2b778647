//! Which of a cluster's endpoints takes a request where a rule says how one is chosen: who may take it at
//! all, which group it falls on (a locality's), and whom of that one. It knows endpoints by their position
//! in the cluster, and asks for what one costs.

use std::{sync::Arc, time::Instant};

use heddle_logic::balance::{self, Cost, share::warmth};
use heddle_model::discovery::Method;

use crate::{
    breaker::{Admitted, Breaker, Place, Tries},
    snapshot::{Balancer, Cluster, LbEndpoint},
};

/// What is asked for besides a cluster.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ask {
    /// When.
    pub(crate) now: Instant,
    /// 64 random bits.
    pub(crate) random: u64,
    /// The hash of what the rule tells requests apart by, where the request has that.
    pub(crate) hash: Option<u64>,
    /// Is it for a connection that carries bytes?
    pub(crate) connection: bool,
    /// Is a further attempt to go to another locality?
    pub(crate) elsewhere: bool,
}

impl Ask {
    /// For whoever fits.
    pub(crate) fn new(now: Instant, random: u64) -> Self {
        Self { now, random, hash: None, connection: false, elsewhere: false }
    }
}

/// The endpoint, by its position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Chosen {
    /// This one.
    One(usize),
    /// This one, which is out, to see whether it is well again.
    Probe(usize),
}

/// Why it is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Nobody {
    /// The rule leads to no endpoint.
    Absent,
    /// All are out for their errors.
    Out,
}

/// A choice to be made.
pub(super) struct Choice<'a> {
    pub(super) cluster: &'a Cluster,
    pub(super) balancer: &'a Balancer,
    pub(super) ask: Ask,
    /// It is a copy's: those take nobody's turn.
    pub(super) copy: bool,
}

impl Choice<'_> {
    /// Makes it, for a request that was tried at none of the endpoints for which `tried` is true, unless
    /// there is no other.
    pub(super) fn make(
        &self,
        tried: Option<&dyn Fn(usize) -> bool>,
        cost: &dyn Fn(usize) -> Cost,
    ) -> Result<Chosen, Nobody> {
        if tried.is_none() && !self.cluster.has_ejected() {
            // Nothing stands against anybody: no list is made.
            let group = self.group(None).ok_or(Nobody::Absent)?;
            return self.within(group, None, cost).map(Chosen::One).ok_or(Nobody::Absent);
        }
        let endpoints = &self.cluster.endpoints;
        let mut usable = vec![true; endpoints.len()];
        if let Some(breaker) = self.cluster.breaker.as_ref().filter(|_| self.cluster.has_ejected())
        {
            match self.admitted(breaker, tried.is_some()) {
                Admitted::All => {}
                Admitted::Probe(at) => return Ok(Chosen::Probe(at)),
                Admitted::Some(among) => {
                    usable = vec![false; endpoints.len()];
                    among.into_iter().for_each(|at| usable[at] = true);
                }
            }
        }
        self.among(&usable, tried, cost).map(Chosen::One).ok_or_else(|| {
            match self.balancer.groups().is_empty() {
                true => Nobody::Absent,
                false => Nobody::Out,
            }
        })
    }

    /// Who may take the request. A key's own endpoint is tried again by its own requests only, while there
    /// are others: a client keeps to where it is.
    fn admitted(&self, breaker: &Arc<Breaker>, spared: bool) -> Admitted {
        let tries = match spared {
            // What comes of a copy nobody counts.
            _ if self.copy => Tries::Never,
            true => Tries::IfNobodyIsIn,
            false => Tries::AtOnce,
        };
        let places: Vec<&Place> =
            self.cluster.endpoints.iter().filter_map(|one| one.place.as_deref()).collect();
        let Some(own) = self.keys_own().filter(|own| *own < places.len()) else {
            return breaker.admitted(&places, tries, self.ask.now);
        };
        match breaker.admitted(&places[own..=own], tries, self.ask.now) {
            Admitted::Probe(_) => Admitted::Probe(own),
            Admitted::All | Admitted::Some(_) => {
                let tries = if self.copy { tries } else { Tries::IfNobodyIsIn };
                breaker.admitted(&places, tries, self.ask.now)
            }
        }
    }

    /// The endpoint that the request's key belongs to while nobody is out.
    fn keys_own(&self) -> Option<usize> {
        let hash = self.ask.hash?;
        let group = self.group(None)?;
        let at = self.balancer.table(group)?.pick(hash, |_| true)?;
        self.balancer.groups()[group].members.get(at).copied()
    }

    /// One of those who are usable, another than those tried if there is one.
    fn among(
        &self,
        usable: &[bool],
        tried: Option<&dyn Fn(usize) -> bool>,
        cost: &dyn Fn(usize) -> Cost,
    ) -> Option<usize> {
        let untried = |at: usize| usable[at] && !tried.is_some_and(|tried| tried(at));
        let groups = self.balancer.groups();
        let any = |group: usize, fit: &dyn Fn(usize) -> bool| {
            groups[group].members.iter().any(|at| fit(*at))
        };
        let usual = self.group(Some(usable));
        if let Some(tried) = tried {
            let has_tried = |group: usize| self.ask.elsewhere && any(group, tried);
            // The usual one, another zone of its, whichever is next; those where one failed already at last,
            // if so asked.
            let levels = self.balancer.levels();
            let zones =
                if usual.is_some_and(|usual| usual >= levels) { levels } else { groups.len() };
            let order = || usual.into_iter().chain(zones..groups.len()).chain(0..levels);
            let fresh = order().filter(|group| !has_tried(*group)).chain(order());
            let mut found = fresh.filter(|group| any(*group, &untried));
            if let Some(group) = found.next() {
                return self.within(group, Some(&untried), cost);
            }
        }
        self.within(usual?, Some(&|at| usable[at]), cost)
    }

    /// The group on which the request falls; `usable` says who is, if not all.
    fn group(&self, usable: Option<&[bool]>) -> Option<usize> {
        // What has a key stays where it is as far as it can.
        let chance = balance::chance(self.ask.hash.unwrap_or(self.ask.random));
        self.balancer.group(usable, (chance, balance::chance(!self.ask.random)))
    }

    /// One of a group's, of those that are `fit` if not of all.
    fn within(
        &self,
        group: usize,
        fit: Option<&dyn Fn(usize) -> bool>,
        cost: &dyn Fn(usize) -> Cost,
    ) -> Option<usize> {
        let members = &self.balancer.groups().get(group)?.members;
        let turns = self.balancer.turns(group);
        let is_fit = |at: usize| members.get(at).is_some_and(|one| fit.is_none_or(|fit| fit(*one)));
        let at = match (&self.balancer.rule().method, self.ask.hash) {
            (Method::Hash(_), Some(hash)) => self.balancer.table(group)?.pick(hash, is_fit),
            (Method::RoundRobin, _) if !self.copy => self.in_turn(members, turns, &is_fit, fit),
            (Method::RoundRobin | Method::Random | Method::Hash(_), _) => {
                self.any(members, turns, &is_fit, fit)
            }
            (Method::LeastRequest | Method::Passthrough, _) => {
                let cost = |at: usize| self.warming(members[at], cost(members[at]));
                match fit {
                    None => balance::pick(members.len(), self.ask.random, cost),
                    Some(_) => {
                        let left: Vec<usize> =
                            (0..members.len()).filter(|at| is_fit(*at)).collect();
                        let picked =
                            balance::pick(left.len(), self.ask.random, |at| cost(left[at]));
                        picked.map(|at| left[at])
                    }
                }
            }
        };
        members.get(at?).copied()
    }

    /// Whose turn it is. Who is new passes it on now and then.
    fn in_turn(
        &self,
        members: &[usize],
        turns: &[u16],
        is_fit: &dyn Fn(usize) -> bool,
        fit: Option<&dyn Fn(usize) -> bool>,
    ) -> Option<usize> {
        let breaker = self.cluster.breaker.as_ref()?;
        let turn = || breaker.turn(self.ask.connection) as usize;
        self.settled(members, turns, (is_fit, fit.is_some()), &|count, _| turn() % count)
    }

    /// Anybody, by weight.
    fn any(
        &self,
        members: &[usize],
        turns: &[u16],
        is_fit: &dyn Fn(usize) -> bool,
        fit: Option<&dyn Fn(usize) -> bool>,
    ) -> Option<usize> {
        let draw = |count: usize, draw: u32| {
            let random = self.ask.random.rotate_left(draw.wrapping_mul(17));
            balance::scale((random >> 16) as u32, count)
        };
        self.settled(members, turns, (is_fit, fit.is_some()), &draw)
    }

    /// Draws a position in the round of turns until one takes it: each does but those that are new.
    fn settled(
        &self,
        members: &[usize],
        turns: &[u16],
        (is_fit, some): (&dyn Fn(usize) -> bool, bool),
        draw: &dyn Fn(usize, u32) -> usize,
    ) -> Option<usize> {
        let left: Vec<u16>;
        let turns = match some {
            false => turns,
            true => {
                left = turns.iter().copied().filter(|at| is_fit(usize::from(*at))).collect();
                &left
            }
        };
        if turns.is_empty() {
            return None;
        }
        let mut at = usize::from(turns[draw(turns.len(), 0)]);
        let draws = if turns.len() > 1 { DRAWS_MAX } else { 0 };
        for round in 1..=draws {
            let part = self.part_of(members[at]);
            if part >= 1.0 || balance::chance(self.ask.random.rotate_left(round * 7)) < part {
                break;
            }
            at = usize::from(turns[draw(turns.len(), round)]);
        }
        Some(at)
    }

    /// The part of its share that an endpoint gets.
    fn part_of(&self, at: usize) -> f64 {
        let Some(warmup) = &self.balancer.rule().warmup else { return 1.0 };
        let place = |one: &Arc<LbEndpoint>| one.place.as_ref()?.new_for(self.ask.now);
        let new = self.cluster.endpoints.get(at).and_then(place);
        new.map_or(1.0, |since| warmth(warmup, since))
    }

    fn warming(&self, at: usize, cost: Cost) -> Cost {
        match self.part_of(at) {
            1.0 => cost,
            part => cost.slowed(part),
        }
    }
}

/// Draws after which a new endpoint takes a request all the same: where all are new, one has to.
const DRAWS_MAX: u32 = 16;

#[cfg(test)]
mod tests;
