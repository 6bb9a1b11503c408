// SPDX-License-Identifier: GPL-2.0

//! The device: what the VMM sees, and the way of a request from the ring through the server back into the ring.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;
use vhost::vhost_user::message::{VhostUserProtocolFeatures, VhostUserShMemConfig};
use vhost::vhost_user::Backend;
use vhost_user_backend::{VhostUserBackend, VringRwLock};
use virtio_bindings::bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::bindings::virtio_ring::{
    VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC,
};
use vm_memory::{Address, GuestAddressSpace, GuestMemoryBackend, GuestMemoryRegion};
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::event::{
    new_event_consumer_and_notifier, EventConsumer, EventFlag, EventNotifier,
};

use crate::corrupt::{self, Reply};
use crate::counters::Counters;
use crate::dax::Window;
use crate::faults::{Action, Faults, Rule};
use crate::fs::{Fs, Session};
use crate::options::{Options, SharedSettings};
use crate::parking::{Collected, Parking, Selection};
use crate::queue::{Completion, Extra, Memory, Notify, Queue, Slot};
use crate::server::Server;
use crate::timer::Timer;
use crate::trace::Trace;
use crate::wire::{self, InHeader, Opcode};

/// Length of the tag in the configuration space; the number of request queues follows.
const TAG: usize = 36;
/// vhost-user's own feature bit, beside virtio's.
const PROTOCOL_FEATURES: u64 = 1 << 30;
/// What the VMM maps by.
const PAGE: u64 = 4096;
/// How long DESTROY waits for requests that came before it on other queues.
const SETTLE: Duration = Duration::from_secs(1);
/// How soon a request that waits for another is tried again.
const RETRY: Duration = Duration::from_millis(10);

/// The device and all that belongs to it.
pub struct Device {
    options: Options,
    pub settings: SharedSettings,
    pub counters: Arc<Counters>,
    pub server: Server,
    pub faults: Faults,
    pub parking: Parking,
    pub trace: Trace,
    pub queues: Vec<Queue>,
    timer: Timer,
    memory: Memory,
}

/// The device as threads share it.
pub type SharedDevice = Arc<Device>;

/// A request that is being carried out.
struct Pending {
    header: InHeader,
    request: Vec<u8>,
    slot: Slot,
    /// What the faults have in store for it, each with its rule's number.
    actions: Vec<(u64, Action)>,
}

/// How a reply gets to the guest.
#[derive(Default)]
struct Delivery {
    hold: bool,
    lose: bool,
    delay: Duration,
    /// Rule, window, and time after which the replies go out anyway.
    reorder: Option<(u64, usize, Duration)>,
    interrupt_delay: Duration,
    silent: bool,
    extras: Vec<Extra>,
}

impl Delivery {
    /// Adds what `action` of rule `rule` says.
    fn add(&mut self, rule: u64, action: &Action) {
        match *action {
            Action::Hold => self.hold = true,
            Action::Lose => self.lose = true,
            Action::Delay { ms } => self.delay += Duration::from_millis(ms),
            Action::DelayInterrupt { ms } => self.interrupt_delay += Duration::from_millis(ms),
            Action::Reorder { window, flush_ms } => {
                self.reorder = Some((rule, window, Duration::from_millis(flush_ms)));
            }
            Action::DuplicateUsed => self.extras.push(Extra::Duplicate),
            Action::ForgeUsed { id, len, instead } => {
                self.silent |= instead;
                self.extras.push(Extra::Forged { id, len });
            }
            _ => {}
        }
    }
}

/// Ends the process as a fault demands.
fn exit(code: i32) -> ! {
    log::info!("exit {code}, as a fault says");
    std::process::exit(code)
}

impl Device {
    /// The device that `options` describes.
    pub fn new(options: Options, memory: Memory) -> Result<Device, String> {
        let window = options.window.0;
        if window % PAGE != 0 {
            return Err(format!("a window of {window} bytes is not whole pages"));
        }
        if options
            .raw_tag
            .as_ref()
            .is_some_and(|tag| tag.0.len() > TAG)
        {
            return Err(format!("the tag is longer than {TAG} bytes"));
        }
        let count = options.queues as usize + 1;
        let counters = Arc::new(Counters::new(count));
        let settings = SharedSettings::new(options.settings.clone());
        let fs = Fs::new(&options.shared_dir, settings.clone(), counters.clone())
            .map_err(|e| format!("{}: {e}", options.shared_dir.display()))?;
        let faults = Faults::default();
        for text in &options.fault {
            let rule: Rule = serde_json::from_str(text).map_err(|e| format!("{text}: {e}"))?;
            faults.add(rule)?;
        }
        Ok(Device {
            server: Server::new(fs, Window::new(window, counters.clone()), counters.clone()),
            queues: (0..count)
                .map(|i| Queue::new(i, memory.clone(), counters.clone()))
                .collect(),
            timer: Timer::start().map_err(|e| e.to_string())?,
            parking: Parking::default(),
            trace: Trace::default(),
            options,
            settings,
            counters,
            faults,
            memory,
        })
    }

