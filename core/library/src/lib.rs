//! Studies, series, samples, models and predictions on shared storage.
