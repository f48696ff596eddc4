//! A request's way through: look at it, choose a backend, ask it, perhaps ask another, pass the answer on.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderValue, Request, Response, StatusCode, Version, header};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use ntier_security::firewall::Facts;
use tokio::sync::{OwnedSemaphorePermit, watch};

use crate::access::Line;
use crate::answer::Refusal;
use crate::decode::Head;
use crate::exchange::{Exchange, Failure};
use crate::guard;
use crate::head::{self, Via};
use crate::link::{self, Link};
use crate::observe::Observation;
use crate::outbound::{Account, Download, Outbound, Ticket};
use crate::plan::{Ask, Plan, Seat, Tried};
use crate::repeat::{is_read, is_repeatable};
use crate::tunnel;
use crate::upload::{Bounds, Upload};
use crate::worker::Worker;
use crate::{crew, room};

/// A client's connection.
#[derive(Debug)]
pub struct Front {
    pub address: IpAddr,
    /// Likewise, as text.
    pub peer: String,
    pub is_trusted: bool,
    pub is_tls: bool,
    /// True once the balancer is asked to end.
    pub stop: watch::Receiver<bool>,
    /// Its place among all connections; a websocket keeps it.
    pub place: Seated,
}

/// Places that are taken as long as the connection is there.
#[derive(Debug)]
#[expect(dead_code, reason = "they are held")]
pub struct Seated {
    /// Among those of the worker, which waits for all of them at the end.
    pub worker: OwnedSemaphorePermit,
    pub room: room::Place,
    /// Of the connections that workers share evenly.
    pub share: crew::Share,
}

/// Answers a request that hyper has read.
pub async fn forward(worker: &Arc<Worker>, front: &Arc<Front>, mut request: Request<Incoming>) -> Response<Outbound> {
    let has_upgrade = request.headers().contains_key(header::UPGRADE);
    let is_extended = head::is_extended_connect(&request);
    let upgrade = (has_upgrade || is_extended).then(|| hyper::upgrade::on(&mut request));
    let (mut parts, body) = request.into_parts();
    if is_extended {
        head::websocket_of_http2(&mut parts);
    }
    let upgrade = upgrade.filter(|_| is_extended || head::wants_websocket(&parts));
    let is_held = parts.headers.contains_key(header::EXPECT);
    let response = match pass(worker, front, &parts, |bounds| Upload::new(body, is_held, bounds), upgrade).await {
        Answered::Own(response) => response,
        Answered::Passed(passed) => passed.into_response(worker),
    };
    if parts.version == Version::HTTP_2 { response.map(|body| worker.streams.watch(body)) } else { response }
}

/// What came of a request.
pub enum Answered {
    /// The balancer's own answer, or one that opens a tunnel.
    Own(Response<Outbound>),
    /// A backend's.
    Passed(Passed),
}

/// A backend's answer, and what the balancer says in it.
pub struct Passed {
    pub head: Head,
    /// `Strict-Transport-Security`
    pub hsts: Option<HeaderValue>,
    /// `X-Request-Id`
    pub id: Option<[u8; 32]>,
    pub body: Outbound,
}

impl Passed {
    fn into_response(self, worker: &Worker) -> Response<Outbound> {
        let Ok(headers) = self.head.headers() else {
            worker.counts.own[5].add(1);
            return Refusal::BadAnswer.response().map(Outbound::whole);
        };
        let mut response = Response::new(self.body);
        *response.status_mut() = self.head.status;
        *response.headers_mut() = headers;
        if let Some(hsts) = self.hsts {
            response.headers_mut().insert(header::STRICT_TRANSPORT_SECURITY, hsts);
        }
        if let Some(id) = self.id.and_then(|id| HeaderValue::from_bytes(&id).ok()) {
            response.headers_mut().insert("x-request-id", id);
        }
        response
    }
}

