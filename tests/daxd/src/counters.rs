// SPDX-License-Identifier: GPL-2.0

//! What the daemon counts.
//!
//! Everything is behind one lock and is changed in one go per event, so that a reader sees numbers that belong together.

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use serde::Serialize;

use crate::errno;
use crate::lock;
use crate::wire::Opcode;

/// How many complaints are kept; more are counted only.
const COMPLAINTS: usize = 100;

/// The numbers, as the control socket shows them.
#[derive(Default, Serialize)]
pub struct Numbers {
    /// Requests received, by opcode.
    pub requests: BTreeMap<String, u64>,
    /// Errors answered, by opcode and error.
    pub errors: BTreeMap<String, BTreeMap<String, u64>>,
    /// Each virtqueue; number 0 is the queue for FORGET.
    pub queues: Vec<QueueNumbers>,
    pub forget: ForgetNumbers,
    pub bytes: ByteNumbers,
    pub session: SessionNumbers,
    pub dax: DaxNumbers,
    /// Requests served at this moment, and the most at any moment.
    pub in_flight: u64,
    pub in_flight_max: u64,
    /// Fault actions carried out, by name.
    pub faults: BTreeMap<&'static str, u64>,
    /// Requests that broke the protocol.
    pub complaints: u64,
    /// The first of them, in words.
    pub complaint_texts: Vec<String>,
}

/// What happened on one virtqueue.
#[derive(Default, Serialize, Clone)]
pub struct QueueNumbers {
    /// Times the queue's thread was woken; kicks that arrive while it is not waiting are one.
    pub kicks: u64,
    /// Requests taken from the ring.
    pub requests: u64,
    /// Replies put into the ring.
    pub replies: u64,
    /// Interrupts sent.
    pub interrupts: u64,
    /// Replies without an interrupt, because the driver did not want one.
    pub suppressed: u64,
    /// The longest chain of descriptors.
    pub longest_chain: u64,
}

/// FORGET and BATCH_FORGET.
#[derive(Default, Serialize)]
pub struct ForgetNumbers {
    /// FORGET requests.
    pub single: u64,
    /// BATCH_FORGET requests.
    pub batch: u64,
    /// Nodes named in either.
    pub nodes: u64,
    /// Lookups given back by either.
    pub lookups: u64,
}

/// File data.
#[derive(Default, Serialize)]
pub struct ByteNumbers {
    pub read: u64,
    pub written: u64,
}

/// INIT and DESTROY.
#[derive(Default, Serialize)]
pub struct SessionNumbers {
    /// Whether the last INIT was followed by no DESTROY.
    pub open: bool,
    /// Minor version that the guest sent in the last INIT.
    pub guest_minor: u32,
    /// Flags that the guest offered.
    pub offered: u64,
    /// Flags that were answered.
    pub flags: u64,
    /// Inodes that the guest still knew when DESTROY came last.
    pub inodes_at_destroy: u64,
    /// Lookups that were not given back when DESTROY came last.
    pub lookups_at_destroy: u64,
    /// Files and directories that were open when DESTROY came last.
    pub handles_at_destroy: u64,
    /// Maps that were live when DESTROY came last.
    pub maps_at_destroy: u64,
}

/// The window.
#[derive(Default, Serialize)]
pub struct DaxNumbers {
    /// SETUPMAPPING ranges mapped, and their bytes.
    pub setup: u64,
    pub setup_bytes: u64,
    /// Of these, for a place that was occupied.
    pub setup_occupied: u64,
    /// Of these, for the same range of the same file (to make it writable).
    pub setup_same: u64,
    /// Of these, reaching past the end of the file.
    pub setup_past_eof: u64,
    /// Ranges in REMOVEMAPPING requests.
    pub remove: u64,
    /// Of these, where nothing was mapped.
    pub remove_nothing: u64,
    /// Maps and unmaps that the VMM refused.
    pub map_refused: u64,
    pub unmap_refused: u64,
    /// Maps whose effect did not show in time.
    pub barrier_timeouts: u64,
    /// Time spent in maps and unmaps, in microseconds.
    pub map_us: u64,
    pub unmap_us: u64,
    /// The most maps at any moment.
    pub live_maps_max: u64,
}

/// The counters, shared by all threads.
#[derive(Default)]
pub struct Counters {
    numbers: Mutex<Numbers>,
    changed: Condvar,
}

