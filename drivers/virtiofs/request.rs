// SPDX-License-Identifier: GPL-2.0

//! Requests: one operation of FUSE, encoded, sent, waited for, and its reply checked.

use crate::{
    aio::Part,
    dax::{
        LostMapping,
        MapRequest, //
    },
    device::Instance,
    fill::Fill,
    forget::insist,
    freshness::{
        doubt_everything,
        may_change,
        Freshness, //
    },
    lane::Lane,
    lock::LostLock,
    patience::InVain,
    session::Session,
    stores::Batch, //
};
use core::mem::MaybeUninit;
use fuse_proto::{
    Answer,
    BatchForget,
    Caller,
    Destroy,
    Forget,
    Interrupt,
    NodeId,
    Opcode,
    Operation,
    ReplyError, //
};
use kernel::{
    page::PAGE_SIZE,
    prelude::*,
    sync::{
        Arc,
        SetOnce, //
    },
    time::{
        delay::fsleep,
        Delta, //
    },
};
use kernel_ext::{
    folio::FolioRange,
    task::{
        is_exiting,
        is_kernel_thread,
        is_killed, //
    },
    write::WritebackRange, //
};
use virtio::{
    transfer::Direction,
    Connection,
    NewTransfer,
    Outcome,
    Payload,
    Transfer,
    Virtqueue, //
};

/// The largest reply without payload: header and `struct fuse_statx_out`, with room to spare.
const MAX_REPLY: usize = 384;

/// How often it is looked whether the daemon has taken everything before DESTROY is sent, a millisecond apart.
const SETTLE_LOOKS: usize = 2000;

/// What a request is told by.
#[derive(Clone, Copy)]
pub(crate) struct Label {
    /// What is asked for.
    pub(crate) opcode: Opcode,
    /// Its number, which the daemon knows it by.
    pub(crate) unique: u64,
    /// The inode it is asked of, if it is one alone.
    pub(crate) node: Option<NodeId>,
}

/// What the driver keeps with a transfer.
pub(crate) struct Request {
    label: Label,
    purpose: Purpose,
    in_vain: InVain,
    /// Set when the waiter was killed, or before it is sent.
    orphaned: SetOnce<Orphan>,
}

/// What is to be done at the end of a request whose waiter was killed, or that never had one.
pub(crate) struct Orphan {
    /// The session that has to do it.
    pub(crate) session: Arc<Session>,
    /// If it was a request for a lock, that.
    pub(crate) lock: Option<LostLock>,
    /// If it was one for ranges of the window, these.
    pub(crate) mapping: Option<LostMapping>,
}

/// What happens at the end of a request.
enum Purpose {
    /// A task waits, and checks the reply itself.
    Waited,
    /// As [`Waited`](Purpose::Waited), for a change of what the window shows.
    Mapping(MapRequest),
    /// Nobody wants to know.
    Unwatched,
    /// As [`Unwatched`](Purpose::Unwatched), but something else comes after it.
    Counted(Arc<Batch>),
    /// Folios of the page cache are to be filled.
    Fill(Fill),
    /// Folios of the page cache are being written back.
    Store(Store),
    /// Part of a read or write past the page cache for which nobody waits.
    Direct(Part),
}

/// What is known of folios that are being written back.
struct Store {
    session: Arc<Session>,
    op: fuse_proto::Write,
    /// Of the file that is written.
    freshness: Arc<Freshness>,
    batch: Arc<Batch>,
    /// How many more requests there may be, should the daemon take them in part.
    more: usize,
}

impl Request {
    /// What was asked for.
    pub(crate) fn opcode(&self) -> Opcode {
        self.label.opcode
    }

    /// Its number, which the daemon knows it by.
    pub(crate) fn unique(&self) -> u64 {
        self.label.unique
    }

    /// What is to be done at its end.
    pub(crate) fn orphaned(&self) -> Option<&Orphan> {
        self.orphaned.as_ref()
    }

