// SPDX-License-Identifier: GPL-2.0

//! Data of a superblock.

use crate::{
    dax::{
        mode::Mode,
        window::Window, //
    },
    filesystem::VirtioFs,
    gate::Gate,
    session::{
        epoch::{
            Asked,
            LastChange, //
        },
        forget::Known,
        Session, //
    },
    transport::device::Instance,
    volume::Volume, //
};
use fuse_proto::Attr;
use kernel::{
    prelude::*,
    sync::{
        Arc,
        SetOnce, //
    },
};
use vfs::{
    aging::Aging,
    Inode, //
};

/// The data of a superblock.
pub(crate) struct Mount {
    instance: Arc<Instance>,
    /// Set while the superblock is filled.
    volume: SetOnce<Arc<Volume>>,
    dax: Option<Mode>,
    /// Who reclaims ranges of the window goes through it to inodes of this superblock.
    gate: Arc<Gate>,
    /// An inode that may come back: what was changed through it is known to the daemon, but nobody here knows when.
    evicted: LastChange,
    /// Inodes that are looked at from time to time.
    aging: Arc<Aging<VirtioFs>>,
    /// For a submount, what it begins with.
    submount: Option<(Arc<Known>, Attr)>,
}

impl Mount {
    /// The data of a mount of a device. Sleeps.
    pub(crate) fn new(instance: Arc<Instance>, dax: Option<Mode>) -> Result<Arc<Self>> {
        Self::with(instance, dax, SetOnce::new(), None)
    }

    fn with(
        instance: Arc<Instance>,
        dax: Option<Mode>,
        volume: SetOnce<Arc<Volume>>,
        submount: Option<(Arc<Known>, Attr)>,
    ) -> Result<Arc<Self>> {
        Ok(Arc::new(
            Self {
                instance,
                volume,
                dax,
                gate: Gate::new()?,
                evicted: LastChange::new(),
                aging: Aging::new()?,
                submount,
            },
            GFP_KERNEL,
        )?)
    }

    /// The data of a submount that begins at `inode`, whose attributes are `attr`.
    pub(crate) fn submount(inode: &Inode<VirtioFs>, attr: Attr) -> Result<Arc<Self>> {
        let mount = inode.super_block().data();
        let volume = SetOnce::new();
        volume.populate(mount.volume()?.clone());
        // What the daemon has counted is held meanwhile by the task that walks onto the inode.
        let begins_at = (inode.data().known().ok_or(ESTALE)?.clone(), attr);
        Self::with(mount.instance.clone(), mount.dax, volume, Some(begins_at))
    }

    /// The device.
    pub(crate) fn instance(&self) -> &Arc<Instance> {
        &self.instance
    }

    /// For a submount, the inode and the attributes that it begins with.
    pub(crate) fn begins_at(&self) -> Option<&(Arc<Known>, Attr)> {
        self.submount.as_ref()
    }

    /// Starts the volume. To be called once, while the superblock is filled. Sleeps.
    pub(crate) fn start_volume(&self) -> Result {
        self.volume
            .populate(Volume::start(&self.instance, self.dax)?);
        Ok(())
    }

    /// Whether a mount of the same device gets this superblock, too.
    pub(crate) fn serves(&self, other: &Self) -> bool {
        self.submount.is_none()
            && Arc::ptr_eq(&self.instance, &other.instance)
            && self
                .volume
                .as_ref()
                .is_none_or(|volume| volume.session().is_connected())
    }

    /// An inode goes that may come back.
    pub(crate) fn evicts(&self) {
        self.evicted.is_now();
    }

    /// Which files are mapped from the window, if that was said.
    pub(crate) fn dax(&self) -> Option<Mode> {
        self.dax
    }

    /// Who reclaims ranges goes through it.
    pub(crate) fn gate(&self) -> &Arc<Gate> {
        &self.gate
    }

    /// Its inodes in the order in which they are looked at.
    pub(crate) fn aging(&self) -> &Arc<Aging<VirtioFs>> {
        &self.aging
    }

    /// Whether what was asked for then may be older than a change through an inode that is gone.
    pub(crate) fn evicted_since(&self, asked: Asked) -> bool {
        self.evicted.is_after(asked)
    }

    /// What a superblock that has been filled shares with others.
    pub(crate) fn volume(&self) -> Result<&Arc<Volume>> {
        self.volume.as_ref().ok_or(ENOTCONN)
    }

    /// Its session.
    pub(crate) fn session(&self) -> Result<&Arc<Session>> {
        self.volume().map(|volume| volume.session())
    }

    /// The window that its files are mapped from, if there is one.
    pub(crate) fn window(&self) -> Option<&Arc<Window>> {
        self.volume.as_ref()?.window()
    }
}
