// SPDX-License-Identifier: GPL-2.0

//! What the ends of requests do to the table of ranges. A part of [`state`](super), of which it sees what others do not.

use super::*;

const OWNER: Owner = Owner(7);
const ENDINGS: [Ending; 4] = [
    Ending::Done,
    Ending::NotSent,
    Ending::Refused,
    Ending::Unknown,
];

/// Of a window with room for four ranges.
fn state() -> Result<State> {
    State::new(8 << 20, 4096, 4)
}

fn plan(writable: bool) -> Plan {
    Plan {
        owner: OWNER,
        offset: 0,
        file_size: 8 << 20,
        writable,
        sequential: false,
        ahead: false,
        urgent: true,
        outdoes: false,
        relaxed: false,
    }
}

/// A SETUPMAPPING is under way.
fn reserved(state: &mut State) -> Result<SlotId> {
    let token = state.table.reserve(&plan(false)).map_err(|_| EBUSY)?;
    let slot = token.slot();
    state.undertake(slot, Duty::Map(token));
    Ok(slot)
}

/// A range is there.
fn mapped(state: &mut State) -> Result<SlotId> {
    let slot = reserved(state)?;
    let _ = state.fulfil(slot, Ending::Done);
    Ok(slot)
}

/// Ranges that are mapped, under way, retired, and there at all.
fn counts(state: &State) -> (u32, u32, u32, u32) {
    let usage = state.table.usage();
    (usage.idle, usage.busy, usage.retired, usage.ranges)
}

#[kunit_tests(virtiofs_dax_state)]
mod suite {
    use super::*;

    /// A range is there when SETUPMAPPING has succeeded, and lost when nobody knows whether it has; else its place is free.
    #[test]
    fn ends_of_maps() -> Result {
        let after = [(1, 0, 0, 1), (0, 0, 0, 0), (0, 0, 0, 0), (0, 0, 1, 1)];
        for (ending, after) in ENDINGS.into_iter().zip(after) {
            let mut state = state()?;
            let slot = reserved(&mut state)?;
            assert_eq!(counts(&state), (0, 1, 0, 1));
            let _ = state.fulfil(slot, ending);
            assert_eq!(counts(&state), after);
        }
        Ok(())
    }

    /// A range that was to become writable is as it was when nothing was sent. When the daemon has refused, it may have taken away
    /// what was there.
    #[test]
    fn ends_of_remaps() -> Result {
        let after = [(1, 0, 0, 1), (1, 0, 0, 1), (0, 0, 1, 1), (0, 0, 1, 1)];
        for (ending, after) in ENDINGS.into_iter().zip(after) {
            let mut state = state()?;
            let slot = mapped(&mut state)?;
            let token = state.table.begin_remap(&plan(true)).map_err(|_| EBUSY)?;
            state.undertake(slot, Duty::Remap(token));
            assert_eq!(counts(&state), (0, 1, 0, 1));
            let _ = state.fulfil(slot, ending);
            assert_eq!(counts(&state), after);
            if let Some(extent) = state.table.locate(OWNER, 0) {
                assert_eq!(extent.writable, matches!(ending, Ending::Done));
            }
        }
        Ok(())
    }

    /// A range is gone when REMOVEMAPPING has succeeded, and there when it was not sent; else it is lost.
    #[test]
    fn ends_of_removals() -> Result {
        // One that was not removed is left alone for a while: it is not idle.
        let after = [(0, 0, 0, 0), (0, 0, 0, 1), (0, 0, 1, 1), (0, 0, 1, 1)];
        for (ending, after) in ENDINGS.into_iter().zip(after) {
            let mut state = state()?;
            let slot = mapped(&mut state)?;
            let token = state.table.pick_victim().ok_or(EBUSY)?;
            let extent = state.undertake_removal(token);
            assert_eq!((extent.slot, counts(&state)), (slot, (0, 1, 0, 1)));
            let _ = state.fulfil(slot, ending);
            assert_eq!(counts(&state), after);
            let shown = matches!(ending, Ending::NotSent);
            assert_eq!(state.table.locate(OWNER, 0).is_some(), shown);
        }
        Ok(())
    }

    /// A request ends once. One that ends after the window was given up changes nothing.
    #[test]
    fn late_ends() -> Result {
        let mut state = state()?;
        let slot = mapped(&mut state)?;
        for ending in ENDINGS {
            assert_eq!(state.fulfil(slot, ending), Wake::default());
            assert_eq!(counts(&state), (1, 0, 0, 1));
        }
        let token = state.table.pick_victim().ok_or(EBUSY)?;
        let _ = state.undertake_removal(token);
        state.table.abandon();
        assert_eq!(state.fulfil(slot, Ending::Done), Wake::default());
        assert_eq!(counts(&state), (0, 0, 1, 1));
        assert_eq!(state.table.counters().stale, 1);
        Ok(())
    }

    /// The daemon's words: an error is one, and what makes no sense may be anything.
    #[test]
    fn words_of_the_daemon() {
        let of = |done| Ending::of(&done);
        assert!(matches!(of(Ok(())), Ending::Done));
        let error = fuse_proto::ReplyError::Errno(-12);
        assert!(matches!(of(Err(error)), Ending::Refused));
        let short = fuse_proto::ReplyError::Short { used: 8 };
        assert!(matches!(of(Err(short)), Ending::Unknown));
    }

    /// Who refuses is not asked for a while, but for page faults; who cannot map is not asked at all.
    #[test]
    fn pauses() -> Result {
        let mut state = state()?;
        let access = |need| Access {
            owner: OWNER,
            offset: 0,
            len: 1,
            write: false,
            need,
            file_size: 4096,
        };
        assert!(!state.grants_nothing(&access(Need::Either)));
        state.pause = 2;
        assert!(!state.grants_nothing(&access(Need::Mapping)));
        assert!(state.grants_nothing(&access(Need::Either)));
        assert!(state.grants_nothing(&access(Need::Either)));
        assert!(!state.grants_nothing(&access(Need::Either)));
        state.unable = true;
        assert!(state.grants_nothing(&access(Need::Either)));
        assert!(state.grants_nothing(&access(Need::Mapping)));
        assert_eq!(state.table.counters().bypassed_reads, 3);
        Ok(())
    }

    /// Ranges are a quarter of the window at most, and there is none without room for four of what the daemon aligns to.
    #[test]
    fn small_windows() -> Result {
        let largest = |len: u64, alignment: u64| {
            let state = State::new(len, alignment, 100)?;
            Ok::<_, Error>(state.table.geometry().max().bytes())
        };
        assert_eq!(largest(2 << 20, 4096)?, 512 << 10);
        assert_eq!(largest(8 << 20, 4096)?, 2 << 20);
        assert_eq!(largest(1 << 30, 4096)?, 2 << 20);
        assert_eq!(largest(8 << 20, 2 << 20)?, 2 << 20);
        assert!(largest(6 << 20, 2 << 20).is_err());
        assert!(largest(1 << 30, 4 << 20).is_err());
        assert_eq!(State::new(1 << 30, 4096, 0)?.files.len(), FEWEST_RANGES);
        assert_eq!(State::new(2 << 20, 4096, 100)?.files.len(), 32);
        Ok(())
    }
}
