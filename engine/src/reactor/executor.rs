//! The single-threaded executor: a run queue and the tasks of one reactor.
//!
//! The task cell is async-task's. Its wakers are `Send`, ours must not be used elsewhere: a waker that is called on
//! another thread would hand a `!Send` future to it. Such a call ends the process (see [`RunQueue::push`]).
#![allow(unsafe_code)]

use async_task::{FallibleTask, Runnable};
use slab::Slab;
use std::cell::{Cell, RefCell, UnsafeCell};
use std::collections::VecDeque;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};

/// The tasks of one reactor.
pub(crate) struct Executor {
    queue: Arc<RunQueue>,
    /// A waker of each task that has not ended, so that all can be ended with the reactor.
    living: Rc<RefCell<Slab<Waker>>>,
    closed: Cell<bool>,
}

/// A spawned future's handle: a future of its result. Dropping it cancels the future; [`Task::detach`] lets it run on.
/// If the reactor ends before the future does, the handle never completes.
#[must_use = "dropping a task cancels it; detach it to let it run on"]
pub struct Task<T> {
    task: Option<FallibleTask<T>>,
    /// Cancelling schedules the task, which only its own thread may do.
    not_send: PhantomData<Rc<()>>,
}

impl Executor {
    pub(crate) fn new() -> Executor {
        Executor { queue: Arc::new(RunQueue::new()), living: Rc::default(), closed: Cell::new(false) }
    }

    /// Queues the future to run. After [`Executor::close`] it is dropped at once.
    pub(crate) fn spawn<T: 'static>(&self, future: impl Future<Output = T> + 'static) -> Task<T> {
        if self.closed.get() {
            return Task { task: None, not_send: PhantomData };
        }
        let mut living = self.living.borrow_mut();
        let entry = living.vacant_entry();
        let life = Life { living: self.living.clone(), key: entry.key() };
        let future = async move {
            let _life = life;
            future.await
        };
        let queue = self.queue.clone();
        let schedule = move |runnable| queue.push(runnable);
        // SAFETY: The future is 'static and so is the schedule function, which is Send and Sync. The future need not be
        // Send because its Runnable is used and dropped on this thread only: it lives in the run queue, which no other
        // thread can push to or pop from (`RunQueue::push` checks), and which is empty for good before the executor,
        // which is bound to this thread, goes away (`close`).
        let (runnable, task) = unsafe { async_task::spawn_unchecked(future, schedule) };
        entry.insert(runnable.waker());
        drop(living);
        runnable.schedule();
        Task { task: Some(task.fallible()), not_send: PhantomData }
    }

    /// Runs at most `limit` ready tasks, in the order in which they became ready. Returns how many ran.
    pub(crate) fn run(&self, limit: usize) -> usize {
        for ran in 0..limit {
            let Some(runnable) = self.queue.pop() else { return ran };
            runnable.run();
        }
        limit
    }

    /// Whether a task is ready to run.
    pub(crate) fn has_ready(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Drops every task, also those that others spawn as they are dropped.
    pub(crate) fn close(&self) {
        self.closed.set(true);
        loop {
            let wakers: Vec<Waker> = self.living.borrow().iter().map(|(_, waker)| waker.clone()).collect();
            wakers.into_iter().for_each(Waker::wake);
            let mut dropped = false;
            while let Some(runnable) = self.queue.pop() {
                drop(runnable);
                dropped = true;
            }
            if !dropped {
                break;
            }
        }
    }
}

impl Drop for Executor {
    fn drop(&mut self) {
        self.close();
    }
}

/// Takes a task out of the list of the living when its future ends or is dropped.
struct Life {
    living: Rc<RefCell<Slab<Waker>>>,
    key: usize,
}

impl Drop for Life {
    fn drop(&mut self) {
        let waker = self.living.borrow_mut().remove(self.key);
        drop(waker);
    }
}

impl<T> std::fmt::Debug for Task<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Task").finish_non_exhaustive()
    }
}

impl<T> Task<T> {
    /// Lets the future run to its end without anybody waiting for it.
    pub fn detach(mut self) {
        if let Some(task) = self.task.take() {
            task.detach();
        }
    }

    /// Whether the future has ended.
    pub fn is_finished(&self) -> bool {
        self.task.as_ref().is_some_and(FallibleTask::is_finished)
    }
}

impl<T> Future for Task<T> {
    type Output = T;
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        let Some(task) = &mut self.task else { return Poll::Pending };
        match Pin::new(task).poll(cx) {
            Poll::Ready(Some(value)) => Poll::Ready(value),
            // The reactor dropped the future.
            Poll::Ready(None) => {
                self.task = None;
                Poll::Pending
            }
            Poll::Pending => Poll::Pending,
        }
    }
}

/// Tasks that are ready to run. Shared with wakers, which anybody may carry anywhere; used by the owning thread only.
struct RunQueue {
    owner: u64,
    ready: UnsafeCell<VecDeque<Runnable>>,
}

// SAFETY: `ready` is touched only after `assert_owner`, that is by one thread; `owner` never changes. The runnables in
// it are never dropped by another thread with the queue: `Executor::close` empties it and ends every task, and a task
// that has ended is never scheduled again.
unsafe impl Send for RunQueue {}
// SAFETY: as above.
unsafe impl Sync for RunQueue {}

impl RunQueue {
    fn new() -> RunQueue {
        RunQueue { owner: thread_number(), ready: UnsafeCell::default() }
    }

