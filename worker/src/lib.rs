//! Agent and executors of a region
