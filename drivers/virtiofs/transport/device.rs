// SPDX-License-Identifier: GPL-2.0

//! A virtio-fs device: its tag, its queues, and the way to them from each CPU.

use crate::transport::{
    lane::Lane,
    lease::Lease,
    patience::Patience,
    request::Request, //
};
use kernel::{
    prelude::*,
    str::CString,
    sync::{
        atomic::{
            ordering,
            Atomic, //
        },
        Arc, //
    },
};
use kernel_ext::{
    cpu,
    dax::Memory,
    workqueue::OwnedQueue, //
};
use virtio::{
    BoundDevice,
    Connection,
    Probe,
    QueueSet,
    Virtqueue, //
};

/// The longest tag in bytes (`struct virtio_fs_config`).
const TAG_LEN: usize = 36;
/// Where the number of request queues is in configuration space.
const NUM_REQUEST_QUEUES_OFFSET: u32 = 36;
/// The region of shared memory that is the window (`VIRTIO_FS_SHMCAP_ID_CACHE`).
const WINDOW: u8 = 0;
/// The index of the queue for what must not wait behind requests: FORGET.
const HIPRIO: usize = 0;
/// The index of the first request queue.
const FIRST_REQUEST: usize = 1;

/// A bound device.
///
/// It outlives the binding for as long as a superblock refers to it; its queues refuse everything from then on.
pub(crate) struct Instance {
    tag: CString,
    queues: Arc<QueueSet<Request>>,
    work: Arc<OwnedQueue>,
    patient: Arc<OwnedQueue>,
    patience: Arc<Patience>,
    /// For each CPU the queue that it sends requests through.
    queue_of_cpu: KVec<usize>,
    /// What the window shows, if the device has one.
    memory: Option<Arc<Memory>>,
    lease: Arc<Lease>,
    inodes: Inodes,
    /// Whether the device goes, or has gone.
    goes: Atomic<i32>,
}

impl Instance {
    /// Sets the device up. Work is done in `work` and, where it may wait for the daemon, in `patient`. Sleeps.
    pub(crate) fn new(
        probe: Probe<'_, Request>,
        work: Arc<OwnedQueue>,
        patient: Arc<OwnedQueue>,
    ) -> Result<Arc<Self>> {
        let dev = probe.device();
        let tag = read_tag(dev)?;
        let offered = u32::from_le_bytes(dev.read_config(NUM_REQUEST_QUEUES_OFFSET));
        if offered == 0 {
            dev_err!(dev.device(), "{tag:?}: the device has no request queue\n");
            return Err(EINVAL);
        }
        // More queues than CPUs would never be used.
        let requests = (offered as usize).min(cpu::id_limit());
        let lease = Lease::new(work.clone())?;
        let patience = Patience::new()?;
        let mut wanted = KVec::with_capacity(FIRST_REQUEST + requests, GFP_KERNEL)?;
        for index in 0..FIRST_REQUEST + requests {
            let name = match index.checked_sub(FIRST_REQUEST) {
                None => CString::try_from_fmt(fmt!("hiprio"))?,
                Some(i) => CString::try_from_fmt(fmt!("requests.{i}"))?,
            };
            let lanes = (FIRST_REQUEST + requests) as u64;
            let (lease, patience) = (lease.clone(), patience.clone());
            let lane = Lane::new(&tag, index as u64, lanes, lease, patience)?;
            wanted.push((name, lane), GFP_KERNEL)?;
        }
        // The hiprio queue shares no CPU's interrupt.
        let queues = QueueSet::new(probe, wanted, 1).inspect_err(|e| {
            dev_err!(
                dev.device(),
                "{tag:?}: its {} queues cannot be set up: {e:?}\n",
                FIRST_REQUEST + requests
            );
        })?;
        let queue_of_cpu = map_cpus(&queues, requests)?;
        let memory = window_memory(dev, &tag)?;
        Ok(Arc::new(
            Self {
                tag,
                queues,
                work,
                patient,
                patience,
                queue_of_cpu,
                memory,
                lease,
                inodes: Inodes::new(),
                goes: Atomic::new(0),
            },
            GFP_KERNEL,
        )?)
    }

    /// The tag.
    pub(crate) fn tag(&self) -> &CStr {
        &self.tag
    }

    /// How many inodes the daemon keeps for this kernel.
    pub(crate) fn inodes(&self) -> &Inodes {
        &self.inodes
    }

    /// The queue for work that has to be done in a task. It waits for no daemon: others do not get to theirs, and unmounts wait.
    pub(crate) fn work(&self) -> &OwnedQueue {
        &self.work
    }

    /// The queue for work that may wait for the daemon.
    pub(crate) fn patient_work(&self) -> &OwnedQueue {
        &self.patient
    }

    /// How long tasks that exit wait for the daemon.
    pub(crate) fn patience(&self) -> &Arc<Patience> {
        &self.patience
    }

