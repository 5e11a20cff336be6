//! Threads that run the network, fed by one bounded queue.

use std::{
    sync::{
        Arc, Mutex,
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    thread,
};

use tokio::sync::oneshot;

use crate::{
    artifact::Model,
    error::Failure,
    nn::{Compute, Network, NnError},
};

/// Requests that may wait; beyond that the answer is 503, so that a gateway can go elsewhere.
const QUEUE: usize = 256;

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Refusal {
    /// The queue is full.
    Busy,
    /// The network failed.
    Failed(String),
}

struct Order {
    inputs: Vec<f32>,
    reply: oneshot::Sender<Result<Vec<f32>, NnError>>,
}

#[derive(Clone, Debug)]
pub(super) struct Workers(SyncSender<Order>);

impl Workers {
    /// Starts `count` threads, each with a network of its own. They end with the process.
    pub(super) fn start(model: &Model, count: u32) -> Result<Self, Failure> {
        let (sender, receiver) = sync_channel::<Order>(QUEUE);
        let receiver = Arc::new(Mutex::new(receiver));
        for number in 0..count.max(1) {
            let network = Network::new(&model.architecture, &model.weights, Compute::CPU)?;
            let receiver = receiver.clone();
            thread::Builder::new()
                .name(format!("infer-{number}"))
                .spawn(move || while work(&network, &receiver).is_some() {})
                .map_err(|source| Failure::System { action: "start a thread".to_owned(), source })?;
        }
        Ok(Self(sender))
    }

    pub(super) async fn infer(&self, inputs: Vec<f32>) -> Result<Vec<f32>, Refusal> {
        let (reply, answer) = oneshot::channel();
        self.0.try_send(Order { inputs, reply }).map_err(|error| match error {
            TrySendError::Full(_) => Refusal::Busy,
            TrySendError::Disconnected(_) => Refusal::Failed("no worker is left".to_owned()),
        })?;
        match answer.await {
            Ok(Ok(outputs)) => Ok(outputs),
            Ok(Err(error)) => Err(Refusal::Failed(error.to_string())),
            Err(_) => Err(Refusal::Failed("a worker ended".to_owned())),
        }
    }
}

/// Answers one request; none when there will be no more.
fn work(network: &Network, receiver: &Mutex<Receiver<Order>>) -> Option<()> {
    // Held while waiting: the others wait for the lock instead of the queue.
    let order = receiver.lock().ok()?.recv().ok()?;
    // Nobody waits any more if the client went away.
    let _ = order.reply.send(network.infer(&order.inputs));
    Some(())
}