/// Lets a request in, or not; passes it on, or answers it.
pub async fn pass(
    worker: &Arc<Worker>,
    front: &Arc<Front>,
    parts: &Parts,
    upload: impl FnOnce(Bounds) -> Upload,
    upgrade: Option<OnUpgrade>,
) -> Answered {
    let begun = Instant::now();
    worker.deposit();
    let plan = worker.plan();
    let id = request_id();
    let settings = &plan.settings;
    let client = guard::client(front, &parts.headers, &settings.trusted_proxy);
    let account = Account::new(worker, begun, || line(parts, front, client, &id));
    let client = Client { address: client, path: parts.uri.path() };
    let bounds = Bounds {
        kept: if settings.retries.most > 0 { settings.retries.body_bytes } else { 0 },
        most: settings.body_bytes,
        rate: settings.body_rate,
        pause: settings.times.body_pause,
    };
    // Before anything is refused: what is refused is read on for a while too, so that the answer is seen.
    let upload = upload(bounds);
    if let Some(defence) = &worker.defence {
        let facts = Facts::new(client.address, &parts.method, &parts.uri, &parts.headers);
        if let Err(refusal) = defence.admit(&facts, begun) {
            worker.counts.denied.add(1);
            return own(worker, account, refusal.response().map(Bytes::from), refusal.code());
        }
    }
    if let Err(fault) = head::check(parts) {
        return refuse(worker, account, Refusal::Malformed(fault), &client);
    }
    if upload.is_too_large() {
        return refuse(worker, account, Refusal::BodyTooLarge, &client);
    }
    let visit = Visit { worker, plan: &plan, front, parts, client, id: &id, is_websocket: upgrade.is_some() };
    visit.answer(upload, account, upgrade, begun).await
}

/// A name for a request, by which logs of several machines find each other.
fn request_id() -> [u8; 32] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let number = fastrand::u128(..).to_be_bytes();
    let mut text = [0; 32];
    for (pair, byte) in text.chunks_exact_mut(2).zip(number) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 15)];
    }
    text
}

fn line(parts: &Parts, front: &Front, client: IpAddr, id: &[u8]) -> Line {
    let text = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let theirs = || text("x-request-id").filter(|_| front.is_trusted);
    Line {
        at: SystemTime::now(),
        id: theirs().unwrap_or_else(|| String::from_utf8_lossy(id).into_owned()),
        client: client.to_string(),
        method: parts.method.clone(),
        host: parts.uri.authority().map(|authority| authority.as_str().to_owned()).or_else(|| text("host")),
        path: parts.uri.path().to_owned(),
        version: parts.version,
        status: 0,
        code: None,
        backend: None,
        attempts: 0,
        sent: 0,
        received: 0,
        first_byte: Duration::ZERO,
        took: Duration::ZERO,
        whole: false,
    }
}

/// Whose request it is, and for what.
#[derive(Debug, Clone, Copy)]
struct Client<'a> {
    address: IpAddr,
    path: &'a str,
}

/// The balancer does not pass the request on, or not its answer.
fn refuse(worker: &Worker, account: Account, refusal: Refusal, client: &Client<'_>) -> Answered {
    if let Some(defence) = &worker.defence {
        guard::refused(defence, refusal, client.address, client.path);
    }
    own(worker, account, refusal.response(), refusal.code())
}

/// The balancer answers itself.
fn own(worker: &Worker, mut account: Account, response: Response<Bytes>, code: &'static str) -> Answered {
    worker.counts.own[usize::from(response.status().as_u16() / 100).min(5)].add(1);
    account.answered(response.status(), Some(code), Instant::now());
    account.sent(response.body().len());
    account.end(true);
    Answered::Own(response.map(Outbound::whole))
}

/// A request that is being answered.
struct Visit<'a> {
    worker: &'a Arc<Worker>,
    plan: &'a Arc<Plan>,
    front: &'a Arc<Front>,
    parts: &'a Parts,
    client: Client<'a>,
    id: &'a [u8; 32],
    is_websocket: bool,
}

/// How long one may wait without looking.
const WAIT: Duration = Duration::from_millis(10);

/// Whether an answer speaks against its backend: 503, and when to come again. What a request brings about by itself does not, else
/// clients could have backends ejected: a statement that takes too long (504), a file that is to go elsewhere (502), a function of the
/// application that chooses its status.
fn is_trouble(head: &Head) -> bool {
    head.status == StatusCode::SERVICE_UNAVAILABLE
        && head.fields().any(|(name, _)| name.eq_ignore_ascii_case(header::RETRY_AFTER.as_str().as_bytes()))
}

/// A place among those that wait.
struct Waiting<'a>(&'a Worker);

impl<'a> Waiting<'a> {
    fn new(worker: &'a Worker) -> Self {
        worker.counts.waiting.add(1);
        Self(worker)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.counts.waiting.take(1);
    }
}

/// What was tried so far.
#[derive(Default)]
struct Course {
    tried: Tried,
    attempts: u32,
    /// Attempts that the budget has paid for.
    retries: u32,
    /// The same backend is asked once more, on a connection of its own.
    same: Option<usize>,
}

