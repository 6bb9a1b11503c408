// SPDX-License-Identifier: GPL-2.0

//! The buffers of one request to a device.
//!
//! A [`Transfer`] is one reference-counted object. The queue holds a reference from submission until the device has
//! returned the buffers or was reset; a waiter holds another. So a waiter may go away at any time, and the memory that
//! the device may still write to stays.
//!
//! Its life is a state, which changes once from `PENDING`, and once more from `ABANDONED`:
//!
//! | state       | entered when                                                  | the device may touch it |
//! |-------------|---------------------------------------------------------------|-------------------------|
//! | `NEW`       | made                                                          | no                      |
//! | `PENDING`   | submitted, in the ring or parked                              | yes                     |
//! | `RETURNED`  | the device returned it                                        | no                      |
//! | `ABORTED`   | ended by the driver or a reset, or abandoned and never sent   | until it is returned    |
//! | `ABANDONED` | its waiter was killed                                         | until it is returned    |
//! | `LATE`      | returned after it was abandoned                               | no                      |

use crate::{
    connection::Connection,
    in_flight::{
        Entry,
        Stage, //
    },
};
use core::{
    mem::MaybeUninit,
    pin::Pin,
    ptr::NonNull, //
};
use kernel::{
    list::{
        impl_list_arc_safe,
        impl_list_item,
        AtomicTracker,
        ListArc,
        ListLinks,
        TryNewListArc, //
    },
    prelude::*,
    sync::{
        atomic::{
            ordering,
            Atomic, //
        },
        Arc,
        UniqueArc, //
    },
    time::Jiffies,
    types::Opaque, //
};
use kernel_ext::{
    bindings,
    completion::Completion,
    folio::{
        FolioFile,
        FolioRange, //
    },
    jiffies,
    pages::PageBuffer,
    scatterlist::Scatterlist,
    user_pages::UserPages,
    write::{
        WriteRange,
        WritebackRange, //
    },
};

/// Bytes that a transfer holds itself for the device to read; longer messages take an allocation.
const READABLE_INLINE: usize = 304;
/// Bytes that a transfer holds itself for the device to write; longer replies take an allocation.
const WRITABLE_INLINE: usize = 176;

const NEW: i32 = 0;
const PENDING: i32 = 1;
const RETURNED: i32 = 2;
const ABORTED: i32 = 3;
const ABANDONED: i32 = 4;
const LATE: i32 = 5;

/// How a transfer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The device returned it and claims to have written that many bytes. The number is the device's word.
    Returned(usize),
    /// Its connection was ended, see [`crate::QueueSet::abort`]; the device may not have seen the request.
    Aborted,
    /// The device returned it after its waiter was killed; as [`Outcome::Returned`].
    Late(usize),
    /// Its waiter was killed while it was parked: the device has not seen the request, and will not.
    Unsent,
}

/// What a driver keeps with each transfer, and is told when it ends.
pub trait Owner: Sized + Send + Sync + 'static {
    /// What the driver keeps with each queue.
    type Queue: Send + Sync + 'static;

    /// What a driver calls a transfer where those in flight are [listed](crate::Virtqueue::list).
    type Label: Copy + Send + 'static;

    /// The label. Runs with the queue's lock held: it copies, and does nothing else.
    fn label(&self) -> Self::Label;

    /// The transfer has ended. Called once; for an abandoned one not when it is abandoned, but when it comes back or turns out not
    /// to have been sent, and not at all after a reset.
    ///
    /// Runs in interrupt context, or in a task that ends the connection: it must not sleep, nor submit to the queue that
    /// the transfer was on. Waiters are woken after it returns. An owner is dropped in the same contexts.
    fn ended(queue: &Self::Queue, transfer: &Arc<Transfer<Self>>, outcome: Outcome);

    /// The device has returned by this queue what it never had, so that nothing it says can be believed: the transfers of all its
    /// queues are aborted, and later ones fail with `ENOTCONN`. Called once. Runs in interrupt context.
    fn broken(queue: &Self::Queue);
}

/// Memory beside the message itself: file contents, directory listings, attribute values.
pub enum Payload {
    /// None.
    None,
    /// Pages of the kernel's own.
    Pages(PageBuffer),
    /// Folios of the page cache, to be read into.
    Folios(FolioRange),
    /// A user's buffer.
    User(UserPages),
    /// Folios of the page cache with what a writer has put there.
    Write(WriteRange),
    /// Folios of the page cache that are being written back.
    Writeback(WritebackRange),
}

