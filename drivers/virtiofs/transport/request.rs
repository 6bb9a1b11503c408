// SPDX-License-Identifier: GPL-2.0

//! Requests: one operation of FUSE, encoded, sent, waited for, and its reply checked.

use crate::transport::{
    device::Instance,
    lane::Lane,
    patience::InVain, //
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
use kernel_ext::task::{
    is_exiting,
    is_killed, //
};
use virtio::{
    transfer::Direction,
    AtEnd,
    Connection,
    End,
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

/// A FUSE request, as the driver keeps it with its [`Transfer`].
pub(crate) struct Request {
    label: Label,
    /// No task waits for its reply, and its lane counts it.
    background: bool,
    /// Run at its end; without one, the task that waits checks the reply.
    end: Option<AtEnd<Request>>,
    in_vain: InVain,
    /// Run at its end once its waiter has gone.
    abandoned: SetOnce<AtEnd<Request>>,
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

    /// The inode it was asked of.
    pub(crate) fn node(&self) -> Option<NodeId> {
        self.label.node
    }

    /// Its behaviour at the end, if it is an `E`.
    pub(crate) fn end<E: End<Request>>(&self) -> Option<&E> {
        self.end.as_ref()?.get()
    }

    /// As [`end`](Request::end), of the behaviour that its waiter has left behind.
    pub(crate) fn abandoned<E: End<Request>>(&self) -> Option<&E> {
        self.abandoned.as_ref()?.get()
    }

    /// One that a task waits for, and that has no behaviour of its own.
    fn new(opcode: Opcode, unique: u64, node: Option<NodeId>) -> impl Init<Self> {
        init!(Self {
            label: Label {
                opcode,
                unique,
                node,
            },
            background: false,
            end: None,
            in_vain: InVain::new(),
            abandoned: SetOnce::new(),
        })
    }
}

/// Whether a transfer reads folios of the page cache.
fn fills(payload: &Payload) -> bool {
    matches!(payload, Payload::Folios(_))
}

impl virtio::Owner for Request {
    type Queue = Lane;
    type Label = Label;

    fn label(&self) -> Label {
        self.label
    }

    fn ended(lane: &Lane, transfer: &Arc<Transfer<Self>>, outcome: Outcome) {
        let request = transfer.owner();
        if request.background {
            lane.background_ends();
        }
        if let Some(end) = &request.end {
            end.ended(lane, transfer, outcome);
        }
        if fills(transfer.payload()) {
            // After that: an unmount takes the folios away then.
            lane.filling_ends();
        }
        let is_abandoned = matches!(outcome, Outcome::Late(_) | Outcome::Unsent);
        let may_linger = request.background && matches!(transfer.payload(), Payload::None);
        if is_abandoned || may_linger {
            lane.patience().ended(&request.in_vain);
        }
        if let (true, Some(abandoned)) = (is_abandoned, request.abandoned.as_ref()) {
            abandoned.ended(lane, transfer, outcome);
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

    /// As [`transfer`](Sent::transfer), for as long as somebody needs them.
    pub(crate) fn into_transfer(self) -> Arc<Transfer<Request>> {
        self.transfer
    }

    /// Waits for the reply to `op`, as [`wait_for_outcome`](Sent::wait_for_outcome), and checks it.
    pub(crate) fn wait<O: Operation>(
        &self,
        op: &O,
        abandoned: impl FnOnce() -> Option<AtEnd<Request>>,
    ) -> Result<O::Reply> {
        let outcome = self.wait_for_outcome(abandoned)?;
        self.check(op, outcome)
    }

    /// Waits until it has ended. Sleeps: a fatal signal ends that with `EINTR`, and in a task that exits a while. See [`Transfer::wait`].
    ///
    /// The behaviour that `abandoned` makes is then left behind: it runs when the request ends after all.
    pub(crate) fn wait_for_outcome(
        &self,
        abandoned: impl FnOnce() -> Option<AtEnd<Request>>,
    ) -> Result<Outcome> {
        self.wait_if(is_exiting(), abandoned)
    }

    /// As [`Sent::wait_for_outcome`], `briefly` in any task.
    fn wait_if(
        &self,
        briefly: bool,
        abandoned: impl FnOnce() -> Option<AtEnd<Request>>,
    ) -> Result<Outcome> {
        let request = self.transfer.owner();
        let (patience, in_vain) = (self.lane.patience(), &request.in_vain);
        let left = briefly.then(|| patience.left());
        let outcome = self.transfer.wait(left, || {
            if let Some(abandoned) = abandoned() {
                request.abandoned.populate(abandoned);
            }
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
    pub(crate) fn wait_briefly<O: Operation>(
        &self,
        op: &O,
        abandoned: impl FnOnce() -> Option<AtEnd<Request>>,
    ) -> Result<O::Reply> {
        let outcome = self.wait_if(true, abandoned)?;
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
        unique: u64,
        op: &O,
        caller: &Caller,
        payload: Payload,
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
        self.begin(connection, op, caller, Payload::None, None)?
            .wait(op, || None)
    }

    /// Sends `op`. Its reply will be waited for, or its `end` sees to it. Sleeps for memory alone.
    pub(crate) fn begin<O: Operation>(
        &self,
        connection: &Connection,
        op: &O,
        caller: &Caller,
        payload: Payload,
        end: Option<AtEnd<Request>>,
    ) -> Result<Sent<'_>> {
        let queue = self.request_queue()?;
        let lane = queue.data();
        let mut new = Self::prepare(lane.next_unique(), op, caller, payload)?;
        new.owner_mut().end = end;
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
        let first = Self::prepare(lane.next_unique(), ops.0, caller, Payload::None)?;
        let second = Self::prepare(lane.next_unique(), ops.1, caller, Payload::None)?;
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
        // The lowest bit tells it from the other one (`FUSE_INT_REQ_BIT`).
        let new = Self::prepare(op.target | 1, op, &Caller::default(), Payload::None)?;
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
        let (op, connection) = (Destroy, Connection::new());
        let begin = || self.begin(&connection, &op, &Caller::default(), Payload::None, None);
        insist(begin)?.wait(&op, || None)
    }

    /// Sends `op` and goes on; its `end` is told how it ended. Says how many such requests of its queue are under way now. Sleeps for
    /// memory alone.
    pub(crate) fn send<O: Operation>(
        &self,
        connection: &Connection,
        op: &O,
        caller: &Caller,
        payload: Payload,
        end: Option<AtEnd<Request>>,
    ) -> Result<(Sent<'_>, i32)> {
        let queue = match op.answer() {
            Answer::Nothing => self.hiprio_queue()?,
            _ => self.request_queue()?,
        };
        let mut new = Self::prepare(queue.data().next_unique(), op, caller, payload)?;
        new.owner_mut().end = end;
        Self::send_in_background(queue, new, connection)
    }

    fn send_in_background<'a>(
        queue: &'a Virtqueue<Request>,
        mut new: NewTransfer<Request>,
        connection: &Connection,
    ) -> Result<(Sent<'a>, i32)> {
        let lane = queue.data();
        new.owner_mut().background = true;
        let under_way = lane.background_begins();
        let fills = fills(new.payload());
        if fills {
            lane.filling_begins();
        }
        let transfer = queue.submit(new, connection).inspect_err(|_| {
            lane.background_ends();
            if fills {
                lane.filling_ends();
            }
        })?;
        Ok((Sent { lane, transfer }, under_way))
    }

    /// Gives back lookups of `count` inodes. Sleeps for memory alone.
    pub(crate) fn send_batch_forget(
        &self,
        connection: &Connection,
        forgets: impl Iterator<Item = Forget>,
        count: usize,
    ) -> Result {
        let queue = self.hiprio_queue()?;
        let unique = queue.data().next_unique();
        let request = Request::new(Opcode::BatchForget, unique, None);
        let mut new = NewTransfer::new(BatchForget::encoded_len(count), 0, request)?;
        let mut batch = BatchForget::new(new.message_mut()).map_err(encode_error)?;
        for forget in forgets.take(count) {
            let _ = batch.push(forget);
        }
        batch.finish(unique).map_err(encode_error)?;
        Self::send_in_background(queue, new, connection)?;
        Ok(())
    }
}

/// Repeats an attempt that must not fail, for a minute, while memory is short: what the daemon has counted must not be lost, and memory
/// comes back. Sleeps.
pub(crate) fn insist<T>(mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
    for _ in 0..6000 {
        match attempt() {
            Err(e) if e == ENOMEM => fsleep(Delta::from_millis(10)),
            done => return done,
        }
    }
    Err(ENOMEM)
}
