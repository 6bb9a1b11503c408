// SPDX-License-Identifier: GPL-2.0

//! An access that finds its range takes a short way to the same end.

mod common;

use common::*;
use dax_map::*;

/// What has become of a driver and its streams.
fn seen(driver: &Driver, streams: &[Stream]) -> String {
    let counts = (driver.setups, driver.removed, driver.bypassed, driver.hits);
    let (counters, usage) = (driver.window.counters(), driver.window.usage());
    format!("{counts:?} {counters:?} {usage:?} {streams:?}")
}

#[test]
fn as_any_access() {
    const TURNS: u64 = 30_000;
    const SIZES: [u64; 4] = [40 * MIB, 5 * MIB + 123, 300 * KIB, 8 * KIB];
    let mut short = Driver::new(window(16 * MIB, 32));
    let mut long = Driver::new(window(16 * MIB, 32));
    long.advise = |window, stream, access| {
        let motion = stream.note(access, window.geometry().max());
        window.advise(stream, access, motion)
    };
    let mut streams = [[Stream::new(); 4]; 2];
    let mut random = Random(11);
    // The last tenth without a window.
    let end = TURNS / 10 * 9;
    for turn in 0..TURNS {
        let owner = random.below(4);
        let size = SIZES[owner as usize];
        // Hot places, places anywhere, and runs.
        let offset = match random.below(4) {
            0 => random.below(size / 4096) * 4096,
            1 => turn * 4096 % (size / 4096 * 4096),
            _ => random.below(size.min(2 * MIB) / 4096) * 4096,
        };
        let len = [1, 4096, 16 * KIB, 256 * KIB][random.below(4) as usize].min(size - offset);
        let access = match random.below(8) {
            0 if turn < end => fault(owner, offset, size),
            1 if turn < end => look(owner, offset, size),
            2 => write(owner, offset, len + random.below(2) * 100, size),
            _ => read(owner, offset, len, size),
        };
        for (driver, streams) in [&mut short, &mut long].into_iter().zip(&mut streams) {
            driver.access(&mut streams[owner as usize], access);
            if turn % 1000 == 0 {
                let _ = driver.window.tick(1);
            }
            if turn == end {
                driver.window.abandon();
            }
        }
        let [one, other] = &streams;
        assert_eq!(seen(&short, one), seen(&long, other), "{turn}: {access:?}");
        if turn % 100 == 0 {
            // All of it, with what shows only later.
            let all = |driver: &Driver| format!("{:?}", driver.window);
            assert!(all(&short) == all(&long), "{turn}");
        }
        if turn == end - 1 {
            // Each thing happened.
            assert!(short.hits > TURNS / 2);
            assert!(short.bypassed > 1000 && short.setups > 100 && short.removed > 100);
        }
    }
}