    fn push(&self, runnable: Runnable) {
        self.assert_owner();
        // SAFETY: only the owning thread gets here and no reference outlives these three functions, none of which
        // calls foreign code.
        unsafe { (*self.ready.get()).push_back(runnable) }
    }

    fn pop(&self) -> Option<Runnable> {
        self.assert_owner();
        // SAFETY: as in `push`.
        unsafe { (*self.ready.get()).pop_front() }
    }

    fn is_empty(&self) -> bool {
        self.assert_owner();
        // SAFETY: as in `push`.
        unsafe { (*self.ready.get()).is_empty() }
    }

    /// Ends the process on another thread. A panic would unwind through async-task with the future in hand and drop it
    /// here, on the wrong thread.
    fn assert_owner(&self) {
        if thread_number() != self.owner {
            eprintln!("a task of a reactor was woken on another thread: this is a bug");
            std::process::abort();
        }
    }
}

/// A number for this thread that no other thread has or will have.
fn thread_number() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    thread_local! {
        static NUMBER: u64 = NEXT.fetch_add(1, Ordering::Relaxed);
    }
    NUMBER.with(|number| *number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::{pending, poll_fn};

    #[test]
    fn tasks_run_in_the_order_in_which_they_became_ready() {
        let executor = Executor::new();
        let order = Rc::new(RefCell::new(Vec::new()));
        for number in 0..5 {
            let order = order.clone();
            executor.spawn(async move { order.borrow_mut().push(number) }).detach();
        }
        assert_eq!(executor.run(2), 2);
        assert!(executor.has_ready());
        assert_eq!(executor.run(10), 3);
        assert!(!executor.has_ready());
        assert_eq!(*order.borrow(), [0, 1, 2, 3, 4]);
    }

    #[test]
    fn executors_on_one_thread_wake_each_others_tasks() {
        let (one, other) = (Executor::new(), Executor::new());
        let slot = Rc::new(RefCell::new(None::<Waker>));
        let (put, mut polls) = (slot.clone(), 0);
        let task = one.spawn(poll_fn(move |cx| {
            *put.borrow_mut() = Some(cx.waker().clone());
            polls += 1;
            if polls == 2 { Poll::Ready(polls) } else { Poll::Pending }
        }));
        one.run(10);
        other.spawn(async move { slot.borrow_mut().take().unwrap().wake() }).detach();
        other.run(10);
        assert!(one.has_ready());
        one.run(10);
        assert!(task.is_finished());
    }

    /// Says when it is dropped, and spawns another like it.
    struct Last(Rc<Executor>, Rc<Cell<u32>>);

    impl Drop for Last {
        fn drop(&mut self) {
            self.1.set(self.1.get() + 1);
            self.0.spawn(async {}).detach();
        }
    }

    #[test]
    fn closing_drops_every_future_and_refuses_new_ones() {
        let executor = Rc::new(Executor::new());
        let drops = Rc::new(Cell::new(0));
        let mut tasks = Vec::new();
        for index in 0..3 {
            let last = Last(executor.clone(), drops.clone());
            tasks.push(executor.spawn(async move {
                let _last = last;
                pending::<()>().await;
            }));
            if index == 0 {
                executor.run(1);
            }
        }
        executor.close();
        assert_eq!(drops.get(), 3);
        let mut cx = Context::from_waker(Waker::noop());
        assert!(Pin::new(&mut tasks[0]).poll(&mut cx).is_pending());
        assert!(Pin::new(&mut executor.spawn(async {})).poll(&mut cx).is_pending());
        assert!(!executor.has_ready());
    }

    #[test]
    fn a_waker_may_outlive_its_executor() {
        let slot = Rc::new(RefCell::new(None::<Waker>));
        let put = slot.clone();
        let executor = Executor::new();
        let task = executor.spawn(poll_fn::<(), _>(move |cx| {
            *put.borrow_mut() = Some(cx.waker().clone());
            Poll::Pending
        }));
        executor.run(1);
        drop(executor);
        let waker = slot.take().unwrap();
        waker.wake_by_ref();
        // Also on another thread: nothing is scheduled any more.
        std::thread::spawn(move || waker.wake()).join().unwrap();
        drop(task);
    }

    /// Ends the process, so it runs in one of its own.
    #[test]
    #[cfg_attr(miri, ignore = "starts a process")]
    fn waking_a_task_on_another_thread_ends_the_process() {
        const CHILD: &str = "CORELOG_TEST_WAKES_ELSEWHERE";
        if std::env::var_os(CHILD).is_some() {
            let executor = Executor::new();
            let slot = Rc::new(RefCell::new(None::<Waker>));
            let put = slot.clone();
            let _task = executor.spawn(poll_fn::<(), _>(move |cx| {
                *put.borrow_mut() = Some(cx.waker().clone());
                Poll::Pending
            }));
            executor.run(1);
            let waker = slot.take().unwrap();
            let _ = std::thread::spawn(move || waker.wake()).join();
            return;
        }
        let name = "reactor::executor::tests::waking_a_task_on_another_thread_ends_the_process";
        let child = std::process::Command::new(std::env::current_exe().unwrap())
            .args([name, "--exact", "--nocapture"])
            .env(CHILD, "1")
            .output()
            .unwrap();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&child.status), Some(libc::SIGABRT));
        assert!(String::from_utf8_lossy(&child.stderr).contains("woken on another thread"));
    }
}
