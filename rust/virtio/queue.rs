// SPDX-License-Identifier: GPL-2.0

//! Virtqueues that own the transfers in flight.
//!
//! Each [`Virtqueue`] has one lock, taken with interrupts off, for the ring and two lists: `in_flight`, the transfers that
//! are in the ring, and `parked`, those that found it full, in order. Nothing is shared between queues. The lock is the
//! innermost: while it is held no other lock is taken and no driver code runs but [`Owner::label`].
//!
//! A transfer that the device returns is ended in the interrupt itself, so that its waiter needs one wake-up and no work
//! item in between.

use crate::{
    connection::Connection,
    device::{
        Device,
        Probe, //
    },
    in_flight::Entry,
    parked::Parked,
    transfer::{
        token,
        NewTransfer,
        Owner,
        Transfer, //
    },
};
use core::ptr::NonNull;
use kernel::{
    error::to_result,
    list::{
        List,
        ListArc, //
    },
    prelude::*,
    str::CString,
    sync::{
        aref::ARef,
        atomic::{
            ordering,
            Atomic, //
        },
        new_mutex,
        new_spinlock_irq,
        rcu,
        Arc,
        Mutex,
        SpinLockIrq, //
    },
};
use kernel_ext::bindings;

/// Transfers that are taken out of a ring before the lock is let go for others.
const BATCH: usize = 16;

/// The ring and what is on it.
struct State<O: Owner> {
    /// The C queue; none before it was found and after it was shut down.
    ring: Option<NonNull<bindings::virtqueue>>,
    in_flight: List<Transfer<O>>,
    parked: Parked<O>,
    /// Nothing is put into the ring any more, see [`QueueSet::break_off`].
    broken: bool,
    /// Connections before this one send nothing any more, see [`QueueSet::abort_all`].
    aborted: u64,
}

// SAFETY: The ring may be used by any task or interrupt that holds the lock around this.
unsafe impl<O: Owner> Send for State<O> {}

/// Why a transfer was not added.
enum AddError {
    /// No descriptor, or no memory, is free; a returned transfer will change that.
    Full,
    /// It can't be added at all.
    Failed(Error),
}

impl<O: Owner> State<O> {
    /// Puts a transfer into the ring.
    fn add(
        &mut self,
        ring: NonNull<bindings::virtqueue>,
        transfer: ListArc<Transfer<O>>,
    ) -> core::result::Result<(), (ListArc<Transfer<O>>, AddError)> {
        let result = transfer.with_scatterlists(|lists, to_device, from_device| {
            // SAFETY: The ring is alive, as it is in `self.ring`, and we hold its lock. The lists describe memory that the
            // transfer owns, and it stays in `in_flight` until the device has returned it or was reset.
            to_result(unsafe {
                bindings::virtqueue_add_sgs(
                    ring.as_ptr(),
                    lists.as_mut_ptr(),
                    to_device,
                    from_device,
                    token(&transfer).as_ptr().cast(),
                    bindings::GFP_ATOMIC,
                )
            })
        });
        match result {
            Ok(()) => {
                self.in_flight.push_back(transfer);
                Ok(())
            }
            // With nothing in flight nothing will be returned that could make room.
            Err(e) if (e == ENOSPC || e == ENOMEM) && !self.in_flight.is_empty() => {
                Err((transfer, AddError::Full))
            }
            Err(e) if e == ENOSPC => Err((transfer, AddError::Failed(ENOMEM))),
            Err(e) if e == EIO => Err((transfer, AddError::Failed(ENOTCONN))),
            Err(e) => Err((transfer, AddError::Failed(e))),
        }
    }

    /// Takes the next returned transfer out of the ring.
    fn take_returned(
        &mut self,
        ring: NonNull<bindings::virtqueue>,
    ) -> Option<ListArc<Transfer<O>>> {
        let mut written = 0;
        // SAFETY: The ring is alive and we hold its lock.
        let token = unsafe { bindings::virtqueue_get_buf(ring.as_ptr(), &mut written) };
        let transfer = self.take_in_flight(NonNull::new(token)?)?;
        transfer.note_written(written as usize);
        Some(transfer)
    }

