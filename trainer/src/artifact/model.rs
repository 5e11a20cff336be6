//! A model: schema, architecture and weights, to and from the files of an artifact.

use std::collections::HashMap;

use safetensors::{
    SafeTensors,
    tensor::{Dtype, TensorView, serialize},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{ArtifactError, CONFIG_FILE, Files, MODEL_FILE, SCHEMA_FILE, files::digest_of};
use crate::{
    error::Failure,
    nn::{Architecture, Compute, Network},
    schema::{SCHEMA_LAYOUT, Schema},
    storage::Location,
};

/// A model that can be asked.
#[derive(Debug)]
pub struct Model {
    /// How raw values become inputs, and outputs an answer.
    pub schema: Schema,
    /// Shape of the network.
    pub architecture: Architecture,
    /// The network on its device.
    pub network: Network,
    /// The weights, for further networks of the same kind.
    pub weights: Vec<f32>,
}

/// `config.json`.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Config {
    schema: u32,
    family: String,
    activation: String,
    #[serde(flatten)]
    architecture: Architecture,
}

/// Weights, architecture and schema as files. Names of the weights are those of `torch.nn`.
///
/// # Errors
/// When JSON or safetensors cannot be written, which is a bug.
pub fn model_files(schema: &Schema, architecture: &Architecture, weights: &[f32]) -> Result<Files, Failure> {
    let mut files = Files::default();
    let schema_json = to_json("schema.json", schema)?;
    let config = Config {
        schema: 1,
        family: "mlp".to_owned(),
        activation: "relu".to_owned(),
        architecture: architecture.clone(),
    };
    // One entry only: the order of several would differ from run to run.
    let metadata = HashMap::from([("schema".to_owned(), digest_of(&schema_json))]);
    let bytes: Vec<u8> = weights.iter().flat_map(|weight| weight.to_le_bytes()).collect();
    let parameters = architecture.parameters();
    let views = parameters.iter().map(|parameter| {
        let range = parameter.start * 4..(parameter.start + parameter.len()) * 4;
        Ok((parameter.name.as_str(), TensorView::new(Dtype::F32, parameter.shape.clone(), &bytes[range])?))
    });
    let tensors = views
        .collect::<Result<Vec<_>, safetensors::SafeTensorError>>()
        .and_then(|views| serialize(views, Some(metadata)))
        .map_err(|error| Failure::Panic(format!("safetensors: {error}")))?;
    files.insert(MODEL_FILE, tensors);
    files.insert(CONFIG_FILE, to_json("config.json", &config)?);
    files.insert(SCHEMA_FILE, schema_json);
    Ok(files)
}

/// Readable JSON with a final newline.
pub(super) fn to_json(what: &'static str, value: &impl Serialize) -> Result<Vec<u8>, Failure> {
    let mut text = serde_json::to_vec_pretty(value).map_err(|source| Failure::Encoding { what, source })?;
    text.push(b'\n');
    Ok(text)
}

impl Model {
    /// Reads an artifact, checks its digests and puts the network on a device.
    ///
    /// # Errors
    /// When a file is missing, was changed, or does not fit the others.
    pub fn load(folder: &Location, digest: Option<&str>, compute: Compute) -> Result<Self, ArtifactError> {
        Self::from_files(&Files::read(folder, digest)?, &folder.uri(), compute)
    }

    fn from_files(files: &Files, uri: &str, compute: Compute) -> Result<Self, ArtifactError> {
        let malformed =
            |file: &'static str, cause: String| ArtifactError::Malformed { uri: uri.to_owned(), file, cause };
        let schema: Schema = from_json(files, SCHEMA_FILE).map_err(|cause| malformed(SCHEMA_FILE, cause))?;
        let config: Config = from_json(files, CONFIG_FILE).map_err(|cause| malformed(CONFIG_FILE, cause))?;
        if schema.schema != SCHEMA_LAYOUT
            || config.schema != 1
            || config.family != "mlp"
            || config.activation != "relu"
        {
            let cause = "its layout or family is newer than this trainer".to_owned();
            return Err(malformed(CONFIG_FILE, cause));
        }
        let architecture = config.architecture;
        if architecture.inputs != schema.input_width as usize || architecture.outputs != schema.outputs() {
            return Err(malformed(CONFIG_FILE, "inputs or outputs differ from the schema's".to_owned()));
        }
        let weights = read_weights(files.get(MODEL_FILE), &architecture)
            .map_err(|cause| malformed(MODEL_FILE, cause))?;
        let network = Network::new(&architecture, &weights, compute)?;
        Ok(Self { schema, architecture, network, weights })
    }
}

fn from_json<T: DeserializeOwned>(files: &Files, name: &str) -> Result<T, String> {
    serde_json::from_slice(files.get(name)).map_err(|error| error.to_string())
}

/// Strict in both directions: exactly the architecture's tensors, with their shapes, finite.
fn read_weights(bytes: &[u8], architecture: &Architecture) -> Result<Vec<f32>, String> {
    let tensors = SafeTensors::deserialize(bytes).map_err(|error| error.to_string())?;
    let parameters = architecture.parameters();
    if tensors.len() != parameters.len() {
        return Err(format!("{} tensors instead of {}", tensors.len(), parameters.len()));
    }
    let mut weights = Vec::with_capacity(architecture.size());
    for parameter in parameters {
        let tensor = tensors.tensor(&parameter.name).map_err(|error| error.to_string())?;
        if tensor.dtype() != Dtype::F32 || tensor.shape() != parameter.shape {
            return Err(format!("{} has another type or shape", parameter.name));
        }
        weights.extend(tensor.data().as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)));
    }
    if weights.iter().all(|weight| weight.is_finite()) {
        Ok(weights)
    } else {
        Err("a weight is not finite".to_owned())
    }
}