    /// The VMM is gone: nothing of what it had is left.
    pub fn disconnected(&self) {
        for (index, queue) in self.queues.iter().enumerate() {
            queue.stop();
            self.parking.purge(index);
        }
        self.server.window.disconnect();
        self.server.fs.restart(Session::default());
    }

    /// Serves the requests in queue `index`, until it is empty and the driver knows that it must kick.
    fn drain(self: &Arc<Self>, index: usize) {
        let queue = &self.queues[index];
        loop {
            queue.silence_kicks();
            while let Some((request, slot)) = queue.pop() {
                self.serve(index, request, slot);
            }
            if !queue.want_kicks() {
                break;
            }
        }
    }

    /// Serves what is in the other queues, so that DESTROY is the last, as the guest sent it.
    fn settle(self: &Arc<Self>, own: usize) {
        for (index, queue) in self
            .queues
            .iter()
            .enumerate()
            .filter(|(index, _)| *index != own)
        {
            if let Some(_serving) = queue.serve_within(SETTLE) {
                self.drain(index);
            }
        }
    }

    /// Begins to serve a request.
    fn serve(self: &Arc<Self>, index: usize, request: Vec<u8>, slot: Slot) {
        let Ok(header) = InHeader::parse(&request) else {
            self.counters.complain(format!(
                "queue {index}: a request of {} bytes",
                request.len()
            ));
            self.complete(Completion::new(slot, Vec::new()));
            return;
        };
        self.counters.request(index, header.opcode);
        log::debug!(
            "queue {index}: {} node {} unique {}",
            header.opcode,
            header.nodeid,
            header.unique
        );
        if header.opcode == Opcode::DESTROY {
            self.settle(index);
        }
        let actions = self.faults.hitting(&header, index);
        for (_, action) in &actions {
            self.counters.fault(action.name());
            if let Action::Exit {
                code,
                execute: false,
            } = action
            {
                exit(*code);
            }
        }
        self.carry_out(Pending {
            header,
            request,
            slot,
            actions,
        });
    }

    /// Carries a request out and sends its reply on its way; one that waits for another is tried again later.
    fn carry_out(self: &Arc<Self>, pending: Pending) {
        if !self.queues[pending.slot.queue].is_current(&pending.slot) {
            self.counters.served(pending.header.opcode, None);
            return;
        }
        let Some(bytes) = self.reply(&pending) else {
            let device = self.clone();
            self.timer.after(RETRY, move || device.carry_out(pending));
            return;
        };
        let Pending {
            header,
            request,
            slot,
            actions,
        } = pending;
        let mut reply = Reply { bytes, used: None };
        let mut delivery = Delivery::default();
        for (rule, action) in &actions {
            if let Action::Exit {
                code,
                execute: true,
            } = action
            {
                exit(*code);
            }
            corrupt::apply(action, header.opcode, &mut reply);
            delivery.add(*rule, action);
        }
        let keep = self.settings.get().trace;
        self.trace.add(
            keep,
            slot.queue,
            &header,
            &request,
            slot.capacity(),
            &reply.bytes,
        );
        let completion = Completion {
            used: reply.used,
            silent: delivery.silent,
            extras: std::mem::take(&mut delivery.extras),
            interrupt_delay: delivery.interrupt_delay,
            ..Completion::new(slot, reply.bytes)
        };
        self.deliver(&header, completion, &delivery);
    }

    /// The reply to a request: an error, if a fault says so, else what the server answers.
    fn reply(&self, pending: &Pending) -> Option<Vec<u8>> {
        let header = &pending.header;
        let instead = pending
            .actions
            .iter()
            .rev()
            .find_map(|(_, action)| match action {
                Action::Error {
                    errno,
                    execute: false,
                } => errno.number(),
                _ => None,
            });
        let Some(number) = instead else {
            return self
                .server
                .handle(header, &pending.request, pending.slot.capacity());
        };
        self.counters
            .served(header.opcode, Some(Errno::from_raw_os_error(number)));
        Some(match header.opcode.has_reply(true) {
            true => wire::reply(header.unique, -number, &[]),
            false => Vec::new(),
        })
    }

    /// Sends a reply on its way.
    fn deliver(self: &Arc<Self>, header: &InHeader, completion: Completion, delivery: &Delivery) {
        if delivery.lose {
            return;
        }
        if delivery.hold {
            self.parking.hold(header, completion);
        } else if let Some((rule, window, flush)) = delivery.reorder {
            match self.parking.collect(rule, window, completion) {
                Collected::Full(all) => self.complete_all(all),
                Collected::More => {}
                Collected::First { round } => {
                    let device = self.clone();
                    self.timer.after(flush, move || {
                        device.complete_all(device.parking.flush(rule, round))
                    });
                }
            }
        } else if !delivery.delay.is_zero() {
            let device = self.clone();
            self.timer
                .after(delivery.delay, move || device.complete(completion));
        } else {
            self.complete(completion);
        }
    }

    /// Lets replies go that were held; says how many.
    pub fn release(self: &Arc<Self>, selection: &Selection) -> usize {
        let released = self.parking.release(selection);
        let count = released.len();
        if !selection.discard {
            self.complete_all(released);
        }
        count
    }

