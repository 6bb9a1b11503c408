// SPDX-License-Identifier: GPL-2.0

//! The device: its tag, its queues, and what user space sees of it.
//!
//! The names and formats in sysfs and of uevents are those of the C driver, which udev rules and agents rely on:
//!
//! ```text
//! /sys/fs/virtiofs/<n>/tag                  n is the number of the virtio device
//! /sys/fs/virtiofs/<n>/inodes               how many inodes of the host are known here (not in C)
//! /sys/fs/virtiofs/<n>/device               link to the virtio device
//! /sys/fs/virtiofs/<n>/waiting              requests that have not ended (not in the C driver, as fusectl)
//! /sys/fs/virtiofs/<n>/abort                written to, ends them (the same)
//! /sys/fs/virtiofs/<n>/mqs/<q>/name         hiprio or requests.<i>
//! /sys/fs/virtiofs/<n>/mqs/<q>/cpu_list     the CPUs that send requests through this queue
//! uevent: TAG=<tag>
//! ```
//!
//! Besides, debugfs has what the [requests](crate::control) and the [window](crate::dax) tell of themselves.

use crate::{
    control,
    dax::{
        Holder,
        Keeper,
        Window, //
    },
    lane::Lane,
    patience::Patience,
    request::Request,
    unused::Inodes, //
};
use core::fmt::Write;
use kernel::{
    debugfs::Dir,
    prelude::*,
    str::CString,
    sync::{
        Arc,
        Mutex, //
    },
};
use kernel_ext::{
    cpu,
    dax::Memory,
    kobject::{
        numbered,
        Attribute,
        Directory,
        Kobject,
        Kset,
        Page,
        Plain, //
    },
    static_mutex::StaticMutex,
    workqueue::OwnedQueue, //
};
use virtio::{
    BoundDevice,
    Connection,
    Probe,
    QueueSet,
    Virtqueue, //
};

#[cfg(not(VIRTIOFS_KUNIT))]
virtio::virtio_device_table!(ID_TABLE, [virtio::DeviceId::new(virtio::device::id::FS)]);

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

/// All bound devices, and the directory that they are in.
///
/// Outermost lock of the driver: taken by probe, remove and mount alone.
static INSTANCES: StaticMutex<Instances> =
    StaticMutex::new(c"virtiofs::INSTANCES", kernel::static_lock_class!());

#[derive(Default)]
struct Instances {
    bound: KVec<Arc<Instance>>,
    kset: Option<Kset<InstanceDirectory>>,
    work: Option<Arc<OwnedQueue>>,
    patient: Option<Arc<OwnedQueue>>,
    /// `/sys/kernel/debug/virtiofs`.
    debug: Option<Dir>,
}

/// State of the driver as long as the module is loaded: its directory in sysfs and its work queues.
pub(crate) struct Presence;

impl Presence {
    /// Makes `/sys/fs/virtiofs` and the work queues.
    pub(crate) fn new() -> Result<Self> {
        let mut instances = INSTANCES.lock();
        instances.work = Some(Arc::new(OwnedQueue::new(c"virtiofs")?, GFP_KERNEL)?);
        let patient = OwnedQueue::new(c"virtiofs-patient")?;
        instances.patient = Some(Arc::new(patient, GFP_KERNEL)?);
        instances.kset = Some(Kset::below_fs(c"virtiofs")?);
        instances.debug = Some(Dir::new(c"virtiofs"));
        Ok(Self)
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        // Statics are not dropped: take out what they hold.
        let instances = core::mem::take(&mut *INSTANCES.lock());
        for work in [&instances.patient, &instances.work].into_iter().flatten() {
            // Work refers to sessions, and through them to this queue: when it is done, ours is the last reference.
            work.drain();
        }
    }
}

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
    window: Arc<Keeper>,
    inodes: Inodes,
}

impl Instance {
    /// The bound device with this tag.
    pub(crate) fn find(tag: &CStr) -> Option<Arc<Self>> {
        INSTANCES
            .lock()
            .bound
            .iter()
            .find(|instance| instance.tag() == tag)
            .cloned()
    }