impl Counters {
    /// Counters for `queues` virtqueues.
    pub fn new(queues: usize) -> Self {
        let counters = Counters::default();
        counters.lock().queues = vec![QueueNumbers::default(); queues];
        counters
    }

    /// The numbers; nobody else changes them until the guard is dropped.
    pub fn lock(&self) -> MutexGuard<'_, Numbers> {
        lock::mutex(&self.numbers)
    }

    /// Counts a request that was taken from a queue.
    pub fn request(&self, queue: usize, opcode: Opcode) {
        let mut numbers = self.lock();
        *numbers.requests.entry(opcode.to_string()).or_default() += 1;
        numbers.queues[queue].requests += 1;
        numbers.in_flight += 1;
        numbers.in_flight_max = numbers.in_flight_max.max(numbers.in_flight);
        drop(numbers);
        self.changed.notify_all();
    }

    /// Counts the end of a request's service, whatever became of its reply.
    pub fn served(&self, opcode: Opcode, error: Option<Errno>) {
        let mut numbers = self.lock();
        numbers.in_flight = numbers.in_flight.saturating_sub(1);
        if let Some(error) = error {
            let errors = numbers.errors.entry(opcode.to_string()).or_default();
            *errors.entry(errno::name(error)).or_default() += 1;
        }
    }

    /// Counts a fault action.
    pub fn fault(&self, action: &'static str) {
        *self.lock().faults.entry(action).or_default() += 1;
        self.changed.notify_all();
    }

    /// Notes that the guest broke the protocol.
    pub fn complain(&self, text: String) {
        log::warn!("complaint: {text}");
        let mut numbers = self.lock();
        numbers.complaints += 1;
        if numbers.complaint_texts.len() < COMPLAINTS {
            numbers.complaint_texts.push(text);
        }
    }

    /// Sets everything to zero but what tells the present.
    pub fn reset(&self) {
        let mut numbers = self.lock();
        let session = std::mem::take(&mut numbers.session);
        *numbers = Numbers {
            queues: vec![QueueNumbers::default(); numbers.queues.len()],
            in_flight: numbers.in_flight,
            in_flight_max: numbers.in_flight,
            session,
            ..Default::default()
        };
    }

    /// Waits until `opcode` was received `count` times since the last reset; says whether it was in time.
    pub fn wait_for(&self, opcode: Opcode, count: u64, timeout: Duration) -> bool {
        let name = opcode.to_string();
        let deadline = Instant::now() + timeout;
        let mut numbers = self.lock();
        while numbers.requests.get(&name).copied().unwrap_or(0) < count {
            let Some(left) = deadline.checked_duration_since(Instant::now()) else {
                return false;
            };
            let waited = self.changed.wait_timeout(numbers, left);
            numbers = waited.unwrap_or_else(|poisoned| poisoned.into_inner()).0;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_by_name() {
        let counters = Counters::new(2);
        counters.request(1, Opcode::LOOKUP);
        counters.served(Opcode::LOOKUP, Some(Errno::NOENT));
        let numbers = counters.lock();
        assert_eq!(numbers.requests["LOOKUP"], 1);
        assert_eq!(numbers.errors["LOOKUP"]["ENOENT"], 1);
        assert_eq!(
            (numbers.queues[0].requests, numbers.queues[1].requests),
            (0, 1)
        );
        assert_eq!((numbers.in_flight, numbers.in_flight_max), (0, 1));
    }

    #[test]
    fn waiting_ends_with_the_count_or_the_time() {
        let counters = Counters::new(1);
        counters.request(0, Opcode::READ);
        assert!(counters.wait_for(Opcode::READ, 1, Duration::ZERO));
        assert!(!counters.wait_for(Opcode::READ, 2, Duration::from_millis(1)));
        counters.reset();
        assert!(!counters.wait_for(Opcode::READ, 1, Duration::ZERO));
        assert_eq!(counters.lock().queues.len(), 1);
    }

    #[test]
    fn complaints_are_bounded() {
        let counters = Counters::new(1);
        for i in 0..COMPLAINTS + 5 {
            counters.complain(i.to_string());
        }
        let numbers = counters.lock();
        assert_eq!(
            (numbers.complaints, numbers.complaint_texts.len()),
            (COMPLAINTS as u64 + 5, COMPLAINTS)
        );
    }
}