impl Payload {
    fn scatterlist(&self) -> Option<&Scatterlist> {
        match self {
            Payload::None => None,
            Payload::Pages(pages) => Some(pages.scatterlist()),
            Payload::Folios(folios) => Some(folios.scatterlist()),
            Payload::User(pages) => Some(pages.scatterlist()),
            Payload::Write(range) => Some(range.scatterlist()),
            Payload::Writeback(range) => Some(range.scatterlist()),
        }
    }

    /// Its size in bytes.
    pub fn len(&self) -> usize {
        self.scatterlist().map_or(0, Scatterlist::len_bytes)
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Which way it can go; [`None`] for either. A device must not write to what others may only read, nor read what nobody has
    /// filled.
    fn direction(&self) -> Option<Direction> {
        match self {
            Payload::None | Payload::Pages(_) => None,
            Payload::Folios(_) => Some(Direction::FromDevice),
            Payload::Write(_) | Payload::Writeback(_) => Some(Direction::ToDevice),
            Payload::User(pages) if pages.is_writable() => Some(Direction::FromDevice),
            Payload::User(_) => Some(Direction::ToDevice),
        }
    }
}

/// Which way the payload goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// The device reads it, after the message.
    ToDevice,
    /// The device writes it, after the reply.
    FromDevice,
}

/// `len` bytes that do not move: in place when they are few.
#[pin_data]
struct Buffer<const INLINE: usize> {
    len: usize,
    heap: Option<KVec<u8>>,
    #[pin]
    inline: Opaque<[u8; INLINE]>,
}

impl<const INLINE: usize> Buffer<INLINE> {
    /// A zeroed buffer: what the device is lent for writing must not hold what was in that memory before.
    fn new(len: usize) -> Result<impl PinInit<Self>> {
        let (heap, in_place) = match len > INLINE {
            true => (Some(KVec::from_elem(0, len, GFP_KERNEL)?), 0),
            false => (None, len),
        };
        Ok(pin_init!(Self {
            len,
            heap,
            inline <- Opaque::ffi_init(move |bytes: *mut [u8; INLINE]| {
                // SAFETY: There are `INLINE` bytes, which is no less.
                unsafe { bytes.cast::<u8>().write_bytes(0, in_place) }
            }),
        }))
    }

    fn as_ptr(&self) -> *mut u8 {
        match &self.heap {
            Some(heap) => heap.as_ptr().cast_mut(),
            None => self.inline.get().cast(),
        }
    }
}

/// The buffers of one request, and its state.
#[pin_data]
pub struct Transfer<O: Owner> {
    #[pin]
    links: ListLinks,
    #[pin]
    tracker: AtomicTracker,
    #[pin]
    completion: Completion,
    state: Atomic<i32>,
    written: Atomic<usize>,
    payload: Payload,
    direction: Direction,
    /// The number of the [`Connection`] that has sent it.
    connection: u64,
    /// When it was submitted, in [`jiffies`].
    submitted: u64,
    /// The task that submitted it.
    pid: i32,
    owner: O,
    #[pin]
    readable: Buffer<READABLE_INLINE>,
    #[pin]
    writable: Buffer<WRITABLE_INLINE>,
}

impl_list_arc_safe! {
    impl{O: Owner} ListArcSafe<0> for Transfer<O> { tracked_by tracker: AtomicTracker; }
}
impl_list_item! {
    impl{O: Owner} ListItem<0> for Transfer<O> { using ListLinks { self.links }; }
}

// SAFETY: The buffers are plain memory, written only by the device and through `NewTransfer`, which is exclusive; all
// else in a transfer may be sent.
unsafe impl<O: Owner> Send for Transfer<O> {}
// SAFETY: As above: shared references read the buffers only when the device does not own them, and state is atomic.
unsafe impl<O: Owner> Sync for Transfer<O> {}

impl<O: Owner> Transfer<O> {
    /// What the driver keeps with it.
    pub fn owner(&self) -> &O {
        &self.owner
    }

    /// Its payload.
    pub fn payload(&self) -> &Payload {
        &self.payload
    }