    fn new(probe: Probe<'_, Request>) -> Result<Arc<Self>> {
        let dev = probe.device();
        let tag = read_tag(dev)?;
        let offered = u32::from_le_bytes(dev.read_config(NUM_REQUEST_QUEUES_OFFSET));
        if offered == 0 {
            dev_err!(dev.device(), "{tag:?}: the device has no request queue\n");
            return Err(EINVAL);
        }
        // More queues than CPUs would never be used.
        let requests = (offered as usize).min(cpu::id_limit());
        let (work, patient) = {
            let instances = INSTANCES.lock();
            (instances.work.clone(), instances.patient.clone())
        };
        let (work, patient) = (work.ok_or(ENODEV)?, patient.ok_or(ENODEV)?);
        let window = Keeper::new(work.clone())?;
        let patience = Patience::new()?;
        let mut wanted = KVec::with_capacity(FIRST_REQUEST + requests, GFP_KERNEL)?;
        for index in 0..FIRST_REQUEST + requests {
            let name = match index.checked_sub(FIRST_REQUEST) {
                None => CString::try_from_fmt(fmt!("hiprio"))?,
                Some(i) => CString::try_from_fmt(fmt!("requests.{i}"))?,
            };
            let lanes = (FIRST_REQUEST + requests) as u64;
            let (window, patience) = (window.clone(), patience.clone());
            let lane = Lane::new(&tag, index as u64, lanes, window, patience)?;
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
                window,
                inodes: Inodes::new(),
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

    /// Who has the window. Taken after [`INSTANCES`], by who starts or ends a session.
    pub(crate) fn window_holder(&self) -> &Mutex<Holder> {
        self.window.holder()
    }

    /// The session that had the window is over.
    pub(crate) fn release_window(&self) {
        self.window_holder().lock().release();
    }

    /// Nothing is mapped any more for whoever has the window. Sleeps.
    pub(crate) fn close_window(&self) {
        self.window.close();
    }

    /// The device goes, and its window.
    fn shut_down_window(&self) {
        let Some(memory) = &self.memory else { return };
        let held = core::mem::replace(&mut *self.window_holder().lock(), Holder::Gone);
        if let Holder::Session(window) = held {
            Window::shut_down(&window, self);
        }
        memory.shut_down();
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

    /// Ends all connections that there are, and their requests with `ENOTCONN`.
    pub(crate) fn end_connections(&self) {
        self.queues.abort_all();
    }

    /// Closes a connection, and ends its requests with `ENOTCONN`. Whether it was open.
    pub(crate) fn abort(&self, connection: &Connection) -> bool {
        self.queues.abort(connection)
    }

    /// The CPUs of queue `index` as sysfs shows them: numbers between commas.
    fn cpu_list(&self, index: usize) -> Result<CString> {
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

/// `/sys/fs/virtiofs/<n>`.
struct InstanceDirectory(Arc<Instance>);

impl Directory for InstanceDirectory {
    const ATTRIBUTES: &'static [Attribute<Self>] = &[
        Attribute::new(c"tag", |this, page| write_line(page, this.0.tag())),
        Attribute::new(c"inodes", |this, page| {
            writeln!(page, "{}", this.0.inodes().count())
        }),
        Attribute::private(c"waiting", |this, page| {
            writeln!(page, "{}", this.0.waiting())
        }),
        // Any text does, as with fusectl.
        Attribute::action(c"abort", |this, _| {
            this.0.abort_all();
            Ok(())
        }),
    ];

    fn uevent_variable(&self) -> Option<(&'static CStr, &CStr)> {
        Some((c"TAG", self.0.tag()))
    }
}

/// `/sys/fs/virtiofs/<n>/mqs/<q>`.
struct QueueDirectory {
    name: CString,
    cpus: CString,
}

impl Directory for QueueDirectory {
    const ATTRIBUTES: &'static [Attribute<Self>] = &[
        Attribute::new(c"name", |this, page| write_line(page, &this.name)),
        Attribute::new(c"cpu_list", |this, page| write_line(page, &this.cpus)),
    ];
}

fn write_line(page: &mut Page, text: &CStr) -> core::fmt::Result {
    page.write_bytes(text.to_bytes())?;
    page.write_str("\n")
}

/// The directories of one device, innermost first, as they are removed in this order.
struct Directories {
    _queues: KVec<Kobject<QueueDirectory>>,
    _mqs: Kobject<Plain>,
    _instance: Kobject<InstanceDirectory>,
}

impl Directories {
    fn new(
        dev: &virtio::Device,
        instance: &Arc<Instance>,
        kset: &Kset<InstanceDirectory>,
    ) -> Result<Self> {
        let data = InstanceDirectory(instance.clone());
        let top = Kobject::in_kset(kset, &numbered(dev.index())?, data)?;
        let mqs = Kobject::in_directory(&top, c"mqs", Plain)?;
        top.link_device(dev.device(), c"device")?;
        let mut queues = KVec::with_capacity(instance.queues.len(), GFP_KERNEL)?;
        for index in 0..instance.queues.len() {
            let name = instance.queues.get(index).ok_or(ENODEV)?.name();
            let data = QueueDirectory {
                name: CString::try_from(name)?,
                cpus: instance.cpu_list(index)?,
            };
            let directory = Kobject::in_directory(&mqs, &numbered(index)?, data)?;
            queues.push(directory, GFP_KERNEL)?;
        }
        Ok(Self {
            _queues: queues,
            _mqs: mqs,
            _instance: top,
        })
    }

    fn announce(&self) {
        self._instance.announce();
    }
}

/// What is kept for a bound device.
pub(crate) struct Bound {
    instance: Arc<Instance>,
    _directories: Directories,
    _debug: Option<control::Directory>,
}

impl Bound {
    fn new(probe: Probe<'_, Request>) -> Result<Self> {
        let dev = probe.device();
        let instance = Instance::new(probe)?;
        Self::register(&dev, &instance)
    }

    /// Makes the device known to mounts and to user space.
    fn register(dev: &virtio::Device, instance: &Arc<Instance>) -> Result<Self> {
        let mut instances = INSTANCES.lock();
        let tag = instance.tag();
        if instances.bound.iter().any(|other| other.tag() == tag) {
            dev_err!(dev.device(), "{tag:?}: another device has this tag\n");
            return Err(EEXIST);
        }
        let kset = instances.kset.as_ref().ok_or(ENODEV)?;
        let directories = Directories::new(dev, instance, kset)?;
        let debug = match &instances.debug {
            Some(parent) => {
                let name = numbered(dev.index())?;
                Some(control::Directory::new(parent, &name, instance)?)
            }
            None => None,
        };
        instances.bound.push(instance.clone(), GFP_KERNEL)?;
        drop(instances);
        directories.announce();
        dev_info!(
            dev.device(),
            "{tag:?}: {} request queue(s)\n",
            instance.request_queues()
        );
        Ok(Self {
            instance: instance.clone(),
            _directories: directories,
            _debug: debug,
        })
    }

    /// Takes the device from mounts, and ends all its requests. Once more, it has no effect.
    fn shut_down(&self) {
        let mut instances = INSTANCES.lock();
        instances
            .bound
            .retain(|other| !Arc::ptr_eq(other, &self.instance));
        drop(instances);
        self.instance.shut_down_window();
        self.instance.queues.shut_down();
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        // Also of a device that mounts have seen, and whose probe fails then: nothing is left of it.
        self.shut_down();
    }
}

/// The virtio driver.
pub(crate) struct Driver;

#[cfg(not(VIRTIOFS_KUNIT))]
impl virtio::Driver for Driver {
    type Owner = Request;
    type Data = Bound;

    const ID_TABLE: &'static dyn kernel::device_id::IdTable<virtio::DeviceId, ()> = &ID_TABLE;

    fn probe(dev: Probe<'_, Request>) -> impl PinInit<Bound, Error> {
        Bound::new(dev)
    }

    fn remove(dev: BoundDevice<'_>, data: Pin<&Bound>) {
        data.shut_down();
        dev_info!(dev.device(), "{:?}: removed\n", data.instance.tag());
    }

    fn reset_prepare(dev: BoundDevice<'_>, data: Pin<&Bound>) {
        data.shut_down();
        dev_warn!(
            dev.device(),
            "{:?}: reset; unbind and bind the device to use it again\n",
            data.instance.tag()
        );
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