    /// Takes the transfer of a token that the ring gave back out of the list.
    fn take_in_flight(&mut self, token: NonNull<c_void>) -> Option<ListArc<Transfer<O>>> {
        // SAFETY: The ring keeps tokens in memory of its own and gives each back once, so this is a transfer that `add` put
        // into `in_flight`, and it is there still.
        unsafe { self.in_flight.remove(token.cast::<Transfer<O>>().as_ref()) }
    }

    /// Moves parked transfers into the ring while there is room. Those that can't be moved, or that nobody wants any more,
    /// are put into `unsent`. Returns whether the device is to be told.
    fn unpark(
        &mut self,
        ring: NonNull<bindings::virtqueue>,
        unsent: &mut List<Transfer<O>>,
    ) -> bool {
        let mut added = false;
        while let Some(transfer) = self.parked.pop_front() {
            if !transfer.is_pending() {
                unsent.push_back(transfer);
                continue;
            }
            match self.add(ring, transfer) {
                Ok(()) => added = true,
                Err((transfer, AddError::Full)) => {
                    self.parked.push_front(transfer);
                    break;
                }
                Err((transfer, AddError::Failed(_))) => unsent.push_back(transfer),
            }
        }
        // SAFETY: The ring is alive and we hold its lock.
        added && unsafe { bindings::virtqueue_kick_prepare(ring.as_ptr()) }
    }
}

/// A virtqueue whose transfers belong to driver `O`.
#[pin_data]
pub struct Virtqueue<O: Owner> {
    name: CString,
    data: O::Queue,
    #[pin]
    state: SpinLockIrq<State<O>>,
}

impl<O: Owner> Virtqueue<O> {
    fn new(name: CString, data: O::Queue) -> impl PinInit<Self> {
        pin_init!(Self {
            name,
            data,
            state <- new_spinlock_irq!(State {
                ring: None,
                in_flight: List::new(),
                parked: Parked::new(),
                broken: false,
                aborted: 0,
            }, "Virtqueue::state"),
        })
    }

    /// The queue's name, as given to [`QueueSet::new`].
    pub fn name(&self) -> &CStr {
        &self.name
    }

    /// What the driver keeps with the queue.
    pub fn data(&self) -> &O::Queue {
        &self.data
    }

    /// The number of entries of the ring: the most segments that a transfer may have. 0 when the queue was shut down.
    pub fn size(&self) -> usize {
        let state = self.state.lock();
        state.ring.map_or(0, |ring| {
            // SAFETY: The ring is alive and we hold its lock.
            unsafe { bindings::virtqueue_get_vring_size(ring.as_ptr()) as usize }
        })
    }

    /// Hands a transfer of `connection` to the device, or parks it when the ring is full. Callable from any context, except with the
    /// queue's own interrupt's work under way on this CPU ([`Owner::ended`]).
    ///
    /// `ENOTCONN` when the connection was closed or the device is broken, `ENODEV` when the queue was shut down, `ENOMEM` when the
    /// ring can't take it.
    pub fn submit(
        &self,
        transfer: NewTransfer<O>,
        connection: &Connection,
    ) -> Result<Arc<Transfer<O>>> {
        let [handle] = self.submit_each([transfer], connection);
        handle
    }

    /// As [`Virtqueue::submit`], of several transfers: each is taken or not, in this order, and the device is told of them once.
    pub fn submit_each<const N: usize>(
        &self,
        transfers: [NewTransfer<O>; N],
        connection: &Connection,
    ) -> [Result<Arc<Transfer<O>>>; N] {
        let mut pending = transfers.map(|transfer| Some(transfer.into_pending(connection)));
        // The ring outlives this, see `QueueSet::shut_down`.
        let _ring_alive = rcu::read_lock();
        let mut state = self.state.lock();
        // Under the lock: who closes the connection to end what it has sent looks through the queue after that.
        let may_send =
            connection.is_open() && !state.broken && !connection.is_before(state.aborted);
        let ring = match may_send {
            true => state.ring.ok_or(ENODEV),
            false => Err(ENOTCONN),
        };
        let ring = match ring {
            Ok(ring) => ring,
            Err(e) => {
                drop(state);
                return pending.map(|_unsent| Err(e));
            }
        };
        let mut added = false;
        // A transfer that the ring refuses stays in `pending`: it is dropped after the lock.
        let handles = pending.each_mut().map(|slot| {
            let transfer = slot.take().ok_or(EINVAL)?;
            let handle = transfer.clone_arc();
            if !state.parked.is_empty() {
                state.parked.push_back(transfer);
                return Ok(handle);
            }
            match state.add(ring, transfer) {
                Ok(()) => added = true,
                Err((transfer, AddError::Full)) => state.parked.push_back(transfer),
                Err((unsent, AddError::Failed(e))) => {
                    *slot = Some(unsent);
                    return Err(e);
                }
            }
            Ok(handle)
        });
        // SAFETY: The ring is alive and we hold its lock.
        let notify = added && unsafe { bindings::virtqueue_kick_prepare(ring.as_ptr()) };
        drop(state);
        if notify {
            // SAFETY: The read-side section keeps the ring alive. Telling the device needs no lock.
            unsafe { bindings::virtqueue_notify(ring.as_ptr()) };
        }
        handles
    }

