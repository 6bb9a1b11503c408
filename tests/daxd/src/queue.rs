// SPDX-License-Identifier: GPL-2.0

//! A virtqueue: requests come out of it, replies go into it, also ones that the guest never asked for.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use vhost_user_backend::{VringRwLock, VringState, VringT};
use virtio_queue::QueueT;
use vm_memory::{
    Address, Bytes, GuestAddress, GuestAddressSpace, GuestMemoryAtomic, GuestMemoryMmap,
};

use crate::counters::Counters;
use crate::lock;

/// The guest's memory, as it is at the moment of looking.
pub type Memory = GuestMemoryAtomic<GuestMemoryMmap<()>>;

/// The longest request that is read.
const MAX_REQUEST: usize = 32 << 20;

/// Where a reply goes.
#[derive(Clone, Debug, Default)]
pub struct Slot {
    /// The queue's number.
    pub queue: usize,
    /// Which life of the queue the slot belongs to; a reset starts another.
    epoch: u64,
    head: u16,
    buffers: Vec<(GuestAddress, u32)>,
}

impl Slot {
    /// A slot without room, for tests.
    #[cfg(test)]
    pub fn of_queue(queue: usize) -> Slot {
        Slot {
            queue,
            ..Slot::default()
        }
    }

    /// How many bytes of reply fit.
    pub fn capacity(&self) -> usize {
        self.buffers.iter().map(|(_, len)| *len as usize).sum()
    }
}

/// Entries of the used ring beside a reply's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extra {
    /// The reply's entry once more.
    Duplicate,
    /// An entry with any number.
    Forged { id: u32, len: u32 },
}

/// A reply on its way.
#[derive(Debug)]
pub struct Completion {
    pub slot: Slot,
    pub bytes: Vec<u8>,
    /// The length to report, if it is not the reply's.
    pub used: Option<u32>,
    /// Whether the reply gets its own entry in the used ring at all.
    pub silent: bool,
    pub extras: Vec<Extra>,
    /// How long the interrupt comes after the entry.
    pub interrupt_delay: Duration,
}

impl Completion {
    /// A reply that is delivered as it should be.
    pub fn new(slot: Slot, bytes: Vec<u8>) -> Completion {
        let (used, silent, extras, interrupt_delay) = (None, false, Vec::new(), Duration::ZERO);
        Completion {
            slot,
            bytes,
            used,
            silent,
            extras,
            interrupt_delay,
        }
    }
}

/// Whether the guest is to be interrupted for a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notify {
    Now,
    Later(Duration),
    /// The driver does not want one.
    Suppressed,
    /// The queue was reset, and the reply is dropped.
    Gone,
}

/// A virtqueue.
pub struct Queue {
    index: usize,
    memory: Memory,
    counters: Arc<Counters>,
    vring: Mutex<Option<VringRwLock>>,
    epoch: AtomicU64,
    /// Held by the thread that takes requests, so that another can wait until those taken are served.
    serving: Mutex<()>,
}

impl Queue {
    /// The queue with number `index`.
    pub fn new(index: usize, memory: Memory, counters: Arc<Counters>) -> Queue {
        Queue {
            index,
            memory,
            counters,
            vring: Mutex::default(),
            epoch: AtomicU64::new(0),
            serving: Mutex::default(),
        }
    }

    /// The VMM kicked the queue, whose ring is `vring`.
    pub fn kicked(&self, vring: &VringRwLock) {
        self.counters.lock().queues[self.index].kicks += 1;
        lock::mutex(&self.vring).get_or_insert_with(|| vring.clone());
    }

    /// The VMM stopped the queue: what was taken from it is void.
    pub fn stop(&self) {
        let vring = lock::mutex(&self.vring).take();
        // With the ring locked, no reply is half written.
        let _guard = vring.as_ref().map(VringT::get_mut);
        self.epoch.fetch_add(1, Ordering::SeqCst);
    }

    fn vring(&self) -> Option<VringRwLock> {
        lock::mutex(&self.vring).clone()
    }