    /// Bytes that the device may write into: reply and payload.
    pub fn capacity(&self) -> usize {
        self.writable.len
            + match self.direction {
                Direction::FromDevice => self.payload.len(),
                Direction::ToDevice => 0,
            }
    }

    /// The size of the reply buffer in bytes, without the payload.
    pub fn reply_len(&self) -> usize {
        self.writable.len
    }

    /// Copies from the reply buffer as many bytes as there are, at most `to.len()`, and gives them.
    ///
    /// `EBUSY` as long as the device may write to it. The bytes are as untrusted as the device.
    pub fn read_reply<'a>(&self, to: &'a mut [MaybeUninit<u8>]) -> Result<&'a [u8]> {
        if !matches!(self.state.load(ordering::Acquire), RETURNED | LATE) {
            return Err(EBUSY);
        }
        let (from, len) = (&self.writable, self.writable.len.min(to.len()));
        let to = to.as_mut_ptr().cast::<u8>();
        // SAFETY: `len` is within both, and the reply buffer is initialised. A device that breaks the rules and writes meanwhile
        // makes the copied values arbitrary, as its bytes are anyway. What was copied is initialised, and borrowed from `to`.
        unsafe {
            core::ptr::copy_nonoverlapping(from.as_ptr(), to, len);
            Ok(core::slice::from_raw_parts(to, len))
        }
    }

    /// Ends the read of the folios that are its payload, once: see [`FolioRange::end_read`]. Callable from any context.
    ///
    /// As long as the device may write to them the outcome is `EBUSY`, whatever `outcome` says; and no more bytes count as read than
    /// the device has written, as the rest of the folios is memory that nobody has filled.
    pub fn end_read(&self, outcome: Result<usize>) {
        if let Payload::Folios(folios) = &self.payload {
            // SAFETY: With `Ok` the device has returned them, having written so many bytes.
            unsafe { folios.end_read(self.filled(outcome)) };
        }
    }

    /// As [`Transfer::end_read`] with `Ok(bytes)`, if the file agrees: see [`FolioRange::end_read_if`]. Not callable in interrupts.
    pub fn end_read_if(&self, bytes: usize, judge: impl FnOnce(&mut FolioFile<'_>) -> Result) {
        if let Payload::Folios(folios) = &self.payload {
            match self.filled(Ok(bytes)) {
                // SAFETY: The device has returned them, having written so many bytes.
                Ok(bytes) => unsafe { folios.end_read_if(bytes, judge) },
                // SAFETY: Nothing is said of their contents.
                Err(e) => unsafe { folios.end_read(Err(e)) },
            }
        }
    }

    /// How many bytes of the payload the device has written, of those that `outcome` says.
    fn filled(&self, outcome: Result<usize>) -> Result<usize> {
        let written = match self.state.load(ordering::Acquire) {
            RETURNED | LATE => self.written.load(ordering::Relaxed),
            _ => return outcome.and(Err(EBUSY)),
        };
        outcome.map(|bytes| bytes.min(written.saturating_sub(self.writable.len)))
    }

    /// Sleeps until it has ended. A fatal signal ends the wait with `EINTR`, and so does the end of `patience`, if it has one. Then the
    /// transfer is abandoned: `before_abandoning` runs just before, while the transfer may still end in any way.
    pub fn wait(
        &self,
        patience: Option<Jiffies>,
        before_abandoning: impl FnOnce(),
    ) -> Result<Outcome> {
        let ended = match patience {
            Some(patience) => self.wait_at_most(patience) == Ok(true),
            None => self.completion.wait_killable().is_ok(),
        };
        if !ended {
            before_abandoning();
            if self.abandon() {
                return Err(EINTR);
            }
            // It ended at the same moment, and whoever ended it is about to complete.
            self.completion.wait();
        }
        match self.state.load(ordering::Acquire) {
            RETURNED => Ok(Outcome::Returned(self.written.load(ordering::Relaxed))),
            _ => Ok(Outcome::Aborted),
        }
    }

    /// Sleeps until it has ended, or there is a fatal signal. Unlike [`Transfer::wait`] this gives nothing up: the transfer
    /// ends as it would without anybody who waits.
    pub fn linger(&self) {
        let _ = self.completion.wait_killable();
    }

    /// Sleeps until it has ended, or there is any signal: `EINTR`. Unlike [`Transfer::wait`] this gives nothing up.
    pub fn wait_for_signal(&self) -> Result {
        self.completion.wait_interruptible().map_err(|_| EINTR)
    }

    /// Sleeps for `timeout` at most, until it has ended, or there is a fatal signal: `EINTR`. Whether it has ended. Unlike
    /// [`Transfer::wait`] this gives nothing up.
    pub fn wait_at_most(&self, timeout: Jiffies) -> Result<bool> {
        self.completion
            .wait_killable_timeout(timeout)
            .map_err(|_| EINTR)
    }

    /// How it ended, for one whose waiter has not given it up; [`None`] as long as it has not.
    pub fn outcome(&self) -> Option<Outcome> {
        match self.state.load(ordering::Acquire) {
            RETURNED => Some(Outcome::Returned(self.written.load(ordering::Relaxed))),
            ABORTED => Some(Outcome::Aborted),
            _ => None,
        }
    }

    /// Nobody waits for it any more: `false` when it has ended before.
    pub(crate) fn abandon(&self) -> bool {
        self.state
            .cmpxchg(PENDING, ABANDONED, ordering::Full)
            .is_ok()
    }

    /// Whether `connection` has sent it.
    pub(crate) fn is_of(&self, connection: &Connection) -> bool {
        self.connection == connection.number()
    }

    /// Whether a connection has sent it that there was when the number of these was `count`.
    pub(crate) fn is_before(&self, count: u64) -> bool {
        self.connection < count
    }

    /// Whether it has not ended, as far as anybody here is concerned: it is pending, or may still have to be undone.
    pub(crate) fn is_awaited(&self) -> bool {
        matches!(self.state.load(ordering::Relaxed), PENDING | ABANDONED)
    }

    /// What is told of it, one that is in the ring or `parked`. Callable from any context.
    pub(crate) fn entry(&self, parked: bool) -> Entry<O::Label> {
        let stage = match self.state.load(ordering::Relaxed) {
            ABANDONED => Stage::Abandoned,
            ABORTED => Stage::Aborted,
            _ if parked => Stage::Parked,
            _ => Stage::Sent,
        };
        Entry {
            label: self.owner.label(),
            stage,
            age_ms: jiffies::millis_since(self.submitted),
            pid: self.pid,
        }
    }

    /// Whether somebody still wants it done: false for one that was abandoned or aborted before the device had it.
    pub(crate) fn is_pending(&self) -> bool {
        self.state.load(ordering::Relaxed) == PENDING
    }

    /// The device claims to have written so many bytes: what [`Transfer::returned`] tells. Callable from any context.
    pub(crate) fn note_written(&self, written: usize) {
        self.written.store(written, ordering::Relaxed);
    }

    /// The device has returned it. Callable from any context, without the queue's lock.
    pub(crate) fn returned(this: &Arc<Self>, queue: &O::Queue) {
        let written = this.written.load(ordering::Relaxed);
        let outcome = match this.state.cmpxchg(PENDING, RETURNED, ordering::Full) {
            Ok(_) => Outcome::Returned(written),
            Err(ABANDONED) => {
                this.state.store(LATE, ordering::Release);
                Outcome::Late(written)
            }
            Err(_) => return,
        };
        O::ended(queue, this, outcome);
        this.completion.complete_all();
    }

    /// Ends it before the device has returned it. Callable from any context, without the queue's lock.
    pub(crate) fn abort(this: &Arc<Self>, queue: &O::Queue) {
        if this.state.cmpxchg(PENDING, ABORTED, ordering::Full).is_ok() {
            O::ended(queue, this, Outcome::Aborted);
            this.completion.complete_all();
        }
    }

    /// It was parked, and is not sent any more. As [`Transfer::abort`], but an abandoned one ends, too.
    pub(crate) fn unsent(this: &Arc<Self>, queue: &O::Queue) {
        Self::abort(this, queue);
        // Not the other way round: it may be abandoned meanwhile.
        let abandoned = this.state.cmpxchg(ABANDONED, ABORTED, ordering::Full);
        if abandoned.is_ok() {
            O::ended(queue, this, Outcome::Unsent);
        }
    }

    /// Calls `add` with the lists for the device: how many of them it reads, how many it writes.
    pub(crate) fn with_scatterlists<R>(
        &self,
        add: impl FnOnce(&mut [*mut bindings::scatterlist], u32, u32) -> R,
    ) -> R {
        let mut message = bindings::scatterlist::default();
        let mut reply = bindings::scatterlist::default();
        let mut lists = [core::ptr::null_mut(); 3];
        let mut count = 0;
        let mut put = |list: *mut bindings::scatterlist| {
            if let Some(slot) = lists.get_mut(count) {
                *slot = list;
                count += 1;
            }
        };
        let payload = self
            .payload
            .scatterlist()
            .filter(|list| !list.is_empty())
            .map(|list| list.as_ptr().cast_mut());
        let (mut to_device, mut from_device) = (1, 0);

        Self::describe(&mut message, &self.readable);
        put(&mut message);
        if let (Some(list), Direction::ToDevice) = (payload, self.direction) {
            put(list);
            to_device += 1;
        }
        if self.writable.len > 0 {
            Self::describe(&mut reply, &self.writable);
            put(&mut reply);
            from_device += 1;
        }
        if let (Some(list), Direction::FromDevice) = (payload, self.direction) {
            put(list);
            from_device += 1;
        }
        add(&mut lists, to_device, from_device)
    }

    fn describe<const N: usize>(entry: &mut bindings::scatterlist, buffer: &Buffer<N>) {
        // SAFETY: `entry` is valid for writes; the buffer is memory of the kernel's heap, so in the linear map, of that
        // length, which is far below 4 GiB.
        unsafe { bindings::sg_init_one(entry, buffer.as_ptr().cast(), buffer.len as u32) };
    }
}

