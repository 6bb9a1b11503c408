// SPDX-License-Identifier: GPL-2.0

//! A FUSE session: from INIT to DESTROY.
//!
//! It knows no filesystem: the superblocks that share it are a [volume](crate::volume).
//!
//! Files of this floor:
//!
//! - [`epoch`]: which of two replies is newer, and whether one is older than a change.
//! - [`errand`]: work that an exiting task leaves to a work item.
//! - [`forget`]: lookup counts of the daemon, and deferred FORGETs.
//! - [`freshness`]: validity of cached attributes, names and contents.
//! - [`given_up`]: requests of killed tasks, and what must not overtake them.
//! - [`room`]: a daemon without file descriptors is asked again.
//! - [`stores`]: write-back requests under way, for sync(2), syncfs(2) and unmounts.
//! - [`undo`]: late replies to tasks that were killed.

pub(crate) mod epoch;
pub(crate) mod errand;
pub(crate) mod forget;
pub(crate) mod freshness;
pub(crate) mod given_up;
pub(crate) mod room;
pub(crate) mod stores;
pub(crate) mod undo;

use crate::{
    session::{
        forget::{
            Forgets,
            Known, //
        },
        given_up::GivenUp,
        room::Room,
        stores::{
            Batch,
            Stores, //
        },
    },
    transport::{
        device::Instance,
        request::{
            insist,
            Request,
            Sent, //
        },
    },
};
use fuse_proto::{
    Caller,
    DirentsPlus,
    Fh,
    Init,
    InitFlags,
    LockOwner,
    Negotiated,
    NodeId,
    Opcode,
    Operation,
    Release,
    ReleaseFlags,
    ReplyError, //
};
use kernel::{
    new_delayed_work,
    prelude::*,
    sync::{
        atomic::{
            ordering,
            Atomic, //
        },
        Arc, //
    },
    time::{
        delay::fsleep,
        msecs_to_jiffies,
        Delta, //
    },
    workqueue::{
        impl_has_delayed_work,
        DelayedWork,
        WorkItem, //
    },
};
use kernel_ext::{
    pages::PageBuffer,
    siphash::SipHash,
    task::{
        is_kernel_thread,
        is_killed, //
    },
    workqueue::cancel_delayed, //
};
use vfs::file::owner_of_process;
use virtio::{
    AtEnd,
    Connection,
    Payload,
    Transfer, //
};

/// Bytes to read ahead at most: what a single READ can carry with 256 pages.
const MAX_READAHEAD: u32 = 1 << 20;
/// Pages of a request at most, as the C driver asks for.
const MAX_PAGES: usize = 256;
/// Segments of a message that are not payload.
const OTHER_SEGMENTS: usize = 2;

/// What this driver can do. A flag is offered here when what it promises is implemented, and not before.
const OFFERED: InitFlags = InitFlags::ASYNC_READ
    .with(InitFlags::POSIX_LOCKS)
    .with(InitFlags::ATOMIC_O_TRUNC)
    .with(InitFlags::EXPORT_SUPPORT)
    .with(InitFlags::BIG_WRITES)
    .with(InitFlags::DONT_MASK)
    .with(InitFlags::FLOCK_LOCKS)
    .with(InitFlags::HAS_IOCTL_DIR)
    .with(InitFlags::AUTO_INVAL_DATA)
    .with(InitFlags::DO_READDIRPLUS)
    .with(InitFlags::READDIRPLUS_AUTO)
    .with(InitFlags::ASYNC_DIO)
    .with(InitFlags::PARALLEL_DIROPS)
    .with(InitFlags::HANDLE_KILLPRIV)
    .with(InitFlags::POSIX_ACL)
    .with(InitFlags::WRITEBACK_CACHE)
    .with(InitFlags::MAX_PAGES)
    .with(InitFlags::CACHE_SYMLINKS)
    .with(InitFlags::NO_OPEN_SUPPORT)
    .with(InitFlags::NO_OPENDIR_SUPPORT)
    .with(InitFlags::SUBMOUNTS)
    .with(InitFlags::DIRECT_IO_ALLOW_MMAP)
    .with(InitFlags::HANDLE_KILLPRIV_V2)
    .with(InitFlags::SETXATTR_EXT)
    .with(InitFlags::INIT_EXT)
    .with(InitFlags::SECURITY_CTX)
    .with(InitFlags::CREATE_SUPP_GROUP)
    .with(InitFlags::NO_EXPORT_SUPPORT)
    .with(InitFlags::ALLOW_IDMAP);