    /// Its waiter is about to give it up, or it has none: what is to be done at its end.
    pub(crate) fn orphan(&self, orphan: Orphan) {
        self.orphaned.populate(orphan);
    }

    /// The folios that it fills, if it does.
    pub(crate) fn fill(&self) -> Option<&Fill> {
        match &self.purpose {
            Purpose::Fill(fill) => Some(fill),
            _ => None,
        }
    }

    /// The inode it was asked of.
    pub(crate) fn node(&self) -> Option<NodeId> {
        self.label.node
    }

    /// One that nobody waits for, until there is a purpose.
    fn new(opcode: Opcode, unique: u64, node: Option<NodeId>) -> impl Init<Self> {
        init!(Self {
            label: Label {
                opcode,
                unique,
                node,
            },
            purpose: Purpose::Unwatched,
            in_vain: InVain::new(),
            orphaned: SetOnce::new(),
        })
    }
}

impl virtio::Owner for Request {
    type Queue = Lane;
    type Label = Label;

    fn label(&self) -> Label {
        self.label
    }

    fn ended(lane: &Lane, transfer: &Arc<Transfer<Self>>, outcome: Outcome) {
        let request = transfer.owner();
        if let (Purpose::Mapping(mapping), Outcome::Returned(_) | Outcome::Late(_)) =
            (&request.purpose, outcome)
        {
            mapping.returned();
        }
        match (&request.purpose, outcome) {
            (Purpose::Fill(fill), outcome) => {
                lane.background_ends();
                let filled = match outcome {
                    Outcome::Returned(used) => check(lane, transfer, &fill.op, used),
                    _ => Err(ENOTCONN),
                };
                match filled {
                    Ok(bytes) if fill.is_short(bytes) => fill.end_short_later(transfer, bytes),
                    Ok(bytes) => {
                        fill.is_whole(bytes);
                        transfer.end_read(filled);
                    }
                    Err(_) => transfer.end_read(filled),
                }
                // After that: who waits for it takes the folios away.
                lane.filling_ends();
            }
            (Purpose::Store(store), outcome) => {
                lane.background_ends();
                if matches!(outcome, Outcome::Returned(_)) {
                    lane.has_stored();
                }
                let stored = match outcome {
                    Outcome::Returned(used) => check(lane, transfer, &store.op, used),
                    _ => Err(ENOTCONN),
                };
                // While the folios are still marked: what was asked for before this is older than them.
                store.freshness.changed();
                store.freshness.expire();
                match (stored, transfer.payload()) {
                    (Ok(bytes), Payload::Writeback(_)) if bytes < store.op.size as usize => {
                        Session::store_rest_later(&store.session, transfer.clone(), bytes);
                    }
                    (stored, Payload::Writeback(range)) => {
                        range.end(stored.map(|_| ()));
                        store.batch.leave();
                    }
                    _ => store.batch.leave(),
                }
            }
            (Purpose::Direct(part), outcome) => part.ended(lane, transfer, outcome),
            (
                Purpose::Waited | Purpose::Mapping(_),
                outcome @ (Outcome::Late(_) | Outcome::Unsent),
            ) => {
                lane.patience().ended(&request.in_vain);
                if matches!(outcome, Outcome::Late(_)) && may_change(request.opcode()) {
                    doubt_everything();
                }
                Session::undo_later(transfer, outcome);
            }
            (Purpose::Unwatched | Purpose::Counted(_), outcome) => {
                lane.background_ends();
                lane.patience().ended(&request.in_vain);
                if let Purpose::Counted(batch) = &request.purpose {
                    batch.leave();
                }
                Session::undo_later(transfer, outcome);
            }
            (Purpose::Waited | Purpose::Mapping(_), _) => {}
        }
    }

    fn broken(lane: &Lane) {
        lane.broken();
    }
}