    /// Ends what the device has returned. Called in interrupt context. Whether that may go on: not when it was something else than
    /// what the ring had.
    fn reap(&self) -> bool {
        let _ring_alive = rcu::read_lock();
        let mut more = true;
        while more {
            let (mut returned, mut unsent) = (List::new(), List::new());

            let mut state = self.state.lock();
            let Some(ring) = state.ring else { return true };
            // SAFETY: The ring is alive and we hold its lock.
            unsafe { bindings::virtqueue_disable_cb(ring.as_ptr()) };
            let mut room = false;
            for _ in 0..BATCH {
                match state.take_returned(ring) {
                    Some(transfer) => returned.push_back(transfer),
                    None => {
                        room = true;
                        break;
                    }
                }
            }
            let notify = state.unpark(ring, &mut unsent);
            // Enabling fails when more was returned meanwhile; with a full batch there may be more anyway.
            // SAFETY: The ring is alive and we hold its lock.
            more = !room || !unsafe { bindings::virtqueue_enable_cb(ring.as_ptr()) };
            // SAFETY: The ring is alive and we hold its lock.
            let broken = unsafe { bindings::virtqueue_is_broken(ring.as_ptr()) };
            drop(state);

            if notify {
                // SAFETY: As in `submit`.
                unsafe { bindings::virtqueue_notify(ring.as_ptr()) };
            }
            while let Some(transfer) = returned.pop_front() {
                Transfer::returned(transfer.as_arc(), &self.data);
            }
            self.end_unsent(unsent);
            if broken {
                return false;
            }
        }
        true
    }

    /// How many transfers have not ended: the device has them, or they wait for room in the ring. Callable from any context; takes
    /// as long as the ring has entries.
    pub fn waiting(&self) -> usize {
        let state = self.state.lock();
        let sent = state.in_flight.iter().filter(|t| t.is_awaited()).count();
        sent.saturating_add(state.parked.len())
    }

    /// Puts into `entries`, as far as these have room, what the device has not returned and what waits for room in the ring,
    /// oldest first; how many were left out. Callable from any context; takes as long as `entries` has room and the ring entries.
    pub fn list(&self, entries: &mut KVec<Entry<O::Label>>) -> usize {
        let state = self.state.lock();
        let in_flight = state.in_flight.iter().map(|t| t.entry(false));
        let parked = state.parked.iter().map(|t| t.entry(true));
        let room = entries.capacity().saturating_sub(entries.len());
        let mut put: usize = 0;
        for entry in Iterator::chain(in_flight, parked).take(room) {
            // Under the lock nothing is allocated.
            if entries.push_within_capacity(entry).is_err() {
                break;
            }
            put = put.saturating_add(1);
        }
        let sent = state.in_flight.iter().count();
        sent.saturating_add(state.parked.len()).saturating_sub(put)
    }

    /// Ends every transfer that is meant with [`Outcome::Aborted`](crate::Outcome::Aborted), the parked ones and those in flight. The
    /// memory of the latter stays with the queue.
    fn abort(&self, is_meant: impl Fn(&Transfer<O>) -> bool) {
        let parked = self.state.lock().parked.take(&is_meant);
        loop {
            let mut batch: [Option<Arc<Transfer<O>>>; BATCH] = [const { None }; BATCH];
            let state = self.state.lock();
            let mut pending = state
                .in_flight
                .iter()
                .filter(|t| t.is_pending() && is_meant(t));
            for (slot, transfer) in batch.iter_mut().zip(&mut pending) {
                *slot = Some(transfer.into());
            }
            drop(state);
            if batch.iter().flatten().next().is_none() {
                break;
            }
            for transfer in batch.iter().flatten() {
                Transfer::abort(transfer, &self.data);
            }
        }
        self.end_unsent(parked);
    }