/// A transfer that is being filled in and that nobody else knows of.
pub struct NewTransfer<O: Owner>(Pin<UniqueArc<Transfer<O>>>);

impl<O: Owner> NewTransfer<O> {
    /// Makes one with a message of `message_len` bytes and room for a reply of `reply_len`, and without a payload. Sleeps.
    ///
    /// The owner is made in place, and a payload put in its place later: by value both would be copied several times on their way.
    pub fn new(message_len: usize, reply_len: usize, owner: impl Init<O>) -> Result<Self> {
        let readable = Buffer::new(message_len)?;
        let writable = Buffer::new(reply_len)?;
        let init = pin_init!(Transfer {
            links <- ListLinks::new(),
            tracker <- AtomicTracker::new(),
            completion <- Completion::new(),
            state: Atomic::new(NEW),
            written: Atomic::new(0),
            payload: Payload::None,
            direction: Direction::ToDevice,
            connection: 0,
            submitted: 0,
            pid: 0,
            owner <- owner,
            readable <- readable,
            writable <- writable,
        });
        Ok(Self(
            UniqueArc::new_uninit(GFP_KERNEL)?.pin_init_with(init)?,
        ))
    }

    /// Memory that goes with it. `EINVAL` when it can't go that way: a user's buffer goes the way that it was pinned for, folios that
    /// are read go from the device, and those that are written to it.
    pub fn set_payload(&mut self, payload: Payload, direction: Direction) -> Result {
        if payload.direction().is_some_and(|only| only != direction) {
            return Err(EINVAL);
        }
        let this = self.0.as_mut().project();
        *this.payload = payload;
        *this.direction = direction;
        Ok(())
    }