    /// Claims the right to take requests.
    pub fn serve(&self) -> MutexGuard<'_, ()> {
        lock::mutex(&self.serving)
    }

    /// Like [`Self::serve`], but gives up after `timeout`.
    pub fn serve_within(&self, timeout: Duration) -> Option<MutexGuard<'_, ()>> {
        let deadline = Instant::now() + timeout;
        loop {
            if let Ok(guard) = self.serving.try_lock() {
                return Some(guard);
            }
            if Instant::now() > deadline {
                return None;
            }
            std::thread::sleep(Duration::from_micros(100));
        }
    }

    /// Tells the driver not to kick while requests are being taken.
    pub fn silence_kicks(&self) {
        if let Some(vring) = self.vring() {
            let _ = vring.disable_notification();
        }
    }

    /// Tells the driver to kick again; says whether requests came meanwhile.
    pub fn want_kicks(&self) -> bool {
        self.vring()
            .is_some_and(|vring| vring.enable_notification().unwrap_or(false))
    }

    /// Takes the next request: its bytes, and where its reply goes.
    pub fn pop(&self) -> Option<(Vec<u8>, Slot)> {
        let vring = self.vring()?;
        let memory = self.memory.memory();
        let mut state = vring.get_mut();
        let queue = state.get_queue_mut();
        if !queue.ready() {
            return None;
        }
        let chain = queue.pop_descriptor_chain(memory.clone())?;
        let epoch = self.epoch.load(Ordering::SeqCst);
        let mut slot = Slot {
            queue: self.index,
            epoch,
            head: chain.head_index(),
            buffers: Vec::new(),
        };
        let mut request = Vec::new();
        let mut length = 0;
        for descriptor in chain {
            length += 1;
            if descriptor.is_write_only() {
                slot.buffers.push((descriptor.addr(), descriptor.len()));
                continue;
            }
            if !slot.buffers.is_empty() {
                self.counters.complain(format!(
                    "queue {}: a buffer to read after one to write",
                    self.index
                ));
            }
            let (start, end) = (request.len(), request.len() + descriptor.len() as usize);
            if end > MAX_REQUEST {
                self.counters
                    .complain(format!("queue {}: a request of {end} bytes", self.index));
                break;
            }
            request.resize(end, 0);
            if let Err(error) = memory.read_slice(&mut request[start..], descriptor.addr()) {
                let address = descriptor.addr().raw_value();
                self.counters.complain(format!(
                    "queue {}: cannot read at {address:#x}: {error}",
                    self.index
                ));
            }
        }
        let mut numbers = self.counters.lock();
        let longest = &mut numbers.queues[self.index].longest_chain;
        *longest = length.max(*longest);
        Some((request, slot))
    }

    /// Whether the guest still waits in `slot`, the queue not being reset since.
    pub fn is_current(&self, slot: &Slot) -> bool {
        self.epoch.load(Ordering::SeqCst) == slot.epoch
    }

    /// Writes a reply and its entry in the used ring.
    fn put(&self, completion: &Completion) -> Notify {
        let Some(vring) = self.vring() else {
            return Notify::Gone;
        };
        let slot = &completion.slot;
        let mut state = vring.get_mut();
        if !self.is_current(slot) || !state.get_queue().ready() {
            return Notify::Gone;
        }
        self.write(slot, &completion.bytes);
        let used = completion.used.unwrap_or(completion.bytes.len() as u32);
        if !completion.silent {
            if let Err(error) = state.add_used(slot.head, used) {
                log::error!("queue {}: cannot add a used entry: {error}", self.index);
            }
            self.counters.lock().queues[self.index].replies += 1;
        }
        // Forged entries are not in the count that decides about the interrupt.
        let wanted = state.needs_notification().unwrap_or(true) || !completion.extras.is_empty();
        for extra in &completion.extras {
            match *extra {
                Extra::Duplicate => self.forge_locked(&mut state, slot.head.into(), used),
                Extra::Forged { id, len } => self.forge_locked(&mut state, id, len),
            }
        }
        match completion.interrupt_delay {
            _ if !wanted => Notify::Suppressed,
            Duration::ZERO => Notify::Now,
            delay => Notify::Later(delay),
        }
    }

    /// Puts a reply into the ring; says for the caller when an interrupt is to be sent with [`Self::interrupt`].
    pub fn complete(&self, completion: &Completion) -> Notify {
        let notify = self.put(completion);
        match notify {
            Notify::Now => self.interrupt(),
            Notify::Suppressed => self.counters.lock().queues[self.index].suppressed += 1,
            Notify::Later(_) | Notify::Gone => {}
        }
        notify
    }

    /// Copies as much of `bytes` as fits into the reply's buffers.
    fn write(&self, slot: &Slot, bytes: &[u8]) {
        let memory = self.memory.memory();
        let mut rest = bytes;
        for (address, len) in &slot.buffers {
            let (now, later) = rest.split_at(rest.len().min(*len as usize));
            if let Err(error) = memory.write_slice(now, *address) {
                let address = address.raw_value();
                self.counters.complain(format!(
                    "queue {}: cannot write at {address:#x}: {error}",
                    self.index
                ));
            }
            rest = later;
        }
    }

    /// Adds an entry to the used ring that answers nothing, and interrupts.
    pub fn forge(&self, id: u32, len: u32) {
        let Some(vring) = self.vring() else { return };
        self.forge_locked(&mut vring.get_mut(), id, len);
        self.interrupt();
    }

    fn forge_locked(&self, state: &mut VringState<Memory>, id: u32, len: u32) {
        let memory = self.memory.memory();
        let queue = state.get_queue_mut();
        let ring = GuestAddress(queue.used_ring());
        let next = queue.next_used();
        let entry = ring.unchecked_add(4 + 8 * u64::from(next % queue.size()));
        let next = next.wrapping_add(1);
        let written = memory
            .write_slice(&[id.to_le_bytes(), len.to_le_bytes()].concat(), entry)
            .and_then(|()| memory.store(next.to_le(), ring.unchecked_add(2), Ordering::Release));
        match written {
            Ok(()) => queue.set_next_used(next),
            Err(error) => log::error!("queue {}: cannot forge a used entry: {error}", self.index),
        }
    }

    /// Interrupts the guest for this queue.
    pub fn interrupt(&self) {
        let Some(vring) = self.vring() else { return };
        self.counters.lock().queues[self.index].interrupts += 1;
        if let Err(error) = vring.signal_used_queue() {
            log::error!("queue {}: cannot interrupt: {error}", self.index);
        }
    }
}