    /// Ends transfers that were parked.
    fn end_unsent(&self, mut parked: List<Transfer<O>>) {
        while let Some(transfer) = parked.pop_front() {
            Transfer::unsent(transfer.as_arc(), &self.data);
        }
    }
}

/// All virtqueues of a device.
///
/// The device has them until it is unbound, and `virtio_device::priv` is a reference to the set: so it outlives its rings. Whoever
/// keeps it longer has queues that refuse everything.
#[pin_data]
pub struct QueueSet<O: Owner> {
    queues: KVec<Pin<KBox<Virtqueue<O>>>>,
    device: ARef<Device>,
    broken: Atomic<i32>,
    /// Whether the device has the queues: from when they were found to when they are deleted, with the lock held.
    #[pin]
    found: Mutex<bool>,
    /// Connections before this one were aborted.
    aborted: Atomic<u64>,
}

impl<O: Owner> QueueSet<O> {
    /// Finds the device's virtqueues, one for each name and driver's data given, and starts the device. For [`crate::Driver::probe`].
    ///
    /// The first `reserved` queues get no interrupt of a CPU of their own. Sleeps. Errors: `EINVAL` when there is no name, `ENOMEM`,
    /// and those of the transport.
    pub fn new(
        probe: Probe<'_, O>,
        wanted: KVec<(CString, O::Queue)>,
        reserved: u32,
    ) -> Result<Arc<Self>> {
        let bound = probe.device();
        let device: &Device = &bound;
        if wanted.is_empty() {
            return Err(EINVAL);
        }
        let mut queues = KVec::with_capacity(wanted.len(), GFP_KERNEL)?;
        for (name, data) in wanted {
            queues.push(
                KBox::pin_init(Virtqueue::new(name, data), GFP_KERNEL)?,
                GFP_KERNEL,
            )?;
        }
        let this = Arc::pin_init(
            pin_init!(Self {
                queues,
                device: device.into(),
                broken: Atomic::new(0),
                aborted: Atomic::new(0),
                found <- new_mutex!(false, "QueueSet::found"),
            }),
            GFP_KERNEL,
        )?;

        let count = this.queues.len();
        let mut infos = KVec::with_capacity(count, GFP_KERNEL)?;
        let mut rings = KVec::from_elem(core::ptr::null_mut(), count, GFP_KERNEL)?;
        for queue in &this.queues {
            infos.push(
                bindings::virtqueue_info {
                    name: queue.name.as_char_ptr(),
                    callback: Some(Self::used_callback),
                    ctx: false,
                },
                GFP_KERNEL,
            )?;
        }
        let mut affinity = bindings::irq_affinity {
            pre_vectors: reserved,
            ..Default::default()
        };
        let number = u32::try_from(count)?;
        // SAFETY: The device is being bound, so it is ours, and has no queues: `probe` says so. Both arrays have `count` entries. The
        // callback finds this set through `priv_`, which has a reference to it as long as there are rings.
        let done = to_result(unsafe {
            (*device.as_raw()).priv_ = Arc::into_raw(this.clone()).cast_mut().cast();
            bindings::virtio_find_vqs(
                device.as_raw(),
                number,
                rings.as_mut_ptr(),
                infos.as_mut_ptr(),
                &mut affinity,
            )
        });
        if let Err(e) = done {
            // SAFETY: As above; no ring is left.
            unsafe { Self::leave(device) };
            return Err(e);
        }
        *this.found.lock() = true;
        for (queue, ring) in this.queues.iter().zip(&rings) {
            queue.state.lock().ring = NonNull::new(*ring);
        }
        // SAFETY: The queues have been found.
        unsafe { bindings::virtio_device_ready(device.as_raw()) };
        Ok(this)
    }

