//! `iceoryx2`: publish-subscribe of loaned samples in shared memory, polled or with its
//! event service.
//!
//! The variant for one thread, which needs no locks; one publisher and one subscriber, no
//! history. Safe overflow is off, since it would drop samples: a publisher that finds the
//! subscriber's buffer full tries again until there is room, and one whose subscriber has
//! not connected yet, which `send` tells by zero recipients, sends the record again.

use std::hint::spin_loop;

use iceoryx2::port::listener::Listener;
use iceoryx2::port::notifier::Notifier;
use iceoryx2::port::publisher::Publisher;
use iceoryx2::port::subscriber::Subscriber;
use iceoryx2::prelude::*;
use iceoryx2::service::port_factory::{event, publish_subscribe};

use crate::Result;
use crate::record::Record;
use crate::transport::{self, Transport};

/// Samples that the subscriber's buffer holds.
const BUFFER: usize = 1024;

/// The consumer polls the subscriber, and pauses `PAUSES` times whenever it finds nothing.
///
/// One pause is best for latency. Many are best for throughput: each receive and each send
/// moves the same cache lines between the cores, so that it helps to let samples gather.
pub struct Iceoryx2Polling<const PAUSES: u32>;

impl<const PAUSES: u32> Transport for Iceoryx2Polling<PAUSES> {
    type Listener = Polling<PAUSES>;
    type Receiver = Polling<PAUSES>;
    type Sender = Sending;

    fn listen() -> Result<(Polling<PAUSES>, String)> {
        let link = new_link();
        Ok((Polling::create(&link)?, link))
    }

    fn accept(receiver: Polling<PAUSES>) -> Result<Polling<PAUSES>> {
        Ok(receiver)
    }

    fn connect(link: &str) -> Result<Sending> {
        Sending::create(link)
    }
}

/// The producer's end, without waking.
pub struct Sending {
    publisher: Publisher<ipc::Service, Record, ()>,
}

impl Sending {
    fn create(link: &str) -> Result<Self> {
        let publisher = records(&node()?, link)?
            .publisher_builder()
            .max_loaned_samples(1)
            .backpressure_strategy(BackpressureStrategy::RetryUntilDelivered)
            .create()?;
        Ok(Self { publisher })
    }
}

impl transport::Sender for Sending {
    #[inline]
    fn send(&mut self, record: Record) -> Result<()> {
        while self.publisher.loan_uninit()?.write_payload(record).send()? == 0 {
            spin_loop();
        }
        Ok(())
    }
}

/// The consumer's end, which polls.
pub struct Polling<const PAUSES: u32> {
    subscriber: Subscriber<ipc::Service, Record, ()>,
}

impl<const PAUSES: u32> Polling<PAUSES> {
    fn create(link: &str) -> Result<Self> {
        let subscriber = records(&node()?, link)?.subscriber_builder().create()?;
        Ok(Self { subscriber })
    }

    /// Hands over what is there, and tells how much that was.
    #[inline]
    fn take_ready(&mut self, take: &mut impl FnMut(&Record)) -> Result<u64> {
        let mut taken = 0;
        while let Some(sample) = self.subscriber.receive()? {
            take(sample.payload());
            taken += 1;
        }
        Ok(taken)
    }
}

impl<const PAUSES: u32> transport::Receiver for Polling<PAUSES> {
    #[inline]
    fn receive(&mut self, take: &mut impl FnMut(&Record)) -> Result<()> {
        while self.take_ready(take)? == 0 {
            for _ in 0..PAUSES {
                spin_loop();
            }
        }
        Ok(())
    }
}

/// The consumer sleeps in a listener until the producer's notifier wakes it.
pub struct Iceoryx2Events;

impl Transport for Iceoryx2Events {
    type Listener = Listening;
    type Receiver = Listening;
    type Sender = Notifying;

    fn listen() -> Result<(Listening, String)> {
        let link = new_link();
        let listener = wakes(&node()?, &link)?.listener_builder().create()?;
        Ok((Listening { polling: Polling::create(&link)?, listener }, link))
    }

    fn accept(receiver: Listening) -> Result<Listening> {
        Ok(receiver)
    }

    fn connect(link: &str) -> Result<Notifying> {
        let notifier = wakes(&node()?, link)?.notifier_builder().create()?;
        Ok(Notifying { sending: Sending::create(link)?, notifier })
    }
}

/// The producer's end, which wakes.
pub struct Notifying {
    sending: Sending,
    notifier: Notifier<ipc::Service>,
}

impl transport::Sender for Notifying {
    #[inline]
    fn send(&mut self, record: Record) -> Result<()> {
        self.sending.send(record)?;
        self.notifier.notify()?;
        Ok(())
    }
}

/// The consumer's end, which sleeps.
pub struct Listening {
    polling: Polling<1>,
    listener: Listener<ipc::Service>,
}

impl transport::Receiver for Listening {
    #[inline]
    fn receive(&mut self, take: &mut impl FnMut(&Record)) -> Result<()> {
        while self.polling.take_ready(take)? == 0 {
            self.listener.blocking_wait(|_| {})?;
        }
        Ok(())
    }
}

/// A service name that no other run uses.
fn new_link() -> String {
    format!("eventpy-bench/{}", std::process::id())
}

fn node() -> Result<Node<ipc::Service>> {
    set_log_level(LogLevel::Error);
    let quiet = NodeBuilder::new().signal_handling_mode(SignalHandlingMode::Disabled);
    Ok(quiet.create::<ipc::Service>()?)
}

fn records(
    node: &Node<ipc::Service>,
    link: &str,
) -> Result<publish_subscribe::PortFactory<ipc::Service, Record, ()>> {
    Ok(node
        .service_builder(&link.try_into()?)
        .publish_subscribe::<Record>()
        .max_publishers(1)
        .max_subscribers(1)
        .history_size(0)
        .subscriber_max_buffer_size(BUFFER)
        .subscriber_max_borrowed_samples(1)
        .enable_safe_overflow(false)
        .open_or_create()?)
}

fn wakes(node: &Node<ipc::Service>, link: &str) -> Result<event::PortFactory<ipc::Service>> {
    Ok(node
        .service_builder(&link.try_into()?)
        .event()
        .max_notifiers(1)
        .max_listeners(1)
        .open_or_create()?)
}
