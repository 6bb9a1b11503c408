// SPDX-License-Identifier: GPL-2.0

//! Drivers of the virtio bus.

use crate::{
    device::{
        BoundDevice,
        Device,
        Probe, //
    },
    queue::QueueSet,
    transfer::Owner, //
};
use core::{
    marker::PhantomData,
    mem::offset_of,
    pin::Pin, //
};
use kernel::{
    device_id::{
        IdTable,
        RawDeviceId, //
    },
    driver,
    error::{
        from_result,
        to_result, //
    },
    prelude::*,
    types::Opaque, //
};
use kernel_ext::bindings;

/// What devices a driver serves: a `struct virtio_device_id`.
#[repr(transparent)]
pub struct DeviceId(bindings::virtio_device_id);

impl DeviceId {
    /// Every vendor's device of type `id` ([`crate::device::id`]).
    pub const fn new(id: u32) -> Self {
        Self(bindings::virtio_device_id {
            device: id,
            vendor: bindings::VIRTIO_DEV_ANY_ID,
        })
    }
}

// SAFETY: `DeviceId` is transparent over the C type.
unsafe impl RawDeviceId for DeviceId {
    type RawType = bindings::virtio_device_id;
}

/// Declares a driver's table of [`DeviceId`]s and the module's aliases for it.
#[macro_export]
macro_rules! virtio_device_table {
    ($name:ident, [$($id:expr),* $(,)?]) => {
        ::kernel::module_device_table!("virtio", $crate::DeviceId, $name, @none, [$($id),*]);
    };
}

/// A virtio driver.
///
/// The bus calls all methods from a task, one at a time for a device. The queues that it set up are shut down when the device is no
/// longer bound to it, or could not be, whatever the driver does.
pub trait Driver {
    /// What it keeps with each transfer.
    type Owner: Owner;

    /// What the driver keeps for a bound device. Dropped after [`Driver::remove`].
    type Data: Send + Sync + 'static;

    /// The devices it serves, from [`virtio_device_table!`](crate::virtio_device_table).
    const ID_TABLE: &'static dyn IdTable<DeviceId, ()>;

    /// Binds a device.
    fn probe(dev: Probe<'_, Self::Owner>) -> impl PinInit<Self::Data, Error>;

    /// Unbinds a device, which is reset after this if it was not before.
    fn remove(dev: BoundDevice<'_>, data: Pin<&Self::Data>);

    /// The transport is about to reset the device, for instance by a function level reset. Its queues are shut down after this if
    /// they were not before, and stay so.
    fn reset_prepare(dev: BoundDevice<'_>, data: Pin<&Self::Data>);
}

/// Adapts a [`Driver`] to `struct virtio_driver`, for [`kernel::driver::Registration`].
pub struct Adapter<T: Driver>(PhantomData<T>);

// SAFETY: `virtio_driver` is `repr(C)` and embeds a `device_driver` at that offset; `probe` stores a `T::Data`.
unsafe impl<T: Driver> driver::DriverLayout for Adapter<T> {
    type DriverType = bindings::virtio_driver;
    type DriverData<'bound> = T::Data;
    const DEVICE_DRIVER_OFFSET: usize = offset_of!(bindings::virtio_driver, driver);
}

// SAFETY: `unregister` undoes what `register` did.
unsafe impl<T: Driver> driver::RegistrationOps for Adapter<T> {
    unsafe fn register(
        driver: &Opaque<Self::DriverType>,
        name: &'static CStr,
        module: &'static ThisModule,
    ) -> Result {
        let driver = driver.get();
        // SAFETY: The driver is ours to write until it is registered, and pinned until it is unregistered.
        to_result(unsafe {
            (*driver).driver.name = name.as_char_ptr();
            (*driver).id_table = T::ID_TABLE.as_ptr();
            (*driver).probe = Some(Self::probe_callback);
            (*driver).remove = Some(Self::remove_callback);
            (*driver).reset_prepare = Some(Self::reset_prepare_callback);
            (*driver).freeze = Some(Self::freeze_callback);
            bindings::__register_virtio_driver(driver, module.as_ptr())
        })
    }

    unsafe fn unregister(driver: &Opaque<Self::DriverType>) {
        // SAFETY: The caller guarantees that it is registered.
        unsafe { bindings::unregister_virtio_driver(driver.get()) };
    }
}

impl<T: Driver> Adapter<T> {
    /// # Safety
    ///
    /// To be called by the bus alone, with a device that is being bound.
    unsafe extern "C" fn probe_callback(vdev: *mut bindings::virtio_device) -> c_int {
        // SAFETY: The bus passes a valid device.
        let dev = unsafe { &*vdev.cast::<Device>() };
        // SAFETY: The device is being bound, and has no queues yet.
        let probe = unsafe {
            QueueSet::<T::Owner>::none(dev);
            Probe::new(dev)
        };
        let bound = dev.core_internal().set_drvdata(T::probe(probe));
        if bound.is_err() {
            // SAFETY: The device is being bound still, by `T`, which has given up.
            unsafe { QueueSet::<T::Owner>::leave(dev) };
        }
        from_result(|| bound.map(|()| 0))
    }

    /// # Safety
    ///
    /// To be called by the bus alone, with a device that is bound.
    unsafe extern "C" fn remove_callback(vdev: *mut bindings::virtio_device) {
        // SAFETY: The bus passes a valid device.
        let dev = unsafe { &*vdev.cast::<Device>() };
        // SAFETY: The device is bound, so `probe_callback` has stored a `T::Data`.
        let (bound, data) = unsafe {
            (
                BoundDevice::new(dev),
                dev.core_internal().drvdata_borrow::<T::Data>(),
            )
        };
        T::remove(bound, data);
        // SAFETY: The device is bound still, to `T`, which is done with it.
        unsafe { QueueSet::<T::Owner>::leave(dev) };
    }

    /// # Safety
    ///
    /// To be called by the bus alone, with a device that is bound.
    unsafe extern "C" fn reset_prepare_callback(vdev: *mut bindings::virtio_device) -> c_int {
        // SAFETY: The bus passes a valid device.
        let dev = unsafe { &*vdev.cast::<Device>() };
        // SAFETY: The device is bound, so `probe_callback` has stored a `T::Data`.
        let (bound, data) = unsafe {
            (
                BoundDevice::new(dev),
                dev.core_internal().drvdata_borrow::<T::Data>(),
            )
        };
        T::reset_prepare(bound, data);
        // SAFETY: The device is bound, to `T`.
        if let Some(queues) = unsafe { QueueSet::<T::Owner>::of(dev) } {
            queues.shut_down();
        }
        0
    }

    /// Suspend would lose the session with the device, so it is refused.
    ///
    /// # Safety
    ///
    /// To be called by the bus alone.
    unsafe extern "C" fn freeze_callback(_vdev: *mut bindings::virtio_device) -> c_int {
        pr_warn!("a bound device does not support suspend\n");
        EOPNOTSUPP.to_errno()
    }
}