    /// The queue with this index.
    pub fn get(&self, index: usize) -> Option<&Virtqueue<O>> {
        self.queues.get(index).map(|queue| &**queue)
    }

    /// The number of queues.
    pub fn len(&self) -> usize {
        self.queues.len()
    }

    /// Whether there is no queue.
    pub fn is_empty(&self) -> bool {
        self.queues.is_empty()
    }

    /// The device.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Whether the device has returned what it never had, see [`Owner::broken`].
    pub fn is_broken(&self) -> bool {
        self.broken.load(ordering::Relaxed) != 0
    }

    /// The device has returned by `culprit` what it never had. No interrupt may come any more, so that nobody else would end what
    /// waits. Called in interrupt context.
    fn break_off(&self, culprit: &Virtqueue<O>) {
        if self.broken.xchg(1, ordering::Full) != 0 {
            return;
        }
        O::broken(&culprit.data);
        for queue in &self.queues {
            queue.state.lock().broken = true;
            queue.abort(|_| true);
        }
    }

    /// Closes a connection and ends its transfers with [`Outcome::Aborted`](crate::Outcome::Aborted), those that are being submitted
    /// included. Memory of those in flight is kept until the device returns it. Whether the connection was open.
    pub fn abort(&self, connection: &Connection) -> bool {
        let was_open = connection.close();
        for queue in &self.queues {
            queue.abort(|transfer| transfer.is_of(connection));
        }
        was_open
    }

    /// As [`QueueSet::abort`], for all connections that there are. Later ones may send.
    pub fn abort_all(&self) {
        let count = Connection::count();
        let mut old = self.aborted.load(ordering::Relaxed);
        // Never back: others may do the same.
        while old < count {
            match self.aborted.cmpxchg(old, count, ordering::Full) {
                Ok(_) => break,
                Err(now) => old = now,
            }
        }
        for queue in &self.queues {
            let mut state = queue.state.lock();
            state.aborted = state.aborted.max(count);
            drop(state);
            queue.abort(|transfer| transfer.is_before(count));
        }
    }

    /// Whether a connection still sends: it is neither closed nor [aborted](QueueSet::abort_all), and the device is not
    /// [broken](QueueSet::is_broken). Callable from any context.
    pub fn serves(&self, connection: &Connection) -> bool {
        connection.is_open()
            && !connection.is_before(self.aborted.load(ordering::Relaxed))
            && !self.is_broken()
    }

    /// Calls `each` with the CPUs that the transport has assigned to the interrupt of queue `index`; `false` when it has
    /// assigned none, or there is no such queue any more. Sleeps; `each` must not shut the queues down.
    pub fn for_each_cpu_of(&self, index: usize, mut each: impl FnMut(usize)) -> bool {
        let found = self.found.lock();
        let index = match u32::try_from(index) {
            Ok(number) if *found && index < self.queues.len() => number,
            _ => return false,
        };
        // SAFETY: The device has the queue as long as the lock is held.
        let mask = unsafe { bindings::virtiofs_helper_vq_affinity(self.device.as_raw(), index) };
        let Some(mask) = NonNull::new(mask.cast_mut()) else {
            return false;
        };
        // SAFETY: The transport's mask lives until the queues are deleted.
        let mask = unsafe { kernel::cpumask::Cpumask::from_raw(mask.as_ptr()) };
        for cpu in 0..kernel::cpu::nr_cpu_ids() {
            if kernel::cpu::CpuId::from_u32(cpu).is_some_and(|id| mask.test(id)) {
                each(cpu as usize);
            }
        }
        true
    }

    /// The device has no queues yet.
    ///
    /// # Safety
    ///
    /// To be called by the bus's callbacks, for a device that is being bound.
    pub(crate) unsafe fn none(device: &Device) {
        // SAFETY: The device is being bound, so it is the driver's.
        unsafe { (*device.as_raw()).priv_ = core::ptr::null_mut() };
    }

    /// The device's queues, if they were set up.
    ///
    /// # Safety
    ///
    /// To be called by the bus's callbacks, for a device that is bound to a driver whose transfers belong to `O`.
    pub(crate) unsafe fn of(device: &Device) -> Option<&Self> {
        // SAFETY: `new` has set it to a set of this type, to which it is a reference, or it is null.
        unsafe { (*device.as_raw()).priv_.cast::<Self>().as_ref() }
    }

