//! The mesh in every order of its threads that the memory model allows, by loom. A wake-up that is lost is a deadlock here, a
//! slot that two threads use at once is a race.

use super::*;
use crate::reactor::sync::AtomicBool;
use loom::model;
use loom::sync::Notify;
use loom::thread;

/// Capacity 1, so that every message uses the slot of the one before.
#[test]
fn a_slot_is_its_receivers_until_it_is_given_back() {
    model(|| {
        let (mut sender, mut receiver) = ring(1);
        let sending =
            thread::spawn(move || (0..3).filter(|number| sender.try_send(Box::new(*number)).is_ok()).collect());
        let mut received: Vec<_> = (0..2).filter_map(|_| receiver.try_receive()).map(|number| *number).collect();
        let sent: Vec<i32> = sending.join().unwrap();
        received.extend(std::iter::from_fn(|| receiver.try_receive()).map(|number| *number));
        assert_eq!(received, sent);
    });
}

#[test]
fn what_was_not_received_is_dropped_once_whoever_goes_last() {
    model(|| {
        let counted = Arc::new(());
        let (mut sender, mut receiver) = ring(2);
        let message = counted.clone();
        let sending = thread::spawn(move || (0..2).for_each(|_| assert!(sender.try_send(message.clone()).is_ok())));
        drop(receiver.try_receive());
        drop(receiver);
        sending.join().unwrap();
        assert_eq!(Arc::strong_count(&counted), 1);
    });
}

#[test]
fn a_shard_that_sleeps_is_rung() {
    bounded(|| {
        let (sender, receiver) = ring(2);
        let house = House::attached();
        let sending = thread::spawn(send(sender, &house, 2));
        receive(&mut [receiver], &house, 2);
        sending.join().unwrap();
    });
}

#[test]
fn a_shard_that_sleeps_is_rung_by_either_of_two() {
    bounded(|| {
        let ((one, from_one), (other, from_other)) = (ring(1), ring(1));
        let house = House::attached();
        let sending = [one, other].map(|sender| thread::spawn(send(sender, &house, 1)));
        receive(&mut [from_one, from_other], &house, 2);
        sending.into_iter().for_each(|sending| sending.join().unwrap());
    });
}

/// It may get its door, and sleep, while the message is on its way.
#[test]
fn a_shard_that_begins_is_rung_or_sees_the_message() {
    bounded(|| {
        let (sender, receiver) = ring(1);
        let house = House::new();
        let sending = thread::spawn(send(sender, &house, 1));
        house.is_attached.store(true, Ordering::Release);
        receive(&mut [receiver], &house, 1);
        sending.join().unwrap();
    });
}

/// All orders with so many preemptions: without a bound two sleeps take minutes.
fn bounded(check: impl Fn() + Sync + Send + 'static) {
    let mut bounded = model::Builder::new();
    bounded.preemption_bound = Some(3);
    bounded.check(check);
}

/// What a reactor and its driver have of the door: where others find it, and what wakes the sleeper.
struct House {
    door: Door,
    /// Stands for the cell in which others find the door.
    is_attached: AtomicBool,
    bell: Notify,
}

impl House {
    fn new() -> sync::Arc<House> {
        sync::Arc::new(House { door: Door::new(0), is_attached: AtomicBool::new(false), bell: Notify::new() })
    }

    fn attached() -> sync::Arc<House> {
        let house = House::new();
        house.is_attached.store(true, Ordering::Release);
        house
    }
}

/// As `MeshHandle::try_send` does.
fn send(mut sender: Sender<usize>, house: &sync::Arc<House>, messages: usize) -> impl FnOnce() + 'static {
    let house = house.clone();
    move || {
        for number in 0..messages {
            assert_eq!(sender.try_send(number), Ok(()));
            if Door::knock(|| house.is_attached.load(Ordering::Acquire).then_some(&house.door)).is_some() {
                house.bell.notify();
            }
        }
    }
}

/// As a driver's loop does: sleeps when there is nothing, after it said so and looked once more.
fn receive(receivers: &mut [Receiver<usize>], house: &House, messages: usize) {
    let mut received = 0;
    while received < messages {
        received += receivers.iter_mut().filter_map(Receiver::try_receive).count();
        if received < messages {
            house.door.close_eyes();
            if receivers.iter_mut().all(Receiver::is_empty) {
                house.bell.wait();
            }
            house.door.open_eyes();
        }
    }
}
