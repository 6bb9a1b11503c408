// SPDX-License-Identifier: GPL-2.0

//! A thread that does things later.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use crate::lock;

type Task = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct Pending {
    /// By time, and by order where the times are the same.
    tasks: BTreeMap<(Instant, u64), Task>,
    /// The number of the next task.
    next: u64,
}

/// Does things later, on a thread of its own.
#[derive(Clone, Default)]
pub struct Timer(Arc<(Mutex<Pending>, Condvar)>);

impl Timer {
    /// Starts the thread.
    pub fn start() -> std::io::Result<Timer> {
        let timer = Timer::default();
        let thread = timer.clone();
        std::thread::Builder::new()
            .name("timer".into())
            .spawn(move || thread.run())?;
        Ok(timer)
    }

    /// Does `task` after `delay`.
    pub fn after(&self, delay: Duration, task: impl FnOnce() + Send + 'static) {
        let (pending, changed) = &*self.0;
        let mut pending = lock::mutex(pending);
        let number = pending.next;
        pending.next += 1;
        pending
            .tasks
            .insert((Instant::now() + delay, number), Box::new(task));
        changed.notify_one();
    }

    fn run(&self) {
        let (pending, changed) = &*self.0;
        let mut guard = lock::mutex(pending);
        loop {
            let now = Instant::now();
            let due = guard
                .tasks
                .first_key_value()
                .map(|((time, _), _)| time.saturating_duration_since(now));
            guard = match due {
                None => changed
                    .wait(guard)
                    .unwrap_or_else(|poisoned| poisoned.into_inner()),
                Some(Duration::ZERO) => {
                    let task = guard.tasks.pop_first();
                    drop(guard);
                    if let Some((_, task)) = task {
                        task();
                    }
                    lock::mutex(pending)
                }
                Some(left) => {
                    let waited = changed.wait_timeout(guard, left);
                    waited.unwrap_or_else(|poisoned| poisoned.into_inner()).0
                }
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn tasks_are_done_in_order_of_time() {
        let timer = Timer::start().unwrap();
        let (sender, receiver) = mpsc::channel();
        for delay in [30, 10, 20] {
            let sender = sender.clone();
            timer.after(Duration::from_millis(delay), move || {
                sender.send(delay).unwrap()
            });
        }
        let order: Vec<u64> = (0..3).map(|_| receiver.recv().unwrap()).collect();
        assert_eq!(order, [10, 20, 30]);
    }
}