/// Checks the reply of a transfer that the device has returned. Callable from any context.
pub(crate) fn check<O: Operation>(
    lane: &Lane,
    transfer: &Transfer<Request>,
    op: &O,
    used: usize,
) -> Result<O::Reply> {
    judge(lane, transfer, op, used)?.map_err(|e| Error::from_errno(e.to_errno()))
}

/// As [`check`]; tells a daemon that says no from one that makes no sense.
pub(crate) fn judge<O: Operation>(
    lane: &Lane,
    transfer: &Transfer<Request>,
    op: &O,
    used: usize,
) -> Result<Result<O::Reply, ReplyError>> {
    let mut buffer = [const { MaybeUninit::uninit() }; MAX_REPLY];
    let reply = transfer.read_reply(&mut buffer)?;
    Ok(op
        .accept(transfer.owner().unique(), reply, used)
        .inspect_err(|e| {
            // A refused INIT is a refused mount, whose reason nothing else tells.
            if e.is_malformed() || op.opcode() == Opcode::Init {
                lane.complain(op.opcode(), *e);
            }
        }))
}

/// The error of a request that could not be encoded.
fn encode_error(e: fuse_proto::EncodeError) -> Error {
    match e {
        fuse_proto::EncodeError::TooLong => ENAMETOOLONG,
        fuse_proto::EncodeError::BadName => EINVAL,
    }
}

/// Sends what nobody waits for, and says how much of that is under way now.
fn send_in_background(
    queue: &Virtqueue<Request>,
    new: NewTransfer<Request>,
    connection: &Connection,
) -> Result<(Arc<Transfer<Request>>, i32)> {
    let lane = queue.data();
    let under_way = lane.background_begins();
    let fills = matches!(new.owner().purpose, Purpose::Fill(_));
    if fills {
        lane.filling_begins();
    }
    let transfer = queue.submit(new, connection).inspect_err(|_| {
        lane.background_ends();
        if fills {
            lane.filling_ends();
        }
    })?;
    Ok((transfer, under_way))
}

/// A request that is on its way, and whose reply somebody wants.
pub(crate) struct Sent<'a> {
    lane: &'a Lane,
    transfer: Arc<Transfer<Request>>,
}

impl Sent<'_> {
    /// Its buffers and its state.
    pub(crate) fn transfer(&self) -> &Transfer<Request> {
        &self.transfer
    }

    /// Waits for the reply to `op`. As [`Instance::exchange`].
    pub(crate) fn wait<O: Operation>(
        &self,
        op: &O,
        session: Option<&Arc<Session>>,
    ) -> Result<O::Reply> {
        let outcome = self.wait_for_outcome(|| {
            if let Some(session) = session {
                self.transfer.owner().orphan(Orphan {
                    session: session.clone(),
                    lock: None,
                    mapping: None,
                });
            }
        })?;
        self.check(op, outcome)
    }

    /// Waits until it has ended. Sleeps: a fatal signal ends that with `EINTR`, and in a task that exits a while. See [`Transfer::wait`].
    pub(crate) fn wait_for_outcome(&self, before_abandoning: impl FnOnce()) -> Result<Outcome> {
        self.wait_if(is_exiting(), before_abandoning)
    }

    /// As [`Sent::wait_for_outcome`], `briefly` in any task.
    fn wait_if(&self, briefly: bool, before_abandoning: impl FnOnce()) -> Result<Outcome> {
        let (patience, in_vain) = (self.lane.patience(), &self.transfer.owner().in_vain);
        let left = briefly.then(|| patience.left());
        let outcome = self.transfer.wait(left, || {
            before_abandoning();
            if briefly && !is_killed() {
                patience.give_up(in_vain);
            }
        })?;
        if briefly {
            // It may have ended at that moment.
            patience.ended(in_vain);
        }
        Ok(outcome)
    }

    /// As [`Sent::wait`], but for a while at most: then it is `EINTR`, too.
    pub(crate) fn wait_briefly<O: Operation>(&self, op: &O) -> Result<O::Reply> {
        let outcome = self.wait_if(true, || {})?;
        self.check(op, outcome)
    }

    /// As [`Sent::wait`], for a task that exits, of what nobody waits for in earnest: it is sent whatever becomes of the task. [`None`]
    /// when there is no reply as long as such a task waits, and a task that was killed does not wait at all.
    pub(crate) fn linger<O: Operation>(&self, op: &O) -> Option<Result<O::Reply>> {
        let patience = self.lane.patience();
        if self.transfer.wait_at_most(patience.left()) == Ok(false) {
            patience.give_up(&self.transfer.owner().in_vain);
        }
        self.transfer
            .outcome()
            .map(|outcome| self.check(op, outcome))
    }

    /// As [`Sent::check`], see [`judge`]. [`None`] when there is no telling.
    pub(crate) fn judge<O: Operation>(
        &self,
        op: &O,
        outcome: Outcome,
    ) -> Option<Result<O::Reply, ReplyError>> {
        match outcome {
            Outcome::Returned(used) => judge(self.lane, &self.transfer, op, used).ok(),
            _ => None,
        }
    }

    /// The reply to `op`, of a request that has ended like this. `ENOTCONN` when there is none.
    pub(crate) fn check<O: Operation>(&self, op: &O, outcome: Outcome) -> Result<O::Reply> {
        match outcome {
            Outcome::Returned(used) => check(self.lane, &self.transfer, op, used),
            _ => Err(ENOTCONN),
        }
    }
}

