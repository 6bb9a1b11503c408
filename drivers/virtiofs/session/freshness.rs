// SPDX-License-Identifier: GPL-2.0

//! Validity of cached attributes, names and contents.
//!
//! Attributes and names have a time to live. It ends early when this kernel changes what they tell, or when everything is
//! [doubted](crate::session::epoch::doubt_everything). Nothing here sleeps or takes a lock.

use crate::session::epoch::{
    doubts,
    Asked,
    LastAsked,
    LastChange, //
    DOUBT,
};
use fuse_proto::Ttl;
#[cfg(VIRTIOFS_KUNIT)]
use kernel::prelude::*;
use kernel::sync::atomic::{
    ordering,
    Atomic, //
};
use vfs::time::{
    deadline,
    jiffies_64, //
};

/// How long attributes are good, in jiffies since boot. Callable from any context.
pub(crate) struct Freshness {
    /// All of them: a [`Deadline`].
    until: Atomic<u64>,
    /// Those that decide on access: mode and owner. A change of contents or names leaves them as they are.
    access_until: Atomic<u64>,
    /// Of size or contents, through this kernel: see [`Freshness::changed`].
    changed: LastChange,
    /// As of when the size is known: see [`Freshness::size_known`].
    sized: LastAsked,
    /// When contents up to the end of the file were asked for: see [`Freshness::end_asked`].
    end: LastAsked,
    /// The largest size that a READ has cut: see [`Freshness::was_cut`].
    cut_from: Atomic<i64>,
    /// READs whose answer was not to be used: see [`Freshness::is_to_be_read_again`].
    again: Atomic<u64>,
}

impl Freshness {
    /// Of attributes that are not known yet.
    pub(crate) fn new() -> Self {
        Self {
            until: Atomic::new(0),
            access_until: Atomic::new(0),
            changed: LastChange::new(),
            sized: LastAsked::new(),
            end: LastAsked::new(),
            cut_from: Atomic::new(0),
            again: Atomic::new(0),
        }
    }

    /// The size is known as of then: from attributes, or from a READ that has come to the end of the file.
    pub(crate) fn size_known(&self, asked: Asked) {
        self.sized.advance(asked);
    }

    /// Whether the size is known as of later.
    pub(crate) fn knows_later_size(&self, asked: Asked) -> bool {
        asked < self.sized.get()
    }

    /// Contents are asked for, up to the end of the file as it is known or beyond.
    pub(crate) fn end_asked(&self, asked: Asked) {
        self.end.advance(asked);
    }

    /// Whether contents before the end of the file may be newer than its size: new bytes, cut where the old ones ended.
    pub(crate) fn is_end_older(&self) -> bool {
        self.sized.get() < self.end.get()
    }

    /// A READ has found the end of a file of this size before it. Pages from there on are still to be dropped.
    pub(crate) fn was_cut(&self, size: i64) {
        let mut from = self.cut_from.load(ordering::Relaxed);
        while from < size {
            match self.cut_from.cmpxchg(from, size, ordering::Relaxed) {
                Ok(_) => break,
                Err(other) => from = other,
            }
        }
    }

    /// Up to where there may be pages behind the end of the file because of READs: see [`Freshness::was_cut`]. They are dropped now.
    pub(crate) fn take_cut(&self) -> i64 {
        match self.cut_from.load(ordering::Relaxed) {
            0 => 0,
            _ => self.cut_from.xchg(0, ordering::Relaxed),
        }
    }

    /// The answer to a READ was not to be used, as the size was not the one that it was asked for with.
    pub(crate) fn is_to_be_read_again(&self) {
        self.again.fetch_add(1u64, ordering::Release);
    }

    /// How often that was so.
    pub(crate) fn read_again(&self) -> u64 {
        self.again.load(ordering::Acquire)
    }

    /// Size or contents have been changed here. The attributes are as good as before, but for those that were asked for already.
    pub(crate) fn changed(&self) {
        self.changed.is_now();
    }

    /// Whether what was asked for then may be older than a change.
    pub(crate) fn is_overtaken(&self, asked: Asked) -> bool {
        self.changed.is_after(asked)
    }

    /// They are good for `ttl` from now on.
    pub(crate) fn renew(&self, ttl: Ttl) {
        // Before who renews looks whether there was a change; who changes does it the other way round.
        let Deadline(deadline) = Deadline::of(ttl);
        self.access_until.xchg(deadline, ordering::Full);
        self.until.xchg(deadline, ordering::Full);
    }

    /// Size and times are known: all are as good as mode and owner still are.
    pub(crate) fn restore(&self) {
        let deadline = self.access_until.load(ordering::Acquire);
        self.until.xchg(deadline, ordering::Full);
    }

    /// They are not good any more, but for mode and owner.
    pub(crate) fn expire(&self) {
        self.until.store(0, ordering::Release);
    }

    /// None of them is good any more.
    pub(crate) fn expire_all(&self) {
        self.access_until.store(0, ordering::Release);
        self.expire();
    }

    /// Whether all of them are good.
    pub(crate) fn is_fresh(&self) -> bool {
        Deadline(self.until.load(ordering::Relaxed)).is_ahead()
    }

    /// Whether mode and owner are.
    pub(crate) fn is_access_fresh(&self) -> bool {
        Deadline(self.access_until.load(ordering::Relaxed)).is_ahead()
    }
}

/// Whether the last reply to OPEN said that cached contents are good (`FOPEN_KEEP_CACHE`). Callable from any context.
pub(crate) struct KeepCache(Atomic<i32>);

impl KeepCache {
    const YES: i32 = 1;
    const NO: i32 = 2;

