//! Threads that answer inference requests, from a body's JSON to the answer's, fed by one bounded queue.
//!
//! Called by `http`, whose own threads only move bytes.

use std::{
    sync::{
        Arc, Mutex,
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    thread,
};

use serde_json::json;
use tokio::sync::oneshot;
use uuid::Uuid;

use super::{
    body::Body,
    protocol::{self, BadRequest, InferResponse},
};
use crate::{
    artifact::Model,
    data::Rows,
    error::Failure,
    nn::{Compute, Network},
    schema::{Schema, encode_features},
};

/// Requests that may wait; beyond that the answer is 503, so that a gateway can go elsewhere.
const QUEUE: usize = 256;
/// Most encoded numbers in a worker's memory at once: a row of a few categories may become thousands.
const MAX_ENCODED: usize = 4 << 20;

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Refusal {
    /// The queue is full.
    Busy,
    /// The request is wrong.
    Request(BadRequest),
    /// The network failed.
    Failed(String),
}

/// What is served, for the answers.
#[derive(Debug)]
pub(super) struct Served {
    pub(super) model: String,
    pub(super) version: String,
    pub(super) schema: Schema,
}

/// What a request is answered.
#[derive(Debug)]
pub(super) struct Answered {
    /// The body.
    pub(super) json: Vec<u8>,
    /// The score of each row, as [`protocol::scores`] has it.
    pub(super) scores: Vec<f64>,
}

struct Order {
    body: Body,
    reply: oneshot::Sender<Result<Answered, Refusal>>,
}

#[derive(Clone, Debug)]
pub(super) struct Workers(SyncSender<Order>);

impl Workers {
    /// Starts `count` threads, each with a network of its own. They end with the process.
    pub(super) fn start(model: &Model, served: &Arc<Served>, count: u32) -> Result<Self, Failure> {
        let (sender, receiver) = sync_channel::<Order>(QUEUE);
        let receiver = Arc::new(Mutex::new(receiver));
        for number in 0..count.max(1) {
            let network = Network::new(&model.architecture, &model.weights, Compute::CPU)?;
            let (receiver, served) = (receiver.clone(), served.clone());
            thread::Builder::new()
                .name(format!("infer-{number}"))
                .spawn(move || while work(&served, &network, &receiver).is_some() {})
                .map_err(|source| Failure::System { action: "start a thread".to_owned(), source })?;
        }
        Ok(Self(sender))
    }

    /// The answer to a body.
    pub(super) async fn infer(&self, body: Body) -> Result<Answered, Refusal> {
        let (reply, answer) = oneshot::channel();
        self.0.try_send(Order { body, reply }).map_err(|error| match error {
            TrySendError::Full(_) => Refusal::Busy,
            TrySendError::Disconnected(_) => Refusal::Failed("no worker is left".to_owned()),
        })?;
        answer.await.unwrap_or_else(|_| Err(Refusal::Failed("a worker ended".to_owned())))
    }
}

/// Answers one request; none when there will be no more.
fn work(served: &Served, network: &Network, receiver: &Mutex<Receiver<Order>>) -> Option<()> {
    // Held while waiting: the others wait for the lock instead of the queue.
    let order = receiver.lock().ok()?.recv().ok()?;
    // Nobody waits any more if the client went away, before the work or after it.
    if !order.reply.is_closed() {
        let _ = order.reply.send(answer(served, network, &order.body.bytes));
    }
    Some(())
}

fn answer(served: &Served, network: &Network, body: &[u8]) -> Result<Answered, Refusal> {
    let Served { model, version, schema } = served;
    let request = protocol::parse(body).map_err(Refusal::Request)?;
    let (id, rows) = protocol::rows(request, schema).map_err(Refusal::Request)?;
    let outputs = infer(schema, network, &rows)?;
    let prediction = Uuid::new_v4().to_string();
    let response = InferResponse {
        model_name: model,
        model_version: version,
        parameters: json!({"prediction_id": prediction}),
        id: id.unwrap_or(prediction),
        outputs: protocol::outputs(schema, &outputs),
    };
    let json = serde_json::to_vec(&response).map_err(|error| Refusal::Failed(error.to_string()))?;
    Ok(Answered { json, scores: protocol::scores(schema, &outputs) })
}

fn infer(schema: &Schema, network: &Network, rows: &Rows) -> Result<Vec<f32>, Refusal> {
    let infer = |rows: &Rows| {
        let inputs = encode_features(schema, rows).map_err(|error| {
            Refusal::Request(BadRequest { field: "inputs".to_owned(), reason: error.to_string() })
        })?;
        network.infer(&inputs).map_err(|error| Refusal::Failed(error.to_string()))
    };
    let at_once = (MAX_ENCODED / (schema.input_width as usize).max(1)).max(1);
    if rows.count <= at_once {
        return infer(rows);
    }
    let numbers: Vec<usize> = (0..rows.count).collect();
    let mut outputs = Vec::with_capacity(rows.count * schema.outputs());
    for part in numbers.chunks(at_once) {
        outputs.extend(infer(&rows.take(part))?);
    }
    Ok(outputs)
}