impl Instance {
    fn prepare<O: Operation>(
        &self,
        lane: &Lane,
        op: &O,
        caller: &Caller,
        payload: Payload,
        purpose: Purpose,
    ) -> Result<NewTransfer<Request>> {
        Self::prepare_as(lane.next_unique(), op, caller, payload, purpose)
    }

    fn prepare_as<O: Operation>(
        unique: u64,
        op: &O,
        caller: &Caller,
        payload: Payload,
        purpose: Purpose,
    ) -> Result<NewTransfer<Request>> {
        let reply_len = match op.answer() {
            Answer::Nothing => 0,
            _ => fuse_proto::REPLY_HEADER_LEN + op.reply_len(),
        };
        let direction = match op.reply_payload_len() {
            0 => Direction::ToDevice,
            _ => Direction::FromDevice,
        };
        let mut transfer = NewTransfer::new(
            op.encoded_len().map_err(encode_error)?,
            reply_len,
            Request::new(op.opcode(), unique, op.node()),
        )?;
        transfer.owner_mut().purpose = purpose;
        transfer.set_payload(payload, direction)?;
        op.encode(unique, caller, transfer.message_mut())
            .map_err(encode_error)?;
        Ok(transfer)
    }

    /// Sends `op` and waits for its reply. Sleeps; only a fatal signal ends the wait, with `EINTR`.
    ///
    /// The errors are those of the daemon, `ENOTCONN` when the connection was ended, `ENODEV` when the device was gone before, `EIO`
    /// when the reply was none.
    pub(crate) fn call<O: Operation>(
        &self,
        connection: &Connection,
        op: &O,
        caller: &Caller,
    ) -> Result<O::Reply> {
        self.exchange(connection, op, caller, Payload::None, None)
            .map(|(reply, _)| reply)
    }

    /// As [`Instance::call`], with a payload, which is found in the transfer that is returned. If the waiter is killed,
    /// what the request did is undone by `session` when the reply comes.
    pub(crate) fn exchange<O: Operation>(
        &self,
        connection: &Connection,
        op: &O,
        caller: &Caller,
        payload: Payload,
        session: Option<&Arc<Session>>,
    ) -> Result<(O::Reply, Arc<Transfer<Request>>)> {
        let sent = self.begin(connection, op, caller, payload)?;
        let reply = sent.wait(op, session)?;
        Ok((reply, sent.transfer))
    }