    fn complete_all(self: &Arc<Self>, completions: Vec<Completion>) {
        completions
            .into_iter()
            .for_each(|completion| self.complete(completion));
    }

    fn complete(self: &Arc<Self>, completion: Completion) {
        let index = completion.slot.queue;
        if let Notify::Later(delay) = self.queues[index].complete(&completion) {
            let device = self.clone();
            self.timer
                .after(delay, move || device.queues[index].interrupt());
        }
    }

    /// The configuration space.
    fn config(&self) -> Vec<u8> {
        let mut config = match &self.options.raw_tag {
            Some(raw) => raw.0.clone(),
            None => self.options.tag.clone().into_bytes(),
        };
        config.resize(TAG, 0);
        let queues = self.options.config_queues.unwrap_or(self.options.queues);
        config.extend(queues.to_le_bytes());
        config
    }
}

/// The device as the crate's threads hold it; a type of this crate's own, so that it can implement the crate's trait.
#[derive(Clone)]
pub struct Frontend(pub SharedDevice);

impl VhostUserBackend for Frontend {
    type Bitmap = ();
    type Vring = VringRwLock;

    fn num_queues(&self) -> usize {
        self.0.queues.len()
    }

    fn max_queue_size(&self) -> usize {
        self.0.options.max_queue_size.into()
    }

    fn features(&self) -> u64 {
        let mut features = (1 << VIRTIO_F_VERSION_1) | PROTOCOL_FEATURES;
        if !self.0.options.no_event_idx {
            features |= 1 << VIRTIO_RING_F_EVENT_IDX;
        }
        if !self.0.options.no_indirect {
            features |= 1 << VIRTIO_RING_F_INDIRECT_DESC;
        }
        features
    }

    fn acked_features(&self, features: u64) {
        log::info!("the driver accepted the features {features:#x}");
    }

    fn protocol_features(&self) -> VhostUserProtocolFeatures {
        let options = &self.0.options;
        let mut features = VhostUserProtocolFeatures::MQ | VhostUserProtocolFeatures::CONFIG;
        if options.window.0 > 0 {
            features |= VhostUserProtocolFeatures::SHMEM
                | VhostUserProtocolFeatures::BACKEND_REQ
                | VhostUserProtocolFeatures::BACKEND_SEND_FD;
        }
        if !options.no_reply_ack {
            features |= VhostUserProtocolFeatures::REPLY_ACK;
        }
        if !options.no_mem_slots {
            features |= VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS;
        }
        features
    }

    // The crate tells each ring itself.
    fn set_event_idx(&self, _enabled: bool) {}

    fn get_config(&self, offset: u32, size: u32) -> Vec<u8> {
        let mut config = self.0.config();
        let end = offset as usize + size as usize;
        config.resize(config.len().max(end), 0);
        config[offset as usize..end].to_vec()
    }

    fn update_memory(&self, memory: Memory) -> io::Result<()> {
        let memory = memory.memory();
        let regions = memory
            .iter()
            .map(|region| (region.start_addr().raw_value(), region.len()));
        self.0.server.window.regions_changed(regions);
        Ok(())
    }

    fn set_backend_req_fd(&self, vmm: Backend) {
        self.0.server.window.connect(vmm);
    }

    fn get_shmem_config(&self) -> io::Result<VhostUserShMemConfig> {
        let window = self.0.server.window.size();
        // The VMM needs a power of two for all regions together: behind an odd window is another one, which is not used.
        match window.next_power_of_two() - window {
            _ if window == 0 => Ok(VhostUserShMemConfig::new(0, &[])),
            0 => Ok(VhostUserShMemConfig::new(1, &[window])),
            rest => Ok(VhostUserShMemConfig::new(2, &[window, rest])),
        }
    }

    fn queues_per_thread(&self) -> Vec<u64> {
        (0..self.num_queues()).map(|queue| 1 << queue).collect()
    }

    fn exit_event(&self, _thread: usize) -> Option<(EventConsumer, EventNotifier)> {
        new_event_consumer_and_notifier(EventFlag::CLOEXEC | EventFlag::NONBLOCK).ok()
    }

    fn stop_vring(&self, queue: u32) -> io::Result<()> {
        if let Some(stopped) = self.0.queues.get(queue as usize) {
            stopped.stop();
            self.0.parking.purge(queue as usize);
        }
        Ok(())
    }

    fn handle_event(
        &self,
        event: u16,
        _set: EventSet,
        vrings: &[VringRwLock],
        thread: usize,
    ) -> io::Result<()> {
        let (Some(queue), Some(vring)) =
            (self.0.queues.get(thread), vrings.get(usize::from(event)))
        else {
            return Ok(());
        };
        queue.kicked(vring);
        let _serving = queue.serve();
        self.0.drain(thread);
        Ok(())
    }
}

impl Device {
    /// The guest's memory; the VMM's announcements change it in place.
    pub fn memory(&self) -> Memory {
        self.memory.clone()
    }
}
