//! The reference trainer: train, evaluate and serve with libtorch.