/// Whether a daemon may lack `opcode` for good. Without the others there is no filesystem, so that `ENOSYS` is then an error
/// like any other.
fn is_optional(opcode: Opcode) -> bool {
    matches!(
        opcode,
        Opcode::Open
            | Opcode::Opendir
            | Opcode::Flush
            | Opcode::Fsync
            | Opcode::Fsyncdir
            | Opcode::Fallocate
            | Opcode::CopyFileRange
            | Opcode::CopyFileRange64
            | Opcode::Syncfs
            | Opcode::Create
            | Opcode::Tmpfile
            | Opcode::Link
            | Opcode::Rename2
            | Opcode::Getxattr
            | Opcode::Listxattr
            | Opcode::Setxattr
            | Opcode::Removexattr
            | Opcode::Access
            | Opcode::Lseek
            | Opcode::Statx
            | Opcode::Interrupt
            | Opcode::Ioctl
    )
}

/// A FUSE session.
#[pin_data]
pub(crate) struct Session {
    instance: Arc<Instance>,
    agreed: Negotiated,
    /// The largest payload of a request in bytes.
    max_payload: usize,
    /// Opcodes that the daemon does not know, a bit each.
    unknown: Atomic<u64>,
    /// What owners of locks are called at the daemon.
    owners: SipHash,
    /// Closed when the session is to end now.
    connection: Connection,
    forgets: Forgets,
    /// What is being written back.
    #[pin]
    stores: Stores,
    /// Runs a while after an inode was forgotten.
    #[pin]
    flush: DelayedWork<Session, FLUSH>,
    #[pin]
    room: Room,
    #[pin]
    given_up: GivenUp,
}

/// The number of a session's work item.
const FLUSH: u64 = 0;

/// How often it is looked whether requests that were given up have ended when the session does, a millisecond apart.
const SETTLE_LOOKS: usize = 2000;

/// How long an inode waits for others that are forgotten in the same request, in milliseconds: time for some more to be removed by
/// the same program, and too short for anybody to miss the room on the host.
const FORGET_DELAY: u32 = 10;

impl_has_delayed_work! {
    impl HasDelayedWork<Self, FLUSH> for Session { self.flush }
}

impl WorkItem<FLUSH> for Session {
    type Pointer = Arc<Self>;

    fn run(this: Arc<Self>) {
        this.send_due_releases();
        this.flush_forgets();
    }
}

impl Session {
    /// Starts a session with the daemon behind `instance`, which is offered these flags besides those that are always. Sleeps.
    pub(crate) fn start(instance: Arc<Instance>, offers: InitFlags) -> Result<Arc<Self>> {
        let max_pages = instance
            .max_segments()
            .saturating_sub(OTHER_SEGMENTS)
            .clamp(1, MAX_PAGES);
        let init = Init {
            flags: OFFERED.with(offers),
            max_readahead: MAX_READAHEAD,
            max_pages: u16::try_from(max_pages)?,
        };
        let connection = Connection::new();
        let agreed = instance.call(&connection, &init, &Caller::default())?;
        if agreed.unoffered != InitFlags::NONE {
            pr_warn!(
                "{:?}: the daemon claims what it was not offered: {:?}\n",
                instance.tag(),
                agreed.unoffered
            );
        }
        pr_debug!("{:?}: {agreed:?}\n", instance.tag());
        let stores = Stores::new()?;
        let forgets = Forgets::new(instance.request_queues())?;
        let max_payload = usize::from(agreed.max_pages) * kernel::page::PAGE_SIZE;
        Arc::pin_init(
            pin_init!(Self {
                instance,
                agreed,
                max_payload,
                unknown: Atomic::new(0),
                owners: SipHash::random(),
                connection,
                forgets,
                stores <- stores,
                flush <- new_delayed_work!("virtiofs::Session::flush"),
                room <- Room::new(),
                given_up <- GivenUp::new(),
            }),
            GFP_KERNEL,
        )
    }

    /// What was agreed on.
    pub(crate) fn agreed(&self) -> &Negotiated {
        &self.agreed
    }

    /// Whether both sides can do this.
    pub(crate) fn has(&self, flag: InitFlags) -> bool {
        self.agreed.flags.contains(flag)
    }

    /// The device.
    pub(crate) fn instance(&self) -> &Arc<Instance> {
        &self.instance
    }

    /// The largest payload of a request in bytes, a multiple of the page size.
    pub(crate) fn max_payload(&self) -> usize {
        self.max_payload
    }

    /// The most bytes of a WRITE.
    pub(crate) fn max_write(&self) -> usize {
        self.max_payload.min(self.agreed.max_write as usize)
    }

