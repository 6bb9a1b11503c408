// SPDX-License-Identifier: GPL-2.0

//! The virtio driver: devices are bound, made known to mounts and user space, and removed.
//!
//! User space sees a device in [sysfs](crate::transport::sysfs) and in [debugfs](crate::transport::control).

use crate::transport::{
    control,
    device::Instance,
    request::Request,
    sysfs::{
        Directories,
        InstanceDirectory, //
    },
};
use kernel::{
    debugfs::Dir,
    prelude::*,
    sync::Arc, //
};
use kernel_ext::{
    kobject::{
        numbered,
        Kset, //
    },
    static_mutex::StaticMutex,
    workqueue::OwnedQueue, //
};
use virtio::Probe;

#[cfg(not(VIRTIOFS_KUNIT))]
virtio::virtio_device_table!(ID_TABLE, [virtio::DeviceId::new(virtio::device::id::FS)]);

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

/// What is kept for a bound device.
pub(crate) struct Bound {
    instance: Arc<Instance>,
    _directories: Directories,
    _debug: Option<control::Directory>,
}

impl Bound {
    fn new(probe: Probe<'_, Request>) -> Result<Self> {
        let dev = probe.device();
        let (work, patient) = {
            let instances = INSTANCES.lock();
            (instances.work.clone(), instances.patient.clone())
        };
        let instance = Instance::new(probe, work.ok_or(ENODEV)?, patient.ok_or(ENODEV)?)?;
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
        self.instance.shut_down();
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        // Also of a device that mounts have seen, and whose probe fails then: nothing is left of it.
        self.shut_down();
    }
}

/// The bound device with this tag. Sleeps.
pub(crate) fn find(tag: &CStr) -> Option<Arc<Instance>> {
    INSTANCES
        .lock()
        .bound
        .iter()
        .find(|instance| instance.tag() == tag)
        .cloned()
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

    fn remove(dev: virtio::BoundDevice<'_>, data: Pin<&Bound>) {
        data.shut_down();
        dev_info!(dev.device(), "{:?}: removed\n", data.instance.tag());
    }

    fn reset_prepare(dev: virtio::BoundDevice<'_>, data: Pin<&Bound>) {
        data.shut_down();
        dev_warn!(
            dev.device(),
            "{:?}: reset; unbind and bind the device to use it again\n",
            data.instance.tag()
        );
    }
}