    /// How often the daemon has answered to a request of a writeback, with the 2^32nd time as the first.
    pub(crate) fn stored(&self) -> u32 {
        self.lanes()
            .fold(0, |sum, lane| sum.wrapping_add(lane.stored()))
    }

    /// The memory of the device's window, if there is one.
    pub(crate) fn memory(&self) -> Option<&Arc<Memory>> {
        self.memory.as_ref()
    }

    /// Which session has the window.
    pub(crate) fn lease(&self) -> &Lease {
        &self.lease
    }

    /// The device goes: its window first, then its queues, and with them all requests. Once more, it has no effect. Sleeps.
    pub(crate) fn shut_down(&self) {
        if let Some(memory) = &self.memory {
            // Requests before that: the daemon may never answer, and who waits may have a file locked that the window is to lose.
            self.goes.store(1, ordering::Relaxed);
            self.queues.abort_all();
            self.lease.revoke(self);
            memory.shut_down();
        }
        self.queues.shut_down();
    }

    /// The queue for requests of the CPU this runs on.
    pub(crate) fn request_queue(&self) -> Result<&Virtqueue<Request>> {
        let index = self.queue_of_cpu.get(cpu::current_hint());
        self.queues
            .get(*index.unwrap_or(&FIRST_REQUEST))
            .ok_or(ENODEV)
    }

    /// All queues.
    pub(crate) fn queues(&self) -> impl Iterator<Item = &Virtqueue<Request>> {
        (0..self.queues.len()).filter_map(|index| self.queues.get(index))
    }

    /// What belongs to each queue.
    pub(crate) fn lanes(&self) -> impl Iterator<Item = &Lane> {
        self.queues().map(Virtqueue::data)
    }

    /// The queue for FORGET.
    pub(crate) fn hiprio_queue(&self) -> Result<&Virtqueue<Request>> {
        self.queues.get(HIPRIO).ok_or(ENODEV)
    }

    /// The number of request queues.
    pub(crate) fn request_queues(&self) -> usize {
        self.queues.len() - FIRST_REQUEST
    }

    /// The most segments that a message to the device may have, payload included.
    pub(crate) fn max_segments(&self) -> usize {
        self.request_queue().map_or(0, Virtqueue::size)
    }

    /// Whether a connection still sends. Not when it was ended, nor when the device has returned what it never had.
    pub(crate) fn serves(&self, connection: &Connection) -> bool {
        self.queues.serves(connection)
    }

    /// What a request is refused with where [`serves`](Instance::serves) is false: `ENODEV` when the device goes, else `ENOTCONN`.
    pub(crate) fn refusal(&self, connection: &Connection) -> Error {
        match connection.is_open() && self.goes.load(ordering::Relaxed) != 0 {
            true => ENODEV,
            false => ENOTCONN,
        }
    }

    /// Ends all connections that there are, and their requests with `ENOTCONN`.
    pub(crate) fn end_connections(&self) {
        self.queues.abort_all();
    }

    /// Closes a connection, and ends its requests with `ENOTCONN`. Whether it was open.
    pub(crate) fn abort(&self, connection: &Connection) -> bool {
        self.queues.abort(connection)
    }

    /// The CPUs of queue `index` as sysfs shows them: numbers between commas.
    pub(crate) fn cpu_list(&self, index: usize) -> Result<CString> {
        struct List<'a>(&'a Instance, usize);
        impl kernel::fmt::Display for List<'_> {
            fn fmt(&self, f: &mut kernel::fmt::Formatter<'_>) -> kernel::fmt::Result {
                let mut separator = "";
                for (cpu, queue) in self.0.queue_of_cpu.iter().enumerate() {
                    if self.1 == HIPRIO || *queue == self.1 {
                        write!(f, "{separator}{cpu}")?;
                        separator = ", ";
                    }
                }
                Ok(())
            }
        }
        CString::try_from_fmt(fmt!("{}", List(self, index)))
    }
}

/// Reads and checks the tag: 1 to 36 bytes, and no newline, which sysfs and uevents could not show.
fn read_tag(dev: BoundDevice<'_>) -> Result<CString> {
    parse_tag(&dev.read_config(0)).inspect_err(|_| {
        dev_err!(
            dev.device(),
            "a tag must have 1 to 36 bytes and no newline\n"
        );
    })
}

/// The memory of the device's window. What is no window is said in the log, and the device does without.
fn window_memory(dev: BoundDevice<'_>, tag: &CStr) -> Result<Option<Arc<Memory>>> {
    let Some(region) = dev.shared_memory(WINDOW) else {
        return Ok(None);
    };
    let (start, len) = (region.start(), region.len());
    match Memory::new(region, c"virtiofs") {
        Ok(memory) => {
            dev_info!(
                dev.device(),
                "{tag:?}: a window of {} MiB\n",
                memory.len() >> 20
            );
            Ok(Some(memory))
        }
        Err(e) if e == ENOMEM => Err(e),
        Err(e) => {
            dev_warn!(
                dev.device(),
                "{tag:?}: no DAX: its window, {len:#x} bytes at {start:#x}, cannot be used: {e:?}\n"
            );
            Ok(None)
        }
    }
}