    /// Requests of one queue that nobody waits for, at most.
    pub(crate) fn max_background(&self) -> i32 {
        let all = i32::from(self.agreed.max_background);
        let queues = i32::try_from(self.instance.request_queues()).unwrap_or(1);
        all.checked_div(queues).unwrap_or(all).max(1)
    }

    /// Whether the session still goes on.
    pub(crate) fn is_connected(&self) -> bool {
        self.instance.serves(&self.connection)
    }

    /// What its requests are sent by.
    pub(crate) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Whether the daemon is known not to know `opcode`.
    pub(crate) fn lacks(&self, opcode: Opcode) -> bool {
        self.unknown.load(ordering::Relaxed) & opcode.bit() != 0
    }

    /// Its requests that were given up and have not ended.
    pub(crate) fn given_up(&self) -> &GivenUp {
        &self.given_up
    }

    /// Has sent what has waited for requests that were given up. Callable from any context.
    pub(crate) fn send_due(self: &Arc<Self>) {
        // Without a delay there is no timer, which would outlive the session. It may be about to run anyway.
        let _ = self
            .instance
            .work()
            .enqueue_delayed::<_, FLUSH>(self.clone(), 0);
    }

    /// Room for inodes and handles at the daemon.
    pub(crate) fn room(&self) -> &Room {
        &self.room
    }

    /// Sends `op` and waits for its reply; see [`Instance::call`]. `ENOSYS` is remembered, and then returned at once. If the daemon
    /// has no descriptors left it is asked again [when there is room](Session::with_room).
    pub(crate) fn call<O: Operation>(
        self: &Arc<Self>,
        op: &O,
        caller: &Caller,
    ) -> Result<O::Reply> {
        self.with_room(|| self.call_now(op, caller))
    }

    /// As [`Session::call`], once.
    pub(crate) fn call_now<O: Operation>(
        self: &Arc<Self>,
        op: &O,
        caller: &Caller,
    ) -> Result<O::Reply> {
        self.exchange(op, caller, Payload::None)
            .map(|(reply, _)| reply)
    }

    /// As [`Session::call`], for an operation whose reply has a payload of kernel pages.
    pub(crate) fn call_into<O: Operation>(
        self: &Arc<Self>,
        op: &O,
        caller: &Caller,
        pages: PageBuffer,
    ) -> Result<(O::Reply, Arc<Transfer<Request>>)> {
        let len = pages.len();
        let mut first = Some(pages);
        self.with_room(|| {
            let pages = match first.take() {
                Some(pages) => pages,
                None => PageBuffer::new(len)?,
            };
            self.exchange(op, caller, Payload::Pages(pages))
        })
    }

    /// As [`Session::call_now`], with any payload, which is found in the transfer that is returned.
    pub(crate) fn exchange<O: Operation>(
        self: &Arc<Self>,
        op: &O,
        caller: &Caller,
        payload: Payload,
    ) -> Result<(O::Reply, Arc<Transfer<Request>>)> {
        self.attempt(op.opcode(), || {
            let sent = self.begin_with(op, caller, payload, None)?;
            let reply = sent.wait(op, || self.undo(op))?;
            Ok((reply, sent.into_transfer()))
        })
    }

    /// Calls `send`, which sends a request of that opcode and waits for its reply, unless the connection is ended or the daemon is known
    /// not to know the opcode.
    pub(crate) fn attempt<R>(&self, opcode: Opcode, send: impl FnOnce() -> Result<R>) -> Result<R> {
        if !self.is_connected() {
            return Err(self.instance.refusal(&self.connection));
        }
        if self.lacks(opcode) {
            return Err(ENOSYS);
        }
        send().inspect_err(|e| {
            if *e == ENOSYS {
                self.learn_lack(opcode);
            }
        })
    }

    /// The daemon does not know `opcode`, as it has just said: that is remembered if it may be so for good.
    pub(crate) fn learn_lack(&self, opcode: Opcode) {
        if !is_optional(opcode) {
            return;
        }
        let mut old = self.unknown.load(ordering::Relaxed);
        while let Err(now) = self
            .unknown
            .cmpxchg(old, old | opcode.bit(), ordering::Relaxed)
        {
            old = now;
        }
    }

    /// What is being written back.
    pub(crate) fn stores(&self) -> &Stores {
        &self.stores
    }

    /// Waits until nothing is being read into folios. Sleeps; a fatal signal ends that with `EINTR`. For who has taken everything from
    /// everybody else: others could always read more.
    pub(crate) fn settle_pages(&self) -> Result {
        while self.instance.lanes().any(|lane| lane.filling() > 0) {
            if is_killed() {
                return Err(EINTR);
            }
            fsleep(Delta::from_millis(1));
        }
        Ok(())
    }