    /// Before the first OPEN.
    pub(crate) const fn unknown() -> Self {
        Self(Atomic::new(0))
    }

    /// The last reply; [`None`] before the first one.
    pub(crate) fn get(&self) -> Option<bool> {
        match self.0.load(ordering::Relaxed) {
            Self::YES => Some(true),
            Self::NO => Some(false),
            _ => None,
        }
    }

    /// A reply has come.
    pub(crate) fn set(&self, keeps: bool) {
        // Mostly it is the same, and then the memory need not move to this CPU.
        if self.get() != Some(keeps) {
            let word = if keeps { Self::YES } else { Self::NO };
            self.0.store(word, ordering::Relaxed);
        }
    }
}

/// Until when something is good, in one word.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Deadline(u64);

impl Deadline {
    /// It is not good.
    pub(crate) const NEVER: Self = Self(0);

    /// Bits of the word for the time, in jiffies since boot. The others have the number of [`doubts`].
    const TIME: u64 = DOUBT - 1;

    /// Of what is good for `ttl` from now on. Whether it was [doubted](crate::session::epoch::is_doubted) already is to be looked at after this.
    pub(crate) fn of(ttl: Ttl) -> Self {
        match deadline_of(ttl).min(Self::TIME) {
            0 => Self::NEVER,
            time => Self(doubts() | time),
        }
    }

    /// As it was kept.
    pub(crate) fn from_word(word: u64) -> Self {
        Self(word)
    }

    /// As it can be kept.
    pub(crate) fn word(self) -> u64 {
        self.0
    }

    /// Until when it is good, in jiffies since boot; 0 if it has been doubted since.
    pub(crate) fn time(self) -> u64 {
        match self.0 ^ doubts() {
            time if time <= Self::TIME => time,
            _ => 0,
        }
    }

    /// Whether it is good still.
    pub(crate) fn is_ahead(self) -> bool {
        // The time, unless there were others since.
        let time = self.0 ^ doubts();
        jiffies_64() < time && time <= Self::TIME
    }
}

/// The time in jiffies since boot until which something with this time to live is good.
fn deadline_of(ttl: Ttl) -> u64 {
    const NSEC_PER_SEC: u64 = 1_000_000_000;
    let nanos = ttl.nanos();
    if nanos == u64::MAX {
        return u64::MAX;
    }
    deadline(nanos / NSEC_PER_SEC, (nanos % NSEC_PER_SEC) as u32)
}

#[cfg(VIRTIOFS_KUNIT)]
#[kunit_tests(virtiofs_freshness)]
mod tests {
    use super::*;
    use crate::session::epoch::{
        doubt_everything,
        is_doubted, //
    };

    #[test]
    fn deadlines() {
        let hour = Ttl::new(3600, 0);
        assert_eq!(deadline_of(Ttl::ZERO), 0);
        assert!(deadline_of(hour) > jiffies_64());
        assert!(deadline_of(hour) < deadline_of(Ttl::new(7200, 0)));
        assert_eq!(deadline_of(Ttl::new(u64::MAX, 0)), u64::MAX);
    }

    /// Doubts end what is good, for good: what is asked for afterwards is not doubted.
    #[test]
    fn doubts() {
        let (fresh, hour) = (Freshness::new(), Ttl::new(3600, 0));
        let before = Asked::now();
        fresh.renew(hour);
        let deadline = Deadline::of(hour);
        assert!(fresh.is_fresh() && deadline.is_ahead() && !is_doubted(before));
        doubt_everything();
        assert!(!fresh.is_fresh() && !fresh.is_access_fresh());
        assert!(!deadline.is_ahead() && is_doubted(before));
        assert!(!Deadline::from_word(deadline.word()).is_ahead());
        fresh.restore();
        assert!(!fresh.is_fresh());
        assert!(!is_doubted(Asked::now()));
        for ttl in [hour, Ttl::new(u64::MAX, 0)] {
            assert!(Deadline::of(ttl).is_ahead());
        }
        assert!(Deadline::of(Ttl::ZERO) == Deadline::NEVER && !Deadline::NEVER.is_ahead());
    }

    #[test]
    fn freshness() {
        let fresh = Freshness::new();
        assert!(!fresh.is_fresh());
        fresh.renew(Ttl::new(3600, 0));
        assert!(fresh.is_fresh() && fresh.is_access_fresh());
        fresh.expire();
        assert!(!fresh.is_fresh() && fresh.is_access_fresh());
        fresh.restore();
        assert!(fresh.is_fresh());
        fresh.expire_all();
        fresh.restore();
        assert!(!fresh.is_fresh() && !fresh.is_access_fresh());
        fresh.renew(Ttl::ZERO);
        assert!(!fresh.is_fresh() && !fresh.is_access_fresh());
    }

    #[test]
    fn ends() {
        let fresh = Freshness::new();
        assert!(!fresh.is_end_older());
        let (first, second) = (Asked::now(), Asked::now());
        fresh.size_known(first);
        fresh.end_asked(second);
        assert!(fresh.is_end_older() && !fresh.knows_later_size(second));
        fresh.size_known(second);
        fresh.size_known(first);
        assert!(!fresh.is_end_older() && fresh.knows_later_size(first));
        fresh.was_cut(5000);
        fresh.was_cut(100);
        assert_eq!(fresh.take_cut(), 5000);
        assert_eq!(fresh.take_cut(), 0);
    }

    #[test]
    fn overtaken() {
        let fresh = Freshness::new();
        let before = Asked::now();
        assert!(!fresh.is_overtaken(before));
        fresh.changed();
        assert!(fresh.is_overtaken(before));
        assert!(!fresh.is_overtaken(Asked::now()));
        assert!(fresh.is_overtaken(before));
    }
}