/// What came of one attempt.
struct Attempt {
    exchange: Exchange,
    head: Head,
    ticket: Ticket,
    /// When the head was there.
    at: Instant,
}

impl Visit<'_> {
    async fn answer(
        &self,
        mut upload: Upload,
        mut account: Account,
        upgrade: Option<OnUpgrade>,
        begun: Instant,
    ) -> Answered {
        let key = self.plan.key(self.parts, self.client.address);
        let turn = usize::try_from(self.worker.counts.requests.get()).unwrap_or_default();
        let mut course = Course::default();
        let mut last = Refusal::NoBackend;
        loop {
            let mut now = if course.attempts == 0 { begun } else { Instant::now() };
            let ask = Ask { key, tried: &course.tried, turn, now, is_websocket: self.is_websocket };
            let same = course.same.take().and_then(|at| Ticket::take(self.plan, at, self.worker));
            let chosen = same.or_else(|| self.choose(&ask));
            let chosen = if chosen.is_none() && course.attempts == 0 && self.plan.usable(ask.now) > 0 {
                last = Refusal::Busy;
                let place = self.wait(&ask).await;
                now = Instant::now();
                place
            } else {
                chosen
            };
            let Some(ticket) = chosen else { break };
            let at = ticket.at();
            account.asks(&ticket.backend().name);
            upload.rewind();
            let failure = match self.attempt(ticket, &mut upload, course.attempts > 0, now).await {
                Ok(answered) if self.asks_elsewhere(&answered, at, &upload, &mut course) => continue,
                Ok(answered) => return self.pass_on(answered, upload, account, upgrade),
                Err(failure) => failure,
            };
            last = Refusal::of(&failure);
            if !self.goes_again(&failure, at, &upload, &mut course) {
                break;
            }
        }
        drop(upload);
        refuse(self.worker, account, last, &self.client)
    }

    /// A place at the backend that is asked; `None` where none can be.
    fn choose(&self, ask: &Ask<'_>) -> Option<Ticket> {
        loop {
            let at = self.plan.choose(ask)?;
            if let Some(ticket) = Ticket::take(self.plan, at, self.worker) {
                return Some(ticket);
            }
        }
    }

    /// Waits until a backend has room, for as long as one may.
    async fn wait(&self, ask: &Ask<'_>) -> Option<Ticket> {
        let (limits, waiting) = (&self.plan.settings.limits, &self.worker.counts.waiting);
        if waiting.get() >= limits.waiting {
            return None;
        }
        let _place = Waiting::new(self.worker);
        let end = Instant::now() + limits.queue;
        loop {
            let freed = self.worker.freed.notified();
            let now = Instant::now();
            if let Some(ticket) = self.choose(&Ask { now, ..*ask }) {
                return Some(ticket);
            }
            if now >= end {
                return None;
            }
            // Another worker's request may be done too, of which nothing is heard here.
            let _ = tokio::time::timeout(WAIT.min(end - now), freed).await;
        }
    }

    /// Whether somebody else is asked, as this backend refuses: nothing was done, and another may do it.
    fn asks_elsewhere(&self, answered: &Attempt, at: usize, upload: &Upload, course: &mut Course) -> bool {
        let is_refusal = matches!(answered.head.status, StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE);
        let retries = self.plan.settings.retries.most;
        if !is_refusal || !is_read(&self.parts.method) || !upload.is_whole() || course.retries >= retries {
            return false;
        }
        course.tried.add(at);
        let is_websocket = self.is_websocket;
        let another = Ask { key: None, tried: &course.tried, turn: 0, now: Instant::now(), is_websocket };
        if self.plan.choose(&another).is_none() || !self.worker.withdraw(another.now) {
            return false;
        }
        if is_trouble(&answered.head) {
            self.worker.failed(self.plan, &self.plan.seats[at], answered.head.status.as_str(), another.now);
        }
        course.attempts += 1;
        course.retries += 1;
        true
    }

    /// What a failed attempt changes, and whether there is another.
    fn goes_again(&self, failure: &Failure, at: usize, upload: &Upload, course: &mut Course) -> bool {
        course.attempts += 1;
        let is_repeatable = || is_repeatable(&self.parts.method, self.parts.uri.path(), &self.parts.headers);
        let may_repeat = match failure {
            // The client's fault is nobody else's.
            Failure::Client(_) => return false,
            Failure::Own(cause) => {
                self.worker.observe.tell(&Observation::Exhausted { cause: &cause.to_string() });
                return false;
            }
            Failure::Connect(_) => true,
            Failure::Unanswered { .. } => is_repeatable(),
            Failure::Broken(_) | Failure::Malformed(_) | Failure::Late => false,
        } && upload.is_whole();
        // A connection that was closed while it was idle says nothing about its backend.
        let was_idle = matches!(failure, Failure::Unanswered { was_reused: true, .. });
        if was_idle && may_repeat {
            course.same = Some(at);
            return true;
        }
        course.tried.add(at);
        let (seat, now) = (&self.plan.seats[at], Instant::now());
        let again = may_repeat && course.retries < self.plan.settings.retries.most && self.worker.withdraw(now);
        course.retries += 1;
        let cause = failure.to_string();
        self.worker.observe.tell(&Observation::Failed { backend: &seat.backend.name, cause: &cause, again });
        self.worker.lane(&seat.backend).figures.failures.add(1);
        if !was_idle {
            self.worker.failed(self.plan, seat, &cause, now);
        }
        again
    }

    async fn attempt(
        &self,
        ticket: Ticket,
        upload: &mut Upload,
        is_fresh: bool,
        begun: Instant,
    ) -> Result<Attempt, Failure> {
        let seat = ticket.seat();
        let lane = self.worker.lane(&seat.backend);
        let times = &self.plan.settings.times;
        let rested = if is_fresh { None } else { lane.take(begun, times.kept) };
        let mut link = match rested {
            Some(link) => link,
            None => self.connect(seat).await?,
        };
        let via = Via {
            peer: &self.front.peer,
            is_trusted: self.front.is_trusted,
            is_tls: self.front.is_tls,
            id: std::str::from_utf8(self.id).unwrap_or_default(),
        };
        head::write(&mut link.write.gathered, self.parts, upload.framing, &via, self.is_websocket);
        let mut exchange = Exchange::new(link);
        let head = exchange.answer(upload, &self.parts.method, times).await?;
        let at = Instant::now();
        seat.backend.took(at.saturating_duration_since(begun), at);
        Ok(Attempt { exchange, head, ticket, at })
    }

    async fn connect(&self, seat: &Seat) -> Result<Box<Link>, Failure> {
        let figures = &self.worker.lane(&seat.backend).figures;
        match Link::open(seat.backend.address, self.plan.settings.times.connect).await {
            Ok(link) => {
                figures.connections.add(1);
                Ok(link)
            }
            Err(cause) if link::is_own(&cause) => Err(Failure::Own(cause)),
            Err(cause) => {
                figures.refused.add(1);
                Err(Failure::Connect(cause))
            }
        }
    }

    fn pass_on(&self, answered: Attempt, upload: Upload, mut account: Account, upgrade: Option<OnUpgrade>) -> Answered {
        let Attempt { exchange, head, ticket, at } = answered;
        let status = head.status;
        let backend = ticket.backend();
        if is_trouble(&head) {
            self.worker.failed(self.plan, ticket.seat(), status.as_str(), Instant::now());
        } else {
            backend.did_well();
        }
        let figures = &self.worker.lane(backend).figures;
        figures.answers[usize::from(status.as_u16() / 100).min(5)].add(1);
        figures.times.add(account.answered(status, None, at));
        if status == StatusCode::SWITCHING_PROTOCOLS {
            let is_websocket = head.upgrade().is_some_and(|to| to.eq_ignore_ascii_case(b"websocket"));
            return match (upgrade, head.headers()) {
                (Some(upgrade), Ok(headers)) if is_websocket => {
                    let whom = tunnel::Whom {
                        worker: self.worker,
                        plan: self.plan,
                        front: self.front,
                        is_http2: self.parts.version == Version::HTTP_2,
                    };
                    Answered::Own(tunnel::open(&whom, exchange, headers, ticket, account, upgrade))
                }
                // Nobody asked for it.
                _ => refuse(self.worker, account, Refusal::BadAnswer, &self.client),
            };
        }
        let download = Download::new(self.worker, self.plan, exchange, upload, head.body, head.keeps, ticket, account);
        Answered::Passed(Passed {
            head,
            hsts: self.plan.hsts.clone().filter(|_| self.front.is_tls),
            id: (!self.front.is_trusted).then_some(*self.id),
            body: Outbound::stream(download),
        })
    }
}
