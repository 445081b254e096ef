//! A crowd of bad clients in one thread: lets them in at a pace, lets another in for each that the server has closed.

use super::guest::{Guest, Kind, Tally, arrive};
use crate::disk::{Result, run};
use crate::interrupt;
use crate::process::PATIENCE;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

const TICK: Duration = Duration::from_millis(10);
const TICKS_A_SECOND: usize = 100;
/// Connections made in a tick: 2,000 a second.
const ARRIVALS: usize = 20;
const EVENTS: usize = 256;

/// What became of a crowd.
#[derive(Debug, Clone, Default)]
pub struct Numbers {
    /// The most connections that stood at once.
    pub standing: usize,
    /// Connections that were made.
    pub made: u64,
    /// Those that the server closed.
    pub closed: u64,
    /// Those that could not be made.
    pub turned_away: u64,
    /// Produces of theirs that were acknowledged.
    pub acknowledged: u64,
    /// And those that were refused.
    pub refused: u64,
}

/// It goes on until it is dispersed.
pub(super) struct Crowd {
    kind: Kind,
    over: Arc<AtomicBool>,
    made: Arc<AtomicU64>,
    thread: JoinHandle<Result<Numbers>>,
}

struct Guests {
    kind: Kind,
    shards: Vec<SocketAddr>,
    places: Vec<Option<Place>>,
    epoll: Epoll,
    /// Where the search for a free place goes on.
    next: usize,
    standing: usize,
    numbers: Numbers,
    /// Told to whoever waits for the crowd.
    made: Arc<AtomicU64>,
}

struct Place {
    guest: Box<dyn Guest>,
    interest: EpollFlags,
}

impl Crowd {
    /// It begins to come; [`Crowd::wait_until_whole`] waits for it.
    pub(super) fn gather(kind: Kind, shards: Vec<SocketAddr>) -> Result<Crowd> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let over = Arc::new(AtomicBool::new(false));
        let made: Arc<AtomicU64> = Arc::default();
        let (ending, telling) = (over.clone(), made.clone());
        let thread = thread::spawn(move || {
            let places = (0..kind.connections()).map(|_| None).collect();
            let numbers = Numbers::default();
            Guests { kind, shards, places, epoll, next: 0, standing: 0, numbers, made: telling }.stay(&ending)
        });
        Ok(Crowd { kind, over, made, thread })
    }

    /// Waits until as many have come as there are of its kind, or a signal; the server may have closed some again.
    pub(super) fn wait_until_whole(&self) -> Result<()> {
        let (until, wanted) = (Instant::now() + PATIENCE, self.kind.connections() as u64);
        while self.made.load(Ordering::Relaxed) < wanted {
            interrupt::check()?;
            if self.thread.is_finished() || Instant::now() > until {
                let made = self.made.load(Ordering::Relaxed);
                return Err(format!("{made} of {wanted} bad clients came: is this machine too busy for them?").into());
            }
            thread::sleep(TICK);
        }
        Ok(())
    }

    /// Closes all connections.
    pub(super) fn disperse(self) -> Result<Numbers> {
        self.over.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| "the crowd panicked")?
    }
}

impl Guests {
    fn stay(mut self, over: &AtomicBool) -> Result<Numbers> {
        step_back()?;
        let mut ticks = 0;
        let mut next = Instant::now();
        while !over.load(Ordering::Relaxed) {
            if Instant::now() >= next {
                next = Instant::now() + TICK;
                ticks += 1;
                self.let_in()?;
                self.second_passes(ticks % TICKS_A_SECOND)?;
            }
            self.serve()?;
        }
        (0..self.places.len()).for_each(|number| self.end(number));
        Ok(self.numbers)
    }

    fn let_in(&mut self) -> Result<()> {
        let free = self.places.len() - self.standing;
        for _ in 0..free.min(ARRIVALS) {
            while self.places[self.next].is_some() {
                self.next = (self.next + 1) % self.places.len();
            }
            let number = self.next;
            self.next = (self.next + 1) % self.places.len();
            match arrive(self.kind, number, &self.shards) {
                Ok(guest) => self.seat(number, guest)?,
                Err(_) => self.numbers.turned_away += 1,
            }
        }
        Ok(())
    }

    fn seat(&mut self, number: usize, guest: Box<dyn Guest>) -> Result<()> {
        let interest = guest.interest();
        self.epoll.add(guest.stream(), EpollEvent::new(interest | EpollFlags::EPOLLRDHUP, number as u64))?;
        self.places[number] = Some(Place { guest, interest });
        self.standing += 1;
        self.numbers.made += 1;
        self.made.fetch_add(1, Ordering::Relaxed);
        self.numbers.standing = self.numbers.standing.max(self.standing);
        Ok(())
    }

    /// Takes what has happened since, or waits a little for it.
    fn serve(&mut self) -> Result<()> {
        let mut events = [EpollEvent::empty(); EVENTS];
        let happened = self.epoll.wait(&mut events, EpollTimeout::try_from(TICK)?)?;
        for event in &events[..happened] {
            self.act(event.data() as usize, |guest| guest.ready(event.events()))?;
        }
        Ok(())
    }

    /// A second has passed for one in so many, in every tick for others.
    fn second_passes(&mut self, turn: usize) -> Result<()> {
        (turn..self.places.len())
            .step_by(TICKS_A_SECOND)
            .try_for_each(|number| self.act(number, |guest| guest.second()))
    }

    fn act(&mut self, number: usize, act: impl FnOnce(&mut dyn Guest) -> std::io::Result<()>) -> Result<()> {
        let Some(place) = &mut self.places[number] else { return Ok(()) };
        if act(&mut *place.guest).is_err() {
            self.numbers.closed += 1;
            self.end(number);
            return Ok(());
        }
        let interest = place.guest.interest();
        if interest != place.interest {
            place.interest = interest;
            let mut event = EpollEvent::new(interest | EpollFlags::EPOLLRDHUP, number as u64);
            self.epoll.modify(place.guest.stream(), &mut event)?;
        }
        Ok(())
    }

    fn end(&mut self, number: usize) {
        let Some(place) = self.places[number].take() else { return };
        let Tally { acknowledged, refused } = place.guest.tally();
        self.numbers.acknowledged += acknowledged;
        self.numbers.refused += refused;
        self.standing -= 1;
    }
}

/// A crowd would be on other machines: here the server and the honest clients have the cores first, yet leave it enough to be
/// one where other programs want them too.
fn step_back() -> Result<()> {
    let thread = nix::unistd::gettid().to_string();
    run("renice", ["-n", "5", "-p", &thread])
}

impl Numbers {
    pub(super) fn add(&mut self, other: &Numbers) {
        self.standing = self.standing.max(other.standing);
        self.made += other.made;
        self.closed += other.closed;
        self.turned_away += other.turned_away;
        self.acknowledged += other.acknowledged;
        self.refused += other.refused;
    }
}

impl fmt::Display for Numbers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Numbers { standing, made, closed, turned_away, acknowledged, refused } = self;
        write!(
            f,
            "{standing} connections at once, {made} made, {closed} closed by the server, {turned_away} not made"
        )?;
        if acknowledged + refused > 0 {
            write!(f, "; {acknowledged} produces acknowledged, {refused} refused")?;
        }
        Ok(())
    }
}