    /// Sends `op`, whose reply will be waited for. Sleeps for memory alone.
    pub(crate) fn begin<O: Operation>(
        &self,
        connection: &Connection,
        op: &O,
        caller: &Caller,
        payload: Payload,
    ) -> Result<Sent<'_>> {
        self.begin_for(connection, op, caller, payload, Purpose::Waited)
    }

    fn begin_for<O: Operation>(
        &self,
        connection: &Connection,
        op: &O,
        caller: &Caller,
        payload: Payload,
        purpose: Purpose,
    ) -> Result<Sent<'_>> {
        let queue = self.request_queue()?;
        let lane = queue.data();
        let new = self.prepare(lane, op, caller, payload, purpose)?;
        let transfer = queue.submit(new, connection)?;
        Ok(Sent { lane, transfer })
    }

    /// As [`Instance::begin`], of two requests that the device is told of at once. Each is sent or not.
    pub(crate) fn begin_both<A: Operation, B: Operation>(
        &self,
        connection: &Connection,
        ops: (&A, &B),
        caller: &Caller,
    ) -> Result<[Result<Sent<'_>>; 2]> {
        let queue = self.request_queue()?;
        let lane = queue.data();
        let first = self.prepare(lane, ops.0, caller, Payload::None, Purpose::Waited)?;
        let second = self.prepare(lane, ops.1, caller, Payload::None, Purpose::Waited)?;
        let sent = queue.submit_each([first, second], connection);
        Ok(sent.map(|transfer| transfer.map(|transfer| Sent { lane, transfer })))
    }

    /// Asks the daemon to give up another request, on the queue that does not wait behind requests. Sleeps for memory alone.
    pub(crate) fn begin_interrupt(
        &self,
        connection: &Connection,
        op: &Interrupt,
    ) -> Result<Sent<'_>> {
        let queue = self.hiprio_queue()?;
        let caller = Caller::default();
        // The lowest bit tells it from the other one (`FUSE_INT_REQ_BIT`).
        let unique = op.target | 1;
        let new = Self::prepare_as(unique, op, &caller, Payload::None, Purpose::Waited)?;
        let transfer = queue.submit(new, connection)?;
        Ok(Sent {
            lane: queue.data(),
            transfer,
        })
    }

    /// Waits until the daemon has taken what nobody waits for, on all queues, but not for long. Sleeps.
    fn settle(&self) {
        for _ in 0..SETTLE_LOOKS {
            if is_killed() || self.lanes().all(|lane| lane.background() == 0) {
                break;
            }
            fsleep(Delta::from_millis(1));
        }
    }

    /// Sends DESTROY and waits for its reply, as [`Instance::call`] does; for want of memory it is not left out.
    ///
    /// It goes by one queue, and does not overtake the last FORGET or RELEASE on another. The session sends nothing any more, so it
    /// goes by a connection of its own.
    pub(crate) fn destroy(&self) -> Result {
        self.settle();
        let queue = self.request_queue()?;
        let (lane, op, connection) = (queue.data(), Destroy, Connection::new());
        let transfer = insist(|| {
            let caller = Caller::default();
            let new = self.prepare(lane, &op, &caller, Payload::None, Purpose::Waited)?;
            queue.submit(new, &connection)
        })?;
        let sent = Sent { lane, transfer };
        let outcome = sent.wait_for_outcome(|| {})?;
        sent.check(&op, outcome)
    }

    /// Sends `op` and goes on; nobody has to learn how it ended but the session of an `orphan`. Sleeps for memory alone.
    pub(crate) fn send<O: Operation>(
        &self,
        connection: &Connection,
        op: &O,
        caller: &Caller,
        orphan: Option<Orphan>,
    ) -> Result<Sent<'_>> {
        self.send_for(connection, op, caller, orphan, Purpose::Unwatched)
    }

    /// As [`Instance::send`], in a `batch`, which the request [joins](Batch::join).
    pub(crate) fn send_counted<O: Operation>(
        &self,
        connection: &Connection,
        op: &O,
        caller: &Caller,
        batch: &Arc<Batch>,
    ) -> Result<Sent<'_>> {
        batch.join();
        let purpose = Purpose::Counted(batch.clone());
        self.send_for(connection, op, caller, None, purpose)
            .inspect_err(|_| batch.leave())
    }

    fn send_for<O: Operation>(
        &self,
        connection: &Connection,
        op: &O,
        caller: &Caller,
        orphan: Option<Orphan>,
        purpose: Purpose,
    ) -> Result<Sent<'_>> {
        let queue = match op.answer() {
            Answer::Nothing => self.hiprio_queue()?,
            _ => self.request_queue()?,
        };
        let lane = queue.data();
        let new = self.prepare(lane, op, caller, Payload::None, purpose)?;
        if let Some(orphan) = orphan {
            new.owner().orphan(orphan);
        }
        let (transfer, _) = send_in_background(queue, new, connection)?;
        Ok(Sent { lane, transfer })
    }

    /// Gives back lookups of `count` inodes. Sleeps for memory alone.
    pub(crate) fn send_batch_forget(
        &self,
        connection: &Connection,
        forgets: impl Iterator<Item = Forget>,
        count: usize,
    ) -> Result {
        let queue = self.hiprio_queue()?;
        let lane = queue.data();
        let unique = lane.next_unique();
        let request = Request::new(Opcode::BatchForget, unique, None);
        let mut new = NewTransfer::new(BatchForget::encoded_len(count), 0, request)?;
        let mut batch = BatchForget::new(new.message_mut()).map_err(encode_error)?;
        for forget in forgets.take(count) {
            let _ = batch.push(forget);
        }
        batch.finish(unique).map_err(encode_error)?;
        send_in_background(queue, new, connection)?;
        Ok(())
    }
}

