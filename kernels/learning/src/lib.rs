//! Networks, training, checkpoints, prediction and embeddings.