    /// The message, to be filled in.
    pub fn message_mut(&mut self) -> &mut [u8] {
        let buffer = &self.0.readable;
        // SAFETY: The buffer is initialised memory of that length, and nobody else has a reference to the transfer.
        unsafe { core::slice::from_raw_parts_mut(buffer.as_ptr(), buffer.len) }
    }

    /// What the driver keeps with it.
    pub fn owner(&self) -> &O {
        &self.0.owner
    }

    /// As [`owner`](NewTransfer::owner), to be changed.
    pub fn owner_mut(&mut self) -> &mut O {
        self.0.as_mut().project().owner
    }

    /// The payload.
    pub fn payload(&self) -> &Payload {
        &self.0.payload
    }

    /// The message is complete, and `connection` sends it: from here on it belongs to the queue.
    pub(crate) fn into_pending(mut self, connection: &Connection) -> ListArc<Transfer<O>> {
        let this = self.0.as_mut().project();
        *this.connection = connection.number();
        *this.submitted = jiffies::now();
        *this.pid = current!().pid();
        self.0.state.store(PENDING, ordering::Relaxed);
        ListArc::from(self.0)
    }
}

/// A token for the ring: the address of a transfer.
pub(crate) fn token<O: Owner>(transfer: &Transfer<O>) -> NonNull<Transfer<O>> {
    NonNull::from(transfer)
}