    /// The device is no longer bound: it has no queues any more.
    ///
    /// # Safety
    ///
    /// To be called for a device that is being bound or unbound, by or from a driver whose transfers belong to `O`.
    pub(crate) unsafe fn leave(device: &Device) {
        // SAFETY: As the caller says. After the queues were shut down no callback comes that would look for the set.
        unsafe {
            let Some(this) = Self::of(device) else { return };
            this.shut_down();
            Self::none(device);
            drop(Arc::from_raw(this));
        }
    }

    /// Resets the device and ends every transfer; later ones fail with `ENODEV`. Sleeps. Calls after the first do nothing, but wait
    /// for it. When the device is unbound it has been done.
    pub fn shut_down(&self) {
        // The device is not unbound before the lock is dropped.
        let mut found = self.found.lock();
        if !*found {
            return;
        }
        // No new transfer from here on.
        for queue in &self.queues {
            let mut state = queue.state.lock();
            state.ring = None;
            let parked = state.parked.take(|_| true);
            drop(state);
            queue.end_unsent(parked);
        }
        let device = self.device.as_raw();
        // SAFETY: The device has the queues, so it is bound. After the reset it touches no memory of ours, and no callback runs.
        unsafe { bindings::virtio_reset_device(device) };
        // Whoever saw a ring before it was taken out is done with it after this.
        rcu::synchronize_rcu();
        // SAFETY: The queues were found, in `new`, and nobody uses them any more.
        unsafe { bindings::virtiofs_helper_detach_and_del_vqs(device) };
        *found = false;
        for queue in &self.queues {
            let mut in_flight = List::new();
            in_flight.push_all_back(&mut queue.state.lock().in_flight);
            while let Some(transfer) = in_flight.pop_front() {
                Transfer::abort(transfer.as_arc(), &queue.data);
            }
        }
    }

    /// The device has returned buffers of a queue.
    ///
    /// # Safety
    ///
    /// To be called by the transport alone, with a ring of a device whose queues [`QueueSet::new`] found.
    unsafe extern "C" fn used_callback(ring: *mut bindings::virtqueue) {
        // SAFETY: `new` has set `priv_` to the set, which it is a reference to until the rings are deleted.
        let (this, index) = unsafe { (&*(*(*ring).vdev).priv_.cast::<Self>(), (*ring).index) };
        if let Some(queue) = this.get(index as usize) {
            if !queue.reap() {
                this.break_off(queue);
            }
        }
    }
}

#[cfg(VIRTIOFS_KUNIT)]
#[kunit_tests(virtio_queue)]
mod tests {
    use super::*;
    use crate::{
        in_flight::Stage,
        transfer::Outcome, //
    };

    /// Counts how often its transfer ends.
    struct Witness(Arc<Atomic<i32>>);

    impl Owner for Witness {
        type Queue = ();
        type Label = i32;

        fn label(&self) -> i32 {
            self.0.load(ordering::Relaxed)
        }

        fn ended(_queue: &(), transfer: &Arc<Transfer<Self>>, _outcome: Outcome) {
            transfer.owner().0.fetch_add(1, ordering::Relaxed);
        }

        fn broken(_queue: &()) {}
    }

    fn witnessed(ends: &Arc<Atomic<i32>>) -> Result<NewTransfer<Witness>> {
        NewTransfer::new(40, 16, Witness(ends.clone()))
    }

    fn queue() -> Result<Pin<KBox<Virtqueue<Witness>>>> {
        let name = CString::try_from(c"queue")?;
        KBox::pin_init(Virtqueue::new(name, ()), GFP_KERNEL)
    }

    /// Who closes a connection and then ends what it has sent finds all of that: nothing comes after.
    #[test]
    fn nothing_comes_after_the_close() -> Result {
        let (queue, connection) = (queue()?, Connection::new());
        let ends = Arc::new(Atomic::new(0), GFP_KERNEL)?;
        let refusal = || Ok::<_, Error>(queue.submit(witnessed(&ends)?, &connection).err());
        assert_eq!(refusal()?, Some(ENODEV));
        queue.state.lock().broken = true;
        assert_eq!(refusal()?, Some(ENOTCONN));
        queue.state.lock().broken = false;
        assert!(connection.close());
        assert!(!connection.close());
        assert_eq!(refusal()?, Some(ENOTCONN));
        // Whoever submits knows already.
        assert_eq!(ends.load(ordering::Relaxed), 0);
        Ok(())
    }