    /// As [`Session::call`], for who waits in a task that no signal reaches, and may ask later: `EINTR` after a while, and at once as
    /// long as the daemon has not answered what was waited for in vain.
    pub(crate) fn call_briefly<O: Operation>(
        self: &Arc<Self>,
        op: &O,
        caller: &Caller,
    ) -> Result<O::Reply> {
        if self.instance.patience().left() == 0 {
            return Err(EINTR);
        }
        self.begin(op, caller)?.wait_briefly(op, || self.undo(op))
    }

    /// Sends `op`, whose reply will be waited for. Sleeps for memory alone.
    pub(crate) fn begin<O: Operation>(&self, op: &O, caller: &Caller) -> Result<Sent<'_>> {
        self.begin_with(op, caller, Payload::None, None)
    }

    /// As [`Session::begin`], with a payload, and an `end` that sees to the reply if nobody waits; see [`Instance::begin`].
    pub(crate) fn begin_with<O: Operation>(
        &self,
        op: &O,
        caller: &Caller,
        payload: Payload,
        end: Option<AtEnd<Request>>,
    ) -> Result<Sent<'_>> {
        self.instance
            .begin(&self.connection, op, caller, payload, end)
    }

    /// What the owner of locks is called at the daemon: its address is nothing for others to know.
    pub(crate) fn lock_owner(&self, owner: usize) -> LockOwner {
        LockOwner(self.owners.of(owner as u64))
    }

    /// What the current process is called at the daemon as the owner of POSIX locks.
    pub(crate) fn own_locks(&self) -> LockOwner {
        self.lock_owner(owner_of_process())
    }

    /// Sends `op` and goes on; its `end` is told how it ended. Sleeps for memory alone.
    pub(crate) fn send<O: Operation>(
        &self,
        op: &O,
        caller: &Caller,
        end: Option<AtEnd<Request>>,
    ) -> Result {
        self.send_with(op, caller, Payload::None, end)?;
        Ok(())
    }

    /// As [`Session::send`], with a payload; see [`Instance::send`].
    pub(crate) fn send_with<O: Operation>(
        &self,
        op: &O,
        caller: &Caller,
        payload: Payload,
        end: Option<AtEnd<Request>>,
    ) -> Result<(Sent<'_>, i32)> {
        self.instance
            .send(&self.connection, op, caller, payload, end)
    }

    /// As [`Session::send_with`], for pages of the page cache. With too many requests under way that nobody waits for it waits for this
    /// one, so that nobody runs ahead without end. Sleeps.
    pub(crate) fn send_pages<O: Operation>(
        &self,
        op: &O,
        caller: &Caller,
        payload: Payload,
        end: AtEnd<Request>,
    ) -> Result {
        let (sent, under_way) = self.send_with(op, caller, payload, Some(end))?;
        // Not the flusher, whose wait no signal would end: the kernel allows a mount so many dirty pages, and no more of them wait.
        if under_way > self.max_background() && !is_kernel_thread() {
            // Whatever comes of it, the folios say so, also when this task is killed: then they are others' still.
            sent.transfer().linger();
        }
        Ok(())
    }

    /// Logs what is wrong with the payload of a reply.
    pub(crate) fn complain<O: Operation>(&self, op: &O, what: ReplyError) {
        if let Ok(queue) = self.instance.request_queue() {
            queue.data().complain(op.opcode(), what);
        }
    }

    /// As [`Session::call`], for what has to be sent though the task exits or was killed: [`None`] if the reply came too late for it.
    /// What has to come after the reply waits for the `batch`.
    pub(crate) fn call_at_last<O: Operation>(
        &self,
        op: &O,
        caller: &Caller,
        batch: &Arc<Batch>,
    ) -> Option<Result<O::Reply>> {
        // Not a call that is given up: with a full ring that would not be sent, and locks would stay.
        let send = || self.send_with(op, caller, Payload::None, Some(AtEnd::new(batch.member())));
        match insist(send) {
            Ok((sent, _)) => sent.linger(op),
            Err(e) => Some(Err(e)),
        }
    }

    /// Gives the lookups of an inode back to the daemon, soon and together with others. Callable where sleeping is not.
    pub(crate) fn forget(self: &Arc<Self>, known: Arc<Known>) {
        if self.is_connected() && self.forgets.add(known) {
            let delay = msecs_to_jiffies(FORGET_DELAY);
            // It may wait for more already.
            let _ = self
                .instance
                .work()
                .enqueue_delayed::<_, FLUSH>(self.clone(), delay);
        }
    }

    /// After a record that makes no sense: gives back what the daemon has counted for it and for those behind it. Sleeps.
    pub(crate) fn forget_refused(self: &Arc<Self>, records: &DirentsPlus<'_>) {
        for node in records.refused() {
            self.forget(Known::counted(node));
        }
    }

    /// Sends RELEASEs that have waited for requests which have ended by now. Sleeps.
    fn send_due_releases(&self) {
        while let Some(release) = self.given_up.take_due() {
            let _ = insist(|| self.send(&release, &Caller::default(), None));
        }
    }

    /// Sends what is to be forgotten. Sleeps.
    pub(crate) fn flush_forgets(&self) {
        let waits = |node| self.given_up.is_about(node);
        self.forgets.flush(&self.instance, &self.connection, waits);
    }

    /// Ends the session: everything is forgotten, then the connection is closed, and the daemon told. No inode is left, and nobody else
    /// uses it any more but work items; `closed` is called when these are done, too. Sleeps, and a fatal signal ends that.
    pub(crate) fn end(self: &Arc<Self>, closed: impl FnOnce()) {
        self.settle_given_up();
        cancel_delayed::<_, FLUSH>(self);
        self.send_due_releases();
        self.forgets
            .flush(&self.instance, &self.connection, |_| false);
        // What a work item has taken off the lists must be sent before DESTROY, too.
        self.instance.work().flush();
        let may_part = self.is_connected();
        let was_open = self.connection.close();
        // A late reply may have had more forgotten since. Who saw the connection open is done with it after this, and no work is
        // put off any more: this module can go with the last superblock, and what runs later would run without it.
        self.instance.work().flush();
        closed();
        cancel_delayed::<_, FLUSH>(self);
        if was_open && may_part {
            // The daemon may be gone as well; then there is nobody to part from.
            let _ = self.instance.destroy();
        }
    }

    /// Waits until requests that were given up have ended, but not for long. Sleeps.
    fn settle_given_up(&self) {
        for _ in 0..SETTLE_LOOKS {
            if is_killed() || !self.is_connected() || !self.given_up.any() {
                break;
            }
            fsleep(Delta::from_millis(1));
        }
    }

    /// Ends its requests at once, with `ENOTCONN`.
    pub(crate) fn abort(&self) {
        if self.instance.abort(&self.connection) {
            pr_warn!("{:?}: aborted by a forced unmount\n", self.instance.tag());
        }
    }

    /// Gives a handle back, without waiting for it.
    pub(crate) fn release(&self, node: NodeId, dir: bool, fh: Fh, flags: u32) {
        self.give_back(&Release {
            node,
            dir,
            fh,
            flags,
            release_flags: ReleaseFlags::NONE,
            lock_owner: Default::default(),
        });
    }

    /// As [`Session::release`]. It does not overtake requests about the inode that were given up.
    pub(crate) fn give_back(&self, op: &Release) {
        // A session that has ended has no handles either.
        let _ = insist(|| match self.given_up.keep(op)? {
            true => Ok(()),
            false => self.send(op, &Caller::default(), None),
        });
    }
}

