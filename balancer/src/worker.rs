//! What one worker has: the plan it goes by, its figures, its share of the retries. Nothing of it is waited for by another thread.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ntier_security::defence::Defence;
use tokio::sync::{Notify, watch};

use crate::access::AccessLog;
use crate::backend::{Backend, Lane};
use crate::budget::Budget;
use crate::eject::{self, Facts};
use crate::figures::Count;
use crate::observe::{Observation, Observe};
use crate::plan::{Plan, Seat};
use crate::streams::Streams;

#[derive(Debug)]
pub struct Worker {
    pub number: usize,
    /// Never contended: the worker's own task puts another in its place.
    plan: Mutex<Arc<Plan>>,
    budget: Mutex<Budget>,
    pub counts: Counts,
    pub access: AccessLog,
    pub observe: Observe,
    pub defence: Option<Arc<Defence>>,
    pub streams: Streams,
    /// A request is done, while others wait for its place.
    pub freed: Notify,
}

/// Of one worker.
#[derive(Debug, Default)]
pub struct Counts {
    /// Clients' connections, in all and open.
    pub connections: Count,
    pub open: Count,
    pub requests: Count,
    /// Requests that went to another backend, or to the same one again.
    pub retries: Count,
    /// Those that might have, but for the budget.
    pub unfunded: Count,
    /// Answers that the balancer made itself, by the first digit of their status.
    pub own: [Count; 6],
    /// Tunnels, in all and open.
    pub tunnels: Count,
    pub open_tunnels: Count,
    /// Requests that wait for a place at a backend.
    pub waiting: Count,
    /// Connections that were refused: there were too many.
    pub turned_away: Count,
    /// Requests that were not let in: by rules, bans or limits.
    pub denied: Count,
}

/// A plan of the worker's own: whoever counts who has it is not in another's way.
fn own(plan: &Plan) -> Arc<Plan> {
    Arc::new(plan.clone())
}

impl Worker {
    pub fn new(
        number: usize,
        plan: Arc<Plan>,
        access: AccessLog,
        observe: Observe,
        defence: Option<Arc<Defence>>,
    ) -> Self {
        let budget = Mutex::new(Budget::new(plan.settings.retries.budget, Instant::now()));
        Self {
            number,
            plan: Mutex::new(own(&plan)),
            budget,
            counts: Counts::default(),
            access,
            observe,
            defence,
            streams: Streams::default(),
            freed: Notify::new(),
        }
    }

    pub fn plan(&self) -> Arc<Plan> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes each plan that comes, and looks every second at connections that nobody needs any more and at answers that nobody takes.
    pub async fn follow(self: Arc<Self>, mut plans: watch::Receiver<Arc<Plan>>) {
        let mut tick = tokio::time::interval(Duration::from_secs(1));
        loop {
            tokio::select! {
                changed = plans.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let plan = own(&plans.borrow_and_update());
                    self.budget.lock().unwrap_or_else(PoisonError::into_inner).set_share(plan.settings.retries.budget);
                    let before = std::mem::replace(&mut *self.plan.lock().unwrap_or_else(PoisonError::into_inner), plan);
                    self.let_go(&before);
                }
                _ = tick.tick() => {
                    let plan = self.plan();
                    self.streams.give_up(Instant::now(), plan.settings.times.stall);
                    for seat in &plan.seats {
                        self.lane(&seat.backend).sweep(Instant::now(), plan.settings.times.kept);
                    }
                }
            }
        }
    }

    /// Connections to backends that are gone are not kept.
    fn let_go(&self, before: &Plan) {
        let plan = self.plan();
        for seat in &before.seats {
            if !plan.seats.iter().any(|now| Arc::ptr_eq(&now.backend, &seat.backend)) {
                self.lane(&seat.backend).sweep(Instant::now(), Duration::ZERO);
            }
        }
    }

    pub fn lane<'a>(&self, backend: &'a Backend) -> &'a Lane {
        &backend.lanes[self.number]
    }

    /// A request has come.
    pub fn deposit(&self) {
        self.counts.requests.add(1);
        self.budget.lock().unwrap_or_else(PoisonError::into_inner).deposit();
    }

    /// Whether a request may go again.
    pub fn withdraw(&self, now: Instant) -> bool {
        let funded = self.budget.lock().unwrap_or_else(PoisonError::into_inner).withdraw(now);
        let count = if funded { &self.counts.retries } else { &self.counts.unfunded };
        count.add(1);
        funded
    }

    /// A backend has failed a request; it may be left alone for a while.
    pub fn failed(&self, plan: &Plan, seat: &Seat, cause: &str, now: Instant) {
        let backend = &seat.backend;
        let now_ms = backend.clock.millis(now);
        let failures = backend.failures.fetch_add(1, Relaxed) + 1;
        let policy = &plan.settings.ejection;
        if failures < policy.failures || backend.is_ejected(now_ms) {
            return;
        }
        let others = plan.seats.iter().map(|seat| &seat.backend).filter(|other| !Arc::ptr_eq(other, backend));
        let facts = Facts {
            failures,
            times: backend.ejections.load(Relaxed),
            ejected: plan.seats.iter().filter(|seat| seat.backend.is_ejected(now_ms)).count(),
            others: others.filter(|other| other.is_usable(now_ms)).count(),
            all: plan.seats.len(),
        };
        let Some(time) = eject::decide(&facts, policy) else { return };
        backend.ejections.fetch_add(1, Relaxed);
        let until = now_ms + u64::try_from(time.as_millis()).unwrap_or(u64::MAX / 2);
        backend.ejected_until.store(until, Relaxed);
        backend.up_since.store(until, Relaxed);
        // One more failure afterwards is enough.
        backend.failures.store(policy.failures.saturating_sub(1), Relaxed);
        self.observe.tell(&Observation::Ejected { backend: &backend.name, time, cause });
    }
}