    /// With a connection its own transfers end, and those of others keep their place.
    #[test]
    fn only_what_it_has_sent() -> Result {
        let (queue, mine, other) = (queue()?, Connection::new(), Connection::new());
        let ends = Arc::new(Atomic::new(0), GFP_KERNEL)?;
        for sender in [&mine, &other, &mine, &other, &other] {
            let transfer = witnessed(&ends)?.into_pending(sender);
            queue.state.lock().parked.push_back(transfer);
            let transfer = witnessed(&ends)?.into_pending(sender);
            queue.state.lock().in_flight.push_back(transfer);
        }
        assert_eq!(queue.waiting(), 10);
        queue.abort(|transfer| transfer.is_of(&mine));
        assert_eq!(ends.load(ordering::Relaxed), 4);
        queue.abort(|transfer| transfer.is_of(&mine));
        assert_eq!(ends.load(ordering::Relaxed), 4);
        let left = queue.state.lock().parked.iter().count();
        assert_eq!(left, 3);
        assert_eq!(queue.waiting(), 6);
        queue.abort(|_| true);
        assert_eq!(ends.load(ordering::Relaxed), 10);
        assert_eq!(queue.waiting(), 0);
        Ok(())
    }

    /// A list has the oldest first, says of each how far it got, and what it had no room for.
    #[test]
    fn listed() -> Result {
        let (queue, connection) = (queue()?, Connection::new());
        let ends = Arc::new(Atomic::new(0), GFP_KERNEL)?;
        let pending = || Ok::<_, Error>(witnessed(&ends)?.into_pending(&connection));
        let (aborted, abandoned) = (pending()?, pending()?);
        Transfer::abort(aborted.as_arc(), &());
        abandoned.abandon();
        let mut state = queue.state.lock();
        state.in_flight.push_back(aborted);
        state.in_flight.push_back(abandoned);
        drop(state);
        for place in 0..4 {
            let transfer = pending()?;
            let mut state = queue.state.lock();
            match place {
                0 => state.in_flight.push_back(transfer),
                _ => state.parked.push_back(transfer),
            }
        }
        assert_eq!(queue.waiting(), 5);
        let mut entries = KVec::with_capacity(64, GFP_KERNEL)?;
        assert_eq!(queue.list(&mut entries), 0);
        let stages = [
            Stage::Aborted,
            Stage::Abandoned,
            Stage::Sent,
            Stage::Parked,
            Stage::Parked,
            Stage::Parked,
        ];
        assert!(entries.iter().map(|entry| entry.stage).eq(stages));
        // Their label is told as it is now.
        assert!(entries.iter().all(|entry| entry.label == 1));
        let mut few = KVec::with_capacity(4, GFP_KERNEL)?;
        let room = few.capacity();
        assert_eq!(queue.list(&mut few), 6 - room.min(6));
        assert_eq!(few.len(), room.min(6));
        assert_eq!(queue.list(&mut few), 6 - (room - few.len()).min(6));
        queue.abort(|_| true);
        Ok(())
    }

    /// A connection that came later may send when all before it may not any more.
    #[test]
    fn only_what_was_there() -> Result {
        let (queue, before) = (queue()?, Connection::new());
        let count = Connection::count();
        let after = Connection::new();
        let ends = Arc::new(Atomic::new(0), GFP_KERNEL)?;
        for sender in [&before, &after] {
            let transfer = witnessed(&ends)?.into_pending(sender);
            queue.state.lock().in_flight.push_back(transfer);
        }
        queue.state.lock().aborted = count;
        queue.abort(|transfer| transfer.is_before(count));
        assert_eq!(ends.load(ordering::Relaxed), 1);
        let refusal = |sender| Ok::<_, Error>(queue.submit(witnessed(&ends)?, sender).err());
        assert_eq!(refusal(&before)?, Some(ENOTCONN));
        // As there is no ring.
        assert_eq!(refusal(&after)?, Some(ENODEV));
        queue.abort(|_| true);
        Ok(())
    }
}