fn parse_tag(bytes: &[u8; TAG_LEN]) -> Result<CString> {
    let tag = bytes.split(|&b| b == 0).next().unwrap_or(&[]);
    if tag.is_empty() || tag.contains(&b'\n') {
        return Err(EINVAL);
    }
    let mut with_nul = KVec::with_capacity(tag.len() + 1, GFP_KERNEL)?;
    with_nul.extend_from_slice(tag, GFP_KERNEL)?;
    with_nul.push(0, GFP_KERNEL)?;
    let tag = CStr::from_bytes_with_nul(&with_nul).map_err(|_| EINVAL)?;
    Ok(CString::try_from(tag)?)
}

/// A queue for each of `cpus` CPUs, evenly: neighbours share one.
fn spread(cpus: usize, requests: usize) -> Result<KVec<usize>> {
    let mut map = KVec::with_capacity(cpus, GFP_KERNEL)?;
    for cpu in 0..cpus {
        map.push(FIRST_REQUEST + cpu * requests / cpus, GFP_KERNEL)?;
    }
    Ok(map)
}

/// Which queue each CPU uses: the one whose interrupt it gets, or one of an even spread.
fn map_cpus(queues: &QueueSet<Request>, requests: usize) -> Result<KVec<usize>> {
    let cpus = cpu::id_limit();
    let mut map = spread(cpus, requests)?;
    let mut by_interrupt = KVec::from_elem(0, cpus, GFP_KERNEL)?;
    let all = (FIRST_REQUEST..FIRST_REQUEST + requests).all(|index| {
        queues.for_each_cpu_of(index, |cpu| {
            if let Some(queue) = by_interrupt.get_mut(cpu) {
                *queue = index;
            }
        })
    });
    if all {
        for (queue, assigned) in map.iter_mut().zip(by_interrupt) {
            if assigned != 0 {
                *queue = assigned;
            }
        }
    }
    Ok(map)
}

/// How many inodes a device's sessions have the daemon keep. Callable from any context.
pub(crate) struct Inodes(Atomic<usize>);

impl Inodes {
    /// None.
    pub(crate) fn new() -> Self {
        Self(Atomic::new(0))
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.0.load(ordering::Relaxed)
    }

    /// One more.
    pub(crate) fn come(&self) {
        self.0.fetch_add(1usize, ordering::Relaxed);
    }

    /// One less.
    pub(crate) fn go(&self) {
        self.0.fetch_sub(1usize, ordering::Relaxed);
    }
}

#[cfg(VIRTIOFS_KUNIT)]
#[kunit_tests(virtiofs_device)]
mod tests {
    use super::*;

    fn tag(text: &[u8]) -> Result<CString> {
        let mut bytes = [0; TAG_LEN];
        for (to, from) in bytes.iter_mut().zip(text) {
            *to = *from;
        }
        parse_tag(&bytes)
    }

    /// A tag ends at its first NUL, or fills the field.
    #[test]
    fn tags() {
        assert_eq!(
            tag(b"kataShared").map(|t| t.to_bytes() == b"kataShared"),
            Ok(true)
        );
        assert_eq!(tag(b"a\0b").map(|t| t.to_bytes() == b"a"), Ok(true));
        assert_eq!(
            tag(&[b'x'; TAG_LEN]).map(|t| t.to_bytes().len()),
            Ok(TAG_LEN)
        );
    }

    #[test]
    fn bad_tags() {
        assert!(matches!(tag(b""), Err(e) if e == EINVAL));
        assert!(matches!(tag(b"\0x"), Err(e) if e == EINVAL));
        assert!(matches!(tag(b"a\nb"), Err(e) if e == EINVAL));
        // What follows the NUL is padding.
        assert!(tag(b"a\0\n").is_ok());
    }

    /// Every CPU has a queue, every queue has about as many CPUs, and neighbours share.
    #[test]
    fn even_spread() -> Result {
        for cpus in 1..=17 {
            for requests in 1..=cpus {
                let map = spread(cpus, requests)?;
                let of = |queue| map.iter().filter(|&&q| q == queue).count();
                assert_eq!(map.len(), cpus);
                for queue in FIRST_REQUEST..FIRST_REQUEST + requests {
                    assert!(of(queue) >= cpus / requests);
                    assert!(of(queue) <= cpus.div_ceil(requests));
                }
                assert!(map.windows(2).all(|pair| pair[0] <= pair[1]));
            }
        }
        Ok(())
    }
}