#[cfg(VIRTIOFS_KUNIT)]
#[kunit_tests(virtio_transfer)]
mod tests {
    use super::*;

    /// Counts how its transfer ends.
    struct Witness {
        returned: Atomic<i32>,
        aborted: Atomic<i32>,
        late: Atomic<i32>,
        unsent: Atomic<i32>,
    }

    impl Owner for Witness {
        type Queue = ();
        type Label = ();

        fn label(&self) {}

        fn ended(_queue: &(), transfer: &Arc<Transfer<Self>>, outcome: Outcome) {
            let this = transfer.owner();
            let counter = match outcome {
                Outcome::Returned(_) => &this.returned,
                Outcome::Aborted => &this.aborted,
                Outcome::Late(_) => &this.late,
                Outcome::Unsent => &this.unsent,
            };
            counter.fetch_add(1, ordering::Relaxed);
        }

        fn broken(_queue: &()) {}
    }

    impl Witness {
        fn new() -> Self {
            Self {
                returned: Atomic::new(0),
                aborted: Atomic::new(0),
                late: Atomic::new(0),
                unsent: Atomic::new(0),
            }
        }
    }

    fn pending(message: usize, reply: usize) -> Result<Arc<Transfer<Witness>>> {
        let mut new = NewTransfer::new(message, reply, Witness::new())?;
        new.message_mut().fill(7);
        Ok(new.into_pending(&Connection::new()).into_arc())
    }

    /// The reply, or its first `N` bytes.
    fn reply<const N: usize>(transfer: &Transfer<Witness>) -> Result<usize> {
        let mut buffer = [const { MaybeUninit::uninit() }; N];
        let reply = transfer.read_reply(&mut buffer)?;
        assert!(reply.iter().all(|byte| *byte == 0));
        Ok(reply.len())
    }

    fn give_back(transfer: &Arc<Transfer<Witness>>, written: usize) {
        transfer.note_written(written);
        Transfer::returned(transfer, &());
    }

    fn ends(transfer: &Transfer<Witness>) -> (i32, i32, i32, i32) {
        let this = transfer.owner();
        let load = |counter: &Atomic<i32>| counter.load(ordering::Relaxed);
        (
            load(&this.returned),
            load(&this.aborted),
            load(&this.late),
            load(&this.unsent),
        )
    }

    /// The reply is closed until the device has returned it, and then open.
    #[test]
    fn returned() -> Result {
        let transfer = pending(40, 16)?;
        assert!(transfer.is_pending());
        assert!(matches!(reply::<16>(&transfer), Err(e) if e == EBUSY));
        give_back(&transfer, 16);
        assert_eq!(transfer.wait(None, || {}), Ok(Outcome::Returned(16)));
        assert_eq!(reply::<32>(&transfer), Ok(16));
        assert_eq!(reply::<6>(&transfer), Ok(6));
        assert_eq!(ends(&transfer), (1, 0, 0, 0));
        Ok(())
    }

    /// A read counts when the device has returned it, with as many bytes as it has written behind the reply.
    #[test]
    fn no_more_than_written() -> Result {
        let transfer = pending(40, 16)?;
        assert_eq!(transfer.filled(Ok(8)), Err(EBUSY));
        assert_eq!(transfer.filled(Err(ENOMEM)), Err(ENOMEM));
        give_back(&transfer, 16 + 100);
        assert_eq!(transfer.filled(Ok(8)), Ok(8));
        assert_eq!(transfer.filled(Ok(101)), Ok(100));
        assert_eq!(transfer.filled(Err(ENOMEM)), Err(ENOMEM));

        let transfer = pending(40, 16)?;
        Transfer::abort(&transfer, &());
        give_back(&transfer, 16 + 100);
        assert_eq!(transfer.filled(Ok(8)), Err(EBUSY));
        Ok(())
    }