#[cfg(VIRTIOFS_KUNIT)]
#[kunit_tests(virtiofs_session)]
mod tests {
    use super::*;

    /// Without these there is no filesystem: their `ENOSYS` is not remembered.
    #[test]
    fn indispensable() {
        for opcode in [
            Opcode::Init,
            Opcode::Lookup,
            Opcode::Getattr,
            Opcode::Read,
            Opcode::Readdir,
        ] {
            assert!(!is_optional(opcode));
        }
    }

    /// Opcodes that can be missing have a bit each.
    #[test]
    fn bits() {
        let optional = [
            Opcode::Open,
            Opcode::Opendir,
            Opcode::Flush,
            Opcode::Create,
            Opcode::Tmpfile,
            Opcode::Link,
            Opcode::Rename2,
            Opcode::Getxattr,
            Opcode::Listxattr,
            Opcode::Setxattr,
            Opcode::Removexattr,
            Opcode::Access,
            Opcode::Lseek,
            Opcode::Statx,
            Opcode::Interrupt,
            Opcode::Ioctl,
        ];
        let all = optional.iter().fold(0, |bits, opcode| {
            assert!(is_optional(*opcode));
            assert_eq!(bits & opcode.bit(), 0);
            bits | opcode.bit()
        });
        assert_eq!(all.count_ones() as usize, optional.len());
    }
}