impl Session {
    /// As [`Session::begin`], with a payload.
    pub(crate) fn begin_with<O: Operation>(
        &self,
        op: &O,
        caller: &Caller,
        payload: Payload,
    ) -> Result<Sent<'_>> {
        self.instance()
            .begin(self.connection(), op, caller, payload)
    }

    /// As [`Session::begin`], for a change of what the window shows.
    pub(crate) fn begin_mapping<O: Operation>(
        &self,
        op: &O,
        mapping: MapRequest,
    ) -> Result<Sent<'_>> {
        self.instance().begin_for(
            self.connection(),
            op,
            &Caller::default(),
            Payload::None,
            Purpose::Mapping(mapping),
        )
    }

    /// Sends a part of a read or write past the page cache, which is told how it ended. Sleeps for memory alone.
    pub(crate) fn submit_part<O: Operation>(
        &self,
        op: &O,
        caller: &Caller,
        payload: Payload,
        part: Part,
    ) -> Result {
        let queue = self.instance().request_queue()?;
        let purpose = Purpose::Direct(part);
        let instance = self.instance();
        let new = instance.prepare(queue.data(), op, caller, payload, purpose)?;
        queue.submit(new, self.connection())?;
        Ok(())
    }

    /// Reads into folios and goes on; they are ended when the reply is there. With too many such requests under way it waits for this
    /// one, so that nobody runs ahead without end. Sleeps.
    pub(crate) fn fill(&self, caller: &Caller, folios: FolioRange, fill: Fill) -> Result {
        let op = fill.op;
        let payload = Payload::Folios(folios);
        let purpose = Purpose::Fill(fill);
        let (transfer, under_way) = self.send_in_background(&op, caller, payload, purpose)?;
        self.limit_background(&transfer, under_way);
        Ok(())
    }

    /// Writes folios back and goes on; their writeback ends when the daemon has taken them. As [`Session::fill`].
    ///
    /// What the daemon leaves of them is sent again, as POSIX has programs do with write(2), until it takes it or says what is in
    /// the way (`ENOSPC`). Not without end: a daemon that takes less than a page at a time gets the file an `EIO`.
    pub(crate) fn store(
        self: &Arc<Self>,
        op: &fuse_proto::Write,
        range: WritebackRange,
        freshness: Arc<Freshness>,
    ) -> Result {
        let more = range.len().div_ceil(PAGE_SIZE);
        let batch = self.stores().begin();
        let (transfer, under_way) = self
            .send_store(op, range, freshness, batch.clone(), more)
            .inspect_err(|_| batch.leave())?;
        self.limit_background(&transfer, under_way);
        Ok(())
    }

    fn send_store(
        self: &Arc<Self>,
        op: &fuse_proto::Write,
        range: WritebackRange,
        freshness: Arc<Freshness>,
        batch: Arc<Batch>,
        more: usize,
    ) -> Result<(Arc<Transfer<Request>>, i32)> {
        let purpose = Purpose::Store(Store {
            session: self.clone(),
            op: *op,
            freshness,
            batch,
            more,
        });
        let payload = Payload::Writeback(range);
        self.send_in_background(op, &Caller::default(), payload, purpose)
    }

    /// The daemon took `written` bytes of a writeback, and not all: has the rest sent. Callable from any context; for want of memory
    /// the writeback ends with an error.
    fn store_rest_later(this: &Arc<Self>, transfer: Arc<Transfer<Request>>, written: usize) {
        let session = this.clone();
        let spawned = {
            let transfer = transfer.clone();
            this.instance().work().try_spawn(GFP_ATOMIC, move || {
                session.store_rest(&transfer, written);
            })
        };
        // If that fails the range is dropped with the transfer, which ends its writeback.
        if let (Err(_), Purpose::Store(store)) = (spawned, &transfer.owner().purpose) {
            store.batch.leave();
        }
    }

    fn store_rest(self: &Arc<Self>, transfer: &Transfer<Request>, written: usize) {
        let (Purpose::Store(store), Payload::Writeback(range)) =
            (&transfer.owner().purpose, transfer.payload())
        else {
            return;
        };
        let send = || -> Result {
            let more = store.more.checked_sub(1).ok_or(EIO)?;
            let rest = range.rest(written)?;
            let op = fuse_proto::Write {
                offset: store.op.offset.checked_add(written as u64).ok_or(EIO)?,
                size: u32::try_from(rest.len())?,
                ..store.op
            };
            let (freshness, batch) = (store.freshness.clone(), store.batch.clone());
            self.send_store(&op, rest, freshness, batch, more)?;
            Ok(())
        };
        if let Err(e) = send() {
            range.end(Err(e));
            store.batch.leave();
        }
    }

    /// With too many requests under way that nobody waits for, waits for this one.
    fn limit_background(&self, transfer: &Transfer<Request>, under_way: i32) {
        // Not the flusher, whose wait no signal would end: the kernel allows a mount so many dirty pages, and no more of them wait.
        if under_way > self.max_background() && !is_kernel_thread() {
            // Whatever comes of it, the folios say so, also when this task is killed: then they are others' still.
            transfer.linger();
        }
    }

    /// Sends `op`, and says how many requests are under way now that nobody waits for. Sleeps for memory alone.
    fn send_in_background<O: Operation>(
        &self,
        op: &O,
        caller: &Caller,
        payload: Payload,
        purpose: Purpose,
    ) -> Result<(Arc<Transfer<Request>>, i32)> {
        let instance = self.instance();
        let queue = instance.request_queue()?;
        let new = instance.prepare(queue.data(), op, caller, payload, purpose)?;
        send_in_background(queue, new, self.connection())
    }

    /// Logs what is wrong with the payload of a reply.
    pub(crate) fn complain<O: Operation>(&self, op: &O, what: ReplyError) {
        if let Ok(queue) = self.instance().request_queue() {
            queue.data().complain(op.opcode(), what);
        }
    }
}
