// SPDX-License-Identifier: GPL-2.0

//! Retries for a daemon that has no file descriptors left (`EMFILE`, `ENFILE`).
//!
//! Inodes are given back by the filesystem above, in one work item for all who wait, so that a signal ends their wait, and the
//! daemon's delay in taking what is given up holds no one else.

use crate::session::Session;
use fuse_proto::{
    Caller,
    Operation, //
};
use kernel::{
    new_mutex,
    prelude::*,
    sync::{
        atomic::{
            ordering,
            Atomic, //
        },
        Arc,
        Mutex, //
    },
    time::msecs_to_jiffies,
};
use kernel_ext::{
    event::{
        Event,
        Seen, //
    },
    task::{
        is_reclaiming,
        is_worker, //
    },
};

/// How often the daemon is asked again that has no descriptors left.
const ATTEMPTS: usize = 6;
/// How long who waits for room waits at most, in milliseconds.
const PATIENCE: u32 = 60_000;

/// A filesystem that can give inodes back.
pub(crate) trait MakeRoom: Send + Sync {
    /// Has inodes given back in a work item, which calls [`Room::made`] at its end. Does not sleep.
    fn make_room_later(self: Arc<Self>);
}

/// Room at the daemon of a session.
#[pin_data]
pub(crate) struct Room {
    /// The filesystem, as long as it has inodes.
    #[pin]
    maker: Mutex<Option<Arc<dyn MakeRoom>>>,
    /// Room has been made.
    #[pin]
    made: Event,
    /// Whether it is being made.
    making: Atomic<i32>,
    /// How many inodes went for it the last time.
    freed: Atomic<usize>,
}

impl Room {
    /// Of a session without a filesystem.
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            maker <- new_mutex!(None, "virtiofs::Room::maker"),
            made <- Event::new(),
            making: Atomic::new(0),
            freed: Atomic::new(0),
        })
    }

    /// The filesystem is there. Sleeps.
    pub(crate) fn attach(&self, maker: Arc<dyn MakeRoom>) {
        *self.maker.lock() = Some(maker);
    }

    /// The filesystem goes. Sleeps.
    pub(crate) fn detach(&self) {
        let maker = self.maker.lock().take();
        drop(maker);
    }

    /// So many inodes were given back. Callable from any context.
    pub(crate) fn made(&self, freed: usize) {
        self.freed.store(freed, ordering::Relaxed);
        self.making.store(0, ordering::Release);
        self.made.happen();
    }

    /// What was made until now, for [`Session::make_room`].
    pub(crate) fn seen(&self) -> Seen {
        self.made.seen()
    }
}

impl Session {
    /// Has room made at the daemon, unless that was done since `seen`, and waits for it. Sleeps; `EINTR` when a fatal signal ends
    /// that.
    pub(crate) fn make_room(&self, seen: Seen) -> Result {
        let room = self.room();
        let Some(maker) = room.maker.lock().clone() else {
            return Ok(());
        };
        if room.made.seen() == seen && room.making.cmpxchg(0, 1, ordering::Full).is_ok() {
            maker.make_room_later();
        }
        room.made
            .wait_killable(seen, msecs_to_jiffies(PATIENCE))
            .map_err(|_| EINTR)
    }

    /// Makes an `attempt` once more, a few times, while the daemon says that it has no descriptors left, and inodes can be given
    /// back to it. Not for what may have been done nevertheless, and must not be done twice. Sleeps.
    pub(crate) fn with_room<R>(&self, mut attempt: impl FnMut() -> Result<R>) -> Result<R> {
        let mut left = ATTEMPTS;
        loop {
            let seen = self.room().seen();
            let done = attempt();
            if !matches!(&done, Err(e) if is_out_of_files(*e)) {
                return done;
            }
            left -= 1;
            // Who makes room must not wait for it.
            if left == 0 || is_reclaiming() || is_worker() {
                return done;
            }
            self.make_room(seen)?;
            if self.room().freed.load(ordering::Relaxed) == 0 && left < ATTEMPTS - 1 {
                return done;
            }
        }
    }

    /// As [`Session::call`], for what may have been done though the daemon had no descriptors left in the end. If that is what it
    /// says, there is [room](is_out_of_files) when this returns, and it has to be looked what was done.
    pub(crate) fn call_once<O: Operation>(
        self: &Arc<Self>,
        op: &O,
        caller: &Caller,
    ) -> Result<O::Reply> {
        let seen = self.room().seen();
        let done = self.call_now(op, caller);
        if matches!(&done, Err(e) if is_out_of_files(*e)) && !is_worker() {
            self.make_room(seen)?;
        }
        done
    }
}

/// Whether the daemon had no file descriptors left.
pub(crate) fn is_out_of_files(e: Error) -> bool {
    e == EMFILE || e == ENFILE
}