    /// It ends once: what comes after the first end changes nothing.
    #[test]
    fn ends_once() -> Result {
        let transfer = pending(40, 16)?;
        Transfer::abort(&transfer, &());
        Transfer::abort(&transfer, &());
        give_back(&transfer, 16);
        assert_eq!(transfer.wait(None, || {}), Ok(Outcome::Aborted));
        // The device wrote to it after the abort: nobody is to look at that.
        assert!(reply::<16>(&transfer).is_err());
        assert_eq!(ends(&transfer), (0, 1, 0, 0));

        let transfer = pending(40, 16)?;
        give_back(&transfer, 16);
        Transfer::abort(&transfer, &());
        assert_eq!(ends(&transfer), (1, 0, 0, 0));
        Ok(())
    }

    /// An abandoned one is told of when it comes back, and then its reply is open.
    #[test]
    fn late() -> Result {
        let transfer = pending(40, 16)?;
        transfer.state.store(ABANDONED, ordering::Relaxed);
        assert!(!transfer.is_pending());
        Transfer::abort(&transfer, &());
        assert_eq!(ends(&transfer), (0, 0, 0, 0));
        give_back(&transfer, 16);
        assert_eq!(ends(&transfer), (0, 0, 1, 0));
        assert_eq!(reply::<16>(&transfer), Ok(16));
        Ok(())
    }

    /// One that is not sent any more ends once, whether its waiter was killed or not.
    #[test]
    fn unsent() -> Result {
        let transfer = pending(40, 16)?;
        transfer.state.store(ABANDONED, ordering::Relaxed);
        Transfer::unsent(&transfer, &());
        Transfer::unsent(&transfer, &());
        assert_eq!(ends(&transfer), (0, 0, 0, 1));

        let transfer = pending(40, 16)?;
        Transfer::unsent(&transfer, &());
        Transfer::unsent(&transfer, &());
        assert_eq!(transfer.wait(None, || {}), Ok(Outcome::Aborted));
        assert_eq!(ends(&transfer), (0, 1, 0, 0));
        Ok(())
    }

    /// The device does not get to write to folios that are written, nor to read those that are to be filled.
    #[test]
    fn one_way() -> Result {
        use Direction::{FromDevice, ToDevice};
        let refused = |payload, direction| -> Result<bool> {
            let witness = Witness::new();
            let mut new = NewTransfer::new(40, 16, witness)?;
            Ok(new.set_payload(payload, direction) == Err(EINVAL))
        };
        for (payload, direction, wrong) in [
            (Payload::Folios(FolioRange::new(0, 1)?), FromDevice, false),
            (Payload::Folios(FolioRange::new(0, 1)?), ToDevice, true),
            (Payload::Write(WriteRange::new(0, 1)?), ToDevice, false),
            (Payload::Write(WriteRange::new(0, 1)?), FromDevice, true),
            (
                Payload::Writeback(WritebackRange::new(0, 1)?),
                ToDevice,
                false,
            ),
            (
                Payload::Writeback(WritebackRange::new(0, 1)?),
                FromDevice,
                true,
            ),
            (Payload::Pages(PageBuffer::new(1)?), ToDevice, false),
            (Payload::Pages(PageBuffer::new(1)?), FromDevice, false),
        ] {
            assert_eq!(refused(payload, direction)?, wrong);
        }
        Ok(())
    }

    /// Messages of all sizes, in place or not, reach the lists for the device in full.
    #[test]
    fn sizes() -> Result {
        for len in [1, READABLE_INLINE, READABLE_INLINE + 1, 5000] {
            let transfer = pending(len, WRITABLE_INLINE + len)?;
            // SAFETY: The message has so many bytes, and does not change any more.
            let message = unsafe { core::slice::from_raw_parts(transfer.readable.as_ptr(), len) };
            assert!(message.iter().all(|byte| *byte == 7));
            give_back(&transfer, 0);
            assert_eq!(reply::<8>(&transfer), Ok(8));
            assert_eq!(transfer.capacity(), WRITABLE_INLINE + len);
            transfer.with_scatterlists(|lists, to_device, from_device| {
                assert_eq!((to_device, from_device), (1, 1));
                assert!(lists.iter().filter(|list| !list.is_null()).count() == 2);
            });
        }
        // A message without reply has nothing for the device to write.
        pending(40, 0)?.with_scatterlists(|_, to_device, from_device| {
            assert_eq!((to_device, from_device), (1, 0));
        });
        Ok(())
    }
}
